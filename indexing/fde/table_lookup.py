"""Entries of byte tables added up for 256 documents at a time. Import this module inside functions.

A processor with AVX-512 VBMI finds 64 bytes in a table of 128 with one instruction (compare André, Kermarrec & Le
Scouarnec, "Quicker ADC", TPAMI 2021, who use it for tables of fewer entries), so that two of them serve 256 centroids.
"""

from __future__ import annotations

from typing import Any

from retrieval.compute import kernel_cache

kernel_cache()

from llvmlite import ir  # noqa: E402
from numba.core import cgutils, types  # noqa: E402
from numba.core.registry import cpu_target  # noqa: E402
from numba.extending import intrinsic  # noqa: E402
from numba.np import arrayobj  # noqa: E402

BLOCK = 256
"""Documents whose codes lie side by side: four registers, which share what is read of the tables."""

_LANES = 64  # bytes of a register

_INDEX = ir.IntType(64)
_BYTES = ir.VectorType(ir.IntType(8), _LANES)
_PAIRS = ir.VectorType(ir.IntType(16), _LANES // 2)
_SUMS = ir.VectorType(ir.IntType(32), _LANES)
_SHIFT = _PAIRS([8] * (_LANES // 2))
_IN_TURN = _SUMS([lane // 2 + lane % 2 * _LANES // 2 for lane in range(_LANES)])
_LOOK_UP = "llvm.x86.avx512.vpermi2var.qi.512"


def by_register() -> bool:
    """Whether the processor that numba compiles for can do ``add_entries_by_register``."""
    return "+avx512vbmi" in cpu_target.target_context.codegen().magic_tuple()[2].split(",")


@intrinsic  # type: ignore[misc]
def add_entries_by_register(
    context: Any, codes: Any, begin: Any, groups: Any, entries: Any, start: Any, stop: Any, sums: Any
) -> Any:
    """What ``indexing.fde.code_kernels.add_entries_one_by_one`` does, in registers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def data(position: int) -> Any:
            array = arrayobj.make_array(signature.args[position])
            return array(context, builder, arguments[position]).data

        def bytes_at(pointer: Any, place: Any) -> Any:
            address = builder.bitcast(builder.gep(pointer, [place]), _BYTES.as_pointer())
            return builder.load(address, align=1)

        def add(total: Any, found: Any) -> None:
            builder.store(builder.add(builder.load(total), found), total)

        look_up = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_BYTES, [_BYTES] * 3), _LOOK_UP
        )
        codes, groups, entries, sums = (data(position) for position in (0, 2, 3, 6))
        places = range(0, BLOCK, _LANES)
        # Of pairs of bytes as numbers of 16 bits, and of the second bytes alone; the first ones are the difference.
        pairs, seconds = (
            [cgutils.alloca_once_value(builder, _PAIRS([0] * (_LANES // 2))) for _ in places]
            for _ in range(2)
        )
        with cgutils.for_range_slice(builder, arguments[4], arguments[5], _INDEX(1), inc=True) as (number, _):
            table = builder.mul(number, _INDEX(256))
            parts = [bytes_at(entries, builder.add(table, _INDEX(_LANES * part))) for part in range(4)]
            line = builder.mul(builder.load(builder.gep(groups, [number])), _INDEX(BLOCK))
            line = builder.add(arguments[1], line)
            for place, pair, second in zip(places, pairs, seconds, strict=True):
                code = bytes_at(codes, builder.add(line, _INDEX(place)))
                low = builder.call(look_up, [parts[0], code, parts[1]])  # by the lower seven bits
                high = builder.call(look_up, [parts[2], code, parts[3]])
                upper = builder.icmp_signed("<", code, _BYTES([0] * _LANES))
                found = builder.bitcast(builder.select(upper, high, low), _PAIRS)
                add(pair, found)
                add(second, builder.lshr(found, _SHIFT))
        for place, pair, second in zip(places, pairs, seconds, strict=True):
            odd = builder.load(second)
            even = builder.sub(builder.load(pair), builder.shl(odd, _SHIFT))
            added = builder.zext(builder.shuffle_vector(even, odd, _IN_TURN), _SUMS)
            address = builder.bitcast(builder.gep(sums, [_INDEX(place)]), _SUMS.as_pointer())
            builder.store(builder.add(builder.load(address, align=4), added), address, align=4)
        return context.get_dummy_value()

    scalar = types.int64
    return types.void(codes, scalar, groups, entries, scalar, scalar, sums), generate
