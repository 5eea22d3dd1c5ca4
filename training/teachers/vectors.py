"""Teachers that encode both sides and compare the vectors: dense, sparse and late interaction."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from indexing.progress import Progress
from retrieval.encoders import open_encoder
from retrieval.protocols import Encoder
from training.examples.training_set import TrainingSet
from training.mining.stored_vectors import as_documents, store_vectors
from training.teachers.pair_scores import PAIR_SCORES
from training.teachers.teacher import Scorer


@dataclass(frozen=True)
class VectorTeacher:
    """Scores as the encoder's own searcher would, exactly.

    Queries are encoded once and kept on disk. Documents are encoded some at a time, together with all their pairs, so
    that none is read twice and their vectors never fill memory or disk: those of 2,000 are about 270 MB of tokens.

    Attributes:
        encoder: one that need not be fitted.
    """

    encoder: Encoder[Any, Any]

    by: ClassVar[Literal["document"]] = "document"
    together: ClassVar[int] = 2_000
    family: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def open(cls, model: str) -> Self:
        """The teacher over a checkpoint of its family.

        Raises:
            ConfigError: there is no such checkpoint.
        """
        return cls(open_encoder({"family": cls.family, "model": model, "options": cls.options}))

    @property
    def fingerprint(self) -> str:
        """Identity of the vectors of both sides."""
        both = self.encoder.fingerprints
        return hashlib.sha256(f"{both.documents} {both.queries}".encode()).hexdigest()

    def scorer(
        self, data: TrainingSet, queries: NDArray[np.int64], folder: Path, progress: Progress
    ) -> Scorer:
        """Encode the queries; see ``Teacher.scorer``.

        Raises:
            FormatError: the encoder makes numbers that are not finite.
        """
        asked = store_vectors(
            lambda block: self.encoder.encode_queries(block["text"].to_list()),
            data.queries[queries],
            folder / "queries",
            f"queries for {self.family}",
            progress,
        )
        compare = PAIR_SCORES[type(asked)]

        def scores(q: NDArray[np.int64], d: NDArray[np.int64]) -> NDArray[np.float32]:
            rows, places = np.unique(d, return_inverse=True)
            documents = self.encoder.encode_documents(as_documents(data.documents[rows]))
            return compare(asked, documents, np.searchsorted(queries, q), places)

        return scores


@dataclass(frozen=True)
class DenseTeacher(VectorTeacher):
    """The inner product of one vector each."""

    family: ClassVar[str] = "dense"


@dataclass(frozen=True)
class SparseTeacher(VectorTeacher):
    """The inner product over the vocabulary."""

    family: ClassVar[str] = "sparse"


@dataclass(frozen=True)
class LateTeacher(VectorTeacher):
    """MaxSim over all tokens and all dimensions that the checkpoint has."""

    family: ClassVar[str] = "late"
    options: ClassVar[Mapping[str, Any]] = {"projection": "none"}
