"""How much of the exact answer an index finds, and how sure a sample of queries makes us of it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
"""Of the one-sided bound: one promise in twenty may be made on queries that were kinder than usual."""


def recalls(found: NDArray[np.int64], truth: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of each query's exact answer that was found.

    Args:
        found: (Q, K) rows, -1 for padding.
        truth: (Q, k) rows of the exact answer, none of them padding.

    Returns:
        (Q,) shares between 0 and 1.
    """
    shares = (np.isin(exact, given).mean() for exact, given in zip(truth, found, strict=True))
    return np.fromiter(shares, dtype=np.float64, count=len(truth))


def lower_bound(shares: NDArray[np.float64], k: int, confidence: float = CONFIDENCE) -> float:
    """What the mean recall over all queries of this sort is at least, with the given confidence.

    The lower of two one-sided bounds: Student's on the mean over queries, which differ in how hard they are, corrected
    for the few hard ones that a sample may lack (Johnson, JASA 1978, with Hall's term for one side, Annals of
    Statistics 1983); and Clopper and Pearson's (Biometrika 1934) on Q k single hits, which still leaves room where
    nothing was missed.

    Args:
        shares: (Q,) recall of each query, Q at least 2.
        k: results of a query.
        confidence: between 0.5 and 1.
    """
    from scipy.special import betaincinv, stdtrit  # type: ignore[import-untyped]

    n, mean = len(shares), float(shares.mean())
    spread = float(shares.std(ddof=1)) / math.sqrt(n)
    quantile = float(stdtrit(n - 1, confidence))
    quantile += max(0.0, -_skewness(shares)) * (2 * quantile**2 + 1) / (6 * math.sqrt(n))
    student = mean - quantile * spread
    hits, trials = round(mean * n * k), n * k
    pearson = float(betaincinv(hits, trials - hits + 1, 1 - confidence)) if hits else 0.0
    return max(0.0, min(student, pearson))


def _skewness(values: NDArray[np.float64]) -> float:
    """The third standardised moment; 0 of equal values."""
    centred = values - values.mean()
    variance = float(np.mean(centred**2))
    return float(np.mean(centred**3)) / variance**1.5 if variance > 0 else 0.0
