"""What is particular to FAISS's structures: their strings, stages, training and what they do with damage."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from indexing.commit import IndexSpec
from indexing.dense.scan import scan
from indexing.fitting import fitted, shared_folder
from indexing.ivf.factory import default_factory, parts_of
from indexing.ivf.index import IvfIndex
from indexing.planner import planned_search
from indexing.progress import Silent
from retrieval.bitmap import Bitmap
from retrieval.errors import ConfigError, CorruptError, IncompatibleError
from retrieval.protocols import SearchRequest
from retrieval.values import Dense

DIM, N = 32, 3000


def clustered(n, seed, dim=DIM):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((20, dim))
    return (centres[rng.integers(0, 20, n)] + 0.6 * rng.standard_normal((n, dim))).astype(np.float32)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors")
    Dense(clustered(N, 0)).save(folder)
    return Dense.load(folder)


@pytest.fixture(scope="module")
def queries():
    return Dense(clustered(50, 1))


def train(vectors, folder, given):
    parameters = IvfIndex.fit(vectors, IvfIndex.parameters(given))
    folder.mkdir()
    IvfIndex.train(vectors, parameters, folder, memory_bytes=10**8, progress=lambda steps: None)
    return parameters


def build(vectors, folder, parameters, shared):
    folder.mkdir()
    IvfIndex.build(vectors, folder, parameters, memory_bytes=10**8, progress=lambda rows: None, shared=shared)
    return IvfIndex.load(folder, vectors, parameters, shared=shared)


def make(vectors, tmp_path, given):
    parameters = train(vectors, tmp_path / "shared", given)
    return build(vectors, tmp_path / "index", parameters, tmp_path / "shared")


def exact(vectors, queries, k, allowed=None):
    return scan(vectors, float(np.linalg.norm(vectors.values, axis=1).max()), queries, k, allowed)


def recall(hits, truth):
    found = [
        len(set(a) & set(b)) / len(b) for a, b in zip(hits.rows.tolist(), truth.rows.tolist(), strict=True)
    ]
    return float(np.mean(found))


# --- recall


@pytest.mark.parametrize(
    ("factory", "least"),
    [
        ("Flat", 1.0),
        ("SQ8", 1.0),
        ("IVF16,Flat", 1.0),
        ("IVF16,SQ8", 1.0),
        ("PCA16,IVF16,Flat", 0.97),
        ("OPQ16,IVF16,PQ16x4fs", 0.97),
        ("IVF16,RaBitQ", 0.97),
        ("IVF16,RaBitQfs", 0.97),
        ("IVF16,PQ16", 0.97),
        ("IVF16_HNSW8,SQ8", 0.97),
        ("PQ16x4fs,Refine(SQ8)", 0.97),
        ("IVF16,RQ8x4", 0.9),
    ],
)
def test_with_all_lists_probed_only_codes_lose_something(tmp_path, vectors, queries, factory, least):
    index = make(vectors, tmp_path, {"factory": factory, "nprobe": 16, "rescored": 200})
    hits, truth = index.search(queries, SearchRequest(k=10)), exact(vectors, queries, 10)
    assert recall(hits, truth) >= least
    if least == 1.0:
        assert np.array_equal(hits.rows, truth.rows)
        assert np.array_equal(hits.scores, truth.scores)


def test_more_lists_find_more(tmp_path, vectors, queries):
    index, truth = make(vectors, tmp_path, {"factory": "IVF64,SQ8"}), exact(vectors, queries, 10)
    found = [recall(replace(index, nprobe=n).search(queries, SearchRequest(k=10)), truth) for n in (1, 3, 64)]
    assert found[0] < found[1] <= found[2] == 1.0


def test_more_lists_than_there_are_are_all(tmp_path, vectors, queries):
    index = make(vectors, tmp_path, {"factory": "IVF16,Flat", "nprobe": 1000})
    assert np.array_equal(index.search(queries, SearchRequest(k=5)).rows, exact(vectors, queries, 5).rows)


def test_a_refinement_is_given_more_candidates_than_it_returns(tmp_path, vectors, queries):
    given = {"factory": "PQ8x4fs,Refine(SQ8)", "rescored": 10}
    index, truth = make(vectors, tmp_path, given), exact(vectors, queries, 10)
    found = [
        recall(replace(index, refined=f).search(queries, SearchRequest(k=10)), truth) for f in (1.0, 20.0)
    ]
    assert found[0] < found[1]
    assert found[1] >= 0.95


# --- stages


def test_the_prefix_alone_chooses_the_lists(tmp_path, queries):
    """Vectors whose first dimensions are the same but for a rotation of the others meet in the same list."""
    values = clustered(2000, 3)
    other = values.copy()
    other[:, 8:] = np.random.default_rng(4).permutation(other[:, 8:])
    both = Dense(np.concatenate([values, other]))
    index = make(both, tmp_path, {"factory": "IVF16,SQ8", "prefix": 8})
    starts, members = index.members
    owner = np.empty(4000, dtype=int)
    owner[members] = np.repeat(np.arange(16), np.diff(starts))
    assert np.array_equal(owner[:2000], owner[2000:])
    assert len(set(owner.tolist())) > 8


@pytest.mark.parametrize(
    "factory", ["IVF16,SQ8", "OPQ8,IVF16,PQ8x4fs", "RR24,IVF16,Flat", "IVF16,RaBitQ,RFlat"]
)
def test_rotated_prefixes_find_what_whole_vectors_do(tmp_path, factory):
    """Where a rotation hides that few dimensions matter, the principal axes show it."""
    rng = np.random.default_rng(5)
    turn = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0]
    scales = np.where(np.arange(DIM) < 12, 1.0, 0.05)
    vectors = Dense(((clustered(2000, 6) * scales) @ turn).astype(np.float32))
    queries = Dense(((clustered(40, 7) * scales) @ turn).astype(np.float32))
    truth, found = exact(vectors, queries, 10), []
    for number, rotation in enumerate(("pca", "none")):
        (tmp_path / str(number)).mkdir()
        given = {
            "factory": factory,
            "prefix": 12,
            "inner": 24,
            "rotation": rotation,
            "nprobe": 5,
            "rescored": 60,
        }
        found.append(
            recall(make(vectors, tmp_path / str(number), given).search(queries, SearchRequest(k=10)), truth)
        )
    assert found[0] >= 0.9
    assert found[0] > found[1]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"factory": "IVF16,SQ8", "inner": 40}, "inner is 40, and there are 32"),
        ({"factory": "IVF16,SQ8", "inner": 16, "prefix": 20}, "prefix is 20, and there are 16"),
        ({"factory": "SQ8", "prefix": 8}, "'SQ8' has none"),
        ({"factory": "L2norm,IVF16,SQ8", "prefix": 8}, "transforms that rotate"),
    ],
)
def test_stages_that_do_not_fit_are_config_errors(tmp_path, vectors, given, words):
    with pytest.raises(ConfigError, match=words):
        train(vectors, tmp_path / "shared", given)


# --- factory strings


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("IVX16,Flat", "cannot read 'IVX16'"),
        ("IVF16,Flatt", "cannot read 'Flatt'"),
        ("OPQ16,IVF16,PQ16x4fz", "cannot read 'PQ16x4fz'"),
        ("IVF16,SQ8,Refin(SQ8)", r"cannot read 'Refin\(SQ8\)'"),
        ("", "cannot read ''"),
        ("IVF16,,Flat", "cannot read ''"),
        ("IVF16", "parts but not together"),
        ("Flat,IVF16", "parts but not together"),
        ("IMI2x5,PQ16", "refuses 'IMI2x5'"),
        ("HNSW32", "hnsw"),
        ("IDMap,Flat", "IDMap"),
        ("IVF0,Flat", "no list"),
        (16, "must be a FAISS string"),
    ],
)
def test_an_unreadable_string_is_refused_with_the_part(factory, words):
    with pytest.raises(ConfigError, match=words):
        IvfIndex.parameters({"factory": factory})


def test_a_string_that_does_not_fit_the_width_names_part_and_width(tmp_path, vectors):
    with pytest.raises(ConfigError, match=r"refuses 'PQ24' for vectors of width 32.*multiple"):
        train(vectors, tmp_path / "shared", {"factory": "IVF16,PQ24"})


def test_parts_are_split_outside_of_parentheses():
    parts = parts_of("OPQ8,IVF16(PQ4,Flat),SQ8,Refine(PQ8,Flat)")
    assert parts == [
        "OPQ8",
        "IVF16(PQ4,Flat)",
        "SQ8",
        "Refine(PQ8,Flat)",
    ]


@pytest.mark.parametrize(
    "given",
    [
        {"nprobe": 0},
        {"nprobe": 2.0},
        {"rescored": True},
        {"prefix": "8"},
        {"refined": 0.5},
        {"rotation": "opq"},
        {"ef": 3},
    ],
)
def test_impossible_parameters_are_config_errors(given):
    with pytest.raises(ConfigError):
        IvfIndex.parameters(given)


def test_an_impossible_nprobe_is_refused_in_a_view_too(tmp_path, vectors):
    with pytest.raises(ConfigError, match="nprobe is 0"):
        replace(make(vectors, tmp_path, {"factory": "IVF16,Flat"}), nprobe=0)


# --- how many rows there are


@pytest.mark.parametrize("n", [0, 1, 2, 15, 300, 2500])
@pytest.mark.parametrize("dim", [1, 7, 32])
def test_the_default_works_for_any_number_of_rows(tmp_path, n, dim):
    vectors = Dense(clustered(n, 8, dim))
    index = make(vectors, tmp_path, {"factory": "auto"})
    queries = Dense(clustered(20, 9, dim))
    hits, truth = index.search(queries, SearchRequest(k=5)), exact(vectors, queries, 5) if n else None
    assert hits.rows.shape == (20, 5)
    assert (hits.rows >= 0).sum() == 20 * min(5, n)
    if truth is not None:
        assert (hits.scores >= truth.scores).mean() >= 0.9


@pytest.mark.parametrize("dim", [383, 384])
def test_the_default_keeps_enough_rows_a_list(dim):
    for n in (0, 1999, 2000, 10**5, 10**7):
        lists = default_factory(n, dim).partition(",")[0].removeprefix("IVF")
        assert lists == "Flat" or 39 * int(lists) <= n


@pytest.mark.parametrize("n", [0, 10])
def test_fewer_vectors_than_lists_are_a_config_error_with_the_remedy(tmp_path, vectors, n):
    with pytest.raises(ConfigError, match=rf"16 lists, and there are {n} vectors .* leave factory out"):
        train(vectors[:n], tmp_path / "shared", {"factory": "IVF16,Flat"})


def test_too_few_vectors_for_a_codebook_are_a_config_error(tmp_path, vectors):
    with pytest.raises(
        ConfigError, match=r"'IVF4,PQ8' cannot be trained on 100 vectors .* leave factory out"
    ):
        train(vectors[:100], tmp_path / "shared", {"factory": "IVF4,PQ8"})


def test_a_build_that_needs_more_memory_than_allowed_says_how_much(tmp_path, vectors):
    parameters = train(vectors, tmp_path / "shared", {"factory": "IVF16,Flat"})
    with pytest.raises(ConfigError, match="--memory"):
        IvfIndex.build(
            vectors,
            tmp_path,
            parameters,
            memory_bytes=10**5,
            progress=lambda rows: None,
            shared=tmp_path / "shared",
        )
    assert IvfIndex.memory_needed(N, DIM, parameters) > N * DIM * 4


def test_zero_vectors_are_found_like_others(tmp_path):
    values = clustered(500, 10)
    values[::5] = 0
    index = make(Dense(values), tmp_path, {"factory": "IVF8,SQ8", "nprobe": 8})
    hits = index.search(Dense(-values[1:2]), SearchRequest(k=500))
    assert sorted(hits.rows[0].tolist()) == list(range(500))


# --- filters


@pytest.mark.parametrize("factory", ["IVF16,SQ8", "OPQ16,IVF16,PQ16x4fs", "IVF16,RQ8x4", "PQ16x4fs"])
def test_filters_of_any_kind_keep_recall(tmp_path, vectors, queries, factory):
    index = make(vectors, tmp_path, {"factory": factory, "nprobe": 8, "rescored": 200})
    scores = queries.values[0] @ vectors.values.T
    order = np.argsort(-scores)
    masks = {
        "random half": np.random.default_rng(0).random(N) < 0.5,
        "random tenth": np.random.default_rng(1).random(N) < 0.1,
        "near": np.isin(np.arange(N), order[: N // 4]),
        "far": np.isin(np.arange(N), order[N // 2 :]),
        "furthest": np.isin(np.arange(N), order[-20:]),
    }
    for name, mask in masks.items():
        allowed = Bitmap.from_mask(mask)
        for search in (index.search, lambda asked, request: planned_search(index, asked, request)):
            hits = search(queries, SearchRequest(k=10, allowed=allowed))
            assert mask[hits.rows].all(), name
            assert recall(hits, exact(vectors, queries, 10, allowed)) >= 0.95, name


def test_a_query_whose_lists_are_all_denied_is_scanned(tmp_path, vectors, queries):
    index = make(vectors, tmp_path, {"factory": "IVF16,Flat", "nprobe": 2})
    starts, members = index.members
    probed = index.structure.probed(queries.values[:1], 4)[0]
    denied = np.concatenate([members[starts[number] : starts[number + 1]] for number in probed])
    allowed = Bitmap.from_mask(~np.isin(np.arange(N), denied))
    hits = index.search(queries[:1], SearchRequest(k=10, allowed=allowed))
    assert np.array_equal(hits.rows, exact(vectors, queries[:1], 10, allowed).rows)


# --- segments, threads, damage


def test_segments_share_what_was_trained(tmp_path, vectors, queries):
    """Two segments answer together as one would: codes and lists are the same."""
    spec = IndexSpec(
        "ivf", IvfIndex.parameters({"factory": "OPQ16,IVF16,PQ16x4fs", "nprobe": 16, "rescored": 100})
    )
    (spec,) = fitted(tmp_path, "dense", [spec], vectors, memory_bytes=10**8, progress=Silent())
    again = json.loads(json.dumps(dict(spec.parameters)))
    assert again == spec.parameters
    assert again["state"] == spec.state
    shared = shared_folder(tmp_path, "dense", spec)["shared"]
    found = []
    for start, stop in ((0, 1700), (1700, 1701), (1701, N)):
        part = build(vectors[start:stop], tmp_path / str(start), again, shared)
        hits = part.search(queries, SearchRequest(k=10))
        found.append((np.where(hits.rows >= 0, hits.rows + start, -1), hits.scores))
    rows, scores = (np.concatenate([part[i] for part in found], axis=1) for i in (0, 1))
    best = np.take_along_axis(rows, np.argsort(-scores, axis=1)[:, :10], axis=1)
    truth = exact(vectors, queries, 10).rows
    assert (
        np.mean([len(set(a) & set(b)) / 10 for a, b in zip(best.tolist(), truth.tolist(), strict=True)])
        >= 0.97
    )


def test_what_is_not_said_is_found_by_fitting(vectors):
    fit = IvfIndex.fit(vectors, IvfIndex.parameters({}))
    assert fit["factory"] == "IVF76,PQ16x4fs"
    assert fit["nprobe"] == 26
    assert IvfIndex.fit(vectors[:10], fit) == fit
    assert IvfIndex.parameters(fit) == fit


def test_training_twice_gives_the_same(tmp_path, vectors):
    for name in ("a", "b"):
        train(vectors, tmp_path / name, {"factory": "OPQ16,IVF16,PQ16x4fs", "prefix": 8, "rotation": "pca"})
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_an_index_of_another_training_is_refused(tmp_path, vectors):
    index = tmp_path / "index"
    parameters = train(vectors, tmp_path / "shared", {"factory": "IVF16,Flat"})
    build(vectors, index, parameters, tmp_path / "shared")
    train(vectors[:1000], tmp_path / "other", {"factory": "IVF16,Flat"})
    with pytest.raises(CorruptError, match=r"ivf\.json"):
        IvfIndex.load(index, vectors, parameters, shared=tmp_path / "other")
    with pytest.raises(IncompatibleError, match="width 16"):
        narrow = Dense(vectors.values[:, :16].copy())
        build(narrow, tmp_path / "narrow", parameters, tmp_path / "shared")


@pytest.mark.parametrize("flip", [40, -200, -5])
def test_a_flipped_bit_is_found_before_the_first_search(tmp_path, vectors, queries, flip):
    index = make(vectors, tmp_path, {"factory": "IVF16,SQ8"})
    path = tmp_path / "index" / "structure.faiss"
    content = bytearray(path.read_bytes())
    content[flip] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(CorruptError, match=r"structure\.faiss: its checksum"):
        index.search(queries, SearchRequest())


def test_a_damaged_training_is_corrupt(tmp_path, vectors):
    parameters = train(vectors, tmp_path / "shared", {"factory": "IVF16,SQ8"})
    path = tmp_path / "shared" / "trained.faiss"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CorruptError, match=r"trained\.faiss: has"):
        build(vectors, tmp_path / "index", parameters, tmp_path / "shared")


def test_a_file_that_is_no_index_is_corrupt_even_if_its_checksum_is_right(tmp_path, vectors, queries):
    import zlib

    parameters = train(vectors, tmp_path / "shared", {"factory": "IVF16,SQ8"})
    build(vectors, tmp_path / "index", parameters, tmp_path / "shared")
    path, facts = tmp_path / "index" / "structure.faiss", tmp_path / "index" / "ivf.json"
    path.write_bytes(b"\x01" * 300)
    facts.write_text(
        json.dumps({**json.loads(facts.read_text()), "bytes": 300, "crc32": zlib.crc32(b"\x01" * 300)})
    )
    index = IvfIndex.load(tmp_path / "index", vectors, parameters, shared=tmp_path / "shared")
    with pytest.raises(CorruptError, match="not an index"):
        index.search(queries, SearchRequest())


def test_searches_with_different_nprobe_at_once_do_not_disturb_each_other(tmp_path, vectors, queries):
    index = make(vectors, tmp_path, {"factory": "IVF64,SQ8"})
    views = [replace(index, nprobe=nprobe) for nprobe in (1, 2, 8, 64)]
    alone = [view.search(queries, SearchRequest(k=10)).rows for view in views]
    with ThreadPoolExecutor(8) as pool:
        jobs = [i % 4 for i in range(80)]
        together = list(pool.map(lambda i: views[i].search(queries, SearchRequest(k=10)).rows, jobs))
    for i, rows in zip(jobs, together, strict=True):
        assert np.array_equal(rows, alone[i])


# --- on a device ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [None, 0.3, "far"])
def test_lists_on_a_device_hold_what_faiss_finds_in_them(vectors, queries, tmp_path, kept):
    index = make(vectors, tmp_path, {"factory": "IVF16,Flat", "nprobe": 3, "rescored": N})
    there = replace(index, device="cpu:0")  # any name but cpu takes the way of a GPU
    allowed = None
    if kept == "far":
        near = exact(vectors, queries[:1], N // 2)
        allowed = Bitmap.from_rows(np.setdiff1d(np.arange(N), near.rows[0]), N)
    elif kept is not None:
        allowed = Bitmap.from_mask(np.random.default_rng(3).random(N) < kept)
    request = SearchRequest(k=10, allowed=allowed)
    wanted, found = index.search(queries, request), there.search(queries, request)
    np.testing.assert_array_equal(found.rows, wanted.rows)
    np.testing.assert_array_equal(found.scores, wanted.scores)


def test_the_device_is_checked_and_written_down_only_where_one_is_named():
    assert "device" not in IvfIndex.parameters({"device": "auto"})
    assert IvfIndex.parameters({"device": "cuda:1"})["device"] == "cuda:1"
    with pytest.raises(ConfigError, match="ivf parameter device is 'gpu'"):
        IvfIndex.parameters({"device": "gpu"})
