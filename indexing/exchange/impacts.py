"""Sparse weights as the whole numbers that engines built for term frequencies store, and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import ConfigError, FormatError
from retrieval.values import Sparse, Strings, Terms

LARGEST = 255
"""The largest impact of 8 bits."""


def quantise(values: NDArray[np.float32], scale: float) -> NDArray[np.int32]:
    """round(w / scale) of weights, at least 1 where a weight is above 0, and 0 where it is 0.

    Raises:
        ConfigError: an impact would exceed 255.
    """
    impacts = np.maximum(np.rint(values.astype(np.float64) / scale), values > 0)
    if len(impacts) and impacts.max() > LARGEST:
        largest = float(values.max())
        raise ConfigError(
            f"scale is {scale:g}, which reaches up to weights of {LARGEST * scale:g}; there is one of {largest:g}: "
            f"take a scale of at least {largest / LARGEST:.3g}"
        )
    return impacts.astype(np.int32)


def check_weights(vectors: Sparse, first: int = 0) -> None:
    """Refuse weights that are negative, infinite or no number.

    Args:
        vectors: some rows.
        first: what the first of them is called in the message.

    Raises:
        FormatError: names the row.
    """
    wrong = np.flatnonzero(~(vectors.values >= 0) | np.isinf(vectors.values))
    if len(wrong):
        row = first + int(np.searchsorted(vectors.indptr, wrong[0], side="right")) - 1
        raise FormatError(
            f"row {row} has the weight {vectors.values[wrong[0]]}; weights are finite and at least 0"
        )


def impact_terms(vectors: Sparse, vocabulary: Strings, scale: float) -> Terms:
    """Sparse vectors as terms whose frequencies are impacts; weights of 0 are left out.

    Args:
        vectors: N rows over V terms.
        vocabulary: the V terms.
        scale: the weight of impact 1.

    Returns:
        N rows; a row's length is the sum of its impacts.

    Raises:
        ConfigError: an impact would exceed 255.
        FormatError: a weight is negative or not finite.
    """
    check_weights(vectors)
    kept = vectors.values > 0
    ends = np.concatenate([[0], np.cumsum(kept)])[vectors.indptr].astype(np.int64)
    impacts = quantise(vectors.values[kept], scale)
    lengths = np.diff(np.concatenate([[0], np.cumsum(impacts, dtype=np.int64)])[ends])
    fields = np.zeros(len(vocabulary), dtype=np.uint8)
    return Terms(ends, vectors.indices[kept], impacts, lengths.astype(np.int32)[:, None], vocabulary, fields)


def sparse_of_terms(terms: Terms, scale: float) -> Sparse:
    """Frequencies times scale as weights over the vocabulary: the inverse of ``impact_terms``, up to rounding."""
    weights = (terms.frequencies * np.float64(scale)).astype(np.float32)
    return Sparse(terms.indptr, terms.indices, weights, len(terms.vocabulary))
