"""Pruning to a mean number of terms."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from retrieval.errors import ConfigError
from training.splade.pruning import prune


@pytest.mark.parametrize("twice", [False, True])
def test_pruning_keeps_the_heaviest_terms(encoder: Any, texts: list[str], twice: bool) -> None:
    encoder[1].activation_function = "log1p_relu" if twice else "relu"

    def logits() -> torch.Tensor:
        weights = encoder.encode(texts).to_dense().expm1()
        return weights.expm1() if twice else weights

    before, weights = logits(), encoder.encode(texts).coalesce().values()
    amount = prune(encoder, weights, 5, len(texts), twice=twice)
    assert amount > 0
    assert torch.count_nonzero(logits()) == pytest.approx(5 * len(texts), abs=1)
    torch.testing.assert_close(logits(), (before - amount).relu(), rtol=1e-3, atol=1e-3)
    assert prune(encoder, weights, 1000, len(texts), twice=twice) == 0.0


def test_a_model_without_a_head_cannot_be_pruned() -> None:
    with pytest.raises(ConfigError, match="document_terms"):
        prune(torch.nn.Linear(2, 2), torch.ones(9), 1, 2, twice=False)
