"""Batches of examples, read for a model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from indexing.progress import Progress
from training.examples.dataset import are_scored, examples_dataset
from training.examples.training_set import TrainingSet
from training.families.family import Family
from training.trainer.schedule import Schedule

Columns = Mapping[str, Sequence[Any]]
"""The columns of ``examples_dataset`` for the queries of a batch, and ``domain``, the number of its training set."""


@dataclass
class ScheduledExamples:
    """The examples of a schedule in their order, as a map-style data set of torch, which asks for them in batches.

    Attributes:
        sets: the training sets.
        schedule: of their queries.
        negatives: documents of an example that do not answer.
        folder: for the examples of running epochs.

    Raises:
        ConfigError: some sets have a teacher's scores, others have none.
    """

    sets: Sequence[TrainingSet]
    schedule: Schedule
    negatives: int
    folder: Path
    _drawn: dict[tuple[int, int], Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        are_scored(self.sets)

    def __len__(self) -> int:
        return len(self.schedule)

    def draw(self, step: int, progress: Progress) -> None:
        """Draw what a step needs before it is asked for, since that may take long."""
        for number, epoch in {
            self.schedule.place(step * self.schedule.batch + place)[:2]
            for place in (0, self.schedule.batch - 1)
        }:
            self._of(number, epoch, progress)

    def __getitems__(self, examples: Sequence[int]) -> Columns:
        """The columns of some examples; those of a batch are of one training set, of one epoch or more."""
        places = [self.schedule.place(example) for example in examples]
        columns: dict[str, list[Any]] = {}
        for drawn in dict.fromkeys(place[:2] for place in places):
            rows = [place[2] for place in places if place[:2] == drawn]
            for name, values in self._of(*drawn)[rows].items():
                columns.setdefault(name, []).extend(values)
        return columns | {"domain": [number for number, _, _ in places]}

    def _of(self, number: int, epoch: int, progress: Progress | None = None) -> Any:
        """The examples of a set's epoch, drawn when it begins; those of the set's epochs before the last go."""
        if (number, epoch) not in self._drawn:
            self._drawn[number, epoch] = examples_dataset(
                self.sets[number],
                seed=self.schedule.seed,
                epoch=epoch,
                negatives=self.negatives,
                folder=self._place(number, epoch),
                progress=progress,
            )
            for old in [one for one in self._drawn if one[0] == number and one[1] < epoch - 1]:
                del self._drawn[old]
                shutil.rmtree(self._place(*old), ignore_errors=True)
        return self._drawn[number, epoch]

    def _place(self, number: int, epoch: int) -> Path:
        return self.folder / f"set-{number}-epoch-{epoch}"


@dataclass(frozen=True, eq=False)
class Origin:
    """What a batch was made of; in a value of its own, so that moving a batch to a device does not walk through it.

    Attributes:
        columns: of the batch.
    """

    columns: Columns


@dataclass(frozen=True)
class Reader:
    """What makes a batch of columns: texts become features, numbers tensors.

    Attributes:
        family: of the model.
        model: whose tokenizer reads.
    """

    family: Family
    model: Any

    def __call__(self, columns: Columns) -> dict[str, Any]:
        """A batch of B queries with n documents each.

        Returns:
            ``features``: by task, those of B queries and of B * n documents, query by query, or of as many pairs where
            the family reads them together; ``labels``, ``keys`` (B, n) and ``relevant`` (B, R), padded with the keys
            of the query's own first document; ``scores`` (B, n) where there are; ``domains`` (B,); ``origin``.
        """
        queries = columns["query"]
        n = sum(name.startswith("document_") for name in columns)
        documents = [
            text
            for texts in zip(*(columns[f"document_{place}"] for place in range(n)), strict=True)
            for text in texts
        ]
        if self.family.joint:
            pairs = [
                (query, documents[b * n + place]) for b, query in enumerate(queries) for place in range(n)
            ]
            features = {"document": self.family.features(self.model, pairs, "document")}
        else:
            features = {
                "query": self.family.features(self.model, queries, "query"),
                "document": self.family.features(self.model, documents, "document"),
            }
        batch = {
            "features": features,
            "labels": torch.tensor(columns["labels"]),
            "keys": torch.tensor(columns["keys"]),
            "relevant": _padded(columns["relevant"], [keys[0] for keys in columns["keys"]]),
            "domains": torch.tensor(columns["domain"]),
            "origin": Origin(columns),
        }
        return batch | ({"scores": torch.tensor(columns["scores"])} if "scores" in columns else {})


def _padded(rows: Sequence[Sequence[int]], fillers: Sequence[int]) -> Tensor:
    """(B, R) rows of unequal length, each filled up with its own filler."""
    width = max(map(len, rows))
    return torch.tensor(
        [[*row, *[filler] * (width - len(row))] for row, filler in zip(rows, fillers, strict=True)]
    )
