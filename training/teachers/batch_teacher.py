"""The teacher of losses over whole batches (TCT), as the objective asks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from indexing.progress import Progress
from retrieval.errors import ConfigError
from training.examples.training_set import TrainingSet
from training.recipe.options import Recipe
from training.teachers.asked import OF_BATCHES
from training.teachers.in_batch import InBatchTeacher
from training.trainer.processes import n_processes


@dataclass(frozen=True)
class BatchTeacher:
    """Looks up what a teacher made of the texts of a batch.

    Attributes:
        teacher: has read all texts.
    """

    teacher: InBatchTeacher

    @classmethod
    def open(
        cls, recipe: Recipe, sets: Sequence[TrainingSet], folder: Path, progress: Progress
    ) -> BatchTeacher:
        """Let the recipe's teacher read all texts.

        Args:
            recipe: ``teachers`` matters.
            sets: whose texts.
            folder: of the vectors, for this process alone.
            progress: hears of texts.

        Raises:
            ConfigError: there is not one teacher, or it compares no vectors.
        """
        if len(recipe.teachers) != 1:
            raise ConfigError(
                f"{' and '.join(sorted(OF_BATCHES))} learn from one teacher; [[teachers]] names {len(recipe.teachers)}"
            )
        queries, documents = (
            pl.concat([getattr(one, what) for one in sets]) for what in ("queries", "documents")
        )
        return cls(InBatchTeacher.open(recipe.teachers[0], queries, documents, folder, progress))

    def __call__(self, batch: Mapping[str, Any]) -> Tensor:
        """(B, M) of the queries of this process against the documents of all, in the order of ``Scored.scores``."""
        columns, n = batch["origin"].columns, batch["labels"].shape[1]
        texts = [columns[f"document_{place}"][b] for b in range(len(columns["query"])) for place in range(n)]
        if n_processes() > 1:
            every: list[list[str]] = [[] for _ in range(n_processes())]
            torch.distributed.all_gather_object(every, texts)
            texts = [text for part in every for text in part]
        return torch.from_numpy(self.teacher.scores(columns["query"], texts)).to(batch["labels"].device)
