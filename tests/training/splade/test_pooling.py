"""Fused pooling beside the plain one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from training.families.layers import two_towers
from training.splade.head import with_head
from training.splade.pooling import FusedPooling, fuse, plain


@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
def test_fused_pooling_has_the_values_and_gradients_of_the_plain_one(
    encoder: Any, texts: list[str], activation: str
) -> None:
    encoder.train()
    encoder[1].activation_function = activation

    def passed() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        encoder.zero_grad()
        found = encoder(encoder.preprocess(texts))["sentence_embedding"]
        (found**2).sum().backward()
        return found.detach(), {name: weight.grad.clone() for name, weight in encoder.named_parameters()}

    expected, gradients = passed()
    fuse(encoder)
    assert isinstance(encoder[1], FusedPooling)
    quick, quick_gradients = passed()
    torch.testing.assert_close(quick, expected, rtol=1e-5, atol=1e-5)
    assert (expected > 0).any()
    for name, gradient in gradients.items():
        torch.testing.assert_close(quick_gradients[name], gradient, rtol=1e-3, atol=1e-3, msg=name)
    with plain(encoder):
        again, _ = passed()
        assert torch.equal(again, expected)
    assert torch.equal(passed()[0], quick)


def test_a_frozen_table_has_no_gradient(encoder: Any, texts: list[str]) -> None:
    fuse(encoder)
    words = encoder[0].auto_model.get_input_embeddings().weight.requires_grad_(False)
    encoder(encoder.preprocess(texts))["sentence_embedding"].sum().backward()
    assert words.grad is None
    assert encoder[0].auto_model.cls.predictions.bias.grad is not None


def test_both_towers_are_fused_and_saved_plain(still: Path, tmp_path: Path, texts: list[str]) -> None:
    from sentence_transformers import SparseEncoder

    model = two_towers(with_head(still, "relu"), 1).eval()
    expected = {
        task: model(model.preprocess(texts, task=task), task=task)["sentence_embedding"]
        for task in ("query", "document")
    }
    fuse(model)
    assert sum(isinstance(part, FusedPooling) for part in model.modules()) == 2
    with plain(model):
        model.save(str(tmp_path), create_model_card=False)
    for one in (model, SparseEncoder(str(tmp_path), device="cpu").eval()):
        for task, vectors in expected.items():
            found = one(one.preprocess(texts, task=task), task=task)["sentence_embedding"]
            torch.testing.assert_close(found, vectors, rtol=1e-5, atol=1e-5)
