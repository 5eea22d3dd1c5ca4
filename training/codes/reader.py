"""Token vectors and pooled vectors of texts, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from retrieval.compute import apply_threads, choose_device, choose_dtype
from retrieval.encoders.transformer.bert import Bert, load_bert
from retrieval.encoders.transformer.checkpoint import Checkpoint
from retrieval.encoders.transformer.direct import read_batch, run_batches
from retrieval.encoders.transformer.tokens import Tokenizer, Tokens

_GROUP = 256  # texts whose token vectors are in memory together

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Read:
    """What the model says of B texts with T tokens.

    Attributes:
        rows: (B,) which texts these are.
        hidden: (T, H) float32, the last hidden states, text after text.
        pooled: (B, H) float32 unit vectors.
    """

    rows: NDArray[np.int64]
    hidden: Tensor
    pooled: Tensor


@dataclass(frozen=True)
class Reader:
    """A model that reads texts.

    Attributes:
        tokenizer: text to ids.
        bert: ids to hidden states.
        poolings: token vectors to one.
        device: torch device name.
    """

    tokenizer: Tokenizer
    bert: Bert
    poolings: tuple[str, ...]
    device: str

    @classmethod
    def open(cls, checkpoint: Checkpoint, max_length: int) -> Self:
        """Read weights and tokenizer.

        Args:
            checkpoint: a model that runs directly.
            max_length: tokens read of a text.

        Raises:
            CorruptError: a file is damaged.
        """
        device = choose_device("auto")
        lower_case = bool(checkpoint.wrapper.get("do_lower_case", False))
        return cls(
            Tokenizer(checkpoint.transformer, max_length, lower_case),
            load_bert(checkpoint.transformer, checkpoint.config, device, choose_dtype(device)),
            checkpoint.pooling,
            device,
        )

    def read(self, ids: Sequence[Ids]) -> Iterator[Read]:
        """Every text once, in batches of like length; ids are with special tokens."""
        apply_threads()
        for start in range(0, len(ids), _GROUP):
            tokens = Tokens(list(ids[start : start + _GROUP]), 0)
            batches, parts = run_batches(tokens, self.device, self._forward)
            for batch, (hidden, pooled) in zip(batches, parts, strict=True):
                yield Read(start + batch, hidden, pooled)

    def _forward(self, ids: list[Ids]) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            hidden, pooled = read_batch(self.bert, ids, self.poolings, self.device)
            return hidden.float().cpu(), F.normalize(pooled, dim=1).cpu()
