"""Checkpoints that tell whether they are whole."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from accelerate import PartialState  # type: ignore[import-untyped]
from transformers import TrainerCallback

from indexing.durable import MANIFEST, verify_component, write_manifest
from retrieval.errors import CorruptError
from training.trainer.processes import is_first

_NAME = re.compile(r"checkpoint-([0-9]+)")


class Sealing(TrainerCallback):  # type: ignore[misc]
    """Writes sizes and checksums into a checkpoint once all of it is there."""

    def on_save(self, arguments: Any, state: Any, _control: Any, **_: Any) -> None:
        """Seal the checkpoint of this step, when every process has written its part; none goes on before that."""
        everyone = PartialState()
        everyone.wait_for_everyone()
        if state.is_world_process_zero:
            folder = Path(arguments.output_dir) / f"checkpoint-{state.global_step}"
            write_manifest(folder, {"kind": "checkpoint", "step": state.global_step})
        everyone.wait_for_everyone()  # else another would take the checkpoint for one that was never finished


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that a run goes on from; None where there is none. The first process removes unfinished ones.

    Raises:
        CorruptError: names the file that is missing, cut short or changed.
    """
    found = {
        int(match[1]): path for path in folder.glob("checkpoint-*") if (match := _NAME.fullmatch(path.name))
    }
    for step in sorted(found, reverse=True):
        if not (found[step] / MANIFEST).exists():
            if is_first():
                shutil.rmtree(found[step])  # killed while it was written
            continue
        _, problems = verify_component(found[step])
        if problems:
            raise CorruptError(
                found[step],
                f"{problems[0]}; remove the folder to go on from the checkpoint before, or use --fresh",
            )
        return found[step]
    return None
