"""Encoding with tokenizers and torch alone: no transformers, no sentence-transformers, no padding on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from retrieval.compute import apply_threads, threads, torch_workers
from retrieval.encoders.tally import Tally
from retrieval.encoders.transformer.attention import TokenRun
from retrieval.encoders.transformer.batches import plan_batches, token_budget
from retrieval.encoders.transformer.bert import Bert, load_bert
from retrieval.encoders.transformer.checkpoint import Checkpoint
from retrieval.encoders.transformer.pooling import Head, load_projection, pool
from retrieval.encoders.transformer.tokens import Tokenizer, Tokens

T = TypeVar("T")

_GPU_TOKENS = 32_768  # a batch on an accelerator


@dataclass(frozen=True)
class DirectEngine:
    """A BERT-like model with pooling; texts in, vectors out.

    Attributes:
        tokenizer: text to ids.
        bert: ids to token vectors.
        poolings: token vectors to one.
        head: what follows.
        device: torch device name.
    """

    tokenizer: Tokenizer
    bert: Bert
    poolings: tuple[str, ...]
    head: Head
    device: str

    def encode(self, texts: Sequence[str], tally: Tally, task: str = "document") -> NDArray[np.float32]:
        """(N, D) float32, one row a text; long texts are cut and counted; both tasks run the one tower."""
        apply_threads()
        tokens = self.tokenizer(texts)
        tally.add(len(texts), int(tokens.lengths().sum()), tokens.n_truncated)
        batches, vectors = run_batches(tokens, self.device, self._forward)
        out = np.empty((len(texts), vectors[0].shape[1]), dtype=np.float32)
        for batch, values in zip(batches, vectors, strict=True):
            out[batch] = values
        return out

    def _forward(self, ids: list[NDArray[np.int32]]) -> NDArray[np.float32]:
        """Vectors of texts that are sorted by descending length."""
        with torch.inference_mode():
            flat, runs = lay_out(ids, self.device)
            pooled = pool(self.bert(flat, runs), runs, self.poolings)
            values: NDArray[np.float32] = self.head(pooled).cpu().numpy()
        return values


def run_batches(
    tokens: Tokens, device: str, forward: Callable[[list[NDArray[np.int32]]], T]
) -> tuple[list[NDArray[np.int64]], list[T]]:
    """Texts of like length together, one batch a core on a CPU.

    Args:
        tokens: at least one text.
        device: torch device name.
        forward: what to do with the ids of a batch, sorted by descending length.

    Returns:
        Rows of each batch, a partition of the texts; and what ``forward`` returned for it.
    """
    if len(tokens.ids) == 1:
        return [np.zeros(1, dtype=np.int64)], [forward(tokens.ids)]
    lengths, on_cpu = tokens.lengths(), device == "cpu"
    budget = token_budget(lengths, threads()) if on_cpu else _GPU_TOKENS
    batches = plan_batches(lengths, budget, padded=not on_cpu)
    parts = [[tokens.ids[row] for row in batch] for batch in batches]
    workers = torch_workers() if on_cpu and len(parts) > 1 else None
    return batches, list(workers.map(forward, parts)) if workers else [forward(part) for part in parts]


def lay_out(ids: Sequence[NDArray[np.int32]], device: str) -> tuple[torch.Tensor, list[TokenRun]]:
    """The token ids of a batch as the model takes them on a device, and which texts they form."""
    return _unpadded(ids) if device == "cpu" else _padded(ids, device)


def read_batch(
    bert: Bert, ids: list[NDArray[np.int32]], poolings: Sequence[str], device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """One pass over texts that are sorted by descending length.

    Args:
        bert: ids to hidden states.
        ids: of B texts with T tokens.
        poolings: as ``pool`` takes them.
        device: torch device name.

    Returns:
        (T, H) last hidden states in the dtype of the weights, text after text without padding, not to be written to;
        and (B, H * len(poolings)) float32 pooled vectors.
    """
    flat, runs = lay_out(ids, device)
    hidden = bert(flat, runs)
    pooled, padded = pool(hidden, runs, poolings), runs[0].mask()
    return hidden if padded is None else hidden[padded.view(-1)], pooled


def _unpadded(ids: Sequence[NDArray[np.int32]]) -> tuple[torch.Tensor, list[TokenRun]]:
    """All tokens one after another; neighbours of equal length form a run."""
    runs: list[TokenRun] = []
    first = start = 0
    for row in range(1, len(ids) + 1):
        if row == len(ids) or len(ids[row]) != len(ids[first]):
            run = TokenRun(start, row - first, len(ids[first]))
            runs.append(run)
            first, start = row, run.stop
    flat = ids[0] if len(ids) == 1 else np.concatenate(ids)
    return torch.from_numpy(flat), runs


def _padded(ids: Sequence[NDArray[np.int32]], device: str) -> tuple[torch.Tensor, list[TokenRun]]:
    """One run padded to the longest: few large operations, which is what an accelerator wants."""
    lengths = torch.tensor([len(part) for part in ids])
    longest = int(lengths.max())
    flat = np.zeros((len(ids), longest), dtype=np.int32)
    for row, part in enumerate(ids):
        flat[row, : len(part)] = part
    even = bool((lengths == longest).all())
    run = TokenRun(0, len(ids), longest, None if even else lengths.to(device))
    return torch.from_numpy(flat.reshape(-1)).to(device), [run]


def load_direct(
    checkpoint: Checkpoint, *, max_length: int, dim: int | None, normalize: bool, device: str, dtype: str
) -> DirectEngine:
    """Read weights and tokenizer.

    Raises:
        CorruptError: a file is damaged.
    """
    bert = load_bert(checkpoint.transformer, checkpoint.config, device, dtype)
    return DirectEngine(
        tokenizer=Tokenizer(
            checkpoint.transformer, max_length, bool(checkpoint.wrapper.get("do_lower_case", False))
        ),
        bert=bert,
        poolings=checkpoint.pooling,
        head=Head(tuple(load_projection(part, device) for part in checkpoint.projections), dim, normalize),
        device=device,
    )
