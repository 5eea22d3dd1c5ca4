"""Pruning to a mean number of terms."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from training.splade_pruning import prune


def test_pruning_keeps_the_heaviest_terms(encoder: Any, texts: list[str]) -> None:
    before = encoder.encode(texts).to_dense()
    amount = prune(encoder, texts, 5)
    after = encoder.encode(texts).to_dense()
    assert amount > 0
    assert torch.count_nonzero(after) == pytest.approx(5 * len(texts), abs=1)  # ties in half precision
    torch.testing.assert_close(after, (before.expm1() - amount).relu().log1p(), rtol=1e-3, atol=0.02)
    assert prune(encoder, texts, 1000) == 0.0
