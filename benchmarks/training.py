"""Training beside sentence-transformers' own trainers, and what GradCache saves.

    python benchmarks/training.py [--memory] [--quick] [--data FOLDER] [--json]

Pairs a second of our trainer and theirs, for dense, sparse and late models made of the default one: the same
checkpoint, batches, lengths, loss, optimiser and precision (see training_trainers.py). Each trainer lives in a process
of its own with the same number of threads and trains some steps when told to; rounds are interleaved, medians
reported, warm-up and everything before the first step left out. `speedup` compares with sentence-transformers;
`cpu_ms` and `cpu_speedup` do so with what the processor worked on all cores, which other programs disturb less.
`first_loss` is the loss of the first batch before any step and without dropout; the run fails where the two differ.

`--memory` is our trainer alone, on a dense model: `added_mb` is by how much memory grows over the loaded model while it
trains, with GradCache (chunks of 8 texts) and without, `of_smallest` how many times that of the smallest batch. All
documents fill the maximum length, so that every batch is padded alike.

Texts are generated (training_data.py), or come from a training set (`--data`). On a machine with a card all this is
about the card. Precisions are float32 and, where the device is fast at it, bfloat16 (`--quick`: the one that recipes
choose).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from transformers import TrainerCallback

from benchmarks.training_data import Pairs, training_pairs
from benchmarks.training_memory import BATCHES, STEPS, compared, measure_here
from benchmarks.training_trainers import ENGINES, FAMILIES, OURS, PEER, Task, save_base
from retrieval.compute import choose_device, set_threads, threads
from training.examples.training_set import TrainingSet
from training.recipe.options import ModelOptions
from training.run.quiet import quietly
from training.trainer.arguments import uses_half

TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}
"""By which share of itself the first loss may differ."""
FIT_TEXTS = 128  # that new heads start from; speed does not depend on them
CUT = 64  # tokens of a text where memory is measured

Row = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes:
        batch: pairs of a step.
        warm_up: steps before the first round.
        block: steps of a round.
        rounds: of every trainer.
        median_words: of a document; 120 words are some 155 word pieces, as of SQuAD's paragraphs.
        max_length: tokens of a text.
        precisions: of the model.
    """

    batch: int
    warm_up: int
    block: int
    rounds: int
    median_words: float
    max_length: int
    precisions: tuple[str, ...]

    @classmethod
    def of(cls, quick: bool) -> Scale:
        """What suits the time there is."""
        half = uses_half("auto", choose_device("auto"))
        if quick:
            return cls(8, 1, 2, 3, 60, 128, ("bfloat16" if half else "float32",))
        return cls(32, 3, 6, 5, 120, 256, ("float32", "bfloat16") if half else ("float32",))

    @property
    def steps(self) -> int:
        """Of a run."""
        return self.warm_up + self.rounds * self.block


# --- workers


class Blocks(TrainerCallback):
    """Pauses after the warm-up and after every block of steps, says how long they took and waits to be told to go on.

    Attributes:
        scale: warm-up and block.
        ask, answer: one line each way.
    """

    def __init__(self, scale: Scale, ask: TextIO, answer: TextIO) -> None:
        self.scale, self.ask, self.answer = scale, ask, answer
        self._started = self._computed = 0.0

    def on_step_end(self, _arguments: Any, state: Any, control: Any, **_: Any) -> None:
        """Pause where a block ends; without anyone to ask, training ends."""
        after = state.global_step - self.scale.warm_up
        if after < 0 or after % self.scale.block:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken = [time.perf_counter() - self._started, time.process_time() - self._computed]
        print(json.dumps(taken), file=self.answer, flush=True)
        control.should_training_stop = not self.ask.readline()
        self._started, self._computed = time.perf_counter(), time.process_time()


def work(engine: str, scale: Scale, folder: Path) -> None:
    """A worker: says its first loss and, once warm, for each line that it reads the seconds of a block."""
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints stays out of the protocol
    task = Task.read(folder / "task.json")
    made = ENGINES[engine](task, folder, [Blocks(scale, sys.stdin, answers)])
    print(json.dumps(made.first_loss()), file=answers, flush=True)
    made.trainer.train()


@dataclass
class Worker:
    """A trainer in its own process.

    Attributes:
        engine: whose.
        folder: with task and training set.
        options: of the script.
        blocks: seconds of every block so far, and of the processor in it.
        first_loss: before training.
    """

    engine: str
    folder: Path
    options: Sequence[str]
    blocks: list[tuple[float, float]] = field(default_factory=list)
    first_loss: float = 0.0

    def __post_init__(self) -> None:
        environment = os.environ | {"TERCET_THREADS": str(threads()), "OMP_NUM_THREADS": str(threads())}
        command = [sys.executable, __file__, "--worker", self.engine, str(self.folder), *self.options]
        with self._log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
        self.first_loss = self._answer()
        self._answer()  # the warm-up

    def train(self) -> None:
        """A block of steps."""
        print(file=self.process.stdin, flush=True)
        self.blocks.append(self._answer())

    def stop(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait(60)

    @property
    def seconds(self) -> float:
        """Of a block."""
        return statistics.median(wall for wall, _ in self.blocks)

    @property
    def computed(self) -> float:
        """Seconds of the processor in a block, on all cores."""
        return statistics.median(processor for _, processor in self.blocks)

    @property
    def _log(self) -> Path:
        return self.folder / f"{self.engine}.log"

    def _answer(self) -> Any:
        line = self.process.stdout.readline()
        if not line:
            told = self._log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise SystemExit(f"the worker of {self.engine} ended early:\n{told}")
        return json.loads(line)


# --- measurements


def throughput(scale: Scale, options: Sequence[str], source: Path | None) -> Iterator[Row]:
    """Both trainers, for every family and precision."""
    data = training_pairs(scale.batch * scale.steps, Pairs(scale.median_words), source)
    for name in FAMILIES:
        with tempfile.TemporaryDirectory(prefix="tercet-") as temporary:
            base = Path(temporary) / "base"
            options_ = {} if name == "dense" else {"fit_texts": FIT_TEXTS}
            save_base(name, ModelOptions(max_length=scale.max_length, options=options_), data, base)
            for precision in scale.precisions:
                folder = Path(temporary) / precision
                task = Task(name, str(base), precision, scale.batch, scale.steps, scale.max_length)
                prepare(task, data, folder)
                yield from side_by_side(task, scale, data.name, folder, options)


def prepare(task: Task, data: TrainingSet, folder: Path) -> None:
    """Put what a worker reads into a new folder."""
    folder.mkdir()
    data.save(folder / "set")
    task.save(folder / "task.json")


def side_by_side(task: Task, scale: Scale, data: str, folder: Path, options: Sequence[str]) -> Iterator[Row]:
    """Rounds of one task; theirs first."""
    workers = [Worker(engine, folder, options) for engine in (PEER, OURS)]
    try:
        for _ in range(scale.rounds):
            for worker in workers:
                worker.train()
    finally:
        for worker in workers:
            worker.stop()
    theirs, ours = workers
    if abs(ours.first_loss - theirs.first_loss) > TOLERANCE[task.precision] * abs(theirs.first_loss):
        raise SystemExit(
            f"{task.family}, {task.precision}: the first loss is {ours.first_loss:.6g}, of {PEER} "
            f"{theirs.first_loss:.6g}; they do not train the same"
        )
    pairs = scale.block * task.batch
    for worker in workers:
        yield row(
            data,
            worker.engine,
            f"{task.family}, {task.precision}, batch {task.batch}",
            pairs_s=round(pairs / worker.seconds, 2),
            speedup=round(theirs.seconds / worker.seconds, 3),
            cpu_ms=round(1e3 * worker.computed / pairs, 2),
            cpu_speedup=round(theirs.computed / worker.computed, 3),
            first_loss=round(worker.first_loss, 4),
        )


def memory(source: Path | None) -> Iterator[Row]:
    """Our trainer with GradCache and without."""
    precision = "bfloat16" if uses_half("auto", choose_device("auto")) else "float32"
    data = training_pairs(max(BATCHES) * STEPS, Pairs(CUT, spread=0), source)
    with tempfile.TemporaryDirectory(prefix="tercet-") as temporary:
        task = Task("dense", "default", precision, 0, 0, CUT)
        folder = Path(temporary) / "work"
        prepare(task, data, folder)
        for asked, figures in compared(task, folder, Path(__file__)):
            chunked = f"chunks of {asked.chunk}" if asked.chunk else "at once"
            yield row(data.name, OURS, f"dense, {precision}, batch {asked.batch}, {chunked}", **figures)


def row(data: str, engine: str, setting: str, **figures: Any) -> Row:
    """One line of output."""
    return {
        "bench": "training",
        "data": data,
        "engine": engine,
        "setting": setting,
        "device": choose_device("auto"),
        "threads": threads(),
        **figures,
    }


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="shorter texts, few steps, one precision")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--memory", action="store_true", help="what GradCache saves")
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="a training set, instead of generated texts"
    )
    parser.add_argument("--worker", nargs=2, metavar=("ENGINE", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--memory-of", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    given = parser.parse_args()
    set_threads(threads())
    with quietly():
        if given.memory_of:
            print(json.dumps(measure_here(given.memory_of)))
            return
        scale = Scale.of(given.quick)
        if given.worker:
            engine, folder = given.worker
            work(engine, scale, Path(folder))
            return
        options = ["--quick"] if given.quick else []
        for line in memory(given.data) if given.memory else throughput(scale, options, given.data):
            if given.json:
                print(json.dumps(line), flush=True)
            else:
                figures = "  ".join(f"{name} {value}" for name, value in list(line.items())[4:])
                print(f"{line['engine']:<22} {line['setting']:<46} {figures}", flush=True)


if __name__ == "__main__":
    main()
