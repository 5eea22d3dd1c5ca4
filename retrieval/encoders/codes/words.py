"""Words as terms of fixed numbers, weighted as BM25 does it, without statistics that change with the collection."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.codes.entries import Entries
from retrieval.encoders.terms import TermsEncoder
from retrieval.values import Document, Terms

IDF_DOCUMENTS = 6000
"""Idf is taken as if a collection had so many documents, so that samples of any size can be compared."""

ENGLISH = TermsEncoder()
"""Lucene's English chain."""


def document_words(
    documents: Sequence[Document], buckets: int, k1: float, b: float, middle: float
) -> Entries:
    """The saturated frequency of each word, tf / (tf + k1 (1 - b + b length / middle)): BM25 without its idf.

    Args:
        documents: N.
        buckets: words are hashed to so many dimensions.
        k1, b: of BM25.
        middle: length, in terms, of a document of middle length.
    """
    terms = ENGLISH.encode_documents(documents)
    found = counted(terms, buckets)
    saturation = k1 * (1 - b + b * terms.lengths[:, 0] / middle)
    return found.times((1 / (found.values + saturation[found.rows])).astype(np.float32))


def query_words(texts: Sequence[str], idf: NDArray[np.float16]) -> Entries:
    """Frequency times idf of each word.

    Args:
        texts: N.
        idf: by bucket.
    """
    found = counted(ENGLISH.encode_queries(texts), len(idf))
    return found.times(idf[found.dims].astype(np.float32))


def counted(terms: Terms, buckets: int) -> Entries:
    """Frequencies by bucket; words of one bucket count as one word."""
    of_entry = np.array([bucket(word, buckets) for word in terms.vocabulary], dtype=np.int64)
    rows = np.repeat(np.arange(len(terms), dtype=np.int64), np.diff(terms.indptr))
    return Entries.summed(rows, of_entry[terms.indices], terms.frequencies.astype(np.float32), buckets)


def bucket(word: str, buckets: int) -> int:
    """The number of a word; buckets are a power of two."""
    return zlib.crc32(word.encode()) & (buckets - 1)


def idf_of(shares: NDArray[np.float64]) -> NDArray[np.float32]:
    """BM25's idf of words that are in these shares of all documents."""
    df = shares * IDF_DOCUMENTS
    return np.log1p((IDF_DOCUMENTS - df + 0.5) / (df + 0.5)).astype(np.float32)


def document_shares(documents: Terms, buckets: int) -> NDArray[np.float64]:
    """(buckets,) the share of at least one document that has each word."""
    return np.bincount(counted(documents, buckets).dims, minlength=buckets) / len(documents)
