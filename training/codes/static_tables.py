"""Tables for queries that are read without the model: what every word piece stands for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from retrieval.compute import apply_threads
from retrieval.encoders.token_pooling import unit_rows
from training.codes.reader import Ids

_RIDGE = 3e-3  # of the mean diagonal
_SEEN = 3.0  # contexts that the vector of a piece alone counts as
_TOGETHER = 4096  # texts at a time


@dataclass(frozen=True, eq=False)
class Pieces:
    """What is known of V word pieces; vectors of H dimensions and unit length.

    Attributes:
        words: (V, H) word vectors of the model.
        pooled: (V, H), of a piece as a text of its own.
        alone: (V, H), the piece's own token vector in that text.
        sums: (V, H) its token vectors in documents, added up.
        counts: (V,) how many.
    """

    words: NDArray[np.float32]
    pooled: NDArray[np.float32]
    alone: NDArray[np.float32]
    sums: NDArray[np.float32]
    counts: NDArray[np.int64]

    @property
    def in_context(self) -> NDArray[np.float32]:
        """(V, H) mean token vectors in documents; pieces that are seen rarely stay near what they are alone."""
        total: NDArray[np.float32] = self.sums + np.float32(_SEEN) * self.alone
        return total / (self.counts + _SEEN).astype(np.float32)[:, None]


@dataclass(frozen=True)
class Bags:
    """Short texts of a set as bags of word pieces, and what the model says of them.

    Attributes:
        ids: of N texts.
        pooled: (N, H) unit vectors.
    """

    ids: Sequence[Ids]
    pooled: NDArray[np.float16]


@dataclass(frozen=True, eq=False)
class StaticVectors:
    """A vector for each word piece, a bit a dimension; the mean over a query's pieces stands for the query.

    That is scale * sign, averaged by the weights of the pieces, times ``matrix``, plus ``mean``.

    Attributes:
        signs: (V, H / 8) uint8, packed.
        scales: (V,) float16.
        matrix: (H, H) float16.
        mean: (H,) float16.
    """

    signs: NDArray[np.uint8]
    scales: NDArray[np.float16]
    matrix: NDArray[np.float16]
    mean: NDArray[np.float16]


def fit_static_vectors(
    pieces: Pieces, sets: Sequence[Bags], weights: NDArray[np.float32], rng: np.random.Generator
) -> StaticVectors:
    """Static vectors of word pieces whose weighted mean is near the model's vector of a text, by two ridge regressions.

    The first finds a linear map from what is known of a piece to its static vector, over bags of pieces, so that a
    piece that no text had gets a vector as well. Its outcome is turned at random and only signs and one scale are kept,
    whose errors cancel out over a bag (compare RaBitQ, Gao & Long, SIGMOD 2024, arXiv:2405.12497). The second
    turns bags of these back. Compare static embeddings distilled from an encoder (Model2Vec), which are one piece's
    vectors alone.

    Args:
        pieces: what is known of them.
        sets: short texts; sets count alike.
        weights: (V,) of pieces in a bag, 0 for those that do not count.
        rng: where the turn comes from.
    """
    apply_threads()
    known = np.concatenate([pieces.words, pieces.pooled, pieces.alone, pieces.in_context], axis=1)
    width = pieces.words.shape[1]
    vectors = torch.from_numpy(known) @ _ridge(_means(known, sets, weights), known.shape[1])[:-1]
    used = np.sum(
        [np.bincount(np.concatenate(one.ids), minlength=len(weights)) / len(one.ids) for one in sets], axis=0
    )
    used = torch.from_numpy((used * weights).astype(np.float32))[:, None]
    centre = (vectors * used).sum(0) / used.sum().clamp_min(1e-12)
    turn = np.linalg.qr(rng.standard_normal((width, width)))[0].astype(np.float32)
    turned = ((vectors - centre) @ torch.from_numpy(turn)).numpy()
    scales = np.abs(turned).mean(axis=1).astype(np.float16)
    kept = np.where(turned > 0, np.float32(1), np.float32(-1)) * scales.astype(np.float32)[:, None]
    back = _ridge(_means(kept, sets, weights), width).numpy().astype(np.float16)
    return StaticVectors(np.packbits(turned > 0, axis=1), scales, back[:-1], back[-1])


def _means(
    table: NDArray[np.float32], sets: Sequence[Bags], weights: NDArray[np.float32]
) -> Iterable[tuple[Tensor, Tensor, float]]:
    """Weighted means of the table over bags (n, K), the vectors (n, H) they should give, and what a bag counts."""
    rows, weight = torch.from_numpy(table), torch.from_numpy(weights)
    for one in sets:
        for start in range(0, len(one.ids), _TOGETHER):
            ids = one.ids[start : start + _TOGETHER]
            flat = torch.from_numpy(np.concatenate(ids).astype(np.int64))
            starts = torch.from_numpy(np.cumsum([0, *(len(part) for part in ids[:-1])]))
            sums = F.embedding_bag(flat, rows, starts, mode="sum", per_sample_weights=weight[flat])
            total = F.embedding_bag(flat, weight[:, None], starts, mode="sum")
            full = total[:, 0] > 0
            wanted = torch.from_numpy(one.pooled[start : start + _TOGETHER].astype(np.float32))
            yield sums[full] / total[full], wanted[full], 1 / len(one.ids)


def _ridge(batches: Iterable[tuple[Tensor, Tensor, float]], width: int) -> Tensor:
    """(width + 1, H): a linear map, and below it what is added."""
    moments, products = torch.zeros((width + 1, width + 1)), torch.zeros(())
    for given, wanted, share in batches:
        extended = torch.cat([given, torch.ones((len(given), 1))], dim=1)
        moments += share * (extended.T @ extended)
        products = products + share * (extended.T @ wanted)
    moments += torch.eye(width + 1) * (_RIDGE * moments.diagonal().mean())
    return torch.linalg.solve(moments, products)


def static_codes(
    vectors: NDArray[np.float32],
    codes: NDArray[np.float32],
    telling: NDArray[np.bool_],
    most: int,
    least: float,
) -> tuple[NDArray[np.int16], NDArray[np.float16]]:
    """The codes nearest to each word piece, and how far each is above the least cosine, from 0 to 1.

    Args:
        vectors: (V, D) unit vectors of word pieces.
        codes: (C, D) unit vectors.
        telling: (V,) which pieces have codes.
        most: codes of a piece.
        least: cosine.

    Returns:
        (V, most) each.
    """
    apply_threads()
    found = torch.topk(torch.from_numpy(vectors) @ torch.from_numpy(codes).T, min(most, len(codes)), dim=1)
    weights = (found.values.numpy() - least).clip(min=0) / (1 - least) * telling[:, None]
    return found.indices.numpy().astype(np.int16), weights.astype(np.float16)


def piece_vectors(pieces: Pieces, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """(V, D) unit vectors of word pieces among the projected token vectors, from in and out of context alike."""
    parts = [unit_rows(unit_rows(part) @ matrix) for part in (pieces.in_context, pieces.alone)]
    return unit_rows(parts[0] + parts[1])
