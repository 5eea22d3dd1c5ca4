"""Operations of a walk that numba has no words for: asking for a row, comparing bytes and numbers, making room.

numba has no vector registers to offer, so they are written as LLVM's own code, which suits every CPU. Like the kernels
that use them, import this module inside functions. numba's cache does not notice a change here: whoever makes one
removes the cached kernels beside search_kernels.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from retrieval.compute import kernel_cache

kernel_cache()

import llvmlite.binding as llvm  # type: ignore[import-untyped]  # noqa: E402
from llvmlite import ir  # noqa: E402
from numba import types  # noqa: E402
from numba.core import cgutils  # noqa: E402
from numba.extending import intrinsic  # noqa: E402

from retrieval.intrinsics import FEATURES, ask_for_line  # noqa: E402

LINE = 64
"""Bytes of a cache line, and components of byte codes that are compared at once."""

BYTE_PAIRS = "avx512vnni" in FEATURES
"""Whether the CPU multiplies 64 pairs of bytes and adds them up in int32 at once."""

if BYTE_PAIRS:
    llvm.initialize_native_asmparser()  # LLVM's name for the instruction has changed types, the instruction has not


_BYTE, _SHORT, _INT, _LONG = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_BYTES, _INTS = ir.VectorType(_BYTE, LINE), ir.VectorType(_INT, 16)
_DOUBLES, _FLOATS = ir.VectorType(ir.DoubleType(), 8), ir.VectorType(ir.FloatType(), 8)


def _line(context: Any, builder: Any, kind: Any, array: Any, row: Any, element: Any) -> Any:
    """A pointer to a row of a matrix, as elements of a type."""
    matrix = context.make_array(kind)(context, builder, array)
    stride = cgutils.unpack_tuple(builder, matrix.strides, 2)[0]
    start = builder.gep(builder.bitcast(matrix.data, _BYTE.as_pointer()), [builder.mul(row, stride)])
    return builder.bitcast(start, element.as_pointer())


@intrinsic  # type: ignore[misc]
def ask_for(_: Any, matrix: Any, row: Any, size: Any) -> tuple[Any, Callable[..., Any]]:
    """Ask for the cache lines of the first ``size`` bytes of a row."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        start = _line(context, builder, signature.args[0], given[0], given[1], _BYTE)
        step = ir.Constant(_LONG, LINE)
        with cgutils.for_range_slice(builder, ir.Constant(_LONG, 0), given[2], step) as (at, _):
            ask_for_line(builder, builder.gep(start, [at]))
        return context.get_dummy_value()

    return types.void(matrix, types.int64, types.int64), generate


def _add_pairs(builder: Any, total: Any, code: Any, query: Any) -> Any:
    """``total`` (16 int32) plus the products of 64 pairs of signed bytes, four neighbours to a sum.

    The instruction wants one side unsigned, so 128 is added to the codes: what that adds, 128 times the sum of the
    query, is the same for every code.
    """
    if BYTE_PAIRS:
        flipped = builder.xor(code, ir.Constant(_BYTES, [-128] * LINE))
        words = [builder.bitcast(side, _INTS) for side in (flipped, query)]
        signature = ir.FunctionType(_INTS, [_INTS] * 3)
        return builder.asm(signature, "vpdpbusd $3, $2, $0", "=v,0,v,v", [total, *words], False)
    for quarter in range(4):
        places = ir.Constant(_INTS, list(range(16 * quarter, 16 * quarter + 16)))
        wide = [
            builder.sext(builder.shuffle_vector(side, ir.Constant(_BYTES, ir.Undefined), places), _INTS)
            for side in (code, query)
        ]
        total = builder.add(total, builder.mul(*wide))
    return total


@intrinsic  # type: ignore[misc]
def byte_product(_: Any, codes: Any, row: Any, query: Any, width: Any) -> tuple[Any, Callable[..., Any]]:
    """The inner product of a row of int8 codes with a query's, over ``width`` components, a multiple of 64.

    Where ``BYTE_PAIRS``, 128 times the sum of the query is added.
    """

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        codes = _line(context, builder, signature.args[0], given[0], given[1], _BYTES)
        query = context.make_array(signature.args[2])(context, builder, given[2]).data
        query = builder.bitcast(query, _BYTES.as_pointer())
        total = cgutils.alloca_once_value(builder, ir.Constant(_INTS, [0] * 16))
        with cgutils.for_range(builder, builder.udiv(given[3], ir.Constant(_LONG, LINE))) as loop:
            sides = [builder.load(builder.gep(side, [loop.index]), align=1) for side in (codes, query)]
            builder.store(_add_pairs(builder, builder.load(total), *sides), total)
        kind = ir.FunctionType(_INT, [_INTS])
        add_up = cgutils.get_or_insert_function(builder.module, kind, "llvm.vector.reduce.add.v16i32")
        return builder.call(add_up, [builder.load(total)])

    return types.int32(codes, types.int64, query, types.int64), generate


def _widened(builder: Any, numbers: Any, half: bool) -> Any:
    """8 stored numbers as float64; those of half precision like ``retrieval.intrinsics.widened`` reads them."""
    if half:
        ints = ir.VectorType(_INT, 8)

        def everywhere(value: int) -> Any:
            return ir.Constant(ints, [value] * 8)

        bits = builder.zext(numbers, ints)
        rest = builder.shl(builder.and_(bits, everywhere(0x7FFF)), everywhere(13))
        sign = builder.shl(builder.and_(bits, everywhere(0x8000)), everywhere(16))
        numbers = builder.bitcast(builder.or_(rest, sign), _FLOATS)
        numbers = builder.fmul(numbers, ir.Constant(_FLOATS, [2.0**112] * 8))
    return builder.fpext(numbers, _DOUBLES)


@intrinsic  # type: ignore[misc]
def ordered_product(_: Any, values: Any, row: Any, query: Any, width: Any) -> tuple[Any, Callable[..., Any]]:
    """The inner product in the order of ``retrieval.kernels``, to the last bit: its eight sums are lanes here.

    Over ``width`` components of float32 rows or rows of float16 as uint16, a multiple of 8.
    """
    half = values.dtype == types.uint16

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        stored = ir.VectorType(_SHORT, 8) if half else _FLOATS
        vector = _line(context, builder, signature.args[0], given[0], given[1], stored)
        query = context.make_array(signature.args[2])(context, builder, given[2]).data
        query = builder.bitcast(query, _FLOATS.as_pointer())
        total = cgutils.alloca_once_value(builder, ir.Constant(_DOUBLES, [0.0] * 8))
        with cgutils.for_range(builder, builder.udiv(given[3], ir.Constant(_LONG, 8))) as loop:
            left = _widened(builder, builder.load(builder.gep(query, [loop.index]), align=4), False)
            right = _widened(builder, builder.load(builder.gep(vector, [loop.index]), align=2), half)
            builder.store(builder.fadd(builder.load(total), builder.fmul(left, right)), total)
        lanes = builder.load(total)
        return cgutils.pack_array(
            builder, [builder.extract_element(lanes, ir.Constant(_INT, lane)) for lane in range(8)]
        )

    return types.UniTuple(types.float64, 8)(values, types.int64, query, types.int64), generate


@intrinsic  # type: ignore[misc]
def make_room(_: Any, keys: Any, start: Any, stop: Any) -> tuple[Any, Callable[..., Any]]:
    """Move ``keys[start:stop]`` up by one place, which a loop does a key at a time."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, given[0]).data
        source = builder.gep(data, [given[1]])
        target = builder.gep(source, [ir.Constant(_LONG, 1)])
        cgutils.raw_memmove(builder, target, source, builder.sub(given[2], given[1]), ir.Constant(_LONG, 8))
        return context.get_dummy_value()

    return types.void(keys, types.int64, types.int64), generate
