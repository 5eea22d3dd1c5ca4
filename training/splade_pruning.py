"""Fewer terms for documents after training, by the head's bias alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from indexing.progress import Progress, Silent
from training.splade_encoder import sparse_vectors


def prune(encoder: Any, documents: Sequence[str], n_terms: int, progress: Progress | None = None) -> float:
    """Lower every term's bias by one amount, so that the documents have n_terms terms on average.

    FLOPS weights set the number of terms only roughly, and only after many steps. The terms that go are the
    lightest of all.

    Returns:
        The amount, in logits; 0 where the documents have no more terms than that already.
    """
    progress = progress or Silent()
    progress.start("pruning", len(documents), "texts")
    logits = sparse_vectors(encoder, documents, progress).values().expm1().sort(descending=True).values
    if len(logits) <= n_terms * len(documents):
        return 0.0
    amount = float(logits[n_terms * len(documents)])
    with torch.no_grad():
        encoder[0].auto_model.cls.predictions.bias -= amount
    return amount
