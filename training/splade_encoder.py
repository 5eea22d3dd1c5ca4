"""sentence-transformers' ``SparseEncoder`` made of a dense model, and its vectors of texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from indexing.progress import Progress
from retrieval.compute import cpu_has_bfloat16
from retrieval.errors import ConfigError

BATCH = 32
"""Texts the encoder reads at once, outside training."""


def splade_encoder(folder: Path, max_length: int) -> Any:
    """A ``SparseEncoder`` whose encoder is the model's and whose head is random, tied to its word embeddings.

    Args:
        folder: a BERT checkpoint, of sentence-transformers or of transformers.
        max_length: tokens of a text.

    Raises:
        ConfigError: the model is no BERT.
    """
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.modules import SpladePooling, Transformer
    from transformers import BertForMaskedLM

    transformer = Transformer(str(folder), transformer_task="fill-mask", max_seq_length=max_length)
    if not isinstance(transformer.auto_model, BertForMaskedLM):
        raise ConfigError(f"{folder}: a {type(transformer.auto_model).__name__}; the head is made for BERT")
    vocabulary = transformer.auto_model.config.vocab_size
    pooling = SpladePooling(pooling_strategy="max", embedding_dimension=vocabulary)
    return SparseEncoder(modules=[transformer, pooling], similarity_fn_name="dot", device="cpu")


def sparse_vectors(encoder: Any, texts: Sequence[str], progress: Progress) -> Tensor:
    """(N, V) sparse vectors of N texts, float32: log(1 + logit) of the terms whose logit is positive."""
    parts = []
    for start in range(0, len(texts), 8 * BATCH):  # sorted by length within, for less padding
        part = list(texts[start : start + 8 * BATCH])
        with torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bfloat16()):
            found = encoder.encode(part, batch_size=BATCH, show_progress_bar=False)
        parts.append(found.float())
        progress.advance(len(part))
    return torch.cat(parts).coalesce()
