"""Checkpoints that tell whether they are whole."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from training.trainer.callbacks.sealing import Sealing, last_checkpoint


def seal(folder: Path, step: int) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir()
    (checkpoint / "weights").write_text("whole")
    Sealing().on_save(
        SimpleNamespace(output_dir=str(folder)),
        SimpleNamespace(is_world_process_zero=True, global_step=step),
        None,
    )
    return checkpoint


@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_was_never_finished_is_passed_over_and_removed_by_the_first_process(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [seal(tmp_path, step) for step in (8, 16)]
    torn = tmp_path / "checkpoint-24"
    torn.mkdir()
    monkeypatch.setenv("RANK", str(rank))
    assert last_checkpoint(tmp_path) == whole[1]
    assert torn.exists() == (rank == 1)


def test_there_is_none_at_first(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "none") is None
