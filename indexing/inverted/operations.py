"""Bounds of many blocks at a time, for which numba has no words: written as LLVM's own code.

numba's cache does not notice a change here: whoever makes one removes the cached kernels beside search_kernels.py.
Import this module inside functions.
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

from retrieval.intrinsics import ask_for_line  # noqa: E402

GROUP_BYTES = 64
"""Bytes of a line of bounds that are added up at a time, in registers: a cache line."""
_AHEAD = 128  # bytes of each line that are asked for ahead of their turn

_BYTE, _SHORT, _INT, _LONG = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_BYTES, _SHORTS = ir.VectorType(_BYTE, GROUP_BYTES), ir.VectorType(_SHORT, GROUP_BYTES)


def _all(number: int, kind: Any) -> Any:
    return ir.Constant(kind, [number] * GROUP_BYTES)


@intrinsic  # type: ignore[misc]
def sum_levels(
    _: Any, lines: Any, starts: Any, weights: Any, at: Any, bounds: Any, half: Any
) -> tuple[Any, Callable[..., Any]]:
    """Set 128 bounds to the sums over terms of weight times level, modulo 2 ** 16.

    Args:
        lines: uint8, two levels a byte; starts: (T,) int64 where each term's line begins; weights: (T,) uint16.
        at: the first of GROUP_BYTES bytes of each line, in bytes from its start.
        bounds: (2 H,) uint16, written at ``at`` from the low halves of the bytes, at ``half + at`` from the high ones.
        half: H, the bytes of a line.
    """

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        arrays = {n: context.make_array(signature.args[n])(context, builder, given[n]) for n in (0, 1, 2, 4)}
        sums = [cgutils.alloca_once_value(builder, _all(0, _SHORTS)) for _ in range(2)]
        lanes = ir.VectorType(_INT, GROUP_BYTES)
        with cgutils.for_range(builder, cgutils.unpack_tuple(builder, arrays[1].shape, 1)[0]) as loop:
            start = builder.load(builder.gep(arrays[1].data, [loop.index]))
            line = builder.gep(arrays[0].data, [builder.add(start, given[3])])
            ask_for_line(builder, builder.gep(line, [ir.Constant(_LONG, _AHEAD)]))
            pairs = builder.load(builder.bitcast(line, _BYTES.as_pointer()), align=1)
            weight = builder.insert_element(
                ir.Constant(_SHORTS, ir.Undefined),
                builder.load(builder.gep(arrays[2].data, [loop.index])),
                ir.Constant(_INT, 0),
            )
            weight = builder.shuffle_vector(
                weight, ir.Constant(_SHORTS, ir.Undefined), ir.Constant(lanes, [0] * GROUP_BYTES)
            )
            levels = builder.and_(pairs, _all(15, _BYTES)), builder.lshr(pairs, _all(4, _BYTES))
            for total, level in zip(sums, levels, strict=True):
                product = builder.mul(builder.zext(level, _SHORTS), weight)
                builder.store(builder.add(builder.load(total), product), total)
        for total, place in zip(sums, (given[3], builder.add(given[5], given[3])), strict=True):
            target = builder.bitcast(builder.gep(arrays[4].data, [place]), _SHORTS.as_pointer())
            builder.store(builder.load(total), target, align=2)
        return context.get_dummy_value()

    return types.void(lines, starts, weights, at, bounds, half), generate
