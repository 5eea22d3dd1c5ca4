"""States of a whole collection on disk: named by content, durable, checked, and gone when nothing names them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from indexing import shared_state
from indexing.shared_state import open_state, put_state, state_bytes, state_folder
from retrieval.errors import CorruptError


def writing(**arrays: int):
    def write(folder: Path) -> None:
        for name, value in arrays.items():
            np.save(folder / f"{name}.npy", np.full(9, value), allow_pickle=False)
        (folder / "facts.json").write_text(json.dumps(sorted(arrays)))

    return write


def test_what_is_put_is_opened_and_the_same_content_is_one_folder(tmp_path):
    first = put_state(tmp_path, "late", writing(a=1, b=2))
    assert put_state(tmp_path, "late", writing(b=2, a=1)) == first
    other = put_state(tmp_path, "late", writing(a=1, b=3))
    assert other != first
    assert sorted(path.name for path in (tmp_path / "shared" / "late").iterdir()) == sorted([first, other])
    folder = open_state(tmp_path, "late", first)
    assert folder == state_folder(tmp_path, "late", first)
    assert np.load(folder / "b.npy").tolist() == [2] * 9
    assert state_bytes(tmp_path, "late", first) == sum(file.stat().st_size for file in folder.iterdir())


def test_the_same_files_of_two_owners_are_two_states(tmp_path):
    assert put_state(tmp_path, "late", writing(a=1)) == put_state(tmp_path, "late-plaid", writing(a=1))
    assert len(list((tmp_path / "shared").iterdir())) == 2


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "manifest"])
def test_damage_is_found_by_opening_and_mended_by_putting_again(tmp_path, damage):
    generation = put_state(tmp_path, "late", writing(a=1))
    folder = state_folder(tmp_path, "late", generation)
    file = folder / ("manifest.json" if damage == "manifest" else "a.npy")
    raw = file.read_bytes()
    if damage in ("missing", "manifest"):
        file.unlink()
    else:
        file.write_bytes(raw[:-1] if damage == "cut" else raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(CorruptError, match=file.name):
        open_state(tmp_path, "late", generation)
    assert put_state(tmp_path, "late", writing(a=1)) == generation
    assert open_state(tmp_path, "late", generation) == folder


def test_a_process_killed_while_it_writes_leaves_nothing_under_a_generation(tmp_path, monkeypatch):
    def killed(folder: Path) -> None:
        (folder / "half.npy").write_bytes(b"x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        put_state(tmp_path, "late", killed)
    monkeypatch.setattr(shared_state, "write_manifest", lambda folder, facts: killed(folder))
    with pytest.raises(KeyboardInterrupt):
        put_state(tmp_path, "late", writing(a=1))
    monkeypatch.undo()
    (left,) = (tmp_path / "shared" / "late").iterdir()
    assert left.suffix == ".tmp"
    generation = put_state(tmp_path, "late", writing(a=1))
    assert [path.name for path in (tmp_path / "shared" / "late").iterdir()] == [generation]
    assert sorted(path.name for path in open_state(tmp_path, "late", generation).iterdir()) == [
        "a.npy",
        "facts.json",
        "manifest.json",
    ]


def test_a_state_that_is_not_there_is_corrupt(tmp_path):
    with pytest.raises(CorruptError, match="missing"):
        open_state(tmp_path, "late", "0" * 16)
