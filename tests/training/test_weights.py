"""Trained weights: kept, put back and averaged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from indexing.progress import Silent
from retrieval.errors import CorruptError
from training.families.family import Sample
from training.families.low_rank import merged
from training.families.table import family
from training.recipe.options import ModelOptions
from training.trainer.weights import average, load_trained, save_trained, trained_weights


def test_only_what_is_trained_is_kept_and_put_back(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[0].requires_grad_(False)
    before = trained_weights(module)
    assert set(before) == {"1.weight", "1.bias"}
    save_trained(module, tmp_path / "kept")
    with torch.no_grad():
        module[1].weight.zero_()
    load_trained(module, tmp_path / "kept")
    assert torch.equal(module[1].weight, before["1.weight"])


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save_trained(nn.Linear(2, 2), tmp_path)
    with pytest.raises(CorruptError, match="not the weights of this run"):
        load_trained(nn.Linear(3, 2), tmp_path)
    (tmp_path / "trained.safetensors").write_bytes(b"cut")
    with pytest.raises(CorruptError, match=r"trained\.safetensors"):
        load_trained(nn.Linear(2, 2), tmp_path)


def test_an_average_of_updates_is_an_average_of_what_they_make(still: Path) -> None:
    """W + B A is linear in B but not in B and A together."""
    options = ModelOptions(base=str(still), max_length=16, lora_rank=2)
    model = family("dense").open(options, 0, Sample((), ()), Silent())
    first = trained_weights(model)
    name = "0.model.encoder.layer.0.output.dense.weight"
    base = dict(merged(model).named_parameters())[name].detach().clone()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    whole = dict(merged(model).named_parameters())[name].detach().clone()
    average(model, first, 0.25)
    found = dict(merged(model).named_parameters())[name].detach()
    torch.testing.assert_close(found, base + 0.25 * (whole - base))
