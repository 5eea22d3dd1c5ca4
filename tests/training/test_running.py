"""A run from a recipe to a model: killed and gone on with, stopped early, averaged, and what it says when it fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from indexing.progress import Silent
from retrieval.encoders import open_encoder
from retrieval.errors import ConfigError, CorruptError, IncompatibleError
from training.recipe.options import (
    DataOptions,
    DevOptions,
    LossOptions,
    ModelOptions,
    NegativeOptions,
    OptimOptions,
    Recipe,
    TeacherOptions,
)
from training.recipe.reading import read_recipe
from training.run import running
from training.run.preparing import read_data
from training.run.run_folder import RECIPE
from training.trainer.objective import Objective

RANKING = LossOptions("ranking")


@pytest.fixture
def recipe(make_checkpoint: Callable[..., Path]) -> Recipe:
    """Eight steps of a random dense model, with dropout."""
    return Recipe(
        name="tiny",
        family="dense",
        model=ModelOptions(base=str(make_checkpoint()), max_length=16),
        data=(DataOptions("set"),),
        dev=DevOptions(queries=2, documents=4),
        negatives=NegativeOptions(searcher="none"),
        losses=(RANKING,),
        optim=OptimOptions(lr=1e-3, batch=2, steps=8, save_every=2, precision="float32"),
    )


@pytest.fixture
def root(tmp_path: Path, write_set: Callable[..., Path]) -> Path:
    write_set(tmp_path / "data" / "set")
    return tmp_path / "data"


def train(recipe: Recipe, output: Path, root: Path, **settings: Any) -> dict[str, Any]:
    return running.train(recipe, output, root, Silent(), **settings)


def losses(output: Path) -> list[tuple[float, float]]:
    curve = json.loads((output / "curve.json").read_text())
    return [(entry["step"], entry["loss"]) for entry in curve if "loss" in entry]


def die_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the objective fail in that step, as a kill would."""
    forward, calls = Objective.forward, []

    def failing(self: Objective, batch: Any) -> Any:
        calls.append(None)
        if len(calls) == step:
            raise KeyboardInterrupt
        return forward(self, batch)

    monkeypatch.setattr(Objective, "forward", failing)


def test_a_model_comes_with_its_record(recipe: Recipe, tmp_path: Path, root: Path) -> None:
    output = tmp_path / "model"
    facts = train(recipe, output, root)
    assert json.loads((output / "run.json").read_text()) == facts
    assert [step for step, _ in losses(output)] == list(range(1, 9))
    assert read_recipe(output / RECIPE) == recipe
    assert set(facts["figures"]) == {"before", "after"}
    assert facts["data"][0]["queries"] == 10
    found = {path.name for path in output.iterdir()}
    assert {"README.md", "curves.png", "model.safetensors"} <= found
    assert ("tensorboard" in found) == (find_spec("tensorboard") is not None)
    assert not (output / "work").exists()
    after = open_encoder({"family": "dense", "model": str(output)}).encode_queries(["river"])
    before = open_encoder({"family": "dense", "model": recipe.model.base}).encode_queries(["river"])
    assert not np.allclose(after.values, before.values, atol=1e-3)


@pytest.mark.parametrize("every", [0, 3])
def test_a_killed_run_goes_on_to_the_same_losses(
    recipe: Recipe, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """Killed in the middle of a round and of an epoch, between two checkpoints; with dropout, warm-up and decay."""
    recipe = replace(recipe, negatives=replace(recipe.negatives, every=every))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(recipe, whole, root)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        die_at(6, patched)
        train(recipe, killed, root)
    assert not (killed / "run.json").exists()
    train(recipe, killed, root)
    assert losses(killed) == losses(whole)
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_checkpoint_cut_short_is_named(
    recipe: Recipe, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "model"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        die_at(6, patched)
        train(recipe, output, root)
    checkpoints = output / "work" / "checkpoints"
    assert read_recipe(checkpoints / "recipe.toml") == recipe
    assert json.loads((checkpoints / "run.json").read_text())["data"][0]["queries"] == 10
    path = checkpoints / "checkpoint-4" / "trained.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CorruptError, match=r"trained\.safetensors.*truncated.*--fresh"):
        train(recipe, output, root)
    (
        output / "work" / "checkpoints" / "checkpoint-4" / "manifest.json"
    ).unlink()  # as if killed while writing it
    train(recipe, output, root)
    assert len(losses(output)) == 8


def test_another_recipe_is_refused(
    recipe: Recipe, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "model"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        die_at(1, patched)
        train(recipe, output, root)
    other = replace(recipe, optim=replace(recipe.optim, lr=0.5))
    with pytest.raises(IncompatibleError, match=r"lr = 0\.5"):
        train(other, output, root)
    train(recipe, output, root)
    with pytest.raises(ConfigError, match="holds a trained model already"):
        train(recipe, output, root)
    train(other, output, root, fresh=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="no training run"):
        train(recipe, tmp_path / "mine", root, fresh=True)
    (tmp_path / "mine" / "recipe.toml").write_text("of the owner's own")
    with pytest.raises(ConfigError, match="no training run"):
        train(recipe, tmp_path / "mine", root, fresh=True)
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_a_folder_is_measured_on_the_split_that_is_named(
    recipe: Recipe, tmp_path: Path, write_set: Callable[..., Path]
) -> None:
    write_set(tmp_path / "train", 12)
    write_set(tmp_path / "other", 12, ("dev", "test"))
    data = (DataOptions("train"),)
    for split, asked in (("dev", {f"q{i}" for i in range(0, 12, 2)}), (None, {f"q{i}" for i in range(12)})):
        named = replace(recipe, data=data, dev=DevOptions("other", split, queries=12))
        *_, held = read_data(named, tmp_path, tmp_path / str(split), Silent())
        assert set(held.queries["id"]) == asked


def test_a_single_query_cannot_be_held_out(
    recipe: Recipe, tmp_path: Path, write_set: Callable[..., Path]
) -> None:
    write_set(tmp_path / "one", 2)
    alone = replace(recipe, data=(DataOptions("one", limit=1),))
    with pytest.raises(ConfigError, match=r"no query of 'one' can be held out.*dev\.queries = 0"):
        train(alone, tmp_path / "model", tmp_path)


def test_a_gradient_that_is_not_finite_stops_before_it_changes_a_weight(
    recipe: Recipe, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Objective.forward

    def infinitely_steep(self: Objective, batch: Any) -> Any:
        loss, parts = forward(self, batch)
        return (loss + (loss - loss.detach()).sqrt(), parts) if self.progress >= 0.25 else (loss, parts)

    monkeypatch.setattr(Objective, "forward", infinitely_steep)
    with pytest.raises(ConfigError, match=r"step 3 is not finite \(norm of the gradient (nan|inf)\)"):
        train(recipe, tmp_path / "model", root)


def test_a_loss_that_is_not_finite_stops_with_its_batch(
    recipe: Recipe, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Objective.forward

    def diverging(self: Objective, batch: Any) -> Any:
        loss, parts = forward(self, batch)
        return (loss * float("nan"), parts) if self.progress >= 0.25 else (loss, parts)

    monkeypatch.setattr(Objective, "forward", diverging)
    with pytest.raises(ConfigError, match="step 3 is not finite") as told:
        train(recipe, tmp_path / "model", root)
    path = tmp_path / "model" / "work" / "not-finite-3.json"
    assert str(path) in str(told.value)
    assert len(json.loads(path.read_text())["query"]) == 2


def test_out_of_memory_says_what_to_lower(
    recipe: Recipe, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Objective, batch: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(Objective, "forward", failing)
    with pytest.raises(ConfigError, match=r"optim\.chunk.*optim\.batch.*2\.00 GiB"):
        train(recipe, tmp_path / "model", root)


def test_the_best_weights_are_kept_and_training_stops(
    recipe: Recipe, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.run.dev import Dev

    seen: list[torch.Tensor] = []
    values = iter([0.1, 0.2, 0.9, 0.5, 0.9, 0.3])  # before, then every step; the last is never reached

    def measured(self: Dev, model: Any, *_: Any, **__: Any) -> dict[str, float]:
        seen.append(next(iter(model.parameters())).detach().clone())
        return {"nDCG@10": next(values, 0.0)}

    monkeypatch.setattr(Dev, "__call__", measured)
    recipe = replace(recipe, dev=replace(recipe.dev, every=1, patience=2))
    train(recipe, tmp_path / "model", root)
    assert len(seen) == 6  # before, four steps, after
    assert torch.equal(seen[-1], seen[2])
    assert not torch.equal(seen[-1], seen[4])


def test_a_run_that_stopped_early_and_was_killed_does_not_train_on(
    recipe: Recipe, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.run.dev import Dev

    values = iter([0.1, 0.9, 0.3, 0.2])
    monkeypatch.setattr(Dev, "__call__", lambda self, model, *rest, **others: {"nDCG@10": next(values, 0.0)})
    recipe = replace(recipe, dev=replace(recipe.dev, every=1, patience=2))
    record = running._Run.record

    def killed(self: Any, *rest: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(running._Run, "record", killed)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "model", root)
    monkeypatch.setattr(running._Run, "record", record)
    train(recipe, tmp_path / "model", root)
    assert [step for step, _ in losses(tmp_path / "model")] == [1, 2, 3]


def test_the_last_step_is_measured_too(recipe: Recipe, tmp_path: Path, root: Path) -> None:
    recipe = replace(recipe, dev=replace(recipe.dev, every=2), optim=replace(recipe.optim, steps=3))
    train(recipe, tmp_path / "model", root)
    curve = json.loads((tmp_path / "model" / "curve.json").read_text())
    assert [entry["step"] for entry in curve if "eval_nDCG@10" in entry] == [2, 3]


def test_averaging_goes_back_to_the_base(recipe: Recipe, tmp_path: Path, root: Path) -> None:
    def weights(share: float) -> torch.Tensor:
        from safetensors.torch import load_file

        output = tmp_path / f"model-{share}"
        train(replace(recipe, optim=replace(recipe.optim, average=share)), output, root)
        return load_file(output / "model.safetensors")["encoder.layer.0.output.dense.weight"]

    base, half, trained = weights(0.0), weights(0.5), weights(1.0)
    assert not torch.allclose(base, trained)
    torch.testing.assert_close(half, (base + trained) / 2)


def test_the_searcher_model_mines_with_the_weights_of_the_moment(
    recipe: Recipe, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[bytes] = []
    searcher = running._Run._searcher

    def watched(self: Any, model: Any) -> Any:
        encoder = searcher(self, model)
        saved.append((self.work / "searcher" / "model.safetensors").read_bytes())
        return encoder

    monkeypatch.setattr(running._Run, "_searcher", watched)
    recipe = replace(recipe, negatives=NegativeOptions(searcher="model", last=3, every=4))
    train(recipe, tmp_path / "model", root)
    assert len(set(saved)) == 2


@pytest.mark.parametrize(
    ("family", "options", "losses", "teachers"),
    [
        (
            "sparse",
            {"threshold": 1.0, "queries": "static"},
            [LossOptions("distillation"), LossOptions("flops", weight=0.01, warmup=0.5)],
            [("bm25", ""), ("late", "base")],
        ),
        ("late", {"dim": 16}, [LossOptions("margin-mse")], [("dense", "base")]),
        ("dense", {}, [LossOptions("tct", options={"student_temperature": 0.05})], [("late", "base")]),
        ("reranker", {}, [LossOptions("listwise")], []),
    ],
)
def test_every_family_is_mined_taught_and_trained(
    family: str,
    options: dict[str, Any],
    losses: list[LossOptions],
    teachers: list[tuple[str, str]],
    recipe: Recipe,
    still: Path,
    tmp_path: Path,
    root: Path,
) -> None:
    recipe = replace(
        recipe,
        family=family,
        model=ModelOptions(base=str(still), max_length=16, options=options),
        negatives=NegativeOptions(searcher="bm25", last=4, per_query=2),
        teachers=tuple(TeacherOptions(name, str(still) if model else "") for name, model in teachers),
        losses=tuple(losses),
        optim=replace(recipe.optim, steps=4, chunk=3),
    )
    output = tmp_path / "model"
    facts = train(recipe, output, root, scores=tmp_path / "scores")
    assert 0 <= facts["figures"]["after"]["nDCG@10"] <= 1
    curve = json.loads((output / "curve.json").read_text())
    assert {loss.name for loss in losses} <= curve[0].keys()
    assert (tmp_path / "scores").exists() == bool(
        teachers and family != "dense"
    )  # TCT asks for batches alone
    assert (output / "modules.json").exists()
