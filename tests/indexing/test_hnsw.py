"""What is particular to the graph index: its backends, what it costs, and what it does with damage."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from indexing.dense.scan import scan
from indexing.hnsw.candidates import rank_allowed
from indexing.hnsw.index import BACKENDS, HnswIndex
from indexing.hnsw.tercet_graph import CODES
from retrieval.bitmap import Bitmap
from retrieval.errors import ConfigError, CorruptError
from retrieval.exact import dense_scores
from retrieval.protocols import SearchRequest
from retrieval.topk import top_k
from retrieval.values import Dense


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors")
    values = np.random.default_rng(0).standard_normal((400, 12)).astype(np.float32)
    Dense(values).save(folder)
    return Dense.load(folder)


@pytest.fixture(params=sorted(BACKENDS))
def parameters(request):
    return HnswIndex.parameters({"backend": request.param, "m": 8, "ef_construction": 40, "ef": 32})


def build(vectors, folder, parameters):
    HnswIndex.build(vectors, folder, parameters, memory_bytes=10**8, progress=lambda rows: None)
    return HnswIndex.load(folder, vectors, parameters)


def graph_files(folder):
    return sorted(path for path in folder.iterdir() if path.name != "hnsw.json")


class Astray:
    """A graph that finds only some rows, as one with a broken link does."""

    def __init__(self, vectors, n_found):
        self.vectors, self.n_found = vectors, n_found

    def best(self, queries, k, walk, allowed):
        rows = np.full((len(queries), walk.ef), -1, dtype=np.int64)
        rows[1:, : self.n_found] = np.arange(self.n_found)[: walk.ef]
        return rank_allowed(self.vectors, queries, rows, k, allowed)


def test_queries_whose_walk_finds_too_few_are_scanned(vectors):
    index = HnswIndex(vectors, 100.0, Astray(vectors, 6), 16)
    hits = index.search(vectors[:3], SearchRequest(k=5))
    exact = scan(vectors, 100.0, vectors[:3], 5)
    assert hits.rows[0].tolist() == exact.rows[0].tolist()  # found nothing
    assert set(hits.rows[1:].ravel().tolist()) <= set(range(6))  # found enough
    hits = index.search(vectors[:3], SearchRequest(k=5, allowed=Bitmap.from_rows(range(3, 300), 400)))
    assert (
        hits.rows.tolist()
        == scan(vectors, 100.0, vectors[:3], 5, Bitmap.from_rows(range(3, 300), 400)).rows.tolist()
    )  # 3 of 6 are allowed, 5 were wanted


def test_a_filter_around_another_neighbourhood_is_answered_exactly(tmp_path, parameters):
    rng = np.random.default_rng(1)
    centres = 10 * rng.standard_normal((4, 12))
    owner = np.arange(2000) % 4
    vectors = Dense((centres[owner] + rng.standard_normal((2000, 12))).astype(np.float32))
    index = build(vectors, tmp_path, parameters)
    queries = Dense(centres[:1].astype(np.float32))
    allowed = Bitmap.from_mask(owner == 3)
    found = index.search(queries, SearchRequest(k=10, allowed=allowed))
    assert found.rows.tolist() == scan(vectors, index.norm, queries, 10, allowed).rows.tolist()


def test_the_faiss_graph_keeps_no_copy_of_the_vectors(tmp_path, vectors):
    build(vectors, tmp_path, HnswIndex.parameters({"backend": "faiss"}))
    size = (tmp_path / "graph.faiss").stat().st_size
    assert size < 400 * (2 * 16 * 4 + 60)


@pytest.mark.parametrize("flip", [30, -200, -5])
def test_a_flipped_bit_in_the_graph_is_found_before_it_is_walked(tmp_path, vectors, parameters, flip):
    build(vectors, tmp_path, parameters)
    for path in graph_files(tmp_path):
        whole = path.read_bytes()
        content = bytearray(whole)
        content[flip] ^= 0x10
        path.write_bytes(content)
        index = HnswIndex.load(tmp_path, vectors, parameters)
        with pytest.raises(CorruptError, match=rf"{re.escape(path.name)}: its checksum"):
            index.search(vectors[:1], SearchRequest())
        path.write_bytes(whole)


def test_a_file_that_is_no_graph_is_corrupt_even_if_its_checksum_is_right(tmp_path, vectors, parameters):
    import zlib

    build(vectors, tmp_path, parameters)
    path = graph_files(tmp_path)[0]
    path.write_bytes(b"\x01" * 300)
    facts = json.loads((tmp_path / "hnsw.json").read_text())
    facts["files"][path.name] = {"bytes": 300, "crc32": zlib.crc32(path.read_bytes())}
    (tmp_path / "hnsw.json").write_text(json.dumps(facts))
    with pytest.raises(CorruptError, match="not a "):
        HnswIndex.load(tmp_path, vectors, parameters).search(vectors[:1], SearchRequest())


@pytest.mark.parametrize("backend", ["faiss", "hnswlib"])
def test_facts_of_one_file_beside_those_of_the_index_are_understood(tmp_path, vectors, backend):
    parameters = HnswIndex.parameters({"backend": backend})
    wanted = build(vectors, tmp_path, parameters).search(vectors[:5], SearchRequest())
    path = tmp_path / "hnsw.json"  # as it was written while there was never more than one file
    facts = json.loads(path.read_text())
    noted = facts.pop("files")[f"graph.{backend}"]
    path.write_text(json.dumps({**facts, **noted}))
    found = HnswIndex.load(tmp_path, vectors, parameters).search(vectors[:5], SearchRequest())
    np.testing.assert_array_equal(found.rows, wanted.rows)


def test_a_build_that_needs_more_memory_than_allowed_says_how_much(tmp_path, vectors, parameters):
    needed = HnswIndex.memory_needed(400, 12, parameters)
    with pytest.raises(ConfigError, match="--memory"):
        HnswIndex.build(vectors, tmp_path, parameters, memory_bytes=needed - 1, progress=lambda rows: None)
    HnswIndex.build(vectors, tmp_path, parameters, memory_bytes=needed, progress=lambda rows: None)


@pytest.mark.parametrize(
    "given",
    [
        {"backend": "annoy"},
        {"m": 1},
        {"m": 16.0},
        {"m": True},
        {"ef": 0},
        {"ef_construction": "200"},
        {"efsearch": 3},
        {"codes": "pq"},
        {"prefix": 0},
        {"rescored": 1.5},
        {"order": "backwards"},
        {"backend": "faiss", "codes": "sq8"},
    ],
)
def test_impossible_parameters_are_config_errors(given):
    with pytest.raises(ConfigError):
        HnswIndex.parameters(given)


def test_an_impossible_ef_is_refused_in_a_view_too(tmp_path, vectors):
    with pytest.raises(ConfigError, match="ef is 0"):
        replace(build(vectors, tmp_path, HnswIndex.parameters({})), ef=0)


def test_searches_with_different_ef_at_once_do_not_disturb_each_other(tmp_path, vectors, parameters):
    index = build(vectors, tmp_path, parameters)
    views = [replace(index, ef=ef) for ef in (10, 20, 60, 150)]
    alone = [view.search(vectors[:50], SearchRequest(k=10)).rows for view in views]
    with ThreadPoolExecutor(8) as pool:
        jobs = [i % 4 for i in range(80)]
        together = list(pool.map(lambda i: views[i].search(vectors[:50], SearchRequest(k=10)).rows, jobs))
    for i, rows in zip(jobs, together, strict=True):
        assert np.array_equal(rows, alone[i])


@pytest.mark.parametrize("codes", CODES)
def test_vectors_of_many_lengths_are_found(tmp_path, codes):
    """Normal distributions as a multivariate encoder folds them, by their divergence."""
    import torch

    from retrieval.encoders.transformer.gaussian_heads import FORMS

    query, document = FORMS["exact"]
    rng = np.random.default_rng(4)

    def distributions(n):
        means = np.random.default_rng(5).standard_normal((60, 48))[rng.integers(0, 60, n)]
        means = means + 0.7 * rng.standard_normal((n, 48))
        variances = np.exp(0.1 * rng.standard_normal((n, 48)) + 0.1 * rng.standard_normal((n, 1)))
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        return torch.from_numpy(means.astype(np.float32)), torch.from_numpy(variances.astype(np.float32))

    vectors, queries = Dense(document(*distributions(3000)).numpy()), Dense(query(*distributions(60)).numpy())
    norms = np.linalg.norm(vectors.values, axis=1)
    assert norms.max() > 1.5 * norms.min()
    index = build(vectors, tmp_path, HnswIndex.parameters({"codes": codes}))
    hits = index.search(queries, SearchRequest(k=10))
    truth = top_k(dense_scores(queries, vectors), 10)
    found = [len(set(a) & set(b)) / 10 for a, b in zip(hits.rows.tolist(), truth.rows.tolist(), strict=True)]
    assert np.mean(found) >= 0.97
