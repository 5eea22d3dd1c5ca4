"""Scores are computed once, survive a kill, and belong to one teacher and one set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from indexing.durable import MANIFEST
from retrieval.encoders.dense import DenseEncoder
from retrieval.errors import CorruptError, FormatError, IncompatibleError
from retrieval.values import Dense, Document
from training.examples.training_set import TrainingSet
from training.recipe.options import TeacherOptions
from training.teachers.scoring import add_scores
from training.teachers.vectors import VectorTeacher

OTHERS = {0: [5, 11, 1], 1: [1, 8], 2: [6], 3: [0, 1], 4: [2]}
LISTED = {0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11}


class Watched:
    """Counts the documents that a dense encoder is given, and may fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: list[str] = []
        self.fail_after = 10**9
        self.nan = False
        encode = DenseEncoder.encode_documents

        def watched(encoder: DenseEncoder, documents: Sequence[Document]) -> Dense:
            if len(self.read) >= self.fail_after:
                raise KeyboardInterrupt
            self.read += [document.id for document in documents]
            made = encode(encoder, documents)
            return Dense(made.values * float("nan")) if self.nan else made

        monkeypatch.setattr(DenseEncoder, "encode_documents", watched)
        monkeypatch.setattr(VectorTeacher, "together", 3)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


@pytest.fixture
def ask(tiny_bert: Path, tmp_path: Path, heard: Any) -> Callable[..., list[list[float]]]:
    """A function that adds a dense teacher's scores with a store that stays."""

    def add(
        data: TrainingSet, store: Path = tmp_path / "store", model: Path = tiny_bert
    ) -> list[list[float]]:
        return add_scores(data, [TeacherOptions("dense", str(model))], store, heard).lists["scores"].to_list()

    return add


def parts_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("store/*/part-*"))


def test_no_text_is_read_twice(
    make_set: Callable[..., TrainingSet], ask: Any, watched: Watched, tmp_path: Path, heard: Any
) -> None:
    data = make_set(others=OTHERS)
    scores = ask(data)
    assert sorted(watched.read) == sorted(f"d{row}" for row in LISTED)
    assert heard.stages[-1][1:] == (15, "pairs") and heard.done[-1] == 15
    assert len(parts_of(tmp_path)) == 4
    assert not list(tmp_path.glob("store/*/work"))
    assert ask(data) == scores and len(watched.read) == len(LISTED)


def test_a_killed_run_goes_on_after_its_last_part(
    make_set: Callable[..., TrainingSet], ask: Any, watched: Watched, tmp_path: Path
) -> None:
    data = make_set(others=OTHERS)
    expected = ask(data, tmp_path / "whole")
    watched.read.clear()
    watched.fail_after = 6
    with pytest.raises(KeyboardInterrupt):
        ask(data)
    assert watched.read == ["d0", "d1", "d2", "d3", "d5", "d6"] and len(parts_of(tmp_path)) == 2
    (parts_of(tmp_path)[1] / MANIFEST).unlink()  # killed while it was written
    watched.fail_after = 10**9
    watched.read.clear()
    assert ask(data) == expected
    assert watched.read == ["d3", "d5", "d6", "d7", "d8", "d9", "d10", "d11"]


def test_lists_that_changed_cost_their_new_pairs_alone(
    make_set: Callable[..., TrainingSet], ask: Any, watched: Watched
) -> None:
    before = ask(make_set(others=OTHERS))
    watched.read.clear()
    after = ask(make_set(others={**OTHERS, 1: [8, 4], 4: [2, 9]}))
    assert watched.read == ["d4", "d9"]
    assert after[0] == before[0] and after[1][:2] == [before[1][0], before[1][2]]


@pytest.mark.parametrize("name", ["keys.npy", "scores.npy"])
def test_a_damaged_part_is_named(
    name: str, make_set: Callable[..., TrainingSet], ask: Any, tmp_path: Path
) -> None:
    data = make_set(others=OTHERS)
    ask(data)
    (part,) = parts_of(tmp_path)
    content = bytearray((part / name).read_bytes())
    content[-1] ^= 1
    (part / name).write_bytes(content)
    with pytest.raises(CorruptError, match=rf"part-000000.*{name}.*checksum.*remove this folder"):
        ask(data)
    (part / name).write_bytes(content[:-4])
    with pytest.raises(CorruptError, match=rf"{name}.*truncated"):
        ask(data)


def test_a_store_of_another_set_is_refused(make_set: Callable[..., TrainingSet], ask: Any) -> None:
    data = make_set(others=OTHERS)
    ask(data)
    texts = data.documents.with_columns(
        text=pl.when(pl.col("id") == "d4").then(pl.lit("changed")).otherwise("text")
    )
    with pytest.raises(
        IncompatibleError,
        match=r"data set 'little' \(fingerprint \w{12}\), not for 'other' \(fingerprint \w{12}\)",
    ):
        ask(replace(data, documents=texts, name="other"))
    ask(replace(data, name="other"))  # a name is no content


def test_a_store_of_a_checkpoint_that_changed_is_refused(
    make_set: Callable[..., TrainingSet], make_checkpoint: Callable[..., Path], ask: Any, tmp_path: Path
) -> None:
    data = make_set(others=OTHERS)
    moving = tmp_path / "model"
    moving.symlink_to(make_checkpoint())
    ask(data, model=moving)
    moving.unlink()
    moving.symlink_to(make_checkpoint(pooling="cls"))
    with pytest.raises(IncompatibleError, match=r"teacher 'dense .*model' \(fingerprint .*remove this one"):
        ask(data, model=moving)


def test_scores_that_are_no_numbers_are_not_kept(
    make_set: Callable[..., TrainingSet], ask: Any, watched: Watched, tmp_path: Path
) -> None:
    watched.nan = True
    with pytest.raises(FormatError, match="scores the query 'q0' with the document 'd0' nan"):
        ask(make_set(others=OTHERS))
    assert not parts_of(tmp_path)
