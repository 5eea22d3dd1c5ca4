"""BM25 as a teacher, with the statistics of the set's documents."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from indexing.bm25.index import Bm25Index
from indexing.progress import Progress
from retrieval.bitmap import Bitmap
from retrieval.encoders.terms import TermsEncoder
from retrieval.errors import ConfigError
from retrieval.protocols import SearchRequest
from training.examples.training_set import TrainingSet
from training.mining.document_index import index_documents
from training.teachers.teacher import Scorer


@dataclass(frozen=True)
class Bm25Teacher:
    """Scores of ``indexing.bm25`` at its defaults; a document without a query term scores 0."""

    by: ClassVar[Literal["query"]] = "query"
    together: ClassVar[int] = 10_000

    @classmethod
    def open(cls, model: str) -> Self:
        """The teacher.

        Raises:
            ConfigError: a model is named.
        """
        if model not in ("", "default"):
            raise ConfigError(f"the teacher bm25 has no models, got {model!r}; leave it out")
        return cls()

    @property
    def fingerprint(self) -> str:
        """Identity of the analysis and of the formula's parameters."""
        facts = [TermsEncoder().fingerprints.documents, Bm25Index.parameters({})]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def scorer(
        self, data: TrainingSet, queries: NDArray[np.int64], folder: Path, progress: Progress
    ) -> Scorer:
        """Index the documents; see ``Teacher.scorer``."""
        index, texts = index_documents(data, TermsEncoder(), folder, "bm25", progress), data.queries["text"]

        def scores(q: NDArray[np.int64], d: NDArray[np.int64]) -> NDArray[np.float32]:
            found = np.zeros(len(q), dtype=np.float32)
            starts = np.flatnonzero(np.diff(q, prepend=-1))
            for start, stop in zip(starts, [*starts[1:], len(q)], strict=True):
                rows = d[start:stop]
                allowed = Bitmap.from_rows(rows, data.documents.height)
                hits = index.search([texts[int(q[start])]], SearchRequest(k=len(rows), allowed=allowed))
                n = int((hits.rows[0] >= 0).sum())
                found[start + np.searchsorted(rows, hits.rows[0, :n])] = hits.scores[0, :n]
            return found

        return scores
