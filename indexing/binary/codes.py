"""Signs of vectors as bits, and queries as four bits a dimension to compare them with.

A row x is kept as the signs b of its image z (``Rotation``) and the number |z|^2 / <b, z>, with which <q, b> becomes
an unbiased estimate of <q, z> under random rotations (RaBitQ: Gao & Long, SIGMOD 2024). <q, mean> is the same for all
rows and left out. Where signs are compared with signs (Hamming distance) four times the candidates are needed: of the
10 best of 45,000 MiniLM vectors 0.98 are among the first 50 and 0.995 among the first 100, where Hamming distance
finds 0.88 and 0.94. Without ITQ it is 0.97 and 0.99.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from indexing.binary.rotation import Rotation

LANES = 64
"""Rows whose words lie side by side, so that one instruction handles several."""
PLANES = 4
"""Bits of a query's component; its levels are the odd numbers from -15 to 15."""
_LARGEST = 1e30  # a factor beyond it would overflow a score


def words(dim: int) -> int:
    """Words of 64 bits that hold the signs of a row."""
    return -(-dim // 64)


def blocks(n: int) -> int:
    """Blocks of ``LANES`` rows."""
    return -(-n // LANES)


def encode(values: NDArray[np.float32], rotation: Rotation) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """Codes and factors of rows.

    Args:
        values: (N, D) finite.
        rotation: of the same width.

    Returns:
        Codes (blocks, words, LANES) and factors (blocks * LANES,); what stands for no row is 0.
    """
    n, dim = values.shape
    image = (values.astype(np.float64) - rotation.mean) @ rotation.matrix.astype(np.float64)
    lengths, sums = np.einsum("nd,nd->n", image, image), np.abs(image).sum(axis=1)
    factors = np.zeros(blocks(n) * LANES, dtype=np.float32)
    factors[:n] = np.minimum(np.divide(lengths, sums, out=np.zeros(n), where=sums > 0), _LARGEST)
    bits = np.zeros((blocks(n) * LANES, words(dim) * 64), dtype=np.bool_)
    bits[:n, :dim] = image > 0
    packed = _packed(bits).reshape(blocks(n), LANES, words(dim))
    return np.ascontiguousarray(packed.transpose(0, 2, 1)), factors


def encode_queries(queries: NDArray[np.float32], rotation: Rotation) -> NDArray[np.uint64]:
    """(Q, words, PLANES) the bits of each query's levels; its length, which changes no order, is left out."""
    n, dim = queries.shape
    largest = np.abs(queries).max(axis=1, keepdims=True)
    turned = np.divide(queries, largest, out=np.zeros_like(queries), where=largest > 0) @ rotation.matrix
    scale = np.abs(turned).max(axis=1, keepdims=True)
    scale[scale == 0] = 1
    steps = 2**PLANES
    levels = np.clip((turned / scale + 1) * (steps / 2), 0, steps - 1).astype(np.uint8)
    bits = np.zeros((PLANES, n, words(dim) * 64), dtype=np.bool_)
    for plane in range(PLANES):
        bits[plane, :, :dim] = levels >> plane & 1
    return np.ascontiguousarray(_packed(bits).transpose(1, 2, 0))


def _packed(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """The last axis in words."""
    return np.packbits(bits, axis=-1, bitorder="little").view("<u8").astype(np.uint64)
