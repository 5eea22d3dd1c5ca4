"""Inner products of queries with tiles of vectors on a device: the best of each tile, or all of some tiles.

On a CUDA GPU Triton does it (``retrieval.dense_triton``), elsewhere plain torch, more slowly.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Self

import torch

from retrieval.device_vectors import TILE, DeviceVectors
from retrieval.errors import MissingExtraError

_PLAIN = 1 << 23  # numbers of tiles that plain torch multiplies at a time
_FEWEST, _MOST = 16, 128  # queries that a tile is multiplied with at a time


@dataclass(frozen=True, eq=False)
class Visits:
    """Which tiles Q queries look at: P pairs of a query and a list, grouped by list, in I items of work.

    An item is a tile and the queries of some neighbouring pairs. Items of one tile follow each other.

    Attributes:
        probes: (Q, n) the lists of each query.
        first_tile: (L + 1,) where the tiles of lists begin.
        ends: (Q, n) tiles of the lists up to each one of a query, itself included.
        width: the most tiles that a query looks at; tile t of a pair has column t + shift among its query's.
        query: (P,) the query of each pair.
        shift: (P,) see above.
        tile: (I,) the tile of each item.
        first: (I,) its first pair.
        last: (I,) the pair after its last.
        together: pairs of an item at most, a power of two.
    """

    probes: torch.Tensor
    first_tile: torch.Tensor
    ends: torch.Tensor
    width: int
    query: torch.Tensor
    shift: torch.Tensor
    tile: torch.Tensor
    first: torch.Tensor
    last: torch.Tensor
    together: int

    @classmethod
    def whole(cls, first_tile: torch.Tensor, n_tiles: int, n_queries: int) -> Self:
        """What ``of`` makes of one list that every query looks at, without waiting for the device.

        Args:
            first_tile: (2,) where the tiles of the list begin and end.
            n_tiles: how many there are.
            n_queries: queries, at least one.
        """
        together = _together(n_queries)
        groups = -(-n_queries // together)
        item = torch.arange(n_tiles * groups, device=first_tile.device)
        first = item % groups * together
        query = torch.arange(n_queries, device=first_tile.device)
        none = torch.zeros_like(query)
        ends = torch.full_like(query, n_tiles)
        return cls(
            none[:, None],
            first_tile,
            ends[:, None],
            n_tiles,
            query,
            none,
            torch.div(item, groups, rounding_mode="floor"),
            first,
            (first + together).clamp(max=n_queries),
            together,
        )

    @classmethod
    def of(cls, first_tile: torch.Tensor, probes: torch.Tensor) -> Self:
        """Group the lists that queries look at.

        Args:
            first_tile: (L + 1,) where the tiles of lists begin.
            probes: (Q, n) distinct lists of each query.
        """
        n_queries, n_probes = probes.shape
        tiles = first_tile.diff()
        ends = tiles[probes].cumsum(1)
        columns = ends - tiles[probes]
        lists, order = probes.flatten().sort(stable=True)
        pairs = torch.bincount(lists, minlength=len(tiles))
        usual = n_queries * n_probes // max(1, int((pairs > 0).sum()))
        together = _together(usual)
        groups = torch.div(pairs + together - 1, together, rounding_mode="floor")
        items = groups * tiles
        of_list = torch.repeat_interleave(items)
        within = torch.arange(len(of_list), device=probes.device) - (items.cumsum(0) - items)[of_list]
        tile = first_tile[of_list] + torch.div(within, groups[of_list], rounding_mode="floor")
        end = pairs.cumsum(0)
        first = (end - pairs)[of_list] + within % groups[of_list] * together
        return cls(
            probes,
            first_tile,
            ends,
            int(ends[:, -1].max()),
            torch.div(order, n_probes, rounding_mode="floor"),
            columns.flatten()[order] - first_tile[lists],
            tile,
            first,
            torch.minimum(first + together, end[of_list]),
            together,
        )

    def tiles(self, columns: torch.Tensor) -> torch.Tensor:
        """(Q, C) the tiles of some columns, -1 for -1."""
        real = columns.clamp(min=0).contiguous()
        slot = torch.searchsorted(self.ends, real, right=True).clamp(max=self.probes.shape[1] - 1)
        lists = self.probes.gather(1, slot)
        tile = self.first_tile[lists + 1] - (self.ends.gather(1, slot) - real)
        return tile.masked_fill(columns < 0, -1)


def _together(n_queries: int) -> int:
    """How many queries a tile is multiplied with at a time."""
    return min(_MOST, max(_FEWEST, 1 << (n_queries - 1).bit_length()))


# --- kernels ---------------------------------------------------------------------------------------


def tile_maxima(
    vectors: DeviceVectors, queries: torch.Tensor, visits: Visits, allowed: torch.Tensor | None
) -> torch.Tensor:
    """(Q, width) float32: the best inner product in each tile that a query looks at, -inf for columns without one.

    Args:
        vectors: N vectors.
        queries: (Q, D) in their dtype.
        visits: who looks at which tile.
        allowed: (N,) bool, which vectors count; None for all.

    Raises:
        MissingExtraError: Triton is needed and not installed.
    """
    out = torch.full((len(queries), visits.width), -torch.inf, device=vectors.device)
    if _by_triton(vectors):
        _triton().fused_maxima(vectors, queries, visits, allowed, out)
    else:
        plain_maxima(vectors, queries, visits, allowed, out)
    return out


def tile_scores(
    vectors: DeviceVectors, queries: torch.Tensor, tiles: torch.Tensor, allowed: torch.Tensor | None
) -> torch.Tensor:
    """(Q, C * TILE) float32: the inner products of each query with the rows of some tiles, -inf for what is no row.

    Args:
        vectors: N vectors.
        queries: (Q, D) float32.
        tiles: (Q, C), -1 for padding.
        allowed: (N,) bool, which vectors count; None for all.

    Raises:
        MissingExtraError: Triton is needed and not installed.
    """
    out = torch.full((len(queries), tiles.shape[1] * TILE), -torch.inf, device=vectors.device)
    if _by_triton(vectors):
        _triton().fused_scores(vectors, queries, tiles, allowed, out)
    else:
        plain_scores(vectors, queries, tiles, allowed, out)
    return out


def _by_triton(vectors: DeviceVectors) -> bool:
    """On a GPU, or where Triton's interpreter is asked for."""
    return vectors.device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"


def _triton() -> Any:
    try:
        from retrieval import dense_triton
    except ImportError as error:
        raise MissingExtraError("triton", "gpu") from error
    return dense_triton


def _places(
    vectors: DeviceVectors, tiles: torch.Tensor, allowed: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, TILE) where the rows of tiles lie, and which of them there are and count."""
    places = vectors.bounds[tiles][:, None] + torch.arange(TILE, device=tiles.device)
    inside = places < vectors.bounds[tiles + 1][:, None]
    places = places.clamp_(max=len(vectors) - 1)
    return places, inside if allowed is None else inside & allowed[places]


def plain_maxima(
    vectors: DeviceVectors,
    queries: torch.Tensor,
    visits: Visits,
    allowed: torch.Tensor | None,
    out: torch.Tensor,
) -> None:
    """``tile_maxima`` by torch alone; in float64, since float32 may be multiplied in less than that."""
    step = max(1, _PLAIN // (TILE * vectors.dim))
    lanes = torch.arange(visits.together, device=vectors.device)
    for start in range(0, len(visits.tile), step):
        part = slice(start, start + step)
        tile = visits.tile[part]
        places, inside = _places(vectors, tile, allowed)
        pairs = visits.first[part, None] + lanes
        real = pairs < visits.last[part, None]
        pairs = pairs.clamp_(max=len(visits.query) - 1)
        query = visits.query[pairs]
        products = queries[query].double() @ vectors.values[places].double().transpose(1, 2)
        best = products.float().masked_fill_(~inside[:, None, :], -torch.inf).amax(2)
        columns = visits.shift[pairs] + tile[:, None]
        out[query[real], columns[real]] = best[real]


def plain_scores(
    vectors: DeviceVectors,
    queries: torch.Tensor,
    tiles: torch.Tensor,
    allowed: torch.Tensor | None,
    out: torch.Tensor,
) -> None:
    """``tile_scores`` by torch alone."""
    query, slot = (tiles >= 0).nonzero(as_tuple=True)
    step = max(1, _PLAIN // (TILE * vectors.dim))
    scores = out.view(*tiles.shape, TILE)
    for start in range(0, len(query), step):
        line, column = query[start : start + step], slot[start : start + step]
        places, inside = _places(vectors, tiles[line, column], allowed)
        products = vectors.values[places].float() * queries[line][:, None, :]
        scores[line, column] = products.sum(2).masked_fill_(~inside, -torch.inf)
