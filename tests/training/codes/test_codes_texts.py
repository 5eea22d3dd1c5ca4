"""Which texts a book of codes is fitted to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from training.codes.texts import texts_of
from training.examples.reading import read_training_set
from training.examples.training_set import TrainingSet


@pytest.fixture
def data(tmp_path: Path, write_set: Callable[..., Path]) -> TrainingSet:
    return read_training_set(write_set(tmp_path / "set"))


def test_texts_are_documents_then_queries_and_words_that_stand_together(data: TrainingSet) -> None:
    found = texts_of(data, 5, 4, 30, seed=1)
    documents, queries = data.documents["text"].to_list(), data.queries["text"].to_list()
    assert len(found.documents) == len(set(found.documents)) == 5
    assert set(found.documents) <= set(documents)
    assert len(found.short) == 34
    assert set(found.short[:4]) <= set(queries)
    assert all(any(crop in one for one in found.documents) and crop for crop in found.short[4:])


def test_what_a_set_lacks_is_not_asked_for(data: TrainingSet) -> None:
    found = texts_of(data, 1000, 1000, 1, seed=1)
    assert found.documents == tuple(data.documents["text"])
    assert found.short[:-1] == tuple(data.queries["text"])


def test_the_seed_decides(data: TrainingSet) -> None:
    assert texts_of(data, 5, 4, 9, seed=1) == texts_of(data, 5, 4, 9, seed=1)
    assert texts_of(data, 5, 4, 9, seed=1) != texts_of(data, 5, 4, 9, seed=2)
