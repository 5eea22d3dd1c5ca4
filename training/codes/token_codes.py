"""Codes of tokens: a projection and centroids in what it leaves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from indexing.progress import Progress
from indexing.residual.clustering import spherical_kmeans
from retrieval.encoders.token_projection import TokenProjection
from retrieval.errors import ConfigError

_TOGETHER = 1 << 16  # vectors in float32 at a time


def fit_projection(tokens: NDArray[np.float16], dim: int) -> TokenProjection:
    """The whitened principal directions of unit token vectors (n, H)."""
    parts = range(0, len(tokens), _TOGETHER)
    chunks = (tokens[start : start + _TOGETHER].astype(np.float32) for start in parts)
    return TokenProjection.fit(chunks, tokens.shape[1], dim, whiten=True)


def fit_codes(
    tokens: NDArray[np.float16],
    projection: TokenProjection,
    count: int,
    iterations: int,
    rng: np.random.Generator,
    progress: Progress,
) -> NDArray[np.float32]:
    """(count, dim) unit vectors, the centroids of the projected token vectors.

    Raises:
        ConfigError: there are fewer token vectors than codes.
    """
    if len(tokens) < count:
        raise ConfigError(
            f"{count} codes are to be made of {len(tokens)} sampled tokens; lower model.options.codes, or raise "
            "model.options.tokens or the number of documents"
        )
    parts = range(0, len(tokens), _TOGETHER)
    projected = [projection(tokens[start : start + _TOGETHER].astype(np.float32)) for start in parts]
    progress.start("token codes", iterations, "rounds")
    return spherical_kmeans(
        np.concatenate(projected), count, iterations=iterations, rng=rng, progress=progress.advance
    )
