"""Inner products of many vectors with the few of a query, compiled; what MaxSim and its approximations are made of.

The work is done in tiles of ``TOKENS`` stored vectors by ``LANES`` query vectors whose sums stay in registers. numba
has no vector registers to offer, so the innermost loop is written as LLVM's own code, which suits every CPU. In
float32 each lane adds up its products with fused multiply-adds from the first dimension to the last, so that a
product depends on its two vectors alone: not on tile, batch, thread or CPU. Where the CPU multiplies pairs of
bfloat16 there is a second tile, twice as fast, for estimates.

Query vectors come packed, ``LANES`` side by side, unused lanes zero (see ``retrieval.maxsim``). Import this module
inside functions, and pass arrays through ``retrieval.kernels.frozen``. Keep callers of the tiles in this file: numba's
cache on disk notices a change in the file of the caller only. (``widened`` reads float16, which will not change.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from retrieval.compute import kernel_cache

kernel_cache()

import llvmlite.binding as llvm  # type: ignore[import-untyped]  # noqa: E402
from llvmlite import ir  # noqa: E402
from numba import njit, types  # noqa: E402
from numba.core import cgutils  # noqa: E402
from numba.extending import intrinsic  # noqa: E402

from retrieval.intrinsics import FEATURES, widened  # noqa: E402

LANES = 16
"""Query vectors side by side: one register of 512 bits, or as many smaller ones as it takes."""

_WIDE = "avx512f" in FEATURES

TOKENS, _FUSED = (8, 2) if _WIDE else (4, 1)
"""Stored vectors of a tile, and groups of lanes that share each of them: as many sums as there are registers."""

ROUNDED = _WIDE and "avx512bf16" in FEATURES
"""Whether ``estimated_maxima`` can be called: the CPU multiplies pairs of bfloat16 and adds them up in float32."""

if ROUNDED:
    llvm.initialize_native_asmparser()  # LLVM's name for the instruction has changed types, the instruction has not

_INT32, _INT64, _FLOAT = ir.IntType(32), ir.IntType(64), ir.FloatType()
_FLOATS, _PAIRS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT32, LANES)


# --- tiles -----------------------------------------------------------------------------------------


def _data(context: Any, builder: Any, kind: Any, array: Any, element: Any) -> Any:
    """A pointer to an array's data, as elements of a type."""
    return builder.bitcast(context.make_array(kind)(context, builder, array).data, element.as_pointer())


def _multiply_add(builder: Any, query: Any, token: Any, total: Any, pairs: bool) -> Any:
    """``total`` plus the products of the lanes."""
    if pairs:
        signature = ir.FunctionType(_FLOATS, [_FLOATS, _PAIRS, _PAIRS])
        return builder.asm(signature, "vdpbf16ps $3, $2, $0", "=v,0,v,v", [total, query, token], False)
    signature = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
    fma = cgutils.get_or_insert_function(builder.module, signature, f"llvm.fma.v{LANES}f32")
    return builder.call(fma, [query, token, total])


def _products(
    builder: Any, tokens: Any, queries: Any, steps: Any, groups: int, pairs: bool
) -> list[list[Any]]:
    """The sums of a tile, by group and token: the loop over the dimensions, everything else unrolled."""
    whole = _PAIRS if pairs else _FLOATS
    zeros = ir.Constant(_FLOATS, [0.0] * LANES)
    sums = [[cgutils.alloca_once_value(builder, zeros) for _ in range(TOKENS)] for _ in range(groups)]
    nothing = ir.Constant(whole, ir.Undefined)
    everywhere = ir.Constant(ir.VectorType(_INT32, LANES), [0] * LANES)

    def place(number: int, step: Any) -> Any:
        return builder.add(builder.mul(steps, ir.Constant(_INT64, number)), step)

    with cgutils.for_range(builder, steps) as loop:
        step = loop.index
        lanes = [builder.load(builder.gep(queries, [place(group, step)]), align=4) for group in range(groups)]
        for token in range(TOKENS):
            single = builder.load(builder.gep(tokens, [place(token, step)]), align=4)
            single = builder.insert_element(nothing, single, ir.Constant(_INT32, 0))
            spread = builder.shuffle_vector(single, nothing, everywhere)
            for group in range(groups):
                total = builder.load(sums[group][token])
                total = _multiply_add(builder, lanes[group], spread, total, pairs)
                builder.store(total, sums[group][token])
    return [[builder.load(one) for one in group] for group in sums]


def _largest(builder: Any, values: list[Any]) -> Any:
    while len(values) > 1:
        left, right = values[0], values[1]
        values = [*values[2:], builder.select(builder.fcmp_ordered(">", left, right), left, right)]
    return values[0]


def _tile(groups: int, *, pairs: bool, keep_all: bool) -> Any:
    """A function of numba's for one tile.

    It takes tokens (``TOKENS``, steps), queries (at least ``groups``, steps, ``LANES``), a target and the number of
    steps. A step is a dimension, or with ``pairs`` two of them, as bfloat16 in one int32. The target (groups,
    ``LANES``) is raised to the largest product of each lane; with ``keep_all`` it is (``TOKENS``, ``LANES``) and set
    to the products, for one group.
    """

    @intrinsic
    def tile(_: Any, tokens: Any, queries: Any, target: Any, steps: Any) -> tuple[Any, Callable[..., Any]]:
        def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            kinds = signature.args
            token_data = _data(context, builder, kinds[0], given[0], _INT32 if pairs else _FLOAT)
            query_data = _data(context, builder, kinds[1], given[1], _PAIRS if pairs else _FLOATS)
            out = _data(context, builder, kinds[2], given[2], _FLOATS)
            products = _products(builder, token_data, query_data, given[3], groups, pairs)
            if keep_all:
                for token, product in enumerate(products[0]):
                    builder.store(product, builder.gep(out, [ir.Constant(_INT64, token)]), align=4)
            else:
                for group, values in enumerate(products):
                    place = builder.gep(out, [ir.Constant(_INT64, group)])
                    builder.store(_largest(builder, [*values, builder.load(place, align=4)]), place, align=4)
            return context.get_dummy_value()

        return types.none(tokens, queries, target, steps), generate

    return tile


_largest_of_one = _tile(1, pairs=False, keep_all=False)
_largest_of_several = _tile(_FUSED, pairs=False, keep_all=False)
_estimate_of_one = _tile(1, pairs=ROUNDED, keep_all=False)
_estimate_of_several = _tile(_FUSED, pairs=ROUNDED, keep_all=False)
_all_of_one = _tile(1, pairs=False, keep_all=True)
_all_estimates_of_one = _tile(1, pairs=ROUNDED, keep_all=True)


# --- stored vectors into tiles ---------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _fill(values: Any, start: int, stop: int, tile: Any) -> None:
    """The vectors from ``start`` as float32; those past ``stop`` repeat the last, which changes no maximum."""
    for i in range(len(tile)):
        vector, line = values[min(start + i, stop - 1)], tile[i]
        for d in range(len(vector)):
            line[d] = widened(vector[d])


@njit(cache=True, nogil=True)
def round_pairs(vector: Any, line: Any) -> None:
    """A vector to the nearest bfloat16, ties to even, two dimensions after the other; ``line`` has an even length.

    Args:
        vector: (D,) float32, or the uint16 bits of float16; finite.
        line: at least (D,) uint16, written; what is beyond D keeps its value.
    """
    for d in range(len(vector)):
        bits = np.float32(widened(vector[d])).view(np.uint32)
        line[d] = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)


@njit(cache=True, nogil=True)
def _fill_rounded(values: Any, start: int, stop: int, tile: Any) -> None:
    for i in range(len(tile)):
        round_pairs(values[min(start + i, stop - 1)], tile[i])


@njit(cache=True, nogil=True)
def _sum_of_lanes(best: Any, n_tokens: int) -> float:
    """The maxima of the lanes in use, added up in their order."""
    total = 0.0
    for lane in range(n_tokens):
        total += np.float64(best[lane // LANES, lane % LANES])
    return total


# --- MaxSim ----------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _raise_to_products(tile: Any, queries: Any, best: Any) -> None:
    """Raise the maxima of all lanes to their products with a tile of float32, the first ``TOKENS`` lines given."""
    dim, n_groups = np.int64(tile.shape[1]), len(queries)
    paired = n_groups - n_groups % _FUSED
    for group in range(0, paired, _FUSED):
        _largest_of_several(tile, queries[group:], best[group:], dim)
    for group in range(paired, n_groups):
        _largest_of_one(tile, queries[group:], best[group:], dim)


@njit(cache=True, nogil=True)
def maxima(indptr: Any, values: Any, rows: Any, queries: Any, n_tokens: int, out: Any) -> None:
    """MaxSim of one query with chosen rows, by the kernel that decides.

    Args:
        indptr: (N + 1,) int64 into values.
        values: (tokens, D) float32, or the uint16 bits of float16.
        rows: (C,) int64.
        queries: (G, D, LANES) float32.
        n_tokens: tokens of the query.
        out: (C,) float32, written; a row without tokens scores 0.
    """
    tile = np.empty((TOKENS, values.shape[1]), dtype=np.float32)
    best = np.empty((len(queries), LANES), dtype=np.float32)
    for i in range(len(rows)):
        start, stop = indptr[rows[i]], indptr[rows[i] + 1]
        if start == stop:
            out[i] = 0.0
            continue
        best[:] = -np.inf
        as_they_are = start if values.itemsize == 2 else stop - (stop - start) % TOKENS
        for at in range(start, as_they_are, TOKENS):
            _raise_to_products(values[at:], queries, best)
        for at in range(as_they_are, stop, TOKENS):
            _fill(values, at, stop, tile)
            _raise_to_products(tile, queries, best)
        out[i] = _sum_of_lanes(best, n_tokens)


@njit(cache=True, nogil=True)
def estimated_maxima(indptr: Any, values: Any, rows: Any, queries: Any, n_tokens: int, out: Any) -> None:
    """The same from vectors rounded to bfloat16, where ``ROUNDED``.

    Args:
        indptr: (N + 1,) int64 into values.
        values: (tokens, D) float32, or the uint16 bits of float16.
        rows: (C,) int64.
        queries: (G, ceil(D / 2), LANES, 2) uint16, the bits of bfloat16.
        n_tokens: tokens of the query.
        out: (C,) float32, written.
    """
    steps, n_groups = queries.shape[1], len(queries)
    tile = np.zeros((TOKENS, 2 * steps), dtype=np.uint16)
    best = np.empty((n_groups, LANES), dtype=np.float32)
    paired = n_groups - n_groups % _FUSED
    for i in range(len(rows)):
        start, stop = indptr[rows[i]], indptr[rows[i] + 1]
        if start == stop:
            out[i] = 0.0
            continue
        best[:] = -np.inf
        for at in range(start, stop, TOKENS):
            _fill_rounded(values, at, stop, tile)
            for group in range(0, paired, _FUSED):
                _estimate_of_several(tile, queries[group:], best[group:], np.int64(steps))
            for group in range(paired, n_groups):
                _estimate_of_one(tile, queries[group:], best[group:], np.int64(steps))
        out[i] = _sum_of_lanes(best, n_tokens)


@njit(cache=True, nogil=True)
def products(values: Any, queries: Any, out: Any) -> None:
    """Every inner product of stored vectors with packed ones.

    Args:
        values: (T, D) float32, or the uint16 bits of float16.
        queries: (G, D, LANES) float32.
        out: (T, G * LANES) float32, written.
    """
    dim = values.shape[1]
    tile = np.empty((TOKENS, dim), dtype=np.float32)
    found = np.empty((TOKENS, LANES), dtype=np.float32)
    for at in range(0, len(values), TOKENS):
        _fill(values, at, len(values), tile)
        for group in range(len(queries)):
            _all_of_one(tile, queries[group:], found, np.int64(dim))
            for i in range(min(TOKENS, len(values) - at)):
                for lane in range(LANES):
                    out[at + i, group * LANES + lane] = found[i, lane]


@njit(cache=True, nogil=True)
def rounded_products(values: Any, queries: Any, out: Any) -> None:
    """The same of vectors that are rounded to bfloat16 already, where ``ROUNDED``.

    Args:
        values: (T, D) uint16, the bits of bfloat16, D even.
        queries: (G, D / 2, LANES, 2) uint16, the same.
        out: (T, G * LANES) float32, written.
    """
    steps = queries.shape[1]
    tile = np.zeros((TOKENS, 2 * steps), dtype=np.uint16)
    found = np.empty((TOKENS, LANES), dtype=np.float32)
    for at in range(0, len(values), TOKENS):
        n = min(TOKENS, len(values) - at)
        tile[:n] = values[at : at + n]
        for group in range(len(queries)):
            _all_estimates_of_one(tile, queries[group:], found, np.int64(steps))
            for i in range(n):
                for lane in range(LANES):
                    out[at + i, group * LANES + lane] = found[i, lane]
