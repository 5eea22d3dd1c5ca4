"""Inner products with tiles of vectors as Triton kernels; see ``retrieval.dense_tiles``.

``_maxima`` is a matrix product of which only the maximum of each tile leaves the chip: for Q queries it writes Q / 32
bytes a row, where a product that is written and read again moves 8 Q. ``_scores`` adds up the rows of the few tiles
that remain, in float32 and without tensor cores.

Import this module inside functions: Triton may be missing. Where TRITON_INTERPRET=1 is set before, the kernels run on a
CPU; bfloat16 they cannot multiply there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from triton import knobs

from retrieval.device_vectors import TILE

if TYPE_CHECKING:
    from retrieval.dense_tiles import Visits
    from retrieval.device_vectors import DeviceVectors

# Dimensions of a step, warps, steps under way. Combinations that do not fit are passed over.
_SHAPES = ((64, 4, 3), (64, 4, 4), (64, 8, 3), (64, 8, 4), (128, 4, 2), (128, 8, 2), (32, 4, 4))
_CONFIGS = [
    triton.Config({"STEP": step}, num_warps=warps, num_stages=stages) for step, warps, stages in _SHAPES
]
_STEP = 64  # dimensions of a step where nothing is tuned


@triton.autotune(_CONFIGS[:1] if knobs.runtime.interpret else _CONFIGS, key=["DIM", "QUERIES", "ELEMENT"])
@triton.jit
def _maxima(
    queries: tl.tensor,
    values: tl.tensor,
    allowed: tl.tensor,
    bounds: tl.tensor,
    item_tile: tl.tensor,
    item_first: tl.tensor,
    item_last: tl.tensor,
    pair_query: tl.tensor,
    pair_shift: tl.tensor,
    out: tl.tensor,
    width: tl.tensor,
    DIM: tl.constexpr,
    ELEMENT: tl.constexpr,
    FILTERED: tl.constexpr,
    QUERIES: tl.constexpr,
    ROWS: tl.constexpr,
    STEP: tl.constexpr,
) -> None:
    """The best of one tile for the queries of one item."""
    item = tl.program_id(0)
    tile = tl.load(item_tile + item)
    start = tl.load(bounds + tile)
    lane = tl.arange(0, ROWS)
    inside = lane < tl.load(bounds + tile + 1) - start
    pair = tl.load(item_first + item) + tl.arange(0, QUERIES)
    real = pair < tl.load(item_last + item)
    query = tl.load(pair_query + pair, mask=real, other=0)
    products = tl.zeros((QUERIES, ROWS), dtype=tl.float32)
    for at in range(0, DIM, STEP):
        dims = at + tl.arange(0, STEP)
        exists = (dims < DIM)[None, :]
        asked = tl.load(
            queries + query[:, None] * DIM + dims[None, :], mask=real[:, None] & exists, other=0.0
        )
        rows = tl.load(
            values + start * DIM + (lane[:, None] * DIM + dims[None, :]),
            mask=inside[:, None] & exists,
            other=0.0,
        )
        products = tl.dot(asked, tl.trans(rows), products, input_precision="tf32")
    if FILTERED:
        inside = inside & (tl.load(allowed + start + lane, mask=inside, other=0) != 0)
    best = tl.max(tl.where(inside[None, :], products, float("-inf")), axis=1)
    column = tl.load(pair_shift + pair, mask=real, other=0) + tile
    tl.store(out + query * width + column, best, mask=real)


@triton.jit
def _scores(
    queries: tl.tensor,
    values: tl.tensor,
    allowed: tl.tensor,
    bounds: tl.tensor,
    tiles: tl.tensor,
    out: tl.tensor,
    slots: tl.tensor,
    DIM: tl.constexpr,
    FILTERED: tl.constexpr,
    ROWS: tl.constexpr,
    STEP: tl.constexpr,
) -> None:
    """One query with the rows of one tile."""
    at_slot = tl.program_id(0).to(tl.int64)
    tile = tl.load(tiles + at_slot)
    if tile >= 0:
        query = at_slot // slots
        start = tl.load(bounds + tile)
        lane = tl.arange(0, ROWS)
        inside = lane < tl.load(bounds + tile + 1) - start
        totals = tl.zeros((ROWS,), dtype=tl.float32)
        for at in range(0, DIM, STEP):
            dims = at + tl.arange(0, STEP)
            asked = tl.load(queries + query * DIM + dims, mask=dims < DIM, other=0.0)
            rows = tl.load(
                values + start * DIM + (lane[:, None] * DIM + dims[None, :]),
                mask=inside[:, None] & (dims < DIM)[None, :],
                other=0.0,
            )
            totals += tl.sum(rows.to(tl.float32) * asked[None, :], axis=1)
        if FILTERED:
            inside = inside & (tl.load(allowed + start + lane, mask=inside, other=0) != 0)
        tl.store(out + at_slot * ROWS + lane, totals, mask=inside)


def fused_maxima(
    vectors: DeviceVectors,
    queries: torch.Tensor,
    visits: Visits,
    allowed: torch.Tensor | None,
    out: torch.Tensor,
) -> None:
    """See ``retrieval.dense_tiles.tile_maxima``; out is -inf before."""
    with torch.cuda.device_of(out):  # type: ignore[no-untyped-call]
        _maxima[(len(visits.tile),)](
            queries,
            vectors.values,
            None if allowed is None else allowed.view(torch.uint8),
            vectors.bounds,
            visits.tile,
            visits.first,
            visits.last,
            visits.query,
            visits.shift,
            out,
            out.shape[1],
            DIM=vectors.dim,
            ELEMENT=vectors.values.element_size(),
            FILTERED=allowed is not None,
            QUERIES=visits.together,
            ROWS=TILE,
            enable_fp_fusion=True,
        )


def fused_scores(
    vectors: DeviceVectors,
    queries: torch.Tensor,
    tiles: torch.Tensor,
    allowed: torch.Tensor | None,
    out: torch.Tensor,
) -> None:
    """See ``retrieval.dense_tiles.tile_scores``; out is -inf before."""
    if not tiles.numel():
        return
    with torch.cuda.device_of(out):  # type: ignore[no-untyped-call]
        _scores[(tiles.numel(),)](
            queries,
            vectors.values,
            None if allowed is None else allowed.view(torch.uint8),
            vectors.bounds,
            tiles.contiguous(),
            out,
            tiles.shape[1],
            DIM=vectors.dim,
            FILTERED=allowed is not None,
            ROWS=TILE,
            STEP=_STEP,
            enable_fp_fusion=True,
        )
