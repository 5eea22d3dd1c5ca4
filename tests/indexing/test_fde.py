"""Fixed dimensional encodings: what they hold, what their products estimate, and the index over them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexing.fde.ball_carving import carved
from indexing.fde.encodings import Encodings
from indexing.fde.first_stage import ByteScan
from indexing.fde.index import FdeIndex
from indexing.fde.kernels import nearest_tokens
from indexing.fde.projections import PROJECTIONS, hyperplanes, orthogonal
from indexing.fde.recipe import Recipe
from retrieval.bitmap import Bitmap
from retrieval.errors import ConfigError, FormatError
from retrieval.exact import maxsim_scores
from retrieval.protocols import SearchRequest
from retrieval.values import Dense, MultiVector

PUBLISHED = Recipe(repetitions=6, bits=3, projection="signs", width=4, power=1.0)


def texts(lengths, dim=16, seed=0, dtype=np.float32) -> MultiVector:
    """Unit vectors around a few directions."""
    rng = np.random.default_rng(seed)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    centres = np.random.default_rng(77).standard_normal((30, dim))
    values = centres[rng.integers(0, 30, indptr[-1])] + 0.5 * rng.standard_normal((indptr[-1], dim))
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)
    return MultiVector(indptr, values.astype(dtype))


def by_loops(encodings: Encodings, text: np.ndarray, document: bool) -> np.ndarray:
    """The encoding of one text (L, D) before a final projection, word for word."""
    recipe, out = encodings.recipe, []
    for r in range(recipe.repetitions):
        planes = encodings.planes[r * recipe.bits : (r + 1) * recipe.bits]
        projected = text
        if encodings.projection is not None:
            projected = text @ encodings.projection[r * recipe.width : (r + 1) * recipe.width].T
        numbers = [sum(int(token @ plane > 0) << b for b, plane in enumerate(planes)) for token in text]
        for block in range(1 << recipe.bits):
            inside = [token for token, number in enumerate(numbers) if number == block]
            total = projected[inside].sum(axis=0)
            if not document:
                out.append(total / recipe.repetitions)
            elif inside:
                out.append(total / len(inside) ** recipe.power)
            elif recipe.fill and len(text):
                out.append(projected[int(np.argmin([(number ^ block).bit_count() for number in numbers]))])
            else:
                out.append(total)
    return np.concatenate(out)


# --- encodings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("projection", [*PROJECTIONS, "identity"])
@pytest.mark.parametrize(("bits", "fill", "power"), [(0, True, 1.0), (3, True, 0.8), (4, False, 0.5)])
def test_encodings_are_those_of_plain_loops(projection, bits, fill, power):
    recipe = Recipe(3, bits, projection, 5, power, fill)
    encodings = Encodings.draw(recipe, 16)
    batch = texts([0, 1, 2, 30, 9, 0, 300], dtype=np.float16)
    for document in (False, True):
        made = encodings.documents(batch) if document else encodings.queries(batch)
        assert made.shape == (7, encodings.dim) and made.dtype == np.float32
        for row in range(7):
            tokens = batch[row : row + 1].values.astype(np.float64)
            np.testing.assert_allclose(made[row], by_loops(encodings, tokens, document), atol=1e-5)


@given(
    st.integers(0, 6).flatmap(lambda bits: st.lists(st.integers(-1, 40), min_size=2**bits, max_size=2**bits))
)
def test_empty_blocks_take_the_first_of_the_nearest_tokens(first):
    bits = len(first).bit_length() - 1
    keys = np.empty(len(first), dtype=np.int64)
    nearest_tokens(np.array(first, dtype=np.int64), bits, keys)
    for block, key in enumerate(keys.tolist()):
        held = [((block ^ other).bit_count(), token) for other, token in enumerate(first) if token >= 0]
        if held:
            assert (key >> 32, key & 0xFFFFFFFF) == min(held)
        else:
            assert key >= 1 << 62


def test_one_block_and_no_projection_multiply_the_sum_with_the_mean():
    encodings = Encodings.draw(Recipe(1, 0, "identity", power=1.0), 16)
    queries, documents = texts([4, 1, 0], seed=1), texts([7, 1, 12], seed=2)
    products = encodings.queries(queries) @ encodings.documents(documents).T
    for q in range(3):
        for d in range(3):
            total = queries[q : q + 1].values.sum(axis=0)
            assert products[q, d] == pytest.approx(total @ documents[d : d + 1].values.mean(axis=0), abs=1e-5)


def test_without_projection_the_estimate_never_exceeds_maxsim():
    queries, documents = texts([8] * 20, seed=3), texts([15] * 50, seed=4)
    truth = maxsim_scores(queries, documents)
    for bits in (1, 3, 5):
        encodings = Encodings.draw(Recipe(4, bits, "identity", power=1.0), 16)
        assert (encodings.queries(queries) @ encodings.documents(documents).T <= truth + 1e-4).all()


def test_one_token_each_is_an_inner_product_estimated_without_bias():
    query, document = texts([1], seed=5), texts([1], seed=6)
    wanted = float(query.values[0] @ document.values[0])
    for projection in PROJECTIONS:
        found = []
        for seed in range(400):
            encodings = Encodings.draw(
                replace(PUBLISHED, projection=projection, seed=seed, repetitions=2), 16
            )
            found.append(float((encodings.queries(query) @ encodings.documents(document).T)[0, 0]))
        assert np.mean(found) == pytest.approx(wanted, abs=4 * np.std(found) / 20 + 1e-6)


def error(recipe: Recipe, seeds: int = 6) -> float:
    """How far estimates scatter around their mean over seeds."""
    queries, documents = texts([8] * 10, seed=7), texts([30] * 40, seed=8)
    drawn = [Encodings.draw(replace(recipe, seed=seed), 16) for seed in range(seeds)]
    found = np.array([one.queries(queries) @ one.documents(documents).T for one in drawn])
    return float(found.std(axis=0).mean())


def test_the_error_falls_with_the_square_root_of_the_repetitions():
    few, many = error(replace(PUBLISHED, repetitions=4)), error(replace(PUBLISHED, repetitions=64))
    assert 2.5 < few / many < 6


def test_orthogonal_projections_err_less_than_random_signs():
    whole = replace(PUBLISHED, repetitions=8)  # twice the 16 dimensions
    assert error(replace(whole, projection="orthogonal")) < 0.9 * error(whole)


def test_orthogonal_projections_see_every_direction_equally_often():
    columns = orthogonal(24, 6, 8, np.random.default_rng(9))
    np.testing.assert_allclose(columns.T @ columns / 6, np.eye(24), atol=1e-5)


@pytest.mark.parametrize(
    ("dim", "repetitions"), [(128, 64), (384, 96), (96, 72), (20, 65), (130, 66), (1, 64)]
)
def test_by_default_every_direction_is_seen_equally_often(dim, repetitions):
    assert Recipe().settled(dim).repetitions == repetitions
    assert Recipe(repetitions=7).settled(dim).repetitions == 7
    drawn = Encodings.draw(Recipe(), dim).projection
    if dim % 4 == 0:
        np.testing.assert_allclose(drawn.T @ drawn / repetitions, np.eye(dim), atol=1e-4)


def test_hyperplanes_are_orthogonal_as_far_as_there_are_dimensions():
    planes = hyperplanes(12, 4, 5, np.random.default_rng(10))
    assert planes.shape == (20, 12)
    np.testing.assert_allclose(planes[:12] @ planes[:12].T, np.eye(12), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(planes, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("final", ["counts", "signs"])
def test_a_final_projection_keeps_inner_products_on_average(final):
    recipe = replace(PUBLISHED, final=final, final_dims=37)
    queries, documents = texts([8] * 6, seed=11), texts([30] * 6, seed=12)
    plain, folded = [], []
    for seed in range(150):
        one = Encodings.draw(replace(recipe, seed=seed), 16)
        assert one.queries(queries).shape == (6, 37)
        folded.append(one.queries(queries) @ one.documents(documents).T)
        whole = replace(one, recipe=replace(recipe, final="none", final_dims=0), places=None, signs=None)
        plain.append(whole.queries(queries) @ whole.documents(documents).T)
    difference = np.array(folded) - np.array(plain)
    assert (np.abs(difference.mean(axis=0)) < 4.5 * difference.std(axis=0) / np.sqrt(150)).all()


@pytest.mark.parametrize("final", ["none", "counts", "signs"])
def test_what_was_drawn_is_read_back(final, tmp_path):
    recipe = replace(PUBLISHED, final=final, final_dims=0 if final == "none" else 50)
    drawn = Encodings.draw(recipe, 16)
    drawn.save(tmp_path)
    again, batch = Encodings.load(recipe, 16, tmp_path), texts([5, 9], seed=13)
    assert np.array_equal(drawn.documents(batch), again.documents(batch))
    assert np.array_equal(drawn.documents(batch), Encodings.draw(recipe, 16).documents(batch))
    other = Encodings.draw(replace(recipe, seed=2), 16)
    assert not np.array_equal(drawn.documents(batch), other.documents(batch))


def test_an_encoding_depends_on_its_text_alone():
    batch = texts(np.random.default_rng(14).integers(0, 200, 90), seed=15, dtype=np.float16)
    encodings = Encodings.draw(replace(PUBLISHED, final="signs", final_dims=40), 16)
    whole = encodings.documents(batch)
    alone = np.concatenate([encodings.documents(batch[row : row + 1]) for row in range(90)])
    assert np.array_equal(whole, alone)


# --- ball carving ----------------------------------------------------------------------------------


def test_tokens_of_like_direction_become_their_sum():
    tokens = np.array([[1, 0], [0, 1], [0.8, 0.6], [0, -1], [0.1, 0.99]], dtype=np.float32)
    few = carved(MultiVector(np.array([0, 5, 5, 6]), np.vstack([tokens, tokens[:1]])), 0.75)
    assert few.indptr.tolist() == [0, 3, 3, 4]
    np.testing.assert_allclose(few.values, [[1.8, 0.6], [0.1, 1.99], [0, -1], [1, 0]], atol=1e-6)


def test_a_threshold_nothing_reaches_changes_nothing():
    queries = texts([6, 0, 11], seed=16)
    same = carved(queries, 2.0)
    assert np.array_equal(same.indptr, queries.indptr) and np.array_equal(same.values, queries.values)


# --- the index -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def documents():
    return texts(np.random.default_rng(17).integers(0, 60, 900), 32, 18, np.float16)


def built(documents, folder, memory_bytes=10**8, **given) -> FdeIndex:
    parameters, seen = FdeIndex.parameters(given), []
    folder.mkdir()
    FdeIndex.build(documents, folder, parameters, memory_bytes=memory_bytes, progress=seen.append)
    assert sum(seen) == len(documents)
    return FdeIndex.load(folder, documents, parameters)


def recall(index, queries, truth) -> float:
    best = np.argsort(-truth, axis=1, kind="stable")[:, :10]
    hits = index.search(queries, SearchRequest(k=10))
    return float(np.mean([np.isin(line, row).mean() for line, row in zip(best, hits.rows, strict=True)]))


def test_more_candidates_find_more_and_all_of_them_everything(documents, tmp_path):
    queries = texts([7] * 60, 32, 19)
    truth = np.where(np.diff(documents.indptr) > 0, maxsim_scores(queries, documents), 0)
    index = built(documents, tmp_path / "fde")
    found = [recall(replace(index, rescored=count), queries, truth) for count in (20, 100, 300, 900)]
    assert found == sorted(found) and found[2] > 0.9 and found[3] == 1
    assert recall(replace(index, rescored=300, ball_carving=0.6), queries, truth) > found[2] - 0.1


def test_building_in_little_memory_changes_nothing(documents, tmp_path):
    built(documents, tmp_path / "one")
    built(documents, tmp_path / "two", memory_bytes=1)
    for path in (tmp_path / "one").iterdir():
        assert (tmp_path / "two" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"storage": "pq", "repetitions": 24},
        {"storage": "float16"},
        {"storage": "float16", "first_stage": "hnsw"},
    ],
    ids=str,
)
def test_a_denied_row_is_no_candidate(documents, tmp_path, given):
    index = built(documents, tmp_path / "fde", rescored=20, **given)
    queries, mask = texts([7] * 10, 32, 20), np.zeros(900, dtype=np.bool_)
    mask[np.random.default_rng(21).permutation(900)[:60]] = True
    hits = index.search(queries, SearchRequest(k=5, allowed=Bitmap.from_mask(mask)))
    assert mask[hits.rows].all()
    truth = np.where(mask & (np.diff(documents.indptr) > 0), maxsim_scores(queries, documents), -np.inf)
    assert np.mean(hits.rows[:, 0] == truth.argmax(axis=1)) > 0.6


def test_texts_of_no_and_of_one_token_are_ordinary(tmp_path):
    index = built(texts([1, 0, 1, 0, 0] * 30, 32, 22), tmp_path / "fde", rescored=20)
    hits = index.search(texts([0, 1], 32, 23), SearchRequest(k=12))
    assert hits.rows[0].tolist() == list(range(12)) and (hits.scores[0] == 0).all()
    assert (hits.rows[1] >= 0).all()


def test_bytes_estimate_within_their_rounding(tmp_path):
    vectors = np.random.default_rng(24).standard_normal((300, 70)).astype(np.float32)
    vectors[7] = 0
    ByteScan.build([vectors[:100], vectors[100:]], 70, tmp_path)
    query = np.random.default_rng(25).standard_normal((2, 70)).astype(np.float32)
    scan = ByteScan.load(tmp_path, (300, 70))
    hits = scan.search(Dense(query), SearchRequest(k=300))
    largest = np.abs(vectors).max(axis=1) / 254 * np.abs(query).sum(axis=1)[:, None]
    for line, rows, scores in zip(range(2), hits.rows, hits.scores, strict=True):
        assert (np.abs(scores - vectors[rows] @ query[line]) <= largest[line, rows] + 1e-4).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bits": 17}, "bits is 17"),
        ({"repetitions": -1}, "repetitions is -1"),
        ({"width": True}, "width is True"),
        ({"projection": "magic"}, "magic.*identity"),
        ({"final": "counts"}, "give both"),
        ({"final_dims": 8}, "give both"),
        ({"final": "magic"}, "magic.*counts"),
        ({"power": 1.5}, "power is 1.5"),
        ({"fill": 1}, "fill is 1"),
        ({"storage": "int4"}, "int4.*int8"),
        ({"first_stage": "annoy", "storage": "float16"}, "annoy.*hnsw"),
        ({"first_stage": "hnsw"}, "needs storage='float16', got 'int8'"),
        ({"first_stage": "hnsw", "storage": "pq"}, "needs storage='float16', got 'pq'"),
        ({"rescored": 0}, "rescored is 0"),
        ({"ball_carving": 0.0}, "ball_carving is 0.0"),
    ],
    ids=str,
)
def test_impossible_parameters_are_named(given, message):
    with pytest.raises(ConfigError, match=message):
        FdeIndex.parameters(given)


def test_what_cannot_be_held_is_refused(documents, tmp_path):
    with pytest.raises(ConfigError, match="1,048,576 at most"):
        built(documents, tmp_path / "wide", bits=16, repetitions=100)
    huge = MultiVector(documents.indptr, documents.values.astype(np.float32) * np.float32(1e6))
    with pytest.raises(FormatError, match="exceeds float16"):
        built(huge, tmp_path / "huge", storage="float16")
