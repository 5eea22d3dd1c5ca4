"""Inner products of a fixed set of vectors, such as centroids, with the token vectors of one query after another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.compute import parallel
from retrieval.maxsim import nearest_bfloat16, paired

_GRAIN = 4096  # vectors worth a thread: about 0.1 ms


@dataclass(frozen=True, eq=False)
class VectorTable:
    """Vectors in the form that this CPU multiplies fastest.

    Where it multiplies pairs of bfloat16, vectors and tokens are rounded to that, and a product is off by at most
    2^-7 of the product of their lengths; elsewhere products are float32's.

    Attributes:
        vectors: (C, D) float32 or float16.
    """

    vectors: NDArray[Any]

    def products(self, lanes: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """All inner products.

        Args:
            lanes: the query's tokens as ``retrieval.maxsim.pack`` gives them, (G, D, LANES).
            out: (C, G * LANES), written.
        """
        from retrieval.kernels import frozen
        from retrieval.maxsim_kernels import ROUNDED, products, rounded_products

        kernel = rounded_products if ROUNDED else products
        table = frozen(self._pairs if ROUNDED else self.vectors)
        query = frozen(paired(nearest_bfloat16(lanes)) if ROUNDED else lanes)

        def share(part: slice) -> None:
            kernel(table[part], query, out[part])

        parallel(share, len(table), grain=_GRAIN)

    @cached_property
    def _pairs(self) -> NDArray[np.uint16]:
        """(C, D or D + 1) the bits of bfloat16, an odd D filled up with a zero."""
        n, dim = self.vectors.shape
        halves = np.zeros((n, dim + dim % 2), dtype=np.uint16)
        halves[:, :dim] = nearest_bfloat16(self.vectors.astype(np.float32)).view(np.uint32) >> 16
        return halves
