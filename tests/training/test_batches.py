"""Batches as they are read for a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from indexing.progress import Silent
from training.examples.dataset import examples_dataset
from training.examples.drawing import draw, text_key
from training.examples.reading import read_training_set
from training.examples.training_set import TrainingSet
from training.families.family import Sample
from training.families.table import family
from training.recipe.options import ModelOptions
from training.trainer import batches
from training.trainer.batches import Reader, ScheduledExamples
from training.trainer.schedule import Schedule


@pytest.fixture
def examples(tmp_path: Path, write_set: Callable[..., Path]) -> ScheduledExamples:
    """Two sets of 12 and 6 queries, a step of which is 4."""
    sets = [read_training_set(write_set(tmp_path / name, n)) for name, n in (("one", 12), ("two", 6))]
    return ScheduledExamples(sets, Schedule((12, 6), 4, 12, seed=1), 2, tmp_path / "examples")


def test_batches_have_the_drawn_examples_in_the_order_of_the_schedule(examples: ScheduledExamples) -> None:
    drawn = {
        (number, epoch): list(draw(one, 1, epoch, 2))
        for number, one in enumerate(examples.sets)
        for epoch in range(4)
    }
    seen = set()
    for step in range(12):
        columns = examples.__getitems__(range(4 * step, 4 * step + 4))
        for place in range(4):
            number, epoch, row = examples.schedule.place(4 * step + place)
            seen.add(epoch)
            expected = [one for one in drawn[number, epoch] if one.query == columns["query"][place]]
            assert columns["domain"][place] == number
            assert columns["query"][place] == examples.sets[number].queries["text"][row]
            texts = tuple(columns[f"document_{n}"][place] for n in range(3))
            assert (texts, tuple(columns["keys"][place])) in [(one.documents, one.keys) for one in expected]
    assert max(seen) >= 2
    assert len(list(examples.folder.iterdir())) <= 4  # epochs that are over are gone


def test_a_small_set_that_runs_ahead_takes_no_epoch_from_a_large_one(
    tmp_path: Path, write_set: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = [read_training_set(write_set(tmp_path / name, n)) for name, n in (("one", 12), ("two", 2))]
    drawn: list[tuple[str, int]] = []

    def counted(data: TrainingSet, **settings: Any) -> Any:
        drawn.append((data.name, settings["epoch"]))
        return examples_dataset(data, **settings)

    monkeypatch.setattr(batches, "examples_dataset", counted)
    schedule = Schedule((12, 2), 4, 14, seed=1)  # a step of the small set is two of its epochs
    examples = ScheduledExamples(sets, schedule, 1, tmp_path / "examples")
    for step in range(14):
        examples.__getitems__(range(4 * step, 4 * step + 4))
    assert sorted(drawn) == [("one", epoch) for epoch in range(4)] + [("two", epoch) for epoch in range(4)]


def test_a_batch_is_the_same_without_those_before_it(examples: ScheduledExamples, tmp_path: Path) -> None:
    whole = [examples.__getitems__(range(4 * step, 4 * step + 4)) for step in range(12)]
    alone = ScheduledExamples(examples.sets, examples.schedule, 2, tmp_path / "again")
    alone.draw(9, Silent())
    assert alone.__getitems__(range(36, 40)) == whole[9]


def test_documents_are_read_query_by_query(examples: ScheduledExamples, still: Path) -> None:
    model = family("dense").open(ModelOptions(base=str(still), max_length=16), 0, Sample((), ()), Silent())
    columns = examples.__getitems__(range(4))
    batch = Reader(family("dense"), model)(columns)
    texts = [columns[f"document_{place}"][b] for b in range(4) for place in range(3)]
    expected = model.preprocess(texts)
    assert torch.equal(batch["features"]["document"]["input_ids"], expected["input_ids"])
    assert batch["labels"].tolist() == [[1.0, 0.0, 0.0]] * 4
    assert batch["keys"].tolist() == [[text_key(text) for text in texts[3 * b : 3 * b + 3]] for b in range(4)]
    assert "scores" not in batch
    pairs = Reader(family("reranker"), model)
    assert pairs.family.joint


def test_keys_of_answers_are_padded_with_one_of_them(examples: ScheduledExamples, still: Path) -> None:
    model = family("dense").open(ModelOptions(base=str(still), max_length=16), 0, Sample((), ()), Silent())
    columns = dict(examples.__getitems__(range(2)))
    columns["relevant"] = [[5], [6, 7]]
    columns["keys"] = [[5, 1, 2], [6, 3, 4]]
    assert Reader(family("dense"), model)(columns)["relevant"].tolist() == [[5, 5], [6, 7]]
