"""A ranker that learns in turns with the model: what it teaches, what is kept of it, and how a killed run goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from indexing.progress import Silent
from retrieval.errors import ConfigError
from retrieval.rerank import CrossEncoderReranker, open_reranker
from training.examples.training_set import TrainingSet
from training.recipe.options import (
    DataOptions,
    DevOptions,
    LossOptions,
    ModelOptions,
    NegativeOptions,
    OptimOptions,
    RankerOptions,
    Recipe,
    TeacherOptions,
)
from training.recipe.reading import read_recipe
from training.run import preparing, running
from training.run.preparing import read_data
from training.run.ranker_turns import ranker_recipe
from training.teachers.scoring import add_scores
from training.trainer.objective import Objective

TURN, ROUND = 4, 4


@pytest.fixture
def recipe(make_checkpoint: Callable[..., Path], tiny_cross_encoder: Path) -> Recipe:
    """Two turns of a random ranker and a random dense model, with dropout."""
    return Recipe(
        name="tiny",
        family="dense",
        model=ModelOptions(base=str(make_checkpoint()), max_length=16),
        data=(DataOptions("set"),),
        dev=DevOptions(queries=2, documents=4),
        negatives=NegativeOptions(searcher="model", last=5, per_query=2, every=ROUND),
        ranker=RankerOptions(str(tiny_cross_encoder), TURN, lr=3e-3, batch=2, per_query=3, max_length=24),
        losses=(LossOptions("adversarial", 0.5), LossOptions("distillation", 0.5)),
        optim=OptimOptions(lr=1e-3, batch=2, steps=2 * ROUND, save_every=3, precision="float32"),
    )


@pytest.fixture
def root(tmp_path: Path, write_set: Callable[..., Path]) -> Path:
    write_set(tmp_path / "data" / "set")
    return tmp_path / "data"


def train(recipe: Recipe, output: Path, root: Path) -> dict[str, Any]:
    return running.train(recipe, output, root, Silent())


def losses(folder: Path) -> list[float]:
    curve = json.loads((folder / "curve.json").read_text())
    return [entry["loss"] for entry in curve if "loss" in entry]


def fail_at(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the objective fail in a step, as a kill would; steps of the ranker count as well."""
    forward = Objective.forward
    calls: list[None] = []

    def failing(self: Objective, batch: Any) -> Any:
        calls.append(None)
        if len(calls) == call:
            raise KeyboardInterrupt
        return forward(self, batch)

    monkeypatch.setattr(Objective, "forward", failing)


def test_the_ranker_learns_over_its_turns_and_is_kept_as_a_reranker(
    recipe: Recipe, tmp_path: Path, tiny_cross_encoder: Path
) -> None:
    """One document answers all queries, which is soon learned without dropout."""
    base = tmp_path / "base"
    shutil.copytree(tiny_cross_encoder, base)
    config = json.loads((base / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (base / "config.json").write_text(json.dumps(config))
    answer, others = (
        "red fish",
        ["the cat", "a dog", "slow green bird", "river mountain", "search engine", "index"],
    )
    lines = [
        {"query": f"the {word} 1", "positive": answer, "negative": others}
        for word in ("alpha", "beta", "old")
    ]
    (tmp_path / "set.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert recipe.ranker is not None
    recipe = replace(
        recipe,
        data=(DataOptions("set.jsonl"),),
        dev=DevOptions(queries=0),
        ranker=replace(recipe.ranker, base=str(base), steps=8, batch=3),
    )
    train(recipe, tmp_path / "model", tmp_path)
    ranker = tmp_path / "model" / "ranker"
    curve = losses(ranker)
    assert len(curve) == 16
    assert np.mean(curve[-4:]) < 0.2 * np.mean(curve[:4])
    assert len(losses(tmp_path / "model")) == 2 * ROUND
    reranker = open_reranker(str(ranker))
    assert isinstance(reranker, CrossEncoderReranker)
    scores = reranker.scores([("the alpha 1", text) for text in (answer, *others)])
    assert scores.argmax() == 0
    assert "tercet search" in (ranker / "README.md").read_text()
    assert json.loads((ranker / "run.json").read_text())["name"] == "tiny-ranker"
    left = {path.name for path in ranker.iterdir()}
    assert not {"work", "recipe.toml"} & left


def test_each_round_has_the_scores_of_the_ranker_as_it_is_then(
    recipe: Recipe, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds: list[tuple[list[float], list[float]]] = []
    prepare = preparing.prepare_round

    def watched(*arguments: Any) -> list[TrainingSet]:
        (ready,) = prepare(*arguments)
        number, work = arguments[2], arguments[3]
        model = CrossEncoder(str(work.parent / "ranker" / "work" / f"turn-{number}"), device="cpu")
        query, rows, _, scores = ready.lists.row(0)
        pairs = [(ready.queries["text"][query], ready.documents["text"][row]) for row in rows]
        logits = model.predict(pairs, activation_fn=torch.nn.Identity())
        rounds.append((scores, logits.tolist()))
        return [ready]

    monkeypatch.setattr(running, "prepare_round", watched)
    train(recipe, tmp_path / "model", root)
    assert len(rounds) == 2
    for scores, logits in rounds:
        np.testing.assert_allclose(scores, logits, atol=0.2)  # half precision where the processor has it
        assert np.ptp(scores) > 1  # no probabilities
    assert not np.allclose(
        rounds[0][0][:1], rounds[1][0][:1], atol=1e-4
    )  # of the positive, which stays first


def test_a_killed_run_goes_on_to_the_same_weights(
    recipe: Recipe, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the first and in the second turn of the ranker, and in what the model learns from the second."""
    whole = tmp_path / "whole"
    train(recipe, whole, root)
    for call in (TURN // 2, TURN + ROUND + TURN, 2 * TURN + ROUND + 2):
        killed = tmp_path / f"killed-{call}"
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            fail_at(call, patched)
            train(recipe, killed, root)
        train(recipe, killed, root)
        for folder in (".", "ranker"):
            assert losses(killed / folder) == losses(whole / folder)
            name = Path(folder) / "model.safetensors"
            assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_the_ranker_never_sees_what_is_held_out(
    recipe: Recipe, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()
    forward = Objective.forward

    def watched(self: Objective, batch: Any) -> Any:
        if self.family.joint:
            seen.update(batch["origin"].columns["query"])
        return forward(self, batch)

    monkeypatch.setattr(Objective, "forward", watched)
    assert recipe.ranker is not None
    recipe = replace(recipe, ranker=replace(recipe.ranker, batch=5))
    train(recipe, tmp_path / "model", root)
    kept, held = read_data(recipe, root, tmp_path / "read", Silent())
    assert seen == set(kept.queries["text"])
    assert not seen & set(held.queries["text"])


def test_other_teachers_stand_beside_the_ranker(
    recipe: Recipe, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def watched(data: TrainingSet, teachers: Sequence[TeacherOptions], *arguments: Any) -> TrainingSet:
        asked.append([teacher.name for teacher in teachers])
        scored = add_scores(data, teachers, *arguments)
        assert scored.lists["scores"].explode().is_between(0, 1).all()  # blended
        return scored

    monkeypatch.setattr(preparing, "add_scores", watched)
    train(replace(recipe, teachers=(TeacherOptions("bm25"),)), tmp_path / "model", root)
    assert asked == [["reranker", "bm25"]] * 2


def test_a_failure_of_the_ranker_says_where_its_settings_are(
    recipe: Recipe, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Objective.forward

    def failing(self: Objective, batch: Any) -> Any:
        if self.family.joint:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, batch)

    monkeypatch.setattr(Objective, "forward", failing)
    with pytest.raises(ConfigError, match=r"stand in \[ranker\]: out of memory"):
        train(recipe, tmp_path / "model", root)


def test_all_turns_are_one_training(recipe: Recipe) -> None:
    assert recipe.ranker is not None
    ranker = ranker_recipe(recipe, recipe.ranker, turns=3)
    assert (ranker.family, ranker.optim.steps, ranker.optim.lr) == ("reranker", 3 * TURN, 3e-3)
    assert ranker.optim.save_every == recipe.optim.save_every
    assert ranker.negatives.per_query == 3 and ranker.dev.queries == 0


AR2 = """
name = "game"
family = "dense"
[[data]]
source = "set"
[negatives]
searcher = "model"
every = 100
[ranker]
steps = 10
[[losses]]
name = "adversarial"
"""


def test_a_ranker_is_read_where_it_can_learn_and_teach(tmp_path: Path) -> None:
    path = tmp_path / "game.toml"
    path.write_text(AR2)
    assert read_recipe(path).ranker == RankerOptions(steps=10)
    assert read_recipe(path, ["ranker="]).ranker is None
    for override, message in (
        ("negatives.searcher=bm25", r"\[ranker\] learns in turns.*negatives.searcher is 'bm25'"),
        ("negatives.every=0", r"\[ranker\] learns in turns.*negatives.every 0"),
        ("losses.0.name=ranking", r"no loss learns from its scores; add one of adversarial, diff-kendall"),
        ("losses.0.name=tct", "no loss learns from its scores"),
        ("ranker.steps=0", "ranker.steps is 0; it must be at least 1"),
        ("ranker.lr=fast", "ranker.lr is 'fast', a string; it must be a number"),
        ("ranker.rate=1", r"unknown key 'ranker.rate'.*valid in \[ranker\]: base, steps"),
        ("ranker=3", "ranker is 3, an integer; it must be a table"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_recipe(path, [override])


def test_the_shipped_game_can_be_made_small() -> None:
    recipe = read_recipe("ar2-dense", ["optim.steps=20", "negatives.every=10", "ranker.steps=5"])
    assert recipe.ranker is not None and recipe.ranker.steps == 5
    assert {loss.name for loss in recipe.losses} == {"adversarial", "distillation"}
    adversarial, distillation = recipe.losses
    temperature = adversarial.options["temperature"]
    assert distillation.options["student_temperature"] == temperature
    # The divergence is multiplied by the square of the temperature; the paper's halves are of equal weight.
    assert distillation.weight * temperature**2 == pytest.approx(adversarial.weight)
    assert recipe.negatives.per_query == recipe.ranker.per_query
