"""The weights with the best measurement so far, and the end of training where none has been better for long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback

from training.trainer.weights import save_trained


class KeepBest(TrainerCallback):  # type: ignore[misc]
    """Keeps the best weights in a folder; what came before is read off the trainer's history, which checkpoints hold.

    Attributes:
        module: whose weights.
        metric: by its name in the history; more is better.
        patience: measurements without a better one after which training stops; 0 never does.
        folder: of the weights.
    """

    def __init__(self, module: nn.Module, metric: str, patience: int, folder: Path) -> None:
        self.module = module
        self.metric = metric
        self.patience = patience
        self.folder = folder

    def on_step_end(self, _arguments: Any, state: Any, control: Any, **_: Any) -> None:
        """The last step is measured wherever it falls."""
        if state.global_step == state.max_steps:
            control.should_evaluate = True

    def on_evaluate(self, arguments: Any, state: Any, control: Any, **_: Any) -> None:
        """Judge the measurement that was made last."""
        values = [entry[self.metric] for entry in state.log_history if self.metric in entry]
        best = max(range(len(values)), key=lambda place: (values[place], -place))
        if best == len(values) - 1 and state.is_world_process_zero:
            save_trained(self.module, self.folder)
        if self.patience and len(values) - 1 - best >= self.patience:
            control.should_training_stop = control.should_save = True
