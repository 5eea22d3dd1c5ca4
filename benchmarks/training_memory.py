"""What a step of training adds to memory, with GradCache and without; every figure from a process of its own."""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.training_trainers import Task, ours

STEPS = 2  # the optimiser's state is there in the second only
BATCHES = (16, 64, 256)
CHUNK = 8

Row = dict[str, Any]


class Watch(TrainerCallback):
    """Bytes that training adds at its peak, and pairs a second of the last step.

    On a card the bytes are torch's there, otherwise those of the process.
    """

    added = 0
    pairs_s = 0.0

    def on_train_begin(self, _arguments: Any, _state: Any, _control: Any, **_: Any) -> None:
        """Forget earlier peaks."""
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            self._before = _bytes_of("VmRSS")

    def on_step_begin(self, _arguments: Any, _state: Any, _control: Any, **_: Any) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_step_end(self, arguments: Any, _state: Any, _control: Any, **_: Any) -> None:
        """Read both."""
        if torch.cuda.is_available():
            peak = torch.cuda.max_memory_allocated()  # once all is done, as the clock wants it too
        else:
            peak = _bytes_of("VmHWM")
        self.added = peak - self._before
        self.pairs_s = arguments.train_batch_size / (time.perf_counter() - self._started)


def measure_here(folder: Path) -> Row:
    """Train on what lies in the folder, in this process."""
    watch = Watch()
    ours(Task.read(folder / "task.json"), folder, [watch]).trainer.train()
    return {"pairs_s": round(watch.pairs_s, 2), "added_mb": round(watch.added / 2**20)}


def compared(task: Task, folder: Path, script: Path) -> Iterator[tuple[Task, Row]]:
    """Each batch in one piece and in chunks, a process each; what fails for want of memory has no figures.

    Args:
        task: of which batch and chunk vary.
        folder: has the training set.
        script: answers ``--memory-of FOLDER`` with ``measure_here``.
    """
    for chunk in (0, CHUNK):
        smallest = None
        for batch in BATCHES:
            asked = replace(task, batch=batch, chunk=chunk, steps=STEPS)
            asked.save(folder / "task.json")
            command = [sys.executable, str(script), "--memory-of", str(folder)]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            row = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"added_mb": None}
            if row["added_mb"] is not None:
                smallest = smallest or row["added_mb"]
                row["of_smallest"] = round(row["added_mb"] / smallest, 2)
            yield asked, row


def _bytes_of(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no line {name}")
