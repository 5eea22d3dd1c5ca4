"""From a recipe to a model: data, negatives, teachers' scores, rounds of training, and a record of it all."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from eval.metrics import parse_metric
from indexing.progress import Progress
from retrieval.compute import apply_threads, choose_device
from retrieval.encoders import FAMILIES as ENCODERS
from retrieval.encoders import open_encoder
from retrieval.errors import ConfigError
from training.auxiliaries.table import Sizes
from training.codes.running import fit_book
from training.examples.training_set import TrainingSet
from training.families.family import Family, Sample
from training.families.table import FITTED
from training.families.table import family as family_of
from training.recipe.options import Recipe
from training.run.dev import Dev
from training.run.preparing import prepare_round, read_data, sample_texts
from training.run.quiet import quietly
from training.run.ranker_turns import FOLDER as RANKER
from training.run.ranker_turns import RankerTurns, ranker_recipe
from training.run.record import start_facts, write_card, write_record, write_start
from training.run.run_folder import WORK, begin
from training.teachers.asked import asks_of_batches
from training.teachers.batch_teacher import BatchTeacher
from training.trainer.arguments import arguments, require_trainer
from training.trainer.batches import ScheduledExamples
from training.trainer.callbacks.best import KeepBest
from training.trainer.callbacks.reporting import Reporting
from training.trainer.callbacks.rounds import RoundEnd
from training.trainer.callbacks.sealing import Sealing, last_checkpoint
from training.trainer.memory import enough_memory
from training.trainer.objective import Objective, open_terms
from training.trainer.objective_trainer import ObjectiveTrainer
from training.trainer.processes import is_first, n_processes, rank
from training.trainer.reach import freeze_unreached
from training.trainer.schedule import Schedule, planned_steps
from training.trainer.weights import average, load_trained, trained_weights


def train(
    recipe: Recipe,
    output: Path,
    root: Path,
    progress: Progress,
    *,
    fresh: bool = False,
    scores: Path | None = None,
) -> dict[str, Any]:
    """Train a model, or go on with it where a killed run stopped, to the same losses.

    Args:
        recipe: how.
        output: the folder of the model; new, or of an earlier run with the same recipe. Beside the model it gets
            recipe.toml, run.json, curve.json, curves.png and README.md, and a folder for the ranker where there is one.
        root: where relative paths of training sets start.
        progress: hears of every stage.
        fresh: forget an earlier run.
        scores: keeps teachers' scores for other runs; by default, and with a ranker, they go when the run is done.

    Returns:
        The content of run.json.

    Raises:
        ConfigError: the recipe asks for what is not there, memory does not suffice, or the loss is not finite.
        FormatError: training data cannot be read; names file and line.
        CorruptError: a checkpoint or stored scores are damaged.
        IncompatibleError: the folder is of another recipe, or stored scores of other data.
        MissingExtraError: what trains is not installed.
    """
    if recipe.family in FITTED:
        return fit_book(recipe, output, root, progress, fresh=fresh)
    require_trainer()
    apply_threads()
    with quietly(), enough_memory():
        from accelerate import PartialState  # type: ignore[import-untyped]

        everyone = PartialState(cpu=choose_device("auto") == "cpu")
        if is_first():
            begin(recipe, output, fresh=fresh)
        everyone.wait_for_everyone()
        if scores is None or recipe.ranker is not None:  # a ranker is of this run alone
            scores = output / WORK / "teachers"
        return _Run(recipe, output, family_of(recipe.family), scores, progress).all(root)


@dataclass
class _Run:
    """One run; the parts of ``train`` share it.

    Attributes:
        recipe: how.
        output: the folder of the model.
        family: of the model.
        scores: keeps teachers' scores.
        progress: hears of every stage.
        history: what was logged.
        seconds, steps: of this process's training.
    """

    recipe: Recipe
    output: Path
    family: Family
    scores: Path
    progress: Progress
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    steps: int = 0

    @property
    def work(self) -> Path:
        return self.output / WORK

    def all(self, root: Path) -> dict[str, Any]:
        recipe = self.recipe
        sets = read_data(recipe, root, self.work, self.progress)
        dev = None
        if recipe.dev.queries:
            *sets, held = sets
            dev = Dev(self.family, held, recipe.dev.metric, self.progress)
        objective = self.open(sets)
        model = objective.model
        figures = {"before": self._before(model, dev)} if dev else {}
        first = trained_weights(objective) if recipe.optim.average < 1 else {}
        ranker = self._ranker(sets)
        self._rounds(objective, sets, dev, ranker)
        self._finish(objective, first, sample_texts(sets, recipe.seed))
        if dev:
            figures["after"] = self._measured(model, dev)
        if ranker is not None:
            ranker.finish()
        return self.record(model, sets, figures)

    # --- before ---

    def open(self, sets: Sequence[TrainingSet]) -> Objective:
        """The model that training starts from, with its losses."""
        recipe = self.recipe
        model = self.family.open(recipe.model, recipe.seed, sample_texts(sets, recipe.seed), self.progress)
        width = freeze_unreached(model, self.family)
        objective = self._objective(model, Sizes(width, _vocabulary(model), len(sets)), sets)
        model.to(choose_device("auto"))
        return objective

    def _objective(self, model: Any, sizes: Sizes, sets: Sequence[TrainingSet]) -> Objective:
        teacher = None
        if asks_of_batches(self.recipe):
            folder = self.work / f"teacher-{rank()}"
            teacher = BatchTeacher.open(self.recipe, sets, folder, self.progress)
        terms = open_terms(self.recipe.losses, sizes)
        return Objective(model, self.family, terms, chunk=self.recipe.optim.chunk, teacher=teacher)

    def _before(self, model: Any, dev: Dev) -> dict[str, float]:
        """Measured once, also of a run that is gone on with."""
        path = self.work / "before.json"
        if not path.exists() and is_first():
            unfinished = path.with_suffix(".tmp")
            unfinished.write_text(json.dumps(self._measured(model, dev)), encoding="utf-8")
            unfinished.replace(path)
        found: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if is_first() else {}
        self._tell("before", found)
        return found

    def _measured(self, model: Any, dev: Dev) -> dict[str, float]:
        return dev(model) if is_first() else {}

    def _tell(self, when: str, figures: dict[str, float]) -> None:
        if figures:
            told = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
            self.progress.note(f"held-out queries {when}: {told}")

    # --- training ---

    def schedule(self, sets: Sequence[TrainingSet]) -> Schedule:
        """The queries of every step."""
        optim, sizes = self.recipe.optim, tuple(one.queries.height for one in sets)
        steps = planned_steps(optim, sizes, n_processes())
        return Schedule(sizes, optim.batch * n_processes(), steps, self.recipe.seed)

    def _ends(self, steps: int) -> list[int]:
        """The last step of each round."""
        every = self.recipe.negatives.every or steps
        return [*range(every, steps, every), steps]

    def _ranker(self, sets: Sequence[TrainingSet]) -> RankerTurns | None:
        if self.recipe.ranker is None:
            return None
        turns = len(self._ends(self.schedule(sets).steps))
        recipe = ranker_recipe(self.recipe, self.recipe.ranker, turns)
        run = _Run(recipe, self.output / RANKER, family_of(recipe.family), self.scores, self.progress)
        return RankerTurns(run, sets)

    def _rounds(
        self, objective: Objective, sets: Sequence[TrainingSet], dev: Dev | None, ranker: RankerTurns | None
    ) -> None:
        if is_first():
            write_start(self.work / "checkpoints", self.recipe, sets)
        schedule, model = self.schedule(sets), objective.model
        step, stopped = self.resume(objective), self.work / "stopped-early"
        for number, end in enumerate(self._ends(schedule.steps)):
            if step >= end or stopped.exists():
                continue
            mined = prepare_round(
                sets,
                self.recipe,
                number,
                self.work,
                self.scores,
                lambda: self._searcher(model),
                self.progress,
                ranker,
            )
            step = self.until(objective, mined, schedule, end, dev)
            if step < end:
                self.progress.note(f"stopped early, at step {step} of {schedule.steps}")
                if is_first():
                    stopped.touch()  # a run that is killed before its record does not train on
                break

    def resume(self, objective: Objective) -> int:
        """Put back the last checkpoint; its step, 0 where there is none."""
        last = last_checkpoint(self.work / "checkpoints")
        if last is None:
            return 0
        load_trained(objective, last)
        self.history = json.loads((last / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
        self.progress.note(f"going on from {last.name}")
        return _step_of(last)

    def until(
        self,
        objective: Objective,
        sets: Sequence[TrainingSet],
        schedule: Schedule,
        end: int,
        dev: Dev | None = None,
    ) -> int:
        """Train from the last checkpoint to a step, which has a checkpoint then; the step that was reached."""
        last = last_checkpoint(self.work / "checkpoints")
        folder = self.work / f"examples-{end}"
        examples = ScheduledExamples(sets, schedule, self.recipe.negatives.per_query, folder)
        examples.draw(_step_of(last) if last else 0, self.progress)
        with enough_memory():
            state = self._round(objective, examples, dev, end, last)
        shutil.rmtree(folder, ignore_errors=True)
        return int(state.global_step)

    def _round(
        self, objective: Objective, examples: ScheduledExamples, dev: Dev | None, end: int, last: Path | None
    ) -> Any:
        """Train until a step; the trainer's state after it."""
        recipe, model, steps = self.recipe, objective.model, examples.schedule.steps
        every = recipe.dev.every if dev else 0
        callbacks: list[Any] = [Reporting(self.progress, steps)]
        if every:
            metric = f"eval_{parse_metric(recipe.dev.metric)}"
            callbacks.append(KeepBest(objective, metric, recipe.dev.patience, self.work / "best"))
        callbacks += [RoundEnd(end), Sealing(), *self._tensorboard()]
        trainer = ObjectiveTrainer(
            objective,
            arguments(recipe, steps, self.work / "checkpoints"),
            examples,
            head_lr=recipe.optim.head_lr or recipe.optim.lr,
            callbacks=callbacks,
            evaluator=dev if every else None,
        )
        started = time.perf_counter()
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        self.seconds += time.perf_counter() - started
        self.steps += trainer.state.global_step - (_step_of(last) if last else 0)
        self.history = trainer.state.log_history
        trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # no autocast from here on
        return trainer.state

    def _searcher(self, model: Any) -> Any:
        """An encoder of the model as it is, for mining."""
        if self.recipe.family not in ENCODERS:
            raise ConfigError(
                f"a {self.recipe.family} cannot search; choose another negatives.searcher than 'model'"
            )
        folder = self.work / "searcher"
        shutil.rmtree(folder, ignore_errors=True)
        self.family.save(model, folder)
        return open_encoder({"family": self.recipe.family, "model": str(folder)})

    def _tensorboard(self) -> list[Any]:
        if not is_first() or find_spec("tensorboard") is None:
            return []
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations import TensorBoardCallback

        return [TensorBoardCallback(SummaryWriter(str(self.output / "tensorboard")))]

    # --- after ---

    def _finish(self, objective: Objective, first: dict[str, torch.Tensor], sample: Sample) -> None:
        best = self.work / "best"
        if best.exists():
            load_trained(objective, best)
        if first:
            average(objective, first, self.recipe.optim.average)
        self.family.finish(objective.model, self.recipe.model, sample, self.progress)

    def save(self, model: Any, folder: Path) -> None:
        """Write the model, once."""
        if is_first():
            self.family.save(model, folder)

    def record(
        self, model: Any, sets: Sequence[TrainingSet], figures: dict[str, dict[str, float]]
    ) -> dict[str, Any]:
        recipe = self.recipe
        pairs = self.steps * recipe.optim.batch * n_processes()
        facts = start_facts(recipe, sets) | {
            "figures": figures,
            "steps": self.history[-1]["step"] if self.history else 0,
            "seconds": round(self.seconds, 1),
            "pairs_per_second": round(pairs / self.seconds, 2) if self.seconds else None,
        }
        if is_first():
            self._tell("after", figures.get("after", {}))
            self.family.save(model, self.output)
            write_card(self.output, recipe, figures)
            write_record(self.output, facts, self.history, self.progress)
            shutil.rmtree(self.work)
        return facts


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _vocabulary(model: Any) -> int:
    return len(model.tokenizer) if hasattr(model.tokenizer, "__len__") else 0
