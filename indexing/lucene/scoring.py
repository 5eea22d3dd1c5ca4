"""BM25 by given statistics, though Lucene takes a score's statistics from the reader at hand.

Lucene scores tf / (tf + k1 (1 - b + b length / average length)) times the term's idf, and reads the average length,
N and df off the index. Tercet sums them over the live rows of all segments. So the scorers are made over a reader
of one row with one token, which has average length 1 and the same idf for every term, and are then run over the
segment: k1 and b are chosen so that they mean for average length 1 what the asked ones mean for the collection's,
and a term's boost brings its weight. A score thus depends on nothing in the segment but tf and length, and is the
same to the last bit in whichever segment its row stands.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from indexing.lucene.jvm import java, lucene
from indexing.lucene.segment import any_of, new_searcher, new_term
from indexing.lucene.writing import row_document

_UNIT_IDF = float(np.float32(np.log(4 / 3)))
"""ln(1 + (N - df + 0.5) / (df + 0.5)) with N = df = 1."""


class FoundTerm(NamedTuple):
    """A term of a segment.

    Attributes:
        query: a ``TermQuery`` that knows where the segment's postings of the term are.
        df: rows that have it, deleted ones counted.
    """

    query: Any
    df: int


def find_terms(terms: Any, tokens: Iterable[str]) -> list[FoundTerm | None]:
    """Look tokens up in a segment.

    Args:
        terms: the segment's ``Terms``; None where it has none.
        tokens: what ``token_of`` made.
    """
    if terms is None:
        return [None for _ in tokens]
    positions = terms.iterator()
    return [_find(positions, token) for token in tokens]


def _find(positions: Any, token: str) -> FoundTerm | None:
    term = new_term(token)
    if not positions.seekExact(term.bytes(), signature="(Lorg/apache/lucene/util/BytesRef;)Z"):
        return None
    states = lucene("index.TermStates")(_one_row().getContext())
    states.register(positions.termState(), 0, 1, 1)
    return FoundTerm(lucene("search.TermQuery")(term, states), int(positions.docFreq()))


def bm25_searcher(k1: float, b: float, average_length: float) -> Any:
    """An ``IndexSearcher`` whose scorers saturate and normalise as in a collection of that average length."""
    constant, slope = k1 * (1 - b), k1 * b / average_length
    whole = constant + slope
    similarity = lucene("search.similarities.BM25Similarity")(whole, slope / whole if whole else 0.0)
    return new_searcher(_one_row(), similarity)


def weighted(terms: Iterable[tuple[FoundTerm, float]]) -> Any:
    """The query that adds up terms times their weights (boost * qtf * idf)."""
    return any_of((term.query, weight / _UNIT_IDF) for term, weight in terms)


@functools.cache
def _one_row() -> Any:
    """A reader of one row with one token."""
    directory = lucene("store.ByteBuffersDirectory")()
    tokenizer, document = row_document(norms=True)
    writer = lucene("index.IndexWriter")(directory, lucene("index.IndexWriterConfig")())
    tokenizer.setReader(java("java.io.StringReader")("token"))
    writer.addDocument(document)
    writer.close()
    return lucene("index.DirectoryReader").open(directory)
