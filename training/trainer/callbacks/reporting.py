"""Moves the bar, and says how it goes every few steps."""

from __future__ import annotations

import time
from typing import Any

from transformers import TrainerCallback

from indexing.progress import Progress

_EXTRA = ("loss", "grad_norm", "learning_rate", "epoch", "step")


class Reporting(TrainerCallback):  # type: ignore[misc]
    """One bar for all steps; a line with the loss and its terms wherever they are logged.

    Attributes:
        progress: is told.
        steps: in total.
    """

    def __init__(self, progress: Progress, steps: int) -> None:
        self.progress = progress
        self.steps = steps

    def on_train_begin(self, _arguments: Any, state: Any, _control: Any, **_: Any) -> None:
        """Open the bar where the run stands."""
        self._open(state)
        self._started, self._first = time.perf_counter(), state.global_step

    def on_step_end(self, _arguments: Any, state: Any, control: Any, **_: Any) -> None:
        """Move on; the last step is logged wherever it falls."""
        self.progress.advance(1)
        if state.global_step == self.steps:
            control.should_log = True

    def on_evaluate(self, _arguments: Any, state: Any, _control: Any, **_: Any) -> None:
        """Open the bar again, after that of the measurement."""
        self._open(state)

    def on_log(self, _arguments: Any, state: Any, _control: Any, logs: dict[str, float], **_: Any) -> None:
        """Say how it goes."""
        if "loss" not in logs:
            return  # a measurement, or the summary at the end
        pace = (time.perf_counter() - self._started) / max(1, state.global_step - self._first)
        terms = [f"{name} {value:.4g}" for name, value in logs.items() if name not in _EXTRA]
        told = f"loss {logs['loss']:.4g}" + (f" ({', '.join(terms)})" if len(terms) > 1 else "")
        left = (self.steps - state.global_step) * pace / 60
        self.progress.note(
            f"step {state.global_step}/{self.steps}: {told}; {pace:.2f} s/step, {left:.1f} min left"
        )

    def _open(self, state: Any) -> None:
        self.progress.start("training", self.steps, "steps")
        self.progress.advance(state.global_step)
