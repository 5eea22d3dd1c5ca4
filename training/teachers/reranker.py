"""A cross-encoder as a teacher."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from indexing.progress import Progress
from retrieval.encoders.transformer.checkpoint import read_checkpoint
from retrieval.encoders.transformer.identity import checkpoint_digest
from retrieval.encoders.transformer.location import locate
from retrieval.rerank import MODELS, CrossEncoderReranker
from training.examples.training_set import TrainingSet
from training.teachers.teacher import Scorer


@dataclass(frozen=True)
class RerankerTeacher:
    """Scores of a model that reads query and document together (Nogueira and Cho, 2019, arXiv:1901.04085).

    They are the model's own, after its activation.

    Attributes:
        model: the loaded checkpoint.
        fingerprint: identity of its files.
    """

    model: CrossEncoderReranker
    fingerprint: str

    by: ClassVar[Literal["query"]] = "query"
    together: ClassVar[int] = 64

    @classmethod
    def open(cls, model: str) -> Self:
        """The teacher over a short name of ``retrieval.rerank.MODELS``, a folder, or a name on the Hugging Face Hub.

        Raises:
            ConfigError: there is no such checkpoint.
        """
        reranker = CrossEncoderReranker.open(model)
        return cls(reranker, checkpoint_digest(read_checkpoint(locate(MODELS.get(model, model)))))

    def scorer(
        self, data: TrainingSet, queries: NDArray[np.int64], folder: Path, progress: Progress
    ) -> Scorer:
        """Nothing has to be prepared; see ``Teacher.scorer``."""
        asked, texts = data.queries["text"], data.documents["text"]

        def scores(q: NDArray[np.int64], d: NDArray[np.int64]) -> NDArray[np.float32]:
            return self.model.scores(list(zip(asked[q], texts[d], strict=True)))

        return scores
