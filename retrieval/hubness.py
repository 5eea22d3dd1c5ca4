"""Hubs: rows that are among the nearest of far more queries than others, as happens in many dimensions.

Radovanovic, Nanopoulos & Ivanovic, "Hubs in Space: Popular Nearest Neighbors in High-Dimensional Data", JMLR 11, 2010.
``retrieval.query_bank`` corrects for them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Hubness:
    """How unevenly the hits of many queries fall on rows.

    N_k of a row is the number of queries that have it among their k hits.

    Attributes:
        k: hits a query.
        skewness: third standardised moment of N_k; 0 where hits fall evenly, above 1 is much.
        hubs: share of rows whose N_k lies more than two standard deviations above the mean.
        hub_hits: share of all hits that hubs take.
        anti_hubs: share of rows that no query has among its hits.
        robin_hood: share of hits that would have to move for all rows to have equally many (Feldbauer, Rattei &
            Flexer, "scikit-hubness", JOSS 2020); from 0 to 1.
    """

    k: int
    skewness: float
    hubs: float
    hub_hits: float
    anti_hubs: float
    robin_hood: float


def occurrences(rows: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """How often each of n rows is among the hits.

    Args:
        rows: (Q, k) hits of Q queries; -1 pads.
        n: how many rows there are.

    Returns:
        (n,) counts, N_k.
    """
    return np.bincount(rows[rows >= 0], minlength=n)


def hubness(counts: NDArray[np.int64], k: int) -> Hubness:
    """Judge k-occurrences.

    Args:
        counts: (N,) how often each row is among the hits (``occurrences``), of rows that can be found.
        k: hits a query.

    Returns:
        All zeros where there are no rows or no hits.
    """
    total = int(counts.sum())
    if not total:
        return Hubness(k, 0.0, 0.0, 0.0, 0.0, 0.0)
    away = counts - counts.mean()
    deviation = float(np.sqrt(np.mean(away**2)))
    hubs = away > 2 * deviation
    return Hubness(
        k,
        float(np.mean(away**3)) / deviation**3 if deviation else 0.0,
        float(hubs.mean()),
        float(counts[hubs].sum() / total),
        float(np.mean(counts == 0)),
        float(np.abs(away).sum() / (2 * total)),
    )
