"""The part of a BM25 score that depends on term frequency and length: a small table, made anew for each avgdl.

A segment has few distinct (tf, field, length byte) triples, some hundred to some thousand. A posting holds the
position of its triple, so scores follow the collection's average length exactly, at the price of a table look-up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.analysis.lengths import BYTE_LENGTHS


def unpack_keys(
    keys: NDArray[np.int64], n_fields: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(C,) tf, field and length of each key (see ``inversion_kernels.pair_keys``)."""
    tf, fields = np.divmod(keys >> 8, n_fields)
    return tf, fields, BYTE_LENGTHS[keys & 255]


def term_factors(
    keys: NDArray[np.int64],
    k1: float,
    b: float,
    n_documents: NDArray[np.int64],
    total_length: NDArray[np.int64],
) -> NDArray[np.float32]:
    """(C,) tf / (tf + k1 (1 - b + b length / average length)), computed in float64.

    Args:
        keys: (C,) of distinct triples.
        k1, b: of BM25.
        n_documents, total_length: (F,) of the collection.
    """
    tf, fields, lengths = unpack_keys(keys, len(n_documents))
    average = total_length / np.maximum(n_documents, 1)
    average[average == 0] = 1.0  # a field without any token has no key
    return (tf / (tf + k1 * (1 - b + b * lengths / average[fields]))).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Factors:
    """The factor of each code for some statistics.

    Attributes:
        key: what they were made for.
        table: (C,) factors.
        ratio: the most that one exceeds the reference factor stored with the index, as a quotient; bounds
            stored for the reference hold times this ratio.
    """

    key: tuple[float | bytes, ...]
    table: NDArray[np.float32]
    ratio: float

    @staticmethod
    def key_of(
        k1: float, b: float, n_documents: NDArray[np.int64], total_length: NDArray[np.int64]
    ) -> tuple[float | bytes, ...]:
        """Equal for equal factors."""
        return k1, b, n_documents.tobytes(), total_length.tobytes()

    @classmethod
    def make(
        cls,
        keys: NDArray[np.int64],
        reference: NDArray[np.float32],
        k1: float,
        b: float,
        n_documents: NDArray[np.int64],
        total_length: NDArray[np.int64],
    ) -> Factors:
        """Compute the table, arguments as in ``term_factors``; reference: (C,) stored with the index."""
        table = term_factors(keys, k1, b, n_documents, total_length)
        ratio = float(np.max(table / reference)) if len(table) else 1.0
        return cls(cls.key_of(k1, b, n_documents, total_length), table, ratio)
