"""FAISS on a GPU where there is one; elsewhere what is said about it, and the graph it makes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from indexing.dense import faiss_gpu
from indexing.dense.scan import rank_rows
from retrieval.errors import ConfigError, MissingExtraError
from retrieval.exact import dense_scores
from retrieval.topk import top_k
from retrieval.values import Dense


def vectors_of(n: int, dim: int, seed: int, dtype=np.float32) -> Dense:
    return Dense(np.random.default_rng(seed).standard_normal((n, dim)).astype(dtype))


def test_faiss_without_gpu_support_is_named_with_its_extra():
    import faiss

    if hasattr(faiss, "StandardGpuResources"):
        pytest.skip("this FAISS has GPU support")
    vectors = vectors_of(5, 4, 32)
    for build in (
        lambda: faiss_gpu.flat_on_gpu(vectors, "cuda"),
        lambda: faiss_gpu.ivf_on_gpu(vectors, "IVF2,Flat", 1, "cuda"),
        lambda: faiss_gpu.cagra_on_gpu(vectors, 16, "cuda"),
    ):
        with pytest.raises(MissingExtraError, match=r"faiss-gpu is not installed.*tercet\[gpu\]"):
            build()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_graph_of_faiss_keeps_its_links_closest_first(dtype):
    import faiss

    vectors = vectors_of(600, 8, 33, dtype)
    index = faiss.IndexHNSWFlat(8, 4, faiss.METRIC_INNER_PRODUCT)
    index.add(vectors.values.astype(np.float32))
    graph, hnsw = faiss_gpu.graph_of(index, vectors, 4), index.hnsw
    assert (graph.entry, graph.top) == (hnsw.entry_point, hnsw.max_level)
    assert graph.top >= 1 and graph.links.shape == (600, 8)
    levels = [hnsw.levels.at(node) for node in range(600)]
    assert len(graph.upper_links) == sum(levels) - 600
    scores = dense_scores(Dense(vectors.values.astype(np.float32)), vectors)
    neighbours = faiss.vector_to_array(hnsw.neighbors)
    for node in range(600):
        start, up = hnsw.offsets.at(node), graph.upper_start[node]
        above = graph.upper_links[up : up + levels[node] - 1] if up >= 0 else []
        assert len(above) == levels[node] - 1
        for line in (graph.links[node], *above):
            assert sorted(line.tolist()) == sorted(neighbours[start : start + len(line)].tolist())
            linked = line[line >= 0]
            assert (line[len(linked) :] == -1).all() and (np.diff(scores[node, linked]) <= 0).all()
            start += len(line)
    with pytest.raises(ConfigError, match="wanted are 600 with 10 and 5"):
        faiss_gpu.graph_of(index, vectors, 5)


def on_a_gpu(needs_cuvs: bool) -> None:
    try:
        faiss_gpu.cuvs_faiss() if needs_cuvs else faiss_gpu.gpu_faiss()
    except (MissingExtraError, ConfigError) as error:
        pytest.skip(str(error))
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU here")


def test_faiss_on_a_gpu_finds_the_best_rows():
    on_a_gpu(needs_cuvs=False)
    vectors, queries = vectors_of(5000, 32, 34, np.float16), vectors_of(20, 32, 35)
    truth = top_k(dense_scores(queries, vectors), 10)
    for there in (
        faiss_gpu.flat_on_gpu(vectors, "cuda"),
        faiss_gpu.ivf_on_gpu(vectors, "IVF16,Flat", 16, "cuda"),
    ):
        found = rank_rows(vectors, queries.values, there.nearest(queries.values, 30), 10)
        assert np.array_equal(found.rows, truth.rows)


def test_a_graph_of_cagra_links_every_node():
    on_a_gpu(needs_cuvs=True)
    vectors = vectors_of(5000, 32, 36)
    graph = faiss_gpu.cagra_graph(faiss_gpu.cagra_on_gpu(vectors, 16, "cuda"), vectors, 16)
    assert graph.links.shape == (5000, 32)
    assert ((graph.links >= 0).sum(1) > 0).all()
