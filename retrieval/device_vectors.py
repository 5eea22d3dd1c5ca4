"""Vectors in a device's memory, whole or list by list, in tiles of neighbouring rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from retrieval.bitmap import Bitmap
from retrieval.values.storage import release_pages

TILE = 128
"""Rows that share a best estimate."""

_COPIED = 1 << 24  # numbers that are brought to a device at a time
_EXPONENT = 14  # vectors of single precision are scaled to norms below 2^14, far inside float16's range
_LARGEST_EXPONENT = 100  # of a scale, which is a float32


@dataclass(frozen=True, eq=False)
class DeviceVectors:
    """N vectors in a device's memory, one list or several, cut into tiles that belong to one list each.

    Attributes:
        values: (N, D) float16, bfloat16 or float32, list after list, times ``scale``.
        scale: a power of two; 1 where the vectors are kept as they are stored.
        norm: at least the norm of each vector before it was rounded, times ``scale``.
        lost: at least the norm of what rounding took from any of them, times ``scale``.
        bounds: (T + 1,) int64, where tiles begin.
        first_tile: (L + 1,) int64, where the tiles of lists begin.
        rows: (N,) int64, the row each vector is; None where they lie in order.
    """

    values: torch.Tensor
    scale: float
    norm: float
    lost: float
    bounds: torch.Tensor
    first_tile: torch.Tensor
    rows: torch.Tensor | None = None

    @classmethod
    def of(
        cls,
        values: NDArray[Any],
        norm: float,
        device: str,
        *,
        dtype: torch.dtype = torch.float16,
        rows: NDArray[np.int64] | None = None,
        offsets: NDArray[np.int64] | None = None,
    ) -> Self:
        """Bring vectors to a device, block by block.

        Args:
            values: (N, D) float16 or float32, memory-mapped or not; finite.
            norm: at least the norm of each.
            device: a torch device.
            dtype: what to keep them as: float16 holds stored float16 without loss and float32 with 11 bits, which
                halves its bytes; bfloat16 and float32 are there for comparison.
            rows: (N,) the rows, list after list; None for all in order.
            offsets: (L + 1,) where the lists begin in ``rows``; None for one list.

        Raises:
            torch.cuda.OutOfMemoryError: they do not fit there.
        """
        n, dim = values.shape
        kept = torch.empty((n, dim), dtype=dtype, device=device)
        stored_half = values.dtype == np.float16
        scale = 1.0 if stored_half else 2.0 ** min(_EXPONENT - int(np.frexp(norm)[1]), _LARGEST_EXPONENT)
        exact = dtype == torch.float32 or (stored_half and dtype == torch.float16)
        lost, step = 0.0, max(1, _COPIED // max(1, dim))
        for start in range(0, n, step):
            chosen = slice(start, start + step) if rows is None else rows[start : start + step]
            part = torch.from_numpy(np.array(values[chosen])).to(device)
            scaled = part if scale == 1.0 else part * scale
            kept[start : start + step] = scaled
            if not exact:
                gone = torch.linalg.vector_norm(scaled.double() - kept[start : start + step].double(), dim=1)
                lost = max(lost, float(gone.max()))
            release_pages(values)
        bounds, first_tile = tiles_of(np.array([0, n]) if offsets is None else offsets)
        places = None if rows is None else torch.from_numpy(np.ascontiguousarray(rows)).to(device)
        starts, firsts = torch.from_numpy(bounds).to(device), torch.from_numpy(first_tile).to(device)
        return cls(kept, scale, norm * scale, lost * (1 + 2.0**-20), starts, firsts, places)

    @staticmethod
    def bytes_needed(n: int, dim: int, dtype: torch.dtype = torch.float16) -> int:
        """What the vectors themselves take on a device, in bytes."""
        return n * dim * dtype.itemsize

    def __len__(self) -> int:
        return len(self.values)

    @property
    def dim(self) -> int:
        """The width D."""
        return int(self.values.shape[1])

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.values.device

    def mask(self, allowed: Bitmap) -> torch.Tensor:
        """(N,) bool on the device: which vectors are of allowed rows."""
        bits = torch.from_numpy(np.array(allowed.bits)).to(self.device)
        shifts = torch.arange(8, dtype=torch.uint8, device=self.device)
        mask = ((bits[:, None] >> shifts) & 1).flatten()[: allowed.n].bool()
        return mask if self.rows is None else mask[self.rows]


def tiles_of(offsets: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut lists into tiles.

    Returns:
        (T + 1,) where tiles begin, none longer than ``TILE`` nor in two lists; (L + 1,) where the tiles of lists begin.
    """
    counts = -(-np.diff(offsets) // TILE)
    first_tile = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    within = np.arange(first_tile[-1]) - np.repeat(first_tile[:-1], counts)
    bounds = np.append(np.repeat(offsets[:-1], counts) + TILE * within, offsets[-1])
    return bounds.astype(np.int64), first_tile
