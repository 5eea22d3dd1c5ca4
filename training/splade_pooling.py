"""SPLADE's max pooling fused with the product before it: batch x length x vocabulary logits never exist."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class _PooledLogits(torch.autograd.Function):
    """ReLU of the largest logit of each term, text by text: the (B, L, V) logits never exist.

    Only the position of the maximum of an active term has a gradient, so going back costs next to nothing, where
    the plain way takes two more products with the vocabulary.
    """

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, lengths: Tensor, words: Tensor, bias: Tensor) -> Tensor:
        """(B, V) from vectors (B, L, D), numbers of tokens (B,), words (V, D) and bias (V,)."""
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else words.dtype
        table, texts = words.to(kind), vectors.to(kind)  # once, where autocast would do so for every text
        best = [
            (table @ text[:length].T).max(1) for text, length in zip(texts, lengths.tolist(), strict=True)
        ]
        pooled = (torch.stack([one.values for one in best]).float() + bias).relu()
        ctx.save_for_backward(vectors, words, pooled, torch.stack([one.indices for one in best]))
        return pooled

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        """The gradients of vectors, words and bias."""
        vectors, words, pooled, positions = ctx.saved_tensors
        gradient = gradients[0] * (pooled > 0)
        rows, terms = gradient.nonzero(as_tuple=True)
        active, places = gradient[rows, terms, None], (rows, positions[rows, terms])
        of_words = torch.zeros_like(words).index_add_(0, terms, active * vectors[places])
        of_vectors = torch.zeros_like(vectors, dtype=words.dtype)
        of_vectors.index_put_(places, active * words[terms], accumulate=True)
        return of_vectors.to(vectors.dtype), None, of_words, gradient.sum(0)


class _FusedPooling(torch.nn.Module):
    """``SpladePooling`` over the head's vectors instead of its logits."""

    def __init__(self, words: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.words, self.bias = words, bias

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Adds the (B, V) ``sentence_embedding``."""
        lengths = features["attention_mask"].sum(1)
        pooled = _PooledLogits.apply(  # type: ignore[no-untyped-call]
            features["token_embeddings"], lengths, self.words, self.bias
        )
        return features | {"sentence_embedding": pooled.log1p()}


@contextmanager
def fused(encoder: Any) -> Iterator[None]:
    """Let the encoder compute the same vectors without keeping logits, so that a step on a CPU is faster.

    Texts must be padded on the right.
    """
    head, pooling = encoder[0].auto_model.cls.predictions, encoder[1]
    decoder = head.decoder
    head.decoder, encoder[1] = torch.nn.Identity(), _FusedPooling(decoder.weight, head.bias)
    try:
        yield
    finally:
        head.decoder, encoder[1] = decoder, pooling
