"""Sparse encoding through sentence-transformers, for every checkpoint that is not run directly."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrieval.compute import apply_threads
from retrieval.encoders.sparse_rows import sparse_rows
from retrieval.encoders.surrogates import valid_text
from retrieval.encoders.tally import Tally
from retrieval.encoders.transformer.checkpoint import Checkpoint
from retrieval.encoders.transformer.routes import Routes
from retrieval.encoders.transformer.term_tokens import TermTokenizer
from retrieval.encoders.transformer.tokens import Tokenizer
from retrieval.errors import ConfigError, CorruptError
from retrieval.values import Sparse

_GROUP = 256  # texts encoded at a time; their weights are kept for every term until the group is done
_LOGITS = 1 << 26  # of a batch: 256 MB in float32
_BATCH = 32  # texts at most
_LENGTH = 512  # assumed of texts whose tokens nobody counts
_CHARACTERS = 40  # of a text shown per token of the maximum length; more is far beyond it


@dataclass(frozen=True)
class SparseFallbackEngine:
    """A SparseEncoder of sentence-transformers; it keeps state while tokenising, so calls take turns.

    Attributes:
        model: the loaded SparseEncoder.
        tokenizers: by task, to count tokens with; a task that has none is not counted.
        max_active_dims: the most terms of a vector; None as the model says.
        dim: the width V of a vector.
        place: the model's folder.
    """

    model: Any
    tokenizers: dict[str, Tokenizer]
    max_active_dims: int | None
    dim: int
    place: Path
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def encode(self, texts: Sequence[str], tally: Tally, task: str, keep: int | None) -> Sparse:
        """One row a text, of at most ``keep`` terms; prompts are already part of the texts.

        Raises:
            CorruptError: a weight is not finite.
        """
        parts: list[Sparse] = []
        with self.lock:
            apply_threads()
            for start in range(0, len(texts), _GROUP):
                group = [self._shown(text) for text in texts[start : start + _GROUP]]
                longest = self._count(group, tally, task)
                parts.append(self._encode(group, task, keep, longest))
        return Sparse.concat(parts)

    def _encode(self, texts: list[str], task: str, keep: int | None, longest: int) -> Sparse:
        encode = self.model.encode_query if task == "query" else self.model.encode_document
        weights = encode(
            texts,
            prompt="",
            batch_size=max(1, min(_BATCH, _LOGITS // (max(1, longest) * self.dim))),
            show_progress_bar=False,
            convert_to_sparse_tensor=False,
            save_to_cpu=True,
            max_active_dims=self.max_active_dims,
        )
        return sparse_rows(weights.float().numpy().reshape(len(texts), -1), keep, self.place)

    def _shown(self, text: str) -> str:
        limit = self.model.max_seq_length
        return valid_text(text if limit is None else text[: _CHARACTERS * (int(limit) + 16)])

    def _count(self, texts: list[str], tally: Tally, task: str) -> int:
        """Count tokens and cut texts; returns the tokens of the longest text."""
        if task not in self.tokenizers:
            tally.add(len(texts), 0, 0)
            return _LENGTH
        tokens = self.tokenizers[task](texts)
        lengths = tokens.lengths()
        tally.add(len(texts), int(lengths.sum()), tokens.n_truncated)
        return int(lengths.max())


def load_sparse_fallback(
    routes: Routes,
    *,
    max_length: int | None,
    max_active_dims: int | None,
    device: str,
    dtype: str,
    trust_remote_code: bool,
) -> SparseFallbackEngine:
    """Load a SparseEncoder from a local folder.

    Raises:
        ConfigError: sentence-transformers cannot run it; its own reason is in the message.
        CorruptError: weights or a tokenizer are damaged.
    """
    import torch
    from safetensors import SafetensorError
    from sentence_transformers import SparseEncoder

    folder, tokenizers = routes.document.folder, _tokenizers(routes, max_length)
    try:
        model = SparseEncoder(
            str(folder),
            device=device,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            model_kwargs={"dtype": getattr(torch, dtype)},
        )
        if max_length is not None:
            model.max_seq_length = max_length
        probe = model.encode_document(["a"], convert_to_sparse_tensor=False, max_active_dims=max_active_dims)
    except SafetensorError as error:
        raise CorruptError(folder, f"weights that are not complete safetensors files ({error})") from error
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, TypeError) as error:
        raise ConfigError(f"sentence-transformers cannot run {folder}: {error}") from error
    return SparseFallbackEngine(
        model=model.eval(),
        tokenizers=tokenizers,
        max_active_dims=max_active_dims,
        dim=int(probe.shape[-1]),
        place=folder,
    )


def _tokenizers(routes: Routes, max_length: int | None) -> dict[str, Tokenizer]:
    def found(route: Checkpoint) -> Tokenizer | None:
        length = max_length or route.max_length
        if length is None or not (route.transformer / "tokenizer.json").is_file():
            return None
        bare = route.types[0] == "SparseStaticEmbedding"
        return (TermTokenizer if bare else Tokenizer)(route.transformer, length)

    both = {"query": found(routes.query), "document": found(routes.document)}
    return {task: tokenizer for task, tokenizer in both.items() if tokenizer is not None}
