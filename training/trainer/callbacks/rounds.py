"""Training that stops after so many steps to go on with other examples."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback


class RoundEnd(TrainerCallback):  # type: ignore[misc]
    """Stops at a step, with a checkpoint that the next round goes on from.

    Attributes:
        last: the step.
    """

    def __init__(self, last: int) -> None:
        self.last = last

    def on_step_end(self, _arguments: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop where it is reached."""
        if state.global_step == self.last:
            control.should_save = control.should_training_stop = True
