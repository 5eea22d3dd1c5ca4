"""The compiled softmax against torch's, and attention with it against torch's fused kernel."""

from __future__ import annotations

import pytest
import torch

from retrieval.encoders.transformer.attention import TokenRun, _blocks, attend
from retrieval.encoders.transformer.linear import even_height
from retrieval.encoders.transformer.softmax import softmax_bfloat16

HALF_STEP = 2**-8 + 2e-4  # of bfloat16, relative, with the error of the cubic


@pytest.mark.parametrize("length", [1, 2, 15, 64, 257])
@pytest.mark.parametrize("spread", [0.1, 3.0, 40.0, 1e4])
def test_softmax_is_torchs_rounded_to_bfloat16(length: int, spread: float) -> None:
    scores = (torch.randn(3, 40, length, generator=torch.Generator().manual_seed(length)) * spread).bfloat16()
    exact = torch.softmax(scores.float(), -1)
    wide = torch.cat([scores, scores + 100], -1).contiguous()
    softmax_bfloat16(scores, length)
    # weights below 2 ** -126 of the greatest are that small instead of smaller
    torch.testing.assert_close(scores.float(), exact, rtol=HALF_STEP, atol=1e-30)
    softmax_bfloat16(wide, length)
    assert torch.equal(wide[..., :length], scores) and not wide[..., length:].any()


def test_softmax_of_equal_and_of_extreme_scores() -> None:
    greatest = torch.finfo(torch.bfloat16).max
    scores = torch.tensor([[7.0, 7.0], [-0.0, 0.0], [-greatest, -greatest], [greatest, -greatest]]).bfloat16()
    softmax_bfloat16(scores, 2)
    torch.testing.assert_close(
        scores.float(), torch.tensor([[0.5, 0.5]] * 3 + [[1.0, 0.0]]), rtol=HALF_STEP, atol=1e-30
    )


def test_composed_attention_agrees_with_float32() -> None:
    runs = [TokenRun(0, 2, 200), TokenRun(400, 3, 96), TokenRun(688, 1, 600), TokenRun(1288, 13, 49)]
    qkv = torch.randn(runs[-1].stop + 7, 3 * 64, generator=torch.Generator().manual_seed(0)).bfloat16() / 2
    exact = attend(qkv.float(), runs, 4, composed=False)
    torch.testing.assert_close(attend(qkv, runs, 4, composed=True).float(), exact, rtol=2**-7, atol=1e-2)
    assert not exact[runs[-1].stop :].any(), "rows behind the texts are 0"


@pytest.mark.parametrize("heads", [1, 4, 12])
def test_attention_is_computed_in_blocks_of_few_sizes(heads: int) -> None:
    for most in (1, 3, 5, 12, 40, 1000):
        sizes = set()
        for n in range(1, 70):
            blocks = list(_blocks(n, heads, most))
            assert [row for block in blocks for row in range(block.start, block.stop)] == list(
                range(n * heads)
            )
            sizes |= {block.stop - block.start for block in blocks}
        assert max(sizes) <= most and len(sizes) <= 8


def test_heights_are_few_and_little_is_added() -> None:
    heights = [even_height(n) for n in range(5000)]
    assert all(n <= height <= max(n + 15, n * 1.07) for n, height in enumerate(heights))
    assert len(set(heights)) < 120
