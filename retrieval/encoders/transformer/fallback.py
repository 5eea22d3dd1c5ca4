"""Encoding through sentence-transformers, for every checkpoint that is not run directly."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.compute import apply_threads
from retrieval.encoders.surrogates import valid_text
from retrieval.encoders.tally import Tally
from retrieval.encoders.transformer.checkpoint import Checkpoint
from retrieval.errors import ConfigError

_GROUP = 1024  # texts encoded at a time, so that memory stays bounded
_CHARACTERS = 40  # of a text shown per token of the maximum length; more is far beyond it


@dataclass(frozen=True)
class FallbackEngine:
    """A SentenceTransformer; it keeps state while tokenising, so calls take turns.

    Attributes:
        model: the loaded SentenceTransformer.
        task: "query" or "document" for models with two towers.
        dim: Matryoshka cut or None.
        normalize: make unit vectors.
    """

    model: Any
    dim: int | None
    normalize: bool
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def encode(self, texts: Sequence[str], tally: Tally, task: str = "document") -> NDArray[np.float32]:
        """(N, D) float32, one row a text; prompts are already part of the texts."""
        encode = self.model.encode_query if task == "query" else self.model.encode_document
        parts: list[NDArray[np.float32]] = []
        with self.lock:
            apply_threads()
            for start in range(0, len(texts), _GROUP):
                limit = self.model.max_seq_length
                group = [shown_text(text, limit) for text in texts[start : start + _GROUP]]
                tally_texts(getattr(self.model, "tokenizer", None), group, limit, tally)
                values = encode(
                    group,
                    prompt="",
                    show_progress_bar=False,
                    convert_to_numpy=True,
                    normalize_embeddings=self.normalize,
                    truncate_dim=self.dim,
                )
                parts.append(np.asarray(values, dtype=np.float32).reshape(len(group), -1))
        return np.concatenate(parts)


def shown_text(text: str, limit: int | None) -> str:
    """As much of a text as can matter to a model that reads so many tokens."""
    return valid_text(text if limit is None else text[: _CHARACTERS * (int(limit) + 16)])


def tally_texts(tokenizer: Any, texts: list[str], limit: int | None, tally: Tally) -> None:
    """Count tokens and cut texts, as far as the model has a tokenizer that can be asked."""
    if tokenizer is None or not callable(tokenizer):
        tally.add(len(texts), 0, 0)
        return
    found = tokenizer(texts, truncation=False, padding=False, verbose=False)["input_ids"]
    lengths = [len(ids) for ids in found]
    most = limit if limit is not None else max(lengths)
    tally.add(
        len(texts), sum(min(length, most) for length in lengths), sum(length > most for length in lengths)
    )


def load_fallback(
    checkpoint: Checkpoint,
    *,
    max_length: int | None,
    dim: int | None,
    normalize: bool,
    device: str,
    dtype: str,
    trust_remote_code: bool,
) -> FallbackEngine:
    """Load a SentenceTransformer from a local folder.

    Raises:
        ConfigError: sentence-transformers cannot load it; its own reason is in the message.
    """
    import torch
    from sentence_transformers import SentenceTransformer

    try:
        model = SentenceTransformer(
            str(checkpoint.folder),
            device=device,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            model_kwargs={"dtype": getattr(torch, dtype)},
        )
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, TypeError) as error:
        raise ConfigError(f"sentence-transformers cannot load {checkpoint.folder}: {error}") from error
    model.eval()
    if max_length is not None:
        model.max_seq_length = max_length
    if not normalize:
        for name, module in list(model.named_children()):
            if type(module).__name__ == "Normalize":
                delattr(model, name)
    return FallbackEngine(model, dim, normalize)
