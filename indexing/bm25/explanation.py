"""Why a row has its BM25 score, term by term."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexing.bm25 import cold
from indexing.bm25.factors import Factors, unpack_keys
from indexing.bm25.files import Bm25Files
from indexing.bm25.statistics import Counts
from retrieval.protocols import Explanation


class AskedTerm(NamedTuple):
    """A term of a query that the segment has.

    Attributes:
        text: as analysed.
        field: number of its field.
        term: number in the segment.
        weight: boost * qtf * idf.
        df: documents of the collection that have it.
    """

    text: str
    field: int
    term: int
    weight: np.float32
    df: int


class Scoring(NamedTuple):
    """All else that a score depends on."""

    files: Bm25Files
    fields: tuple[str, ...]
    boosts: NDArray[np.float32]
    counts: Counts
    factors: Factors
    k1: float
    b: float


def explain_row(row: int, asked: Sequence[AskedTerm], scoring: Scoring) -> Explanation:
    """The score of a row, equal to what a search returns, with a part for each term it has.

    Args:
        row: of the segment.
        asked: the query's terms in scoring order.
        scoring: see there.
    """
    score, parts = np.float32(0), []
    for term in asked:
        part = _explain_term(row, term, scoring)
        if part is not None:
            score += np.float32(part.value)
            parts.append(part)
    return Explanation("bm25", float(score), tuple(parts), {"k1": scoring.k1, "b": scoring.b})


def _explain_term(row: int, asked: AskedTerm, scoring: Scoring) -> Explanation | None:
    files, counts, name = scoring.files, scoring.counts, scoring.fields[asked.field]
    low, high = int(files.indptr[asked.term]), int(files.indptr[asked.term + 1])
    position = low + int(np.searchsorted(files.rows[low:high], row))
    if position == high or files.rows[position] != row:
        return None
    code = int(files.codes[position])
    tf, _, length = unpack_keys(files.keys[code : code + 1], len(scoring.fields))
    n_documents = int(counts.n_documents[asked.field])
    facts: dict[str, float | int | str] = {
        "field": name,
        "tf": int(tf[0]),
        "df": asked.df,
        "n_documents": n_documents,
        "idf": float(cold.idf(n_documents, asked.df)),
        "length": int(length[0]),
        "average_length": float(counts.total_length[asked.field] / n_documents),
        "boost": float(scoring.boosts[asked.field]),
        "weight": float(asked.weight),
    }
    label = asked.text if len(scoring.fields) == 1 else f"{name}:{asked.text}"
    return Explanation(label, float(asked.weight * scoring.factors.table[code]), (), facts)
