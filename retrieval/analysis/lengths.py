"""Document lengths as Lucene stores them: one byte, exact to 40 and to four significant bits above.

Follows ``org.apache.lucene.util.SmallFloat`` (intToByte4 and byte4ToInt): scores equal to Lucene's need
the same rounding of lengths.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_MANTISSA_BITS = 4


def _decode(code: int) -> int:
    """The smallest value of a code in the 4-bit floating format, without the exact range."""
    bits, shift = code & 0x07, (code >> 3) - 1
    return bits if shift < 0 else (bits | 0x08) << shift


def _codes() -> int:
    """How many codes the floating format needs for every positive 32-bit integer: 232."""
    top = 2**31 - 1
    shift = top.bit_length() - _MANTISSA_BITS
    return (((top >> shift) & 0x07) | ((shift + 1) << 3)) + 1


_EXACT = 256 - _codes()
BYTE_LENGTHS: NDArray[np.int64] = np.array(
    [byte if byte < _EXACT else _EXACT + _decode(byte - _EXACT) for byte in range(256)], dtype=np.int64
)
"""(256,) the length each byte stands for, ascending."""


def length_bytes(lengths: NDArray[Any]) -> NDArray[np.uint8]:
    """The byte of each length: the largest whose value does not exceed it."""
    return (np.searchsorted(BYTE_LENGTHS, lengths, side="right") - 1).astype(np.uint8)
