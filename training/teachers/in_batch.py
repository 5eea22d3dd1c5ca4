"""A teacher of vectors that is asked for all documents of a batch, from what it made of every text beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from indexing.progress import Progress
from indexing.vectors import Vectors
from retrieval.errors import ConfigError
from training.examples.drawing import text_key
from training.mining.stored_vectors import as_documents, store_vectors
from training.recipe.options import TeacherOptions
from training.teachers.pair_scores import PAIR_SCORES
from training.teachers.teacher import open_teacher
from training.teachers.vectors import VectorTeacher


@dataclass(frozen=True)
class InBatchTeacher:
    """What the in-batch distillation of TCT-ColBERT asks (Lin, Yang & Lin, RepL4NLP 2021, arXiv:2010.11386).

    Attributes:
        queries, documents: a row a text, memory-mapped.
        query_rows, document_rows: from ``text_key`` of a text to its row.
    """

    queries: Vectors
    documents: Vectors
    query_rows: Mapping[int, int]
    document_rows: Mapping[int, int]

    @classmethod
    def open(
        cls,
        options: TeacherOptions,
        queries: pl.DataFrame,
        documents: pl.DataFrame,
        folder: Path,
        progress: Progress,
    ) -> InBatchTeacher:
        """Encode all texts that batches may be made of.

        Args:
            options: a dense, sparse or late teacher.
            queries, documents: ``id`` and ``text``, of one training set or of several.
            folder: where the vectors stay; MiniLM's tokens take about 130 MB for 1,000 documents of 170 words.
            progress: hears of texts.

        Raises:
            ConfigError: a teacher that makes no vectors, or one without its checkpoint.
        """
        teacher = open_teacher(options)
        if not isinstance(teacher, VectorTeacher):
            raise ConfigError(
                f"the teacher {options.name!r} cannot score all documents of every batch; choose dense, sparse or late"
            )
        encoder = teacher.encoder
        return cls(
            store_vectors(
                lambda block: encoder.encode_queries(block["text"].to_list()),
                queries,
                folder / "queries",
                f"queries for {options.name}",
                progress,
            ),
            store_vectors(
                lambda block: encoder.encode_documents(as_documents(block)),
                documents,
                folder / "documents",
                f"documents for {options.name}",
                progress,
            ),
            {text_key(text): row for row, text in enumerate(queries["text"])},
            {text_key(text): row for row, text in enumerate(documents["text"])},
        )

    def scores(self, queries: Sequence[str], documents: Sequence[str]) -> NDArray[np.float32]:
        """(B, M) scores of B queries with all of M documents.

        Raises:
            ConfigError: a text that was not encoded beforehand.
        """
        q, d = _rows(self.query_rows, queries), _rows(self.document_rows, documents)
        compare = PAIR_SCORES[type(self.queries)]
        lines, columns = np.divmod(np.arange(len(q) * len(d)), len(d))
        pairs = compare(self.queries.take(q), self.documents.take(d), lines, columns)
        return pairs.reshape(len(q), len(d))


def _rows(known: Mapping[int, int], texts: Sequence[str]) -> NDArray[np.int64]:
    rows = np.array([known.get(text_key(text), -1) for text in texts], dtype=np.int64)
    if (rows < 0).any():
        text = texts[int(rows.argmin())]
        raise ConfigError(
            f"the teacher has not read the text {text[:60]!r}; give it all sets that are trained on"
        )
    return rows
