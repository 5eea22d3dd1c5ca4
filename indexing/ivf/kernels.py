"""How many of the rows in the lists that queries probe are allowed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from indexing.compiled import INT, entry, filled, given


@entry(filled(np.int64, 2), given(np.int64), given(np.int32), given(np.uint8), filled(np.int64, 2))
def count_allowed(
    probed: NDArray[np.int64],
    starts: NDArray[np.int64],
    members: NDArray[np.int32],
    bits: NDArray[np.uint8],
    out: NDArray[np.int64],
) -> None:
    """Count rows.

    Args:
        probed: (Q, P) lists, -1 for none.
        starts: (L + 1,) where each list begins in ``members``.
        members: (N,) rows, list by list.
        bits: the allowed rows, as in ``retrieval.bitmap``.
        out: (Q, 2) all rows of the lists, and the allowed ones; written.
    """
    for query in range(len(probed)):
        seen, allowed = INT(0), INT(0)
        for place in range(probed.shape[1]):
            chosen = probed[query, place]
            if chosen < 0:
                continue
            for at in range(starts[chosen], starts[chosen + 1]):
                row = members[at]
                allowed += bits[row >> 3] >> (row & 7) & 1
            seen += starts[chosen + 1] - starts[chosen]
        out[query, 0], out[query, 1] = seen, allowed
