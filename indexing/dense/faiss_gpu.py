"""FAISS's own indexes on a GPU, for people who have faiss-gpu: flat, any IVF, and CAGRA's graph for the CPU's search.

What is found is re-scored like the candidates of any other index (``indexing.dense.scan.rank_rows``), so a
``FaissOnGpu`` stands wherever ``nearest`` is asked for. Searching on a GPU needs none of this:
``indexing.dense.device_search`` does it with torch and Triton. CAGRA is of Ootomo et al., "CAGRA: Highly Parallel Graph
Construction and Approximate Nearest Neighbor Search for GPUs", ICDE 2024, arXiv:2308.15136.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.dense.scan import score_rows
from indexing.hnsw.graph.layout import Graph
from retrieval.compute import apply_threads
from retrieval.errors import ConfigError, MissingExtraError
from retrieval.values import Dense

_CHUNK = 65_536  # vectors added at a time
_SORTED = 4096  # nodes whose links are sorted at a time
_MOST = 2048  # results that FAISS gives on a GPU


def gpu_faiss() -> Any:
    """FAISS with GPU support; untyped, since its stubs lack much of what is used here.

    Raises:
        MissingExtraError: the FAISS that is installed has none.
    """
    import faiss

    if not hasattr(faiss, "StandardGpuResources"):
        raise MissingExtraError("faiss-gpu", "gpu")
    return faiss


def cuvs_faiss() -> Any:
    """FAISS with cuVS, which has CAGRA.

    Raises:
        MissingExtraError: the FAISS that is installed has no GPU support.
        ConfigError: it has no cuVS.
    """
    faiss = gpu_faiss()
    if "CUVS" not in faiss.get_compile_options() or not hasattr(faiss, "GpuIndexCagra"):
        raise ConfigError(
            "this FAISS is built without cuVS and has no CAGRA; packages with it come from conda: "
            "conda install -c pytorch -c nvidia -c rapidsai -c conda-forge faiss-gpu-cuvs"
        )
    return faiss


@dataclass(frozen=True, eq=False)
class FaissOnGpu:
    """A filled FAISS index in a GPU's memory.

    Attributes:
        index: FAISS's.
        resources: what it allocates from; has to live as long.
        parameters: what a search for so many rows is given besides.
    """

    index: Any
    resources: Any
    parameters: Callable[[int], Any] = lambda count: None

    def nearest(self, queries: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """(Q, count) rows near each query, -1 where fewer were found; FAISS gives no more than 2,048."""
        apply_threads()
        rows = np.full((len(queries), count), -1, dtype=np.int64)
        given = min(count, _MOST)
        asked = np.ascontiguousarray(queries)
        rows[:, :given] = self.index.search(asked, given, params=self.parameters(given))[1]
        return rows


def flat_on_gpu(
    vectors: Dense, device: str, progress: Callable[[int], None] = lambda rows: None
) -> FaissOnGpu:
    """Exact search; vectors of half precision stay so.

    Raises:
        MissingExtraError: FAISS has no GPU support.
    """
    faiss = gpu_faiss()
    resources, config = faiss.StandardGpuResources(), faiss.GpuIndexFlatConfig()
    config.device = _number(device)
    config.useFloat16 = vectors.values.dtype == np.float16
    index = faiss.GpuIndexFlatIP(resources, vectors.dim, config)
    _add(index, vectors, progress)
    return FaissOnGpu(index, resources)


def ivf_on_gpu(
    vectors: Dense,
    factory: str,
    nprobe: int,
    device: str,
    *,
    sample: int = 1 << 20,
    seed: int = 0,
    progress: Callable[[int], None] = lambda rows: None,
) -> FaissOnGpu:
    """Inverted lists that are trained and filled on the GPU; ``to_cpu`` makes the CPU's index of them.

    Args:
        vectors: N rows.
        factory: a FAISS string that a GPU can do, such as "IVF4096,Flat", "IVF4096,PQ64" or "IVF4096,SQ8".
        nprobe: lists that a query looks at.
        device: ``cuda`` or ``cuda:N``.
        sample: vectors it is trained on at most.
        seed: draws them.
        progress: called with the number of rows added.

    Raises:
        MissingExtraError: FAISS has no GPU support.
        ConfigError: FAISS cannot put such an index on a GPU.
    """
    faiss = gpu_faiss()
    resources = faiss.StandardGpuResources()
    try:
        empty = faiss.index_factory(vectors.dim, factory, faiss.METRIC_INNER_PRODUCT)
        index = faiss.index_cpu_to_gpu(resources, _number(device), empty)
    except RuntimeError as error:
        raise ConfigError(f"FAISS cannot put {factory!r} on a GPU: {error}") from error
    drawn = np.random.default_rng(seed).choice(len(vectors), min(sample, len(vectors)), replace=False)
    index.train(np.ascontiguousarray(vectors.values[np.sort(drawn)], dtype=np.float32))
    _add(index, vectors, progress)
    faiss.GpuParameterSpace().set_index_parameter(index, "nprobe", nprobe)
    return FaissOnGpu(index, resources)


def to_cpu(index: FaissOnGpu) -> Any:
    """The CPU's index with the same content.

    Raises:
        MissingExtraError: FAISS has no GPU support.
    """
    return gpu_faiss().index_gpu_to_cpu(index.index)


def cagra_on_gpu(vectors: Dense, m: int, device: str) -> FaissOnGpu:
    """A graph of 2 m links a node, built and searched on the GPU.

    Args:
        vectors: N rows.
        m: half the links of a node.
        device: ``cuda`` or ``cuda:N``.

    Raises:
        MissingExtraError: FAISS has no GPU support.
        ConfigError: it has no cuVS.
    """
    faiss = cuvs_faiss()
    resources, config = faiss.StandardGpuResources(), faiss.GpuIndexCagraConfig()
    config.device = _number(device)
    config.graph_degree, config.intermediate_graph_degree = 2 * m, 4 * m
    index = faiss.GpuIndexCagra(resources, vectors.dim, faiss.METRIC_INNER_PRODUCT, config)
    index.train(np.ascontiguousarray(vectors.values, dtype=np.float32))

    def parameters(count: int) -> Any:
        kept = faiss.SearchParametersCagra()
        kept.itopk_size = max(64, -(-count // 32) * 32)  # rows kept during a walk, in steps of 32
        return kept

    return FaissOnGpu(index, resources, parameters)


def cagra_graph(index: FaissOnGpu, vectors: Dense, m: int) -> Graph:
    """The graph that ``cagra_on_gpu`` made of these vectors, for the CPU; FAISS adds the levels above the ground.

    Raises:
        MissingExtraError: FAISS has no GPU support.
        ConfigError: the graph is of another ``m`` or other vectors.
    """
    return graph_of(to_cpu(index), vectors, m)


def graph_of(index: Any, vectors: Dense, m: int) -> Graph:
    """The links of one of FAISS's HNSW indexes, each node's closest first.

    Args:
        index: FAISS's, with 2 m links on the ground level and m above.
        vectors: the rows it is over.
        m: see above.

    Raises:
        ConfigError: it has other numbers of links, or other rows.
    """
    import faiss

    hnsw, n = index.hnsw, len(vectors)
    if index.ntotal != n or (hnsw.nb_neighbors(0), hnsw.nb_neighbors(1)) != (2 * m, m):
        raise ConfigError(
            f"the graph has {index.ntotal} nodes with {hnsw.nb_neighbors(0)} and {hnsw.nb_neighbors(1)} links; "
            f"wanted are {n} with {2 * m} and {m}"
        )
    levels = faiss.vector_to_array(hnsw.levels)  # 1 for a node of the ground level only
    starts = faiss.vector_to_array(hnsw.offsets)[:n].astype(np.int64)
    neighbours = faiss.vector_to_array(hnsw.neighbors)
    ground = neighbours[starts[:, None] + np.arange(2 * m)]
    above = levels.astype(np.int64) - 1
    before = np.cumsum(above) - above
    node = np.repeat(np.arange(n), above)
    first = starts[node] + 2 * m + m * (np.arange(len(node)) - before[node])
    upper = neighbours[first[:, None] + np.arange(m)]
    return Graph(
        _closest_first(vectors, np.arange(n), ground),
        np.where(above > 0, before, -1).astype(np.int32),
        _closest_first(vectors, node, upper),
        int(hnsw.entry_point),
        max(0, int(hnsw.max_level)),
    )


def _closest_first(vectors: Dense, nodes: NDArray[np.int64], links: NDArray[np.int32]) -> NDArray[np.int32]:
    """Links (n, M) of nodes (n,) in descending order of inner product, -1 at the end."""
    ordered = np.empty_like(links)
    for start in range(0, len(nodes), _SORTED):
        part = slice(start, start + _SORTED)
        queries = np.asarray(vectors.values[nodes[part]], dtype=np.float32)
        scores = score_rows(vectors, queries, links[part].astype(np.int64))
        ordered[part] = np.take_along_axis(links[part], np.argsort(-scores, axis=1, kind="stable"), axis=1)
    return ordered


def _add(index: Any, vectors: Dense, progress: Callable[[int], None]) -> None:
    apply_threads()
    for start in range(0, len(vectors), _CHUNK):
        chunk = np.ascontiguousarray(vectors.values[start : start + _CHUNK], dtype=np.float32)
        index.add(chunk)
        progress(len(chunk))


def _number(device: str) -> int:
    """The number of a GPU: 1 of ``cuda:1``, 0 of ``cuda``."""
    return int(device.partition(":")[2] or 0)
