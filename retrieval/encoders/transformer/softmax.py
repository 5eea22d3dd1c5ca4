"""Softmax of bfloat16 scores in one compiled pass over rows that stay in the L1 cache.

torch needs three calls for it (to float32, softmax, back), each a trip through the L2 cache or memory. Import
this module inside functions: it takes a quarter of a second, and compiling for the first time longer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from retrieval.compute import kernel_cache

kernel_cache()

from numba import njit  # noqa: E402

_LOG2_E = np.float32(1.4426950408889634)
_SMALLEST = np.float32(-126.0)  # 2 ** -126 is the least normal float32
# 2 ** f on (-1, 0]: the cubic of least relative error (7.5e-5; half a step of bfloat16 is 2e-3 or more)
_C0, _C1 = np.float32(0.99992522), np.float32(0.69102071)
_C2, _C3 = np.float32(0.23007036), np.float32(0.03901226)


def softmax_bfloat16(scores: Tensor, length: int) -> None:
    """Replace the beginning of each row of scores by its softmax, and the rest by 0.

    Sums are in float32, and each weight is rounded to bfloat16 once.

    Args:
        scores: (..., W) bfloat16 on the CPU, contiguous.
        length: scores of a row that count, 1 to W.
    """
    bits = scores.view(-1, scores.shape[-1]).view(torch.int16).numpy().view(np.uint16)
    _softmax(bits, np.empty(length, dtype=np.float32))


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "arcp"}, error_model="numpy")
def _softmax(bits: Any, weights: Any) -> None:
    """(N, W) bfloat16 bits in place; weights is (L,) scratch. Every inner loop is one the compiler vectorises."""
    length = len(weights)
    for i in range(len(bits)):
        bits[i, length:] = 0
        row = bits[i, :length]
        greatest = np.int32(
            -(2**31)
        )  # as an integer that sorts like the float: only their maximum vectorises
        for j in range(length):
            b = np.int32(np.int32(row[j]) << np.int32(16))
            greatest = max(greatest, np.int32(b ^ ((b >> np.int32(31)) & np.int32(0x7FFFFFFF))))
        b = np.int32(greatest ^ ((greatest >> np.int32(31)) & np.int32(0x7FFFFFFF)))
        top = b.view(np.float32)
        total = np.float32(0)
        for j in range(length):
            power = (np.int32(np.int32(row[j]) << np.int32(16)).view(np.float32) - top) * _LOG2_E
            power = power if power > _SMALLEST else _SMALLEST
            whole = np.int32(power)  # toward zero, so the rest is in (-1, 0]
            rest = power - np.float32(whole)
            fraction = np.float32(((_C3 * rest + _C2) * rest + _C1) * rest + _C0)
            weight = np.int32(fraction.view(np.int32) + (whole << np.int32(23))).view(np.float32)
            weights[j] = weight
            total += weight
        share = np.float32(1) / total
        for j in range(length):
            b = np.float32(weights[j] * share).view(np.int32)
            row[j] = np.uint16((b + np.int32(0x8000)) >> np.int32(16))
