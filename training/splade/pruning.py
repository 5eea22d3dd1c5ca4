"""Fewer terms for documents after training, by the head's bias alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from retrieval.errors import ConfigError


def prune(model: nn.Module, weights: Tensor, n_terms: float, n_documents: int, *, twice: bool) -> float:
    """Lower every term's bias by one amount, so that the documents have n_terms terms on average.

    FLOPS weights set the number of terms only roughly, and only after many steps. The terms that go are the
    lightest of all.

    Args:
        model: has one masked-language head with a bias.
        weights: of all terms of the documents, as they are pooled.
        n_terms: of a document, on average.
        n_documents: how many they are.
        twice: whether weights are log(1 + log(1 + logit)) instead of log(1 + logit).

    Returns:
        The amount, in logits; 0 where the documents have no more terms than that already.

    Raises:
        ConfigError: the model has no such head.
    """
    kept = int(n_terms * n_documents)
    if len(weights) <= kept:
        return 0.0
    lightest = weights.float().sort(descending=True).values[kept].expm1()
    amount = float(lightest.expm1() if twice else lightest)
    biases = [value for name, value in model.named_parameters() if name.endswith("cls.predictions.bias")]
    if not biases:
        raise ConfigError(
            "document_terms prunes by the bias of BERT's masked-language head; the model has none"
        )
    with torch.no_grad():
        for bias in biases:
            bias.sub_(amount)
    return amount
