"""What is kept of the vectors of many texts, which go through the model once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from indexing.progress import Progress
from training.codes.reader import Ids, Read, Reader

_SHORTEST, _LONGEST = 8, 64
"""Tokens of a window."""


@dataclass(frozen=True, eq=False)
class Seen:
    """Of the documents of a set. H width of the model, V word pieces.

    Attributes:
        tokens: (n, H) float16, sampled unit token vectors.
        pooled: (N, H) float16 unit vectors of documents and of windows of them.
        sums: (V, H) float32, unit token vectors by word piece, added up.
        counts: (V,) how many.
    """

    tokens: NDArray[np.float16]
    pooled: NDArray[np.float16]
    sums: NDArray[np.float32]
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class Sampling:
    """What is sampled of the documents of a set.

    Attributes:
        tokens: at most so many token vectors.
        rarity: a token is drawn in proportion to the frequency of its word piece to the power of minus this, so that
            common pieces do not take most of the codes.
        windows: of each document.
    """

    tokens: int
    rarity: float = 0.5
    windows: int = 4


def see_documents(
    reader: Reader,
    ids: Sequence[Ids],
    telling: NDArray[np.bool_],
    sampling: Sampling,
    rng: np.random.Generator,
    progress: Progress,
) -> Seen:
    """One pass over documents; memory grows with what is sampled, not with the number of tokens.

    Args:
        reader: the model.
        ids: of each document, with special tokens.
        telling: (V,) word pieces that may be sampled.
        sampling: how much is kept.
        rng: where the draws come from.
        progress: advances by one for each document.
    """
    width, n_pieces, n = reader.bert.width, len(telling), len(ids)
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in ids])])
    places = _sampled_places(np.concatenate(ids), telling, sampling, rng)
    windows = _Windows(rng.random((n, sampling.windows)), rng.random((n, sampling.windows)))
    tokens = torch.zeros((int(places.max(initial=-1)) + 1, width), dtype=torch.float16)
    pooled = torch.zeros((n, 1 + sampling.windows, width), dtype=torch.float16)
    sums = torch.zeros((n_pieces, width))
    for read in reader.read(ids):
        unit = F.normalize(read.hidden, dim=1)
        own = np.concatenate([ids[row] for row in read.rows])
        sums.index_add_(0, torch.from_numpy(own.astype(np.int64)), unit)
        at = np.concatenate([places[offsets[row] : offsets[row + 1]] for row in read.rows])
        tokens[torch.from_numpy(at[at >= 0])] = unit[torch.from_numpy(at >= 0)].half()
        rows = torch.from_numpy(read.rows)
        pooled[rows, 0] = read.pooled.half()
        pooled[rows, 1:] = windows.of(read, [len(ids[row]) for row in read.rows]).half()
        progress.advance(len(read.rows))
    counts = np.bincount(np.concatenate(ids), minlength=n_pieces)
    return Seen(tokens.numpy(), pooled.view(-1, width).numpy(), sums.numpy(), counts)


def see_texts(reader: Reader, ids: Sequence[Ids], progress: Progress) -> NDArray[np.float16]:
    """(N, H) unit vectors of texts; progress advances by one for each."""
    pooled = torch.zeros((len(ids), reader.bert.width), dtype=torch.float16)
    for read in reader.read(ids):
        pooled[torch.from_numpy(read.rows)] = read.pooled.half()
        progress.advance(len(read.rows))
    return pooled.numpy()


def see_pieces(reader: Reader, n_pieces: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Every word piece as a text of its own: (V, H) pooled vectors and (V, H) token vectors, of unit length."""
    before, after = np.split(reader.tokenizer([""]).ids[0], [1])
    ids = [np.concatenate([before, [piece], after]).astype(np.int32) for piece in range(n_pieces)]
    pooled = torch.zeros((n_pieces, reader.bert.width))
    tokens = torch.zeros_like(pooled)
    for read in reader.read(ids):
        rows = torch.from_numpy(read.rows)
        pooled[rows] = read.pooled
        tokens[rows] = F.normalize(read.hidden.view(len(rows), len(ids[0]), -1)[:, len(before)], dim=1)
    return pooled.numpy(), tokens.numpy()


def _sampled_places(
    flat: Ids, telling: NDArray[np.bool_], sampling: Sampling, rng: np.random.Generator
) -> NDArray[np.int64]:
    """(T,) which place in the sample a token has, -1 for none."""
    places = np.full(len(flat), -1)
    may = np.flatnonzero(telling[flat])
    if not len(may):
        return places
    share = np.bincount(flat[may])[flat[may]].astype(np.float64) ** -sampling.rarity
    chosen = rng.choice(may, min(sampling.tokens, len(may)), replace=False, p=share / share.sum())
    places[np.sort(chosen)] = np.arange(len(chosen))
    return places


@dataclass(frozen=True)
class _Windows:
    """Pieces of documents as their token vectors within the document say them.

    Attributes:
        lengths, starts: (N, w) from 0 to 1, for every document the place in the range of what is possible.
    """

    lengths: NDArray[np.float64]
    starts: NDArray[np.float64]

    def of(self, read: Read, n_tokens: Sequence[int]) -> Tensor:
        """(B, w, H) unit vectors: means over each window's tokens."""
        counts = np.array(n_tokens)[:, None]
        lengths = np.minimum(
            counts, _SHORTEST + (self.lengths[read.rows] * (_LONGEST - _SHORTEST)).astype(int)
        )
        low = (self.starts[read.rows] * (counts - lengths + 1)).astype(int)
        low += np.concatenate([[0], np.cumsum(n_tokens)[:-1]])[:, None]
        spans = zip(low.ravel().tolist(), lengths.ravel().tolist(), strict=True)
        means = torch.stack([read.hidden[start : start + length].mean(0) for start, length in spans])
        return F.normalize(means, dim=1).view(*low.shape, -1)
