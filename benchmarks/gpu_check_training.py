"""Training on a GPU: one step of every family beside the same step on the CPU, and pairs a second; see gpu_check.py."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.gpu_card import Card, Peak, Row, row
from benchmarks.training_data import Pairs
from benchmarks.training_trainers import Task, losses, ours, save_base
from indexing.progress import Silent
from training.auxiliaries.table import Sizes
from training.examples.training_set import TrainingSet
from training.families.family import Family
from training.families.table import FAMILIES, family
from training.recipe.options import ModelOptions
from training.run.preparing import sample_texts
from training.run.quiet import quietly
from training.trainer.batches import Reader, ScheduledExamples
from training.trainer.objective import Objective, open_terms
from training.trainer.reach import freeze_unreached
from training.trainer.schedule import Schedule

TOLERANCE = 1e-3
"""By which share of itself a loss may differ from the CPU's."""
NEGATIVES = 3  # documents of a query beside the one that answers it
FIT_TEXTS = 64  # that new heads start from
LR = 1e-4


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes:
        card: where.
        compared: queries of the step that is compared.
        batch: pairs of a step that is timed.
        warm_up, steps: that are not timed, and that are.
        median_words: of a document.
        max_length: tokens of a text.
    """

    card: Card
    compared: int = 16
    batch: int = 128
    warm_up: int = 5
    steps: int = 20
    median_words: float = 120.0
    max_length: int = 256

    @classmethod
    def of(cls, card: Card) -> Scale:
        """What suits a card."""
        return cls(card, 4, 16, 1, 2, 30, 64) if card.small else cls(card)


def training(card: Card, peak: Peak) -> Iterator[Row]:
    """Every family: the step, then the speed."""
    if card.device == "cpu":
        yield row("training", "tercet", "skipped", reason="no CUDA GPU to compare the CPU with")
        return
    scale = Scale.of(card)
    data = Pairs(scale.median_words).training_set(scale.batch * (scale.warm_up + scale.steps))
    with quietly():
        for name in FAMILIES:
            yield compared(name, start(name, scale), data, scale)
        for name in FAMILIES:
            yield speed(name, data, scale)


def start(name: str, scale: Scale) -> ModelOptions:
    """The default model, new heads fitted on few texts."""
    fitted = {"fit_texts": FIT_TEXTS} if name in ("sparse", "late") else {}
    return ModelOptions(max_length=scale.max_length, options=fitted)


# --- the same step twice


def compared(name: str, options: ModelOptions, data: TrainingSet, scale: Scale) -> Row:
    """The losses before and after a step on the card, and by how much they are off the CPU's."""
    expected = step_losses(name, options, data, scale, "cpu")
    found = step_losses(name, options, data, scale, scale.card.device)
    off = max(abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True))
    return row(
        "training",
        "tercet",
        f"one step of {name}, float32",
        loss=found[0],
        loss_after=found[1],
        off=off,
        correct=off <= TOLERANCE and found[1] != found[0],
    )


def step_losses(
    name: str, options: ModelOptions, data: TrainingSet, scale: Scale, device: str
) -> tuple[float, float]:
    """The loss of a batch before and after one step of AdamW, without dropout, since its noise is each device's own."""
    kind = family(name)
    model = kind.open(options, 0, sample_texts([data], 0), Silent())
    width = freeze_unreached(model, kind)
    model.to(device).eval()
    objective = Objective(model, kind, open_terms(losses(name), Sizes(width, 0, 1)))
    batch = _on(_batch(kind, model, data, scale.compared), device)
    parameters = [one for one in objective.parameters() if one.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=LR)
    before, _ = objective(batch)
    before.backward()
    optimiser.step()
    with torch.no_grad():
        after, _ = objective(batch)
    return float(before), float(after)


def _batch(kind: Family, model: Any, data: TrainingSet, n: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="tercet-") as temporary:
        schedule = Schedule((data.queries.height,), n, 1, 0)
        examples = ScheduledExamples([data], schedule, NEGATIVES, Path(temporary))
        return Reader(kind, model)(examples.__getitems__(range(n)))


def _on(value: Any, device: str) -> Any:
    if isinstance(value, dict):
        return {name: _on(part, device) for name, part in value.items()}
    return value.to(device) if isinstance(value, torch.Tensor) else value


# --- speed


class Stopwatch(TrainerCallback):
    """Seconds from the end of the warm-up to the end of training."""

    def __init__(self, warm_up: int, last: int) -> None:
        self.warm_up, self.last, self.seconds = warm_up, last, 0.0

    def on_step_end(self, _arguments: Any, state: Any, _control: Any, **_: Any) -> None:
        """Look at the clock at both ends."""
        if state.global_step in (self.warm_up, self.last):
            torch.cuda.synchronize()
            self.seconds = time.perf_counter() - self.seconds


def speed(name: str, data: TrainingSet, scale: Scale) -> Row:
    """Pairs a second through the trainer, tokenizing included."""
    last = scale.warm_up + scale.steps
    watch = Stopwatch(scale.warm_up, last)
    with tempfile.TemporaryDirectory(prefix="tercet-") as temporary:
        folder = Path(temporary)
        data.save(folder / "set")
        save_base(name, start(name, scale), data, folder / "base")
        negatives = int(family(name).joint)  # a reranker has nothing else to compare with
        task = Task(name, str(folder / "base"), "bfloat16", scale.batch, last, scale.max_length, 0, negatives)
        ours(task, folder, [watch]).trainer.train()
    setting = f"{name}, bfloat16, batch {scale.batch}"
    return row("training", "tercet", setting, pairs_s=scale.batch * scale.steps / watch.seconds)


SECTIONS = {"training": training}
