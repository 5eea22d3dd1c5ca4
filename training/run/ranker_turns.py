"""AR2's ranker: a cross-encoder that learns in turns with the model and is its teacher."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from indexing.progress import Progress
from retrieval.errors import ConfigError
from training.examples.training_set import TrainingSet
from training.recipe.options import (
    DevOptions,
    LossOptions,
    ModelOptions,
    NegativeOptions,
    RankerOptions,
    Recipe,
    TeacherOptions,
)
from training.run.run_folder import RECORD
from training.trainer.objective import Objective
from training.trainer.processes import is_first
from training.trainer.schedule import Schedule

FOLDER = "ranker"
"""Of the ranker, beside the model."""


class Run(Protocol):
    """What ``training.run.running`` has for a model and the ranker beside it alike."""

    recipe: Recipe
    output: Path
    progress: Progress

    @property
    def work(self) -> Path:
        """The folder of what is needed until the run is done."""
        ...

    def open(self, sets: Sequence[TrainingSet]) -> Objective:
        """The model that training starts from, with its losses."""
        ...

    def resume(self, objective: Objective) -> int:
        """Put back the last checkpoint; its step, 0 where there is none."""
        ...

    def until(self, objective: Objective, sets: Sequence[TrainingSet], schedule: Schedule, end: int) -> int:
        """Train from the last checkpoint to a step, which has a checkpoint then; the step that was reached."""
        ...

    def schedule(self, sets: Sequence[TrainingSet]) -> Schedule:
        """The queries of every step."""
        ...

    def save(self, model: Any, folder: Path) -> None:
        """Write the model, once."""
        ...

    def record(
        self, model: Any, sets: Sequence[TrainingSet], figures: dict[str, dict[str, float]]
    ) -> dict[str, Any]:
        """Write the model with its record, and remove ``work``."""
        ...


@dataclass
class RankerTurns:
    """The ranker of a run: asked for a teacher in every round, it first learns to rank that round's lists.

    Zhang et al., "Adversarial Retriever-Ranker for Dense Text Retrieval", ICLR 2022, arXiv:2110.03611, equation 6: the
    cross entropy of one positive among negatives that the model retrieves. The paper goes through 2,000 steps of the
    retriever and 500 of the ranker in turns and mines anew before each; so does this with ``negatives.every = 2000``
    and ``ranker.steps = 500``. All turns are one training, with one schedule and one state of the optimiser. Two things
    differ: the ranker's turn comes first, so that the model never learns from one that has not seen its negatives, and
    its scores are fixed for the round, since the ranker does not change in it.

    Attributes:
        run: the ranker's own, by ``ranker_recipe``.
        sets: the training sets as they were read, without what is held out.
    """

    run: Run
    sets: Sequence[TrainingSet]
    _objective: Objective | None = field(default=None, repr=False)
    _step: int = 0

    def __call__(self, mined: Sequence[TrainingSet], number: int) -> TeacherOptions:
        """Train on lists as they are now; a turn that is done, or half done, is gone on with.

        Args:
            mined: the sets with negatives.
            number: of the round, from 0.

        Returns:
            The ranker as a teacher.

        Raises:
            ConfigError: its training failed; says in which keys of the recipe the remedy is.
        """
        run = self.run
        objective, schedule = self._opened(), run.schedule(mined)
        turn = run.recipe.negatives.every
        end = (number + 1) * turn
        if self._step < end:
            run.progress.note(f"the ranker's turn {number + 1} of {schedule.steps // turn}")
            try:
                self._step = run.until(objective, mined, schedule, end)
            except ConfigError as error:
                raise ConfigError(
                    f"in the ranker's turn, whose batch, lr, per_query and max_length stand in [ranker]: {error}"
                ) from error
        return TeacherOptions("reranker", str(self._saved(objective.model, number)))

    def finish(self) -> None:
        """Write the ranker as it is after its last turn, as a model of its own."""
        if not (self.run.output / RECORD).exists():
            self.run.record(self._opened().model, self.sets, {})

    def _opened(self) -> Objective:
        if self._objective is None:
            self._objective = self.run.open(self.sets)
            self._step = self.run.resume(self._objective)
        return self._objective

    def _saved(self, model: Any, number: int) -> Path:
        """The folder of the model of this turn, whose name is new, so that stored scores are of no other turn."""
        folder = self.run.work / f"turn-{number}"
        if is_first():
            for old in self.run.work.glob("turn-*"):
                shutil.rmtree(old)
        self.run.save(model, folder)
        return folder


def ranker_recipe(recipe: Recipe, options: RankerOptions, turns: int) -> Recipe:
    """How the ranker of a recipe is trained, all turns together."""
    return Recipe(
        name=f"{recipe.name}-ranker",
        family="reranker",
        seed=recipe.seed,
        model=ModelOptions(base=options.base, max_length=options.max_length),
        data=recipe.data,
        dev=DevOptions(queries=0),
        negatives=NegativeOptions(searcher="model", per_query=options.per_query, every=options.steps),
        losses=(LossOptions("listwise"),),
        optim=replace(
            recipe.optim,
            lr=options.lr,
            head_lr=None,
            batch=options.batch,
            steps=turns * options.steps,
            average=1.0,
        ),
    )
