"""Drawing tokens such that each text of a batch has random numbers of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria


class SeededSampling(LogitsProcessor):  # type: ignore[misc]  # transformers has no types
    """Makes greedy decoding sample: noise is added to the logits of each row from a generator of the row's own.

    The largest of logits / temperature + Gumbel noise is a draw from their softmax (the Gumbel-max trick), so a text
    depends on its seed and prompt and not on its neighbours, as far as the logits themselves do not.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, device: str) -> None:
        """A seed for each row; temperature 0 leaves the logits as they are."""
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self._temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, V) logits -> (B, V) float32."""
        logits = scores.float()
        if self._temperature == 0:
            return logits
        exponential = torch.empty_like(logits)
        for row, generator in zip(exponential, self._generators, strict=True):
            row.exponential_(generator=generator)
        return logits / self._temperature - exponential.log()


class LineEnd(StoppingCriteria):  # type: ignore[misc]
    """Ends a text with the first line that is not blank."""

    def __init__(self, tokenizer: Any, prompt_length: int) -> None:
        """The prompt's tokens are not looked at."""
        self._tokenizer = tokenizer
        self._start = prompt_length

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        """(B, L) token ids -> (B,) bool."""
        texts = self._tokenizer.batch_decode(input_ids[:, self._start :], skip_special_tokens=True)
        ended = ["\n" in text.lstrip() for text in texts]
        return torch.tensor(ended, device=input_ids.device)
