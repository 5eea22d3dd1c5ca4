"""Texts through a transformer and its pooling to the heads behind them, with tokenizers and torch alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval.compute import apply_threads
from retrieval.encoders.tally import Tally
from retrieval.encoders.transformer.architectures import runs_directly
from retrieval.encoders.transformer.checkpoint import Checkpoint, read_checkpoint
from retrieval.encoders.transformer.direct import DirectEngine, lay_out, run_batches
from retrieval.encoders.transformer.pooling import pool
from retrieval.errors import ConfigError

Made = tuple[NDArray[np.float32], ...]
Heads = Callable[[Tensor, Tensor | None, Tensor], tuple[Tensor, ...]]
"""(n, L, H) token vectors, (n, L) which are real or None for all, (n, D) pooled vectors -> tensors of n rows."""


def split_heads(folder: Path, kind: str, needed: str) -> tuple[Checkpoint, Checkpoint, Path]:
    """A checkpoint, what of it comes before its last module, and that module's folder.

    Args:
        folder: of the checkpoint.
        kind: what modules.json has to call the last module.
        needed: what the checkpoint should be, for people.

    Raises:
        ConfigError: the checkpoint ends with another module, or its transformer is of a kind that is not run here.
        FormatError: a damaged JSON file.
    """
    checkpoint = read_checkpoint(folder)
    name, place, _ = checkpoint.modules[-1]
    if name != kind:
        raise ConfigError(f"{folder} is no {needed}; give the folder that `tercet train` made of one")
    before = replace(checkpoint, modules=checkpoint.modules[:-1], similarity="")
    if not runs_directly(before):
        raise ConfigError(
            f"{folder}: the transformer of a {needed} has to be a BERT, RoBERTa, XLM-RoBERTa or DistilBERT"
        )
    return checkpoint, before, place


def run_heads(engine: DirectEngine, texts: Sequence[str], tally: Tally, heads: Heads) -> Made:
    """What heads make of texts, row by row; long texts are cut and counted.

    Args:
        engine: makes token vectors and pooled ones.
        texts: at least one.
        tally: of the encoder.
        heads: called with texts of one length, or padded ones.
    """
    apply_threads()
    tokens = engine.tokenizer(texts)
    tally.add(len(texts), int(tokens.lengths().sum()), tokens.n_truncated)

    def forward(ids: list[NDArray[np.int32]]) -> Made:
        with torch.inference_mode():
            flat, runs = lay_out(ids, engine.device)
            hidden = engine.bert(flat, runs)
            pooled = engine.head(pool(hidden, runs, engine.poolings))
            parts, row = [], 0
            for run in runs:
                parts.append(heads(run.of(hidden).float(), run.mask(), pooled[row : row + run.n]))
                row += run.n
            return tuple(torch.cat(same).cpu().numpy() for same in zip(*parts, strict=True))

    batches, found = run_batches(tokens, engine.device, forward)
    order = np.argsort(np.concatenate(batches))
    return tuple(np.concatenate(same)[order] for same in zip(*found, strict=True))
