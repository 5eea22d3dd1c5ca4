"""Which of many vectors may be nearest to a query, found on a device that holds them in half precision.

Vectors lie in tiles of neighbouring rows. One pass multiplies every query with every row it has to look at and keeps
nothing but the best estimate of each tile. The k-th best of those is a lower bound of the k-th best estimate, so a tile
that is further below it than twice the largest error holds none of the k best rows. The rows of the few tiles that
remain are estimated anew with the query as it is, and again everything within twice the largest error stays. What
remains is for the caller to score exactly: its k best are those of scoring every row, to the last bit.

All rows are one list that every query looks at, or they lie list by list and a query looks at some of them (inverted
lists). On a CUDA GPU two Triton kernels do the work, elsewhere plain torch does the same more slowly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from retrieval.dense_tiles import Visits, tile_maxima, tile_scores
from retrieval.device_vectors import TILE, DeviceVectors

_ESTIMATES = 1 << 27  # estimates on a device at a time


class Contenders(NamedTuple):
    """Rows that may be among the k best of Q queries.

    Attributes:
        rows: (Q, C) int64, -1 for padding.
        estimates: (Q, C) float32 in an unknown power of two a query, -inf for padding.
        slack: (Q,) float64, twice the largest error of an estimate.
        settled: (Q,) bool; False where too many rows score nearly the same and some are left out.
    """

    rows: torch.Tensor
    estimates: torch.Tensor
    slack: torch.Tensor
    settled: torch.Tensor

    def padded(self, width: int) -> Contenders:
        """The same with columns of padding at the end, ``width`` in all."""
        more = (0, width - self.rows.shape[1])
        rows, estimates = (
            torch.nn.functional.pad(columns, more, value=padding)
            for columns, padding in ((self.rows, -1), (self.estimates, -torch.inf))
        )
        return self._replace(rows=rows, estimates=estimates)


def near_rows(
    vectors: DeviceVectors,
    queries: NDArray[np.float32],
    k: int,
    *,
    probes: torch.Tensor | None = None,
    allowed: torch.Tensor | None = None,
) -> Contenders:
    """The rows that may be among the k best of each query, and few others.

    Args:
        vectors: N vectors, at least one.
        queries: (Q, D) float32, at least one; finite, and of such a length that products with the longest vector are
            normal numbers of float32.
        k: results wanted.
        probes: (Q, P) int64 on the device, the distinct lists that each query looks at; None for all of one list.
        allowed: (N,) bool on the device, which vectors count; None for all.

    Raises:
        torch.cuda.OutOfMemoryError: the estimates do not fit there.
        MissingExtraError: the vectors are on a GPU and Triton is not installed.
    """
    if probes is None:
        widest = len(vectors.bounds) - 1
    else:
        widest = int(vectors.first_tile.diff().max()) * probes.shape[1]
    block = max(1, _ESTIMATES // max(widest, TILE * _room(k)))
    parts = []
    for start in range(0, len(queries), block):
        asked = _Asked.of(queries[start : start + block], vectors)
        if probes is None:
            visits = Visits.whole(vectors.first_tile, widest, len(asked.exact))
        else:
            visits = Visits.of(vectors.first_tile, probes[start : start + block])
        parts.append(_near(vectors, asked, k, visits, allowed))
    if len(parts) == 1:
        return parts[0]
    width = max(part.rows.shape[1] for part in parts)
    return Contenders(
        *(torch.cat(columns) for columns in zip(*(p.padded(width) for p in parts), strict=True))
    )


def joined(parts: Sequence[Contenders], k: int) -> Contenders:
    """The contenders of the same queries among several sets of vectors that were scaled alike."""
    rows = torch.cat([part.rows for part in parts], dim=1)
    estimates = torch.cat([part.estimates for part in parts], dim=1)
    slack = torch.stack([part.slack for part in parts]).amax(0)
    columns, settled = _within(estimates, k, slack)
    settled &= torch.stack([part.settled for part in parts]).all(0)
    return Contenders(_picked(rows, columns, -1), _picked(estimates, columns, -torch.inf), slack, settled)


def nearest_lists(centroids: torch.Tensor, queries: NDArray[np.float32], nprobe: int) -> torch.Tensor:
    """(Q, P) int64 on the device: the lists whose centroids have the largest inner products with each query.

    Args:
        centroids: (L, C) float32 on the device.
        queries: (Q, C) float32 as the centroids see them, at least one.
        nprobe: lists wanted; at most all are given.
    """
    asked = torch.from_numpy(np.ascontiguousarray(queries)).to(centroids.device)
    wanted = min(nprobe, len(centroids))
    step = max(1, _ESTIMATES // len(centroids))
    parts = (asked[start : start + step] for start in range(0, len(asked), step))
    return torch.cat([(part @ centroids.T).topk(wanted, dim=1).indices for part in parts])


# --- queries and errors ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Asked:
    """Queries on a device, each scaled to a norm from 0.5 to 1, and how far estimates of them may be off.

    Attributes:
        exact: (Q, D) float32.
        rounded: (Q, D) in the dtype of the vectors.
        coarse_slack: (Q,) float64, twice the error of an estimate by the rounded query.
        fine_slack: (Q,) float64, twice the error of an estimate by the exact one.
    """

    exact: torch.Tensor
    rounded: torch.Tensor
    coarse_slack: torch.Tensor
    fine_slack: torch.Tensor

    @classmethod
    def of(cls, queries: NDArray[np.float32], vectors: DeviceVectors) -> Self:
        """Scale, round and bound.

        A vector d is kept as d' and a query q is rounded to q'; |<q,d> - <q',d'>| is at most
        |q - q'||d| + |q'||d - d'|. Products of half precision are exact in float32. A tensor core cuts off what it adds
        up instead of rounding it, so D additions are off by at most 2 D u |q'||d'| with u = 2^-23 (Fasi, Higham,
        Mikaitis & Pranesh, PeerJ Computer Science 7, 2021); of float32 it takes the upper 10 bits after the first. The
        second estimate rounds products and sums in float32: D 2^-24 |q||d'| in any order (Higham, Accuracy and
        Stability of Numerical Algorithms, 2002, section 3.1). The final score is rounded to float32. What is below the
        normal numbers may be taken for zero. Everything of second order is within the 8 that are added to D.
        """
        wide = queries.astype(np.float64)
        scaled = np.ldexp(wide, -np.frexp(np.linalg.norm(wide, axis=1))[1][:, None])
        exact = torch.from_numpy(scaled.astype(np.float32))
        rounded = exact.to(vectors.values.dtype)
        lost = np.linalg.norm(scaled - rounded.double().numpy(), axis=1)
        lengths = np.linalg.norm(scaled, axis=1) + lost
        terms, kept = vectors.dim + 8, vectors.norm + vectors.lost
        cut = 2.0**-9 + 2.0**-20 if vectors.values.dtype == torch.float32 else 0.0
        tiny = vectors.dim * 2.0**-126 * (kept + 2.0)
        coarse = (
            lost * vectors.norm + lengths * (vectors.lost + kept * (2.0**-23 * (2 * terms + 1) + cut)) + tiny
        )
        fine = lengths * (vectors.lost + kept * 2.0**-24 * (terms + 1)) + tiny
        there = vectors.device
        slacks = (torch.from_numpy(2.0 * error).to(there) for error in (coarse, fine))
        return cls(exact.to(there), rounded.to(there), *slacks)


def _room(k: int) -> int:
    """Contenders, tiles or rows, beyond which a query is left to exact scoring."""
    return 4 * k + 1024


def _within(estimates: torch.Tensor, k: int, slack: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The columns that are within the slack of the k-th best.

    Args:
        estimates: (Q, W) float32, -inf for what does not count.
        k: results wanted.
        slack: (Q,) float64.

    Returns:
        (Q, C) int64 columns, best first and -1 for padding, and (Q,) whether they are all there are.
    """
    width = estimates.shape[1]
    best = estimates.topk(min(width, 2 * k + 16), dim=1)
    floor = estimates.new_full((len(estimates),), -torch.inf)
    if k <= width:
        floor = torch.nextafter((best.values[:, k - 1].double() - slack).float(), floor)
    counts = ((estimates >= floor[:, None]) & (estimates > -torch.inf)).sum(1)
    settled = counts <= _room(k)
    kept = min(int(counts.max()), _room(k))
    if kept > best.values.shape[1]:
        best = estimates.topk(kept, dim=1)
    values, columns = best.values[:, :kept], best.indices[:, :kept]
    return columns.masked_fill((values < floor[:, None]) | (values == -torch.inf), -1), settled


def _picked(values: torch.Tensor, columns: torch.Tensor, padding: float) -> torch.Tensor:
    """(Q, C) the entries of values (Q, W) in some columns, -1 of which are padding."""
    return values.gather(1, columns.clamp(min=0)).masked_fill(columns < 0, padding)


def _near(
    vectors: DeviceVectors, asked: _Asked, k: int, visits: Visits, allowed: torch.Tensor | None
) -> Contenders:
    """``near_rows`` for queries whose estimates fit."""
    if visits.width == 0:  # the lists are empty
        none = visits.query.new_empty((len(asked.exact), 0))
        settled = torch.ones(len(none), dtype=torch.bool, device=none.device)
        return Contenders(none, none.float(), asked.fine_slack, settled)
    maxima = tile_maxima(vectors, asked.rounded, visits, allowed)
    columns, settled = _within(maxima, k, asked.coarse_slack)
    tiles = visits.tiles(columns)
    estimates = tile_scores(vectors, asked.exact, tiles, allowed)
    columns, enough = _within(estimates, k, asked.fine_slack)
    starts = vectors.bounds[tiles.clamp(min=0)]
    tile = torch.div(columns.clamp(min=0), TILE, rounding_mode="floor")
    places = starts.gather(1, tile) + columns.clamp(min=0) % TILE
    rows = places if vectors.rows is None else vectors.rows[places.clamp(max=len(vectors) - 1)]
    rows = rows.masked_fill(columns < 0, -1)
    return Contenders(rows, _picked(estimates, columns, -torch.inf), asked.fine_slack, settled & enough)
