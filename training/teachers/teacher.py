"""What a teacher is, and the teachers there are."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from indexing.progress import Progress
from retrieval.errors import unknown_name
from training.examples.training_set import TrainingSet
from training.recipe.options import TeacherOptions

Scorer = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
"""From the queries (P,) and documents (P,) of P pairs, as rows of a training set, to their scores (P,). No pair comes
twice, and they are sorted by what ``Teacher.by`` says, then by the other."""

TEACHERS: dict[str, str] = {
    "bm25": "training.teachers.bm25:Bm25Teacher",
    "dense": "training.teachers.vectors:DenseTeacher",
    "file": "training.teachers.file:FileTeacher",
    "late": "training.teachers.vectors:LateTeacher",
    "reranker": "training.teachers.reranker:RerankerTeacher",
    "sparse": "training.teachers.vectors:SparseTeacher",
}
"""Name -> "module:Class"; the class has ``open(model)``."""


class Teacher(Protocol):
    """Scores pairs of queries and documents; the same pair always the same, but for the rounding of a device."""

    @property
    def by(self) -> Literal["query", "document"]:
        """What pairs are sorted by before they are scored in parts: what this teacher would otherwise read twice."""
        ...

    @property
    def together(self) -> int:
        """Queries or documents, whichever ``by`` says, whose pairs are one part: the work that a kill can cost."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identity of the scores: content of the model and the settings that matter."""
        ...

    def scorer(
        self, data: TrainingSet, queries: NDArray[np.int64], folder: Path, progress: Progress
    ) -> Scorer:
        """Prepare to score pairs of a set.

        Args:
            data: the set.
            queries: distinct rows of the queries that will be asked for, ascending.
            folder: for what is too large for memory; stays until the scorer is no longer used.
            progress: hears of the preparation.

        Raises:
            TercetError: the model cannot be loaded, or the file cannot be read or is for another set.
        """
        ...


def open_teacher(options: TeacherOptions) -> Teacher:
    """The teacher that a recipe names.

    Raises:
        ConfigError: no such teacher, or no such checkpoint.
        FormatError: no such file of scores.
    """
    if options.name not in TEACHERS:
        raise unknown_name("teacher", options.name, TEACHERS)
    module, _, attribute = TEACHERS[options.name].partition(":")
    opened: Teacher = getattr(importlib.import_module(module), attribute).open(options.model)
    return opened
