"""What the figures of benchmarks/training.py rest on: the texts, that both trainers train the same, the blocks."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from training.recipe.options import ModelOptions
from training.run.quiet import quietly

ROOT = Path(__file__).resolve().parents[2]
OPTIONS: dict[str, dict[str, Any]] = {
    "dense": {},
    "sparse": {"fit_texts": 8, "threshold": 0.0},
    "late": {"fit_texts": 8, "dim": 16},
}


WORDS = "alpha beta gamma delta river mountain search engine index vector query document cat dog bird fish".split()


def known_words() -> Any:
    """A training set whose texts are made of words that tiny checkpoints know."""
    from benchmarks.training_data import paired

    documents = [" ".join(np.roll(WORDS, row)[:6]) for row in range(8)]
    return paired("known", [" ".join(text.split()[:2]) for text in documents], documents)


@pytest.fixture(autouse=True)
def _benchmarks_importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(ROOT))
    with quietly():
        yield


def test_a_generated_query_is_made_of_words_of_its_document() -> None:
    from benchmarks.training_data import Pairs

    data = Pairs(20).training_set(40)
    again = Pairs(20).training_set(60)
    assert data.documents["text"].to_list() == again.documents["text"].to_list()[:40]
    lengths = [len(text.split()) for text in data.documents["text"]]
    assert 14 < np.median(lengths) < 28
    for query, document in zip(data.queries["text"], data.documents["text"], strict=True):
        assert set(query.split()) <= set(document.split())
    assert {len(text.split()) for text in Pairs(20, spread=0).training_set(9).documents["text"]} <= {19, 20}


@pytest.mark.parametrize("family", OPTIONS)
def test_both_trainers_see_the_same_batches_and_losses(
    family: str, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    from benchmarks.training_trainers import ENGINES, Task, save_base

    data = known_words()
    data.save(tmp_path / "set")
    base = make_checkpoint(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    save_base(family, ModelOptions(str(base), 32, options=OPTIONS[family]), data, tmp_path / "base")
    task = Task(family, str(tmp_path / "base"), "float32", batch=2, steps=3, max_length=32)
    engines = [make(task, tmp_path, []) for make in ENGINES.values()]
    first = [engine.first_loss() for engine in engines]
    assert first[0] == pytest.approx(first[1], rel=1e-4)
    assert abs(first[0] - math.log(task.batch)) > 1e-3  # what scores that are all alike would give
    trained = [engine.trainer.train().training_loss for engine in engines]
    assert trained[0] == pytest.approx(trained[1], rel=1e-4)


def test_a_block_is_timed_from_one_pause_to_the_next() -> None:
    from benchmarks.training import Blocks, Scale

    scale = Scale(1, warm_up=2, block=3, rounds=2, median_words=1, max_length=1, precisions=())
    assert scale.steps == 8
    answers = io.StringIO()
    blocks = Blocks(scale, io.StringIO("\n\n"), answers)
    control = SimpleNamespace(should_training_stop=False)
    stopped = []
    for step in range(1, scale.steps + 1):
        blocks.on_step_end(None, SimpleNamespace(global_step=step), control)
        stopped.append(control.should_training_stop)
    told = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert len(told) == 3  # the warm-up and two blocks
    assert all(0 <= part < 1 for one in told[1:] for part in one)
    assert stopped == [False] * 7 + [True]  # nobody asks for more


def test_memory_is_measured_from_the_loaded_model_on(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    from benchmarks.training_data import Pairs
    from benchmarks.training_memory import measure_here
    from benchmarks.training_trainers import Task

    Pairs(12).training_set(8).save(tmp_path / "set")
    task = Task("dense", str(make_checkpoint()), "float32", batch=4, steps=2, max_length=32, chunk=2)
    task.save(tmp_path / "task.json")
    assert Task.read(tmp_path / "task.json") == task
    figures = measure_here(tmp_path)
    assert 0 <= figures["added_mb"] < 500
    assert figures["pairs_s"] > 0


@pytest.mark.parametrize("family", ["dense", "sparse", "late", "reranker", "hypencoder", "multivariate"])
def test_a_step_is_the_same_on_the_same_device(family: str, make_checkpoint: Callable[..., Path]) -> None:
    from benchmarks.gpu_card import DRY
    from benchmarks.gpu_check_training import Scale, compared

    scale = Scale(DRY, compared=2, max_length=32)
    start = ModelOptions(str(make_checkpoint()), 32, options=OPTIONS.get(family, {}))
    line = compared(family, start, known_words(), scale)
    assert line["correct"] is True
    assert line["off"] == 0
    assert math.isfinite(float(line["loss"]))
    assert line["loss_after"] < line["loss"]


def test_without_a_card_training_is_skipped_with_a_reason() -> None:
    from benchmarks.gpu_card import DRY, Peak
    from benchmarks.gpu_check_training import training

    (line,) = training(DRY, Peak(1.0, 1.0))
    assert "no CUDA GPU" in str(line["reason"])
