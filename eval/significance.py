"""Whether a difference between two retrievers on the same queries may be chance."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import ConfigError

PERMUTATIONS = 10_000
_BLOCK_CELLS = 1 << 22  # signs held at a time, bounds memory at 32 MiB


def paired_randomisation(
    first: NDArray[np.float64], second: NDArray[np.float64], permutations: int = PERMUTATIONS, seed: int = 0
) -> NDArray[np.float64]:
    """Two-sided paired randomisation test of the mean (Fisher; Smucker et al., CIKM 2007).

    Under the null hypothesis the two systems are interchangeable on every query, so the sign of each
    difference is a coin toss. All assignments are counted when there are no more than ``permutations`` of
    them, otherwise that many are drawn and p is (count + 1) / (permutations + 1), which is never 0.

    Args:
        first: (Q, M) values of M metrics.
        second: (Q, M), the same queries and metrics.
        permutations: assignments drawn.
        seed: of the draw; equal inputs give equal p.

    Returns:
        (M,) p values; 1 where nothing differs.

    Raises:
        ValueError: the shapes differ.
    """
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(
            f"paired values must be two equal (Q, M) arrays, got {first.shape} and {second.shape}"
        )
    differences = np.asarray(second, dtype=np.float64) - first  # (Q, M)
    n_queries, n_metrics = differences.shape
    observed = np.abs(differences.sum(axis=0))
    # sums in another order differ in the last bits; equal assignments must count as equal
    threshold = observed - 1e-12 * np.abs(differences).sum(axis=0)
    exact = n_queries < 63 and 1 << n_queries <= permutations
    total = 1 << n_queries if exact else permutations
    rng = np.random.default_rng(seed)
    as_extreme = np.zeros(n_metrics, dtype=np.int64)
    block = max(1, _BLOCK_CELLS // max(1, n_queries))
    for start in range(0, total, block):
        size = min(block, total - start)
        if exact:
            heads = (np.arange(start, start + size)[:, None] >> np.arange(n_queries)) & 1
        else:
            heads = rng.integers(0, 2, (size, n_queries), dtype=np.int8)
        sums = np.abs((heads * 2.0 - 1.0) @ differences)  # (size, M)
        as_extreme += (sums >= threshold).sum(axis=0)
    return as_extreme / total if exact else (as_extreme + 1) / (total + 1)


def compare(
    baseline: Mapping[str, Mapping[str, float]], other: Mapping[str, Mapping[str, float]], seed: int = 0
) -> dict[str, float]:
    """The p value of each metric for two systems, from their per-query values.

    Raises:
        ConfigError: they were not measured on the same queries and metrics.
    """
    if baseline.keys() != other.keys():
        raise ConfigError("two runs can be compared only when both were measured on the same queries")
    if not baseline:
        return {}
    metrics = list(next(iter(baseline.values())))
    if any(list(values) != metrics for values in (*baseline.values(), *other.values())):
        raise ConfigError("two runs can be compared only when both were measured with the same metrics")
    first, second = (
        np.array([[system[query][metric] for metric in metrics] for query in baseline])
        for system in (baseline, other)
    )
    return dict(zip(metrics, paired_randomisation(first, second, seed=seed).tolist(), strict=True))
