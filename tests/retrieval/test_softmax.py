"""The compiled softmax against torch's, and attention with it against torch's fused kernel."""

from __future__ import annotations

import pytest
import torch

from retrieval.encoders.transformer.attention import TokenRun, attend
from retrieval.encoders.transformer.softmax import softmax_bfloat16

HALF_STEP = 2**-8 + 2e-4  # of bfloat16, relative, with the error of the cubic


@pytest.mark.parametrize("length", [1, 2, 15, 64, 257])
@pytest.mark.parametrize("spread", [0.1, 3.0, 40.0, 1e4])
def test_softmax_is_torchs_rounded_to_bfloat16(length: int, spread: float) -> None:
    scores = (torch.randn(3, 40, length, generator=torch.Generator().manual_seed(length)) * spread).bfloat16()
    exact = torch.softmax(scores.float(), -1)
    softmax_bfloat16(scores)
    # weights below 2 ** -126 of the greatest are that small instead of smaller
    torch.testing.assert_close(scores.float(), exact, rtol=HALF_STEP, atol=1e-30)


def test_softmax_of_equal_and_of_extreme_scores() -> None:
    greatest = torch.finfo(torch.bfloat16).max
    scores = torch.tensor([[7.0, 7.0], [-0.0, 0.0], [-greatest, -greatest], [greatest, -greatest]]).bfloat16()
    softmax_bfloat16(scores)
    torch.testing.assert_close(
        scores.float(), torch.tensor([[0.5, 0.5]] * 3 + [[1.0, 0.0]]), rtol=HALF_STEP, atol=1e-30
    )


def test_composed_attention_agrees_with_float32() -> None:
    runs = [TokenRun(0, 2, 200), TokenRun(400, 3, 90)]
    qkv = torch.randn(runs[-1].stop, 3 * 64, generator=torch.Generator().manual_seed(0)).bfloat16() / 2
    exact = attend(qkv.float(), runs, 4, composed=False)
    torch.testing.assert_close(attend(qkv, runs, 4, composed=True).float(), exact, rtol=2**-7, atol=1e-2)
