"""What an ivf index learns once for a collection: a rotation, the coarse centroids, the codebooks.

The result is an empty FAISS index that every segment fills. The stages of AdANNS (Rege et al., "AdANNS: A Framework
for Adaptive Semantic Search", NeurIPS 2023) are linear maps inside it: AdANNS-IVF chooses lists by the first
``prefix`` dimensions, AdANNS-OPQ codes the first ``inner`` ones. What differs: candidates are re-scored with all
dimensions, and vectors whose prefixes mean nothing are rotated onto their principal axes first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.file_facts import file_facts
from indexing.index_facts import write_facts
from indexing.ivf.factory import empty_index, innermost, library, lists_of, reason_of
from retrieval.compute import apply_threads
from retrieval.errors import ConfigError
from retrieval.values import Dense
from retrieval.values.storage import release_pages

ROTATIONS = ("none", "pca")
TRAINED = "trained.faiss"
FACTS = "trained.json"
_POINTS = 64  # training vectors a list
_LEAST = 1 << 16  # what FAISS's product quantiser of 8 bits takes at most
_ITERATIONS = 10
_OPQ_ROUNDS = 15
_OPQ_POINTS = 20_000
_SEED = 20


def check_lists(factory: str, lists: int, n: int) -> None:
    """Refuse to train more lists than there are vectors.

    Raises:
        ConfigError: says what to name instead.
    """
    if lists > n:
        raise ConfigError(
            f"factory {factory!r} has {lists:,} lists, and there are {n:,} vectors to train them on; name fewer "
            "(39 vectors for each are few), or leave factory out to have it chosen"
        )


def train_structure(
    vectors: Dense,
    parameters: Mapping[str, Any],
    folder: Path,
    *,
    memory_bytes: int,
    progress: Callable[[int], None],
) -> None:
    """Write trained.faiss and trained.json into a folder; the same for the same vectors and threads.

    Args:
        vectors: N rows, memory-mapped; a sample of 64 a list, 65,536 at least, is read.
        parameters: ``factory``, ``prefix``, ``inner`` and ``rotation``.
        folder: existing and empty.
        memory_bytes: what the sample and its image may take.
        progress: called with 1 after each of three steps.

    Raises:
        ConfigError: the factory or the prefixes do not fit the width, or there are too few vectors to train on.
    """
    faiss = library()

    apply_threads()
    factory, dim = parameters["factory"], vectors.dim
    inner, prefix = parameters["inner"] or dim, parameters["prefix"]
    _check_widths(dim, inner, prefix)
    index = empty_index(inner, factory)
    lists = lists_of(index)
    check_lists(factory, lists, len(vectors))
    sample = _sample(vectors, min(max(_POINTS * lists, _LEAST), max(lists, memory_bytes // (8 * dim))))
    progress(1)
    axes = _principal_axes(sample) if parameters["rotation"] == "pca" else np.eye(dim, dtype=np.float32)
    cut = (
        parameters["inner"] is not None
    )  # else codes are of vectors as they come: PQ is worse on principal axes
    seen = np.ascontiguousarray(sample @ axes[:inner].T) if cut else sample
    kept = _shortened(index)
    if prefix is not None:
        rows = np.eye(prefix, inner, dtype=np.float32) if cut else axes[:prefix]
        kept.append(_prefix_quantiser(index, seen, rows, factory))
    progress(1)
    _train(index, seen, factory)
    whole = faiss.IndexPreTransform(_linear(axes[:inner]), index) if cut else index
    faiss.write_index(whole, str(folder / TRAINED))
    del kept  # the index points to it until here
    write_facts(folder / FACTS, {"dim": dim, "lists": lists, **file_facts(folder / TRAINED)})
    progress(1)


def _check_widths(dim: int, inner: int, prefix: int | None) -> None:
    for name, value, most in (("inner", inner, dim), ("prefix", prefix or 1, inner)):
        if value > most:
            raise ConfigError(
                f"ivf parameter {name} is {value}, and there are {most} dimensions to take it from"
            )


def _sample(vectors: Dense, size: int) -> NDArray[np.float32]:
    """So many rows as float32, one drawn from each of as many equal stretches; all where there are no more."""
    n = len(vectors)
    if size >= n:
        rows = np.arange(n)
    else:
        rng = np.random.default_rng(_SEED)
        rows = np.minimum(((np.arange(size) + rng.random(size)) * (n / size)).astype(np.int64), n - 1)
    sample = np.asarray(vectors.values[rows], dtype=np.float32)
    release_pages(vectors.values)
    return np.ascontiguousarray(sample)


def _principal_axes(sample: NDArray[np.float32]) -> NDArray[np.float32]:
    """(D, D) orthonormal rows, the direction that carries most first.

    The mean is left in: without it inner products would change.
    """
    moments = (sample.T @ sample).astype(np.float64)
    return np.ascontiguousarray(np.linalg.eigh(moments)[1].T[::-1], dtype=np.float32)


def _linear(matrix: NDArray[np.float32]) -> Any:
    """A FAISS transform by a (d_out, d_in) matrix with orthonormal rows."""
    faiss = library()

    transform = faiss.LinearTransform(matrix.shape[1], matrix.shape[0], False)
    faiss.copy_array_to_vector(np.ascontiguousarray(matrix, dtype=np.float32).ravel(), transform.A)
    transform.is_trained = True
    transform.set_is_orthonormal()
    return transform


def _prefix_quantiser(index: Any, seen: NDArray[np.float32], rows: NDArray[np.float32], factory: str) -> Any:
    """Make an IVF choose lists by a few dimensions, the ``rows`` (P, D) of a rotation; the caller keeps the result.

    The lists are given vectors after the transforms of the factory, such as OPQ, which move every dimension. These are
    rotations, so the same dimensions are a linear map of their output: the rows, rotated likewise.

    Raises:
        ConfigError: the index has no lists, or a transform is no rotation.
    """
    faiss = library()

    ivf = innermost(index)
    if not isinstance(ivf, faiss.IndexIVF):
        raise ConfigError(f"ivf parameter prefix chooses lists, and factory {factory!r} has none")
    moved = seen
    for transform in transforms_of(index):
        if not isinstance(transform, faiss.LinearTransform):
            raise ConfigError(
                f"ivf parameter prefix goes with transforms that rotate (OPQ, RR, PCA), not {factory!r}"
            )
        transform.train(moved)
        moved = transform.apply(moved)
        matrix = faiss.vector_to_array(transform.A).reshape(transform.d_out, transform.d_in)
        rows = rows @ matrix.T
    means = faiss.Kmeans(
        len(rows), ivf.nlist, niter=_ITERATIONS, seed=_SEED, spherical=True, min_points_per_centroid=1
    )
    means.train(np.ascontiguousarray(moved @ rows.T))
    centroids = faiss.IndexFlatIP(len(rows))
    centroids.add(means.centroids)
    ivf.own_fields = False
    ivf.quantizer = quantiser = faiss.IndexPreTransform(_linear(rows), centroids)
    return quantiser


def transforms_of(index: Any) -> list[Any]:
    """The transforms that vectors pass on their way to the innermost index, in this order."""
    faiss = library()

    layer = faiss.downcast_index(index)
    if isinstance(layer, faiss.IndexPreTransform):
        chain = [faiss.downcast_VectorTransform(layer.chain.at(i)) for i in range(layer.chain.size())]
        return [*chain, *transforms_of(layer.index)]
    if isinstance(layer, faiss.IndexRefine):
        return transforms_of(layer.base_index)
    return []


def _shortened(index: Any) -> list[Any]:
    """Leave out of FAISS's training what takes long and gains nothing here; the caller keeps the result alive.

    Codes are not sorted for Hamming distances (polysemous), which no search uses. OPQ is fitted to codes of as many
    bits as the index has, rather than 8, and in 15 rounds instead of 50.
    """
    faiss = library()

    inner = innermost(index)
    kept: list[Any] = []
    if isinstance(inner, faiss.IndexIVF):
        inner.cp.niter, inner.cp.seed, inner.cp.min_points_per_centroid = _ITERATIONS, _SEED, 1
    if hasattr(inner, "do_polysemous_training"):
        inner.do_polysemous_training = False
    coded = getattr(inner, "pq", None)
    if coded is not None:
        coded.cp.min_points_per_centroid = 1
    for transform in transforms_of(index):
        if isinstance(transform, faiss.OPQMatrix):
            transform.niter, transform.max_train_points = _OPQ_ROUNDS, _OPQ_POINTS
            if coded is not None and coded.M == transform.M:
                quantiser = faiss.ProductQuantizer(transform.d_out, transform.M, coded.nbits)
                quantiser.cp.min_points_per_centroid = 1
                transform.pq = quantiser
                kept.append(quantiser)
    return kept


def _train(index: Any, seen: NDArray[np.float32], factory: str) -> None:
    if index.is_trained:
        return
    try:
        index.train(seen)
    except RuntimeError as error:
        raise ConfigError(
            f"factory {factory!r} cannot be trained on {len(seen):,} vectors of width {seen.shape[1]}: "
            f"{reason_of(error)}; index more documents first, or leave factory out to have it chosen"
        ) from None
