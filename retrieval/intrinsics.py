"""Operations that numba has no words for: half precision, arithmetic in 16 bits, and reading ahead.

numba has no float16, so kernels are given its bits as uint16. It also widens every integer to 64 bits before it
calculates, which leaves a vector loop over bounds an eighth of the numbers it could handle at a time. Like the kernels
that use it, this module is imported inside functions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from retrieval.compute import kernel_cache

kernel_cache()

import llvmlite.binding as llvm  # type: ignore[import-untyped]  # noqa: E402
from llvmlite import ir  # noqa: E402
from numba import config  # noqa: E402
from numba.core import cgutils, types  # noqa: E402
from numba.extending import intrinsic, overload  # noqa: E402
from numba.np import arrayobj  # noqa: E402

FEATURES = frozenset(
    name
    for name, present in llvm.get_host_cpu_features().items()
    if present and not (config.CPU_NAME or config.CPU_FEATURES)
)
"""What the CPU can do that kernels are compiled for; nothing is known where numba is told to compile for another."""

_BYTE = ir.IntType(8)
_SHORT = ir.IntType(16)
_FLAG = ir.IntType(32)


def ask_for_line(builder: Any, place: Any) -> None:
    """Code that asks for the cache line of a pointer ahead of its turn; it may point anywhere, nothing is checked."""
    kind = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), _FLAG, _FLAG, _FLAG])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    for_reading, keep, data = (ir.Constant(_FLAG, value) for value in (0, 3, 1))
    builder.call(function, [builder.bitcast(place, _BYTE.as_pointer()), for_reading, keep, data])


@intrinsic  # type: ignore[misc]
def multiply_add(context: Any, total: Any, weight: Any, level: Any) -> Any:
    """``total + weight * level`` for uint16, uint16, uint8, modulo 2 ** 16."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, weight, level = arguments
        return builder.add(total, builder.mul(weight, builder.zext(level, _SHORT)))

    return types.uint16(types.uint16, types.uint16, types.uint8), generate


@intrinsic  # type: ignore[misc]
def read_ahead(context: Any, array: Any, position: Any) -> Any:
    """Ask for the cache line of array[position]; the position may be any, nothing is checked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = arrayobj.make_array(signature.args[0])(context, builder, arguments[0])
        ask_for_line(builder, builder.gep(array.data, [arguments[1]]))
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


def widened(stored: Any) -> Any:
    """A stored component as float32: itself, or the number that 16 bits of IEEE half precision mean."""


@overload(widened)
def _widened(stored: Any) -> Any:
    if stored == types.uint16:

        def half(stored: Any) -> Any:
            # Shifted into place the exponent is 112 too small; the product mends it, subnormals included.
            bits = (np.uint32(stored) & np.uint32(0x7FFF)) << np.uint32(13)
            sign = (np.uint32(stored) & np.uint32(0x8000)) << np.uint32(16)
            return np.uint32(bits | sign).view(np.float32) * np.float32(2.0**112)

        return half

    def single(stored: Any) -> Any:
        return stored

    return single
