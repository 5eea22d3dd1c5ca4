"""Fused pooling beside the plain one."""

from __future__ import annotations

from typing import Any

import torch

from training.splade_pooling import fused


def test_fused_pooling_has_the_values_and_gradients_of_the_plain_one(encoder: Any, texts: list[str]) -> None:
    encoder.train()

    def passed() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        encoder.zero_grad()
        found = encoder(encoder.preprocess(texts))["sentence_embedding"]
        (found**2).sum().backward()
        return found.detach(), {name: weight.grad.clone() for name, weight in encoder.named_parameters()}

    plain, plain_gradients = passed()
    with fused(encoder):
        quick, quick_gradients = passed()
    torch.testing.assert_close(quick, plain, rtol=1e-5, atol=1e-5)
    assert (plain > 0).any()
    for name, gradient in plain_gradients.items():
        torch.testing.assert_close(quick_gradients[name], gradient, rtol=1e-3, atol=1e-3, msg=name)
    again, _ = passed()
    assert torch.equal(again, plain)  # the plain modules are back
