"""Training the residual codec on a sample of a collection's token vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.residual.clustering import spherical_kmeans
from indexing.residual.codec import ResidualCodec
from retrieval.errors import FormatError
from retrieval.values import MultiVector
from retrieval.values.storage import release_pages

POINTS = 32
"""Training vectors drawn for each centroid."""
ITERATIONS = 6
"""Rounds of k-means: the mean residuals of 1.2 million tokens are 0.520, 0.503, 0.496, 0.493, 0.491, 0.490 long."""
_HELD_OUT = 50_000  # vectors whose residuals say where buckets begin
_SEED = 20
_TOLERANCE = 0.01  # by which a vector's length may differ from 1


def default_centroids(n_tokens: int) -> int:
    """ColBERTv2's number of centroids: the power of two below 16 square roots of the tokens; no more than tokens."""
    if n_tokens < 1:
        return 1
    return min(n_tokens, 1 << int(np.log2(16 * np.sqrt(n_tokens))))


def train_codec(
    vectors: MultiVector,
    *,
    bits: int,
    centroids: int | None,
    memory_bytes: int,
    progress: Callable[[int], None],
) -> ResidualCodec:
    """Centroids by k-means and buckets by quantiles, the same for the same vectors.

    Args:
        vectors: token vectors of unit length, memory-mapped; without any there is one centroid and no residual.
        bits: 1, 2, 4 or 8.
        centroids: how many; None for ``default_centroids``. At most one a token.
        memory_bytes: what the sample may take.
        progress: called with 1 after each of ``ITERATIONS`` rounds.

    Raises:
        FormatError: a vector of the sample holds NaN or infinity, or is not of unit length.
    """
    n_tokens, dim = vectors.values.shape
    rng = np.random.default_rng(_SEED)
    if not n_tokens:
        return ResidualCodec(
            np.eye(1, dim, dtype=np.float16), np.zeros(2**bits - 1, np.float32), np.zeros(2**bits, np.float32)
        )
    count = min(n_tokens, centroids or default_centroids(n_tokens))
    affordable = memory_bytes // (8 * dim)  # the sample as it is stored and as it is multiplied
    sample = _sample(vectors, max(count, min(POINTS * count, affordable)), rng)
    trained = spherical_kmeans(sample, count, iterations=ITERATIONS, rng=rng, progress=progress)
    stored = trained.astype(np.float16)
    held_out = _sample(vectors, min(_HELD_OUT, max(count, n_tokens // 20)), rng)
    cutoffs, weights = _buckets(held_out, stored, bits)
    return ResidualCodec(stored, cutoffs, weights)


def check_unit(values: NDArray[Any], tokens: NDArray[np.int64], indptr: NDArray[np.int64]) -> None:
    """Refuse vectors that are no numbers, or have a length of their own.

    Args:
        values: (N, D).
        tokens: (N,) which of all tokens they are.
        indptr: where the documents' tokens begin.

    Raises:
        FormatError: names the row and the token.
    """
    lengths = np.sqrt(np.einsum("nd,nd->n", values, values, dtype=np.float32))
    wrong = ~(np.abs(lengths - 1) <= _TOLERANCE)
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        row = int(np.searchsorted(indptr, tokens[at], side="right")) - 1
        raise FormatError(
            f"token vector {tokens[at] - indptr[row]} of row {row} has length {lengths[at]:.4g}; residual compression "
            "keeps directions alone, so every token vector must have length 1 (normalise them)"
        )


def _sample(vectors: MultiVector, size: int, rng: np.random.Generator) -> NDArray[Any]:
    """So many token vectors, one drawn from each of as many equal stretches; all where there are no more."""
    n_tokens = len(vectors.values)
    size = min(size, n_tokens)
    drawn = ((np.arange(size) + rng.random(size)) * (n_tokens / size)).astype(np.int64)
    tokens = np.arange(n_tokens) if size == n_tokens else np.minimum(drawn, n_tokens - 1)
    sample = np.asarray(vectors.values[tokens])
    release_pages(vectors.values)
    check_unit(sample, tokens, vectors.indptr)
    return sample


def _buckets(
    values: NDArray[Any], centroids: NDArray[np.float16], bits: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cutoffs and weights: quantiles of all components of the residuals, at the ends and middles of equal shares."""
    from indexing.residual.nearest import NearestCentroid

    wide = centroids.astype(np.float32)
    residuals = values.astype(np.float32) - wide[NearestCentroid.over(wide)(values)]
    shares = np.arange(2 ** (bits + 1) - 1) + 1  # halves of shares: ends are even, middles odd
    quantiles = np.quantile(residuals, shares / 2 ** (bits + 1)).astype(np.float32)
    return quantiles[1::2], quantiles[::2]
