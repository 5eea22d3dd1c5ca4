"""Several teachers as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_LEAST_RANGE = 1e-6


def blend(
    scores: NDArray[np.float32], lengths: NDArray[np.int64], weights: Sequence[float]
) -> NDArray[np.float32]:
    """The weighted mean of teachers' scores, each stretched to 0 .. 1 within a list.

    Geng et al., "Towards competitive search relevance for inference-free learned sparse retrievers", 2024,
    arXiv:2411.04403: (s - min) / (max - min + 1e-6) for each teacher and query, then the mean, so that dense and sparse
    teachers count alike. They scale the result by 30 for a softmax; here that is the loss's temperature.

    Args:
        scores: (T, P), T teachers' of the documents of all lists, one list after the other.
        lengths: (Q,) of the lists, each at least 1, P in all.
        weights: T, above 0.

    Returns:
        (P,) float32.
    """
    starts = np.cumsum(lengths) - lengths
    low = np.minimum.reduceat(scores, starts, axis=1)
    high = np.maximum.reduceat(scores, starts, axis=1)
    stretch = 1.0 / (high.astype(np.float64) - low + _LEAST_RANGE)
    stretched = (scores - np.repeat(low, lengths, axis=1)) * np.repeat(stretch, lengths, axis=1)
    return np.average(stretched, axis=0, weights=weights).astype(np.float32)
