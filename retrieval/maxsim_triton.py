"""MaxSim as one Triton kernel; nothing between token vectors and scores leaves the registers.

A program scores a few documents for a few pieces of queries. It walks over a document's tokens tile by tile, from
vectors or from residual codes that it decompresses on the way, multiplies each tile with its query tokens and keeps
their maxima. Documents are ragged: what a tile lacks is the document's last token again, which changes no maximum.
A query token that is all zeros adds nothing to a score, so pieces are padded with zeros.

Import this module inside functions: Triton may be missing. Where TRITON_INTERPRET=1 is set before, the kernel runs on a
CPU; bfloat16 it cannot multiply there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from triton import knobs

from retrieval.maxsim_gpu import PIECE

if TYPE_CHECKING:
    from retrieval.maxsim_gpu import DeviceDocuments

_TILE_ROWS = 128  # query tokens a program holds at most
_TILE_SIZE = 1 << 14  # numbers in a tile of query tokens at most, unless one piece has more

# Tokens in a tile, documents of a program, warps, tiles under way. Long tiles suit several pieces, many warps on few
# tiles suit one; wide vectors leave room for the smallest alone. Combinations that do not fit are passed over.
_SHAPES = ((32, 4, 4, 2), (64, 4, 4, 3), (64, 1, 4, 2), (64, 8, 8, 3), (128, 4, 8, 2), (16, 1, 4, 1))
_CONFIGS = [
    triton.Config({"TOKENS": tokens, "DOCUMENTS": documents}, num_warps=warps, num_stages=stages)
    for tokens, documents, warps, stages in _SHAPES
]


@triton.jit
def _stored(vectors: tl.tensor, tokens: tl.tensor, DIM: tl.constexpr, WIDTH: tl.constexpr) -> tl.tensor:
    """(TOKENS, WIDTH) vectors as they are, zero beyond DIM."""
    dims = tl.arange(0, WIDTH)
    return tl.load(vectors + tokens[:, None] * DIM + dims[None, :], mask=dims[None, :] < DIM, other=0.0)


@triton.jit
def _decompressed(
    centroids: tl.tensor,
    codes: tl.tensor,
    buckets: tl.tensor,
    weights: tl.tensor,
    tokens: tl.tensor,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    BITS: tl.constexpr,
) -> tl.tensor:
    """(TOKENS, WIDTH) float32 vectors of length 1: centroid plus the weight of each component's bucket."""
    each: tl.constexpr = 8 // BITS  # components of a byte, the first in the lowest bits
    n_bytes: tl.constexpr = (DIM + each - 1) // each
    byte = tl.arange(0, WIDTH // each)
    packed = tl.load(
        buckets + tokens[:, None] * n_bytes + byte[None, :], mask=byte[None, :] < n_bytes, other=0
    ).to(tl.int32)
    shifts = tl.arange(0, each) * BITS
    levels = (packed[:, :, None] >> shifts[None, None, :]) & ((1 << BITS) - 1)
    # The table is looked up in shared memory: loads of single weights would be brought there one by one.
    table = tl.load(weights + tl.arange(0, 1 << BITS))
    residual = tl.reshape(tl.gather(table, tl.ravel(levels), 0), (tokens.shape[0], WIDTH))
    code = tl.load(codes + tokens).to(tl.int64)
    vectors = _stored(centroids, code, DIM, WIDTH).to(tl.float32) + residual
    if WIDTH != DIM:
        vectors = tl.where(tl.arange(0, WIDTH)[None, :] < DIM, vectors, 0.0)
    squares = tl.sum(vectors * vectors, axis=1)
    return vectors / tl.sqrt(tl.maximum(squares, 1e-30))[:, None]


@triton.autotune(_CONFIGS[:1] if knobs.runtime.interpret else _CONFIGS, key=["DIM", "BITS", "PIECES"])
@triton.jit
def _maxima(
    queries: tl.tensor,
    indptr: tl.tensor,
    rows: tl.tensor,
    vectors: tl.tensor,
    codes: tl.tensor,
    buckets: tl.tensor,
    weights: tl.tensor,
    out: tl.tensor,
    n_pieces: tl.tensor,
    n_slots: tl.tensor,
    stride: tl.tensor,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    LENGTH: tl.constexpr,
    BITS: tl.constexpr,
    PIECES: tl.constexpr,
    TOKENS: tl.constexpr,
    DOCUMENTS: tl.constexpr,
) -> None:
    """out[piece, slot] for ``PIECES`` pieces and ``DOCUMENTS`` slots; neighbouring programs share documents."""
    groups = tl.cdiv(n_pieces, PIECES)
    first_piece = (tl.program_id(0) % groups) * PIECES
    first_slot = (tl.program_id(0) // groups) * DOCUMENTS
    lane, dims = first_piece * LENGTH + tl.arange(0, PIECES * LENGTH), tl.arange(0, WIDTH)
    asked = tl.load(
        queries + lane[:, None] * WIDTH + dims[None, :], mask=lane[:, None] < n_pieces * LENGTH, other=0.0
    )
    piece = first_piece + tl.arange(0, PIECES)
    for slot in range(first_slot, tl.minimum(first_slot + DOCUMENTS, n_slots)):
        row = tl.load(rows + first_piece.to(tl.int64) * stride + slot)
        start = tl.load(indptr + tl.maximum(row, 0))
        stop = tl.load(indptr + row + 1)  # where row is -1, the same place: nothing to read
        best = tl.full((PIECES * LENGTH,), float("-inf"), dtype=tl.float32)
        for at in range(start, stop, TOKENS):
            tokens = tl.minimum(at + tl.arange(0, TOKENS), stop - 1)
            if BITS == 0:
                tile = _stored(vectors, tokens, DIM, WIDTH)
            else:
                tile = _decompressed(vectors, codes, buckets, weights, tokens, DIM, WIDTH, BITS)
            # In float32, three products of tensor cores come as close as one that is not theirs and spill less; of
            # wide vectors their parts do not fit.
            exactly: tl.constexpr = "tf32x3" if WIDTH <= 256 else "ieee"
            products = tl.dot(asked, tl.trans(tile.to(asked.dtype)), input_precision=exactly)
            best = tl.maximum(best, tl.max(products, axis=1))
        scores = tl.sum(tl.reshape(best, (PIECES, LENGTH)), axis=1)
        scores = tl.where(start == stop, 0.0, scores)
        tl.store(out + piece.to(tl.int64) * n_slots + slot, scores, mask=piece < n_pieces)


def fused_maxima(documents: DeviceDocuments, pieces: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """See ``retrieval.maxsim_gpu.maxima``."""
    n_pieces, _, width = pieces.shape
    n_slots = rows.shape[1]
    out = torch.empty((n_pieces, n_slots), dtype=torch.float32, device=pieces.device)
    own = len(rows) > 1
    together = 1 if own else _pieces_of_program(n_pieces, width)

    def grid(shape: dict[str, int]) -> tuple[int]:
        return (triton.cdiv(n_slots, shape["DOCUMENTS"]) * triton.cdiv(n_pieces, together),)

    residuals = documents.residuals
    codes = (residuals.codes, residuals.buckets, residuals.weights) if residuals else (None, None, None)
    with torch.cuda.device_of(pieces):  # type: ignore[no-untyped-call]
        _maxima[grid](
            pieces,
            documents.indptr,
            rows,
            documents.vectors,
            *codes,
            out,
            n_pieces,
            n_slots,
            rows.stride(0) if own else 0,
            DIM=documents.dim,
            WIDTH=width,
            LENGTH=PIECE,
            BITS=residuals.bits if residuals else 0,
            PIECES=together,
            enable_fp_fusion=True,
        )
    return out


def _pieces_of_program(n_pieces: int, width: int) -> int:
    """A power of two: as many as there are, as far as their tile stays small."""
    most = min(_TILE_ROWS, max(PIECE, _TILE_SIZE // width)) // PIECE
    return min(most, triton.next_power_of_2(n_pieces))
