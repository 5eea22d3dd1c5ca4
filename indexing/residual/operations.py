"""Decompression of several dimensions at a time, for which numba has no words: written as LLVM's own code.

Where a register holds 16 numbers the weights of up to 4 bits are looked up inside it, a token of 128 dimensions in
31 ns; copied two at a time from a table in memory it took 108. Import this module inside functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from retrieval.compute import kernel_cache

kernel_cache()

from llvmlite import ir  # noqa: E402
from numba import types  # noqa: E402
from numba.core import cgutils  # noqa: E402
from numba.extending import intrinsic  # noqa: E402

from retrieval.intrinsics import FEATURES  # noqa: E402

LANES = 16
"""Dimensions at a time: one register of 512 bits, or as many smaller ones as it takes."""
WIDE = "avx512f" in FEATURES
"""Whether a register holds so many numbers, and can look up as many weights."""

_BYTE, _SHORT, _INT, _LONG, _FLOAT = (
    ir.IntType(8),
    ir.IntType(16),
    ir.IntType(32),
    ir.IntType(64),
    ir.FloatType(),
)
_FLOATS, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)


def _all(number: float, kind: Any = _INTS) -> Any:
    return ir.Constant(kind, [number] * LANES)


def _levels(builder: Any, packed: Any, bits: int) -> Any:
    """The bucket numbers of LANES dimensions, from their bytes."""
    count = LANES * bits // 8
    kind = ir.VectorType(_BYTE, count)
    stored = builder.load(builder.bitcast(packed, kind.as_pointer()), align=1)
    of_lane = ir.Constant(_INTS, [lane * bits // 8 for lane in range(LANES)])
    spread = builder.shuffle_vector(stored, ir.Constant(kind, ir.Undefined), of_lane)
    shifts = ir.Constant(_INTS, [lane * bits % 8 for lane in range(LANES)])
    return builder.and_(builder.lshr(builder.zext(spread, _INTS), shifts), _all(2**bits - 1))


def _looked_up(builder: Any, weights: Any, levels: Any, bits: int) -> Any:
    """``weights[levels]``: from a register where it holds all of them and the CPU can, else one by one."""
    if WIDE and 2**bits <= LANES:
        stored = ir.VectorType(_FLOAT, 2**bits)
        table = builder.load(builder.bitcast(weights, stored.as_pointer()), align=4)
        repeated = ir.Constant(_INTS, [lane % 2**bits for lane in range(LANES)])
        table = builder.shuffle_vector(table, ir.Constant(stored, ir.Undefined), repeated)
        kind = ir.FunctionType(_FLOATS, [_FLOATS, _INTS])
        permute = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.permvar.sf.512")
        return builder.call(permute, [table, levels])
    found = ir.Constant(_FLOATS, ir.Undefined)
    for lane in range(LANES):
        place = ir.Constant(_INT, lane)
        weight = builder.load(builder.gep(weights, [builder.extract_element(levels, place)]), align=4)
        found = builder.insert_element(found, weight, place)
    return found


def _widened(builder: Any, halves: Any) -> Any:
    """Half precision as float32; see ``retrieval.intrinsics.widened``."""
    if "f16c" in FEATURES:
        kind = ir.VectorType(ir.HalfType(), LANES)
        return builder.fpext(builder.load(builder.bitcast(halves, kind.as_pointer()), align=2), _FLOATS)
    stored = builder.load(builder.bitcast(halves, ir.VectorType(_SHORT, LANES).as_pointer()), align=2)
    bits = builder.zext(stored, _INTS)
    size = builder.shl(builder.and_(bits, _all(0x7FFF)), _all(13))
    sign = builder.shl(builder.and_(bits, _all(0x8000)), _all(16))
    return builder.fmul(builder.bitcast(builder.or_(size, sign), _FLOATS), _all(2.0**112, _FLOATS))


def _sum(builder: Any, values: Any) -> Any:
    """Of all lanes, by halves."""
    width = LANES
    while width > 1:
        nothing, width = ir.Constant(ir.VectorType(_FLOAT, width), ir.Undefined), width // 2
        low, high = (
            builder.shuffle_vector(
                values, nothing, ir.Constant(ir.VectorType(_INT, width), list(range(first, first + width)))
            )
            for first in (0, width)
        )
        values = builder.fadd(low, high)
    return builder.extract_element(values, ir.Constant(_INT, 0))


def _adding(bits: int) -> Any:
    """A function of numba's: centroid plus bucket weights, LANES dimensions at a time; returns the sum of squares.

    It takes packed residuals, centroids and a target, each with the position where the vector begins, then the weights
    and how many times LANES dimensions there are.
    """

    @intrinsic  # type: ignore[misc]
    def add(
        _: Any,
        packed: Any,
        line: Any,
        centroids: Any,
        centroid: Any,
        out: Any,
        at: Any,
        weights: Any,
        steps: Any,
    ) -> tuple[Any, Callable[..., Any]]:
        def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            def start(number: int, element: Any) -> Any:
                array = context.make_array(signature.args[number])(context, builder, given[number])
                return builder.bitcast(array.data, element.as_pointer())

            lines, halves = (
                builder.gep(start(n, kind), [given[n + 1]]) for n, kind in ((0, _BYTE), (2, _SHORT))
            )
            target, table = builder.gep(start(4, _FLOAT), [given[5]]), start(6, _FLOAT)
            squares = cgutils.alloca_once_value(builder, _all(0.0, _FLOATS))
            kind = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
            fused = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32")
            with cgutils.for_range(builder, given[7]) as loop:
                first = builder.mul(loop.index, ir.Constant(_LONG, LANES))
                byte = builder.mul(loop.index, ir.Constant(_LONG, LANES * bits // 8))
                levels = _levels(builder, builder.gep(lines, [byte]), bits)
                value = builder.fadd(
                    _looked_up(builder, table, levels, bits), _widened(builder, builder.gep(halves, [first]))
                )
                place = builder.bitcast(builder.gep(target, [first]), _FLOATS.as_pointer())
                builder.store(value, place, align=4)
                builder.store(builder.call(fused, [value, value, builder.load(squares)]), squares)
            return _sum(builder, builder.load(squares))

        kinds = (packed, line, centroids, centroid, out, at, weights, steps)
        return types.float32(*kinds), generate

    return add


add_1, add_2, add_4, add_8 = (_adding(bits) for bits in (1, 2, 4, 8))
