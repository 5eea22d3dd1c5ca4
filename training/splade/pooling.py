"""SPLADE's max pooling fused with the product before it: batch x length x vocabulary logits never exist."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn


class _PooledLogits(torch.autograd.Function):
    """ReLU of the largest logit of each term, text by text: the (B, L, V) logits never exist.

    Only the position of the maximum of an active term has a gradient, so going back costs next to nothing, where
    the plain way takes two more products with the vocabulary.
    """

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, lengths: Tensor, words: Tensor, bias: Tensor) -> Tensor:
        """(B, V) from vectors (B, L, D), numbers of tokens (B,), words (V, D) and bias (V,)."""
        device = vectors.device.type
        kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else words.dtype
        table, texts = words.to(kind), vectors.to(kind)  # once, where autocast would do so for every text
        best = [
            (table @ text[:length].T).max(1) for text, length in zip(texts, lengths.tolist(), strict=True)
        ]
        pooled = (torch.stack([one.values for one in best]).float() + bias).relu()
        ctx.save_for_backward(vectors, words, pooled, torch.stack([one.indices for one in best]))
        return pooled

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, Tensor | None, Tensor]:
        """The gradients of vectors, words and bias."""
        vectors, words, pooled, positions = ctx.saved_tensors
        gradient = gradients[0] * (pooled > 0)
        rows, terms = gradient.nonzero(as_tuple=True)
        active, places = gradient[rows, terms, None], (rows, positions[rows, terms])
        of_words = None
        if ctx.needs_input_grad[2]:  # not where the table is frozen
            of_words = torch.zeros_like(words).index_add_(0, terms, active * vectors[places])
        of_vectors = torch.zeros_like(vectors, dtype=words.dtype)
        of_vectors.index_put_(places, active * words[terms], accumulate=True)
        return of_vectors.to(vectors.dtype), None, of_words, gradient.sum(0)


class FusedPooling(nn.Module):
    """``SpladePooling`` over the head's vectors instead of its logits.

    Attributes:
        plain: what it stands for.
        head: that makes the vectors; as long as this is here it has no decoder.
        decoder: its product with the vocabulary.
    """

    def __init__(self, plain: nn.Module, head: Any) -> None:
        super().__init__()
        self.plain, self.head, self.decoder = plain, head, head.decoder
        self.take_decoder()

    def take_decoder(self) -> None:
        """Let the head give vectors instead of logits."""
        self.head.decoder = nn.Identity()

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Adds the (B, V) ``sentence_embedding``."""
        lengths = features["attention_mask"].sum(1)
        pooled = _PooledLogits.apply(  # type: ignore[no-untyped-call]
            features["token_embeddings"], lengths, self.decoder.weight, self.head.bias
        )
        logged = pooled.log1p()
        return features | {
            "sentence_embedding": logged if self.plain.activation_function == "relu" else logged.log1p()
        }


def fuse(model: nn.Module) -> None:
    """Let a model compute the same vectors without keeping logits, wherever it pools BERT's by their maximum.

    Texts must be padded on the right.
    """
    from sentence_transformers.sparse_encoder.modules import SpladePooling
    from transformers import BertForMaskedLM

    for modules in _sequences(model):
        for (_, transformer), (name, pooling) in pairwise(modules):
            inner = getattr(transformer, "auto_model", None)
            if not isinstance(inner, BertForMaskedLM) or not isinstance(pooling, SpladePooling):
                continue
            if pooling.pooling_strategy == "max":
                _replace(model, name, FusedPooling(pooling, inner.cls.predictions))


@contextmanager
def plain(model: nn.Module) -> Iterator[None]:
    """The model as sentence-transformers knows it, for as long as the context lasts."""
    fused = [(name, part) for name, part in model.named_modules() if isinstance(part, FusedPooling)]
    for name, pooling in fused:
        pooling.head.decoder = pooling.decoder
        _replace(model, name, pooling.plain)
    try:
        yield
    finally:
        for name, pooling in fused:
            pooling.take_decoder()
            _replace(model, name, pooling)


def _sequences(model: nn.Module) -> Iterator[list[tuple[str, Any]]]:
    """(name, module) of what a text goes through, for each way through the model."""
    from sentence_transformers.base.modules import Router

    for name, module in model.named_children():
        if isinstance(module, Router):
            for route, modules in module.sub_modules.items():
                yield [
                    (f"{name}.sub_modules.{route}.{place}", part) for place, part in modules.named_children()
                ]
    yield list(model.named_children())


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    holder, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(holder), attribute, module)
