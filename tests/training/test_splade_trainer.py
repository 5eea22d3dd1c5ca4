"""Steps of the trainer: that they learn, and how many fit into a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from training.splade_recipe import Recipe
from training.splade_trainer import fit, steps_within
from training.triplets import read_training_set


def test_training_lowers_the_loss(
    encoder: Any, tmp_path: Path, tiny: Recipe, write_set: Callable[..., Path]
) -> None:
    pytest.importorskip("accelerate", reason="training needs accelerate and datasets")
    texts = read_training_set(write_set(tmp_path / "one")).triplets(0)

    def loss() -> float:
        with torch.no_grad():
            queries, positives, negatives = (
                encoder.encode(list(column)).to_dense() for column in zip(*texts, strict=True)
            )
        scores = torch.stack([(queries * positives).sum(1), (queries * negatives).sum(1)], dim=1)
        return float(torch.nn.functional.cross_entropy(scores, torch.zeros(len(texts), dtype=torch.long)))

    before = loss()
    fit(encoder, {"one": texts}, Recipe(**(vars(tiny) | {"encoder_lr": 1e-3, "batch": 4})), steps=20)
    assert loss() < before


def test_steps_fill_the_time_without_touching_the_encoder(
    encoder: Any, tmp_path: Path, tiny: Recipe, write_set: Callable[..., Path]
) -> None:
    pytest.importorskip("accelerate", reason="training needs accelerate and datasets")
    triplets = {"one": read_training_set(write_set(tmp_path / "one")).triplets(0)}
    before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    assert steps_within(encoder, triplets, tiny, minutes=10.0) > 8
    assert all(torch.equal(weight, before[name]) for name, weight in encoder.state_dict().items())
