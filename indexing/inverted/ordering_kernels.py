"""The compiled loops of document ordering: short profiles, nearest centres, new centres."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from indexing.compiled import INT, entry, filled, given

_PROFILES = (filled(np.int32, 2), filled(np.float32, 2))


@entry(
    *(given(np.int64), given(np.int32), given(np.float32), given(np.float32), given(np.int64)),
    *_PROFILES,
)
def make_profiles(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    values: NDArray[np.float32],
    rarity: NDArray[np.float32],
    rows: NDArray[np.int64],
    terms: NDArray[np.int32],
    weights: NDArray[np.float32],
) -> None:
    """The heaviest terms of each row, weighted by rarity, at unit length.

    Args:
        rarity: (V,) factor of each term.
        rows: which.
        terms, weights: (len(rows), T); unused places get the term -1.
    """
    most = terms.shape[1]
    for i in range(len(rows)):
        mine, heavy = terms[i], weights[i]
        mine[:] = -1
        heavy[:] = 0
        size = 0
        for position in range(indptr[rows[i]], indptr[rows[i] + 1]):
            term = indices[position]
            weight = values[position] * rarity[term]
            if size == most and weight <= heavy[most - 1]:
                continue
            at = min(size, most - 1)
            while at > 0 and heavy[at - 1] < weight:
                heavy[at], mine[at] = heavy[at - 1], mine[at - 1]
                at -= 1
            heavy[at], mine[at] = weight, term
            size = min(size + 1, most)
        length = np.float32(0)
        for t in range(size):
            length += heavy[t] * heavy[t]
        if length > 0:
            for t in range(size):
                heavy[t] /= np.float32(np.sqrt(length))


@entry(*_PROFILES, given(np.int64), given(np.int32), given(np.float32), INT, filled(np.int32))
def nearest_centres(
    terms: NDArray[np.int32],
    weights: NDArray[np.float32],
    centre_indptr: NDArray[np.int64],
    centre_of: NDArray[np.int32],
    centre_weights: NDArray[np.float32],
    n_centres: int,
    nearest: NDArray[np.int32],
) -> None:
    """The centre with the largest inner product for each profile, the first of equal ones.

    Args:
        centre_indptr, centre_of, centre_weights: the centres by term.
    """
    scores = np.zeros(n_centres, dtype=np.float32)
    for i in range(len(terms)):
        scores[:] = 0
        for t in range(terms.shape[1]):
            term = terms[i, t]
            if term < 0:
                break
            weight = weights[i, t]
            for position in range(centre_indptr[term], centre_indptr[term + 1]):
                scores[centre_of[position]] += weight * centre_weights[position]
        nearest[i] = np.argmax(scores)


@entry(*_PROFILES, given(np.int64), given(np.int64), INT, *_PROFILES)
def mean_profiles(
    terms: NDArray[np.int32],
    weights: NDArray[np.float32],
    members: NDArray[np.int64],
    bounds: NDArray[np.int64],
    vocabulary: int,
    centre_terms: NDArray[np.int32],
    centre_weights: NDArray[np.float32],
) -> None:
    """Each centre as the mean of its members, cut to its heaviest terms, at unit length; one without stays as it is.

    Args:
        members: profiles ordered by centre; bounds: (C + 1,) where those of each centre start.
    """
    most = centre_terms.shape[1]
    totals = np.zeros(vocabulary, dtype=np.float32)
    seen = np.empty(vocabulary, dtype=np.int32)
    for centre in range(len(bounds) - 1):
        if bounds[centre] == bounds[centre + 1]:
            continue
        n = 0
        for position in range(bounds[centre], bounds[centre + 1]):
            member = members[position]
            for t in range(terms.shape[1]):
                term = terms[member, t]
                if term < 0:
                    break
                if totals[term] == 0:
                    seen[n] = term
                    n += 1
                totals[term] += weights[member, t]
        mine, heavy = centre_terms[centre], centre_weights[centre]
        mine[:] = -1
        heavy[:] = 0
        kept = np.argsort(-totals[seen[:n]])[:most]
        length = np.float32(0)
        for at in range(len(kept)):
            mine[at] = seen[kept[at]]
            heavy[at] = totals[mine[at]]
            length += heavy[at] * heavy[at]
        for at in range(len(kept)):
            heavy[at] /= np.float32(np.sqrt(length))
        for position in range(n):
            totals[seen[position]] = 0
