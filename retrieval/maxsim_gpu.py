"""Exact MaxSim with documents that stay on a device, as vectors or as residual codes.

On a CUDA GPU a Triton kernel does the work, elsewhere plain torch does the same more slowly. In float16 or bfloat16 a
score is an estimate whose error is bounded; ``best_rows`` has the CPU score every row that the estimates leave in
question, so rows and scores are those of ``retrieval.maxsim.best_rows`` to the last bit. In float32 a score is the
CPU's to about six digits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from retrieval import maxsim
from retrieval.compute import apply_threads
from retrieval.errors import ConfigError, MissingExtraError
from retrieval.values import Hits, MultiVector

PIECE = 32
"""Query tokens that are scored together: a longer query is several pieces, whose scores add up."""

_WIDEST = 1024  # dimensions of which a tile still fits on a GPU
_HALF = 60_000.0  # float16 ends at 65,504
_COPIED = 1 << 18  # token vectors that are brought to a device at a time
_SCORES = 1 << 26  # scores on a device at a time
_PLAIN_ROWS = 256  # documents that plain torch scores at a time


@dataclass(frozen=True, eq=False)
class Residuals:
    """What a residual codec keeps of T tokens beside their centroids (ColBERTv2).

    Attributes:
        codes: (T,) int32, the centroid of each token.
        buckets: (T, P) uint8, a bucket for each component, the first in the lowest bits.
        weights: (2 ** bits,) float32, what a bucket stands for.
    """

    codes: torch.Tensor
    buckets: torch.Tensor
    weights: torch.Tensor

    @property
    def bits(self) -> int:
        """Bits of a bucket: 1, 2, 4 or 8."""
        return len(self.weights).bit_length() - 1

    def added_to(self, centroids: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """(n, D) float32 vectors of length 1 of some tokens."""
        shifts = torch.arange(0, 8, self.bits, device=tokens.device)
        levels = (self.buckets[tokens][:, :, None].int() >> shifts) & (len(self.weights) - 1)
        residual = self.weights[levels].flatten(1)[:, : centroids.shape[1]]
        vectors = centroids[self.codes[tokens]].float() + residual
        return vectors * vectors.square().sum(1, keepdim=True).clamp(min=1e-30).rsqrt()


@dataclass(frozen=True, eq=False)
class DeviceDocuments:
    """Documents in a device's memory.

    Attributes:
        indptr: (N + 1,) int64, where the tokens of documents begin.
        vectors: (T, D) token vectors, or (C, D) centroids.
        residuals: what makes token vectors out of centroids; None where ``vectors`` are those.
    """

    indptr: torch.Tensor
    vectors: torch.Tensor
    residuals: Residuals | None = None

    @classmethod
    def stored(cls, documents: MultiVector, device: str, dtype: torch.dtype | None = None) -> Self:
        """Bring token vectors to a device.

        Args:
            documents: N rows, memory-mapped or not; vectors are finite in the dtype.
            device: a torch device.
            dtype: what to keep them as; None for what they are.

        Raises:
            ConfigError: the vectors do not fit there.
        """
        kept = dtype or torch.from_numpy(np.zeros(0, documents.values.dtype)).dtype
        return cls(_on(device, documents.indptr), _on(device, documents.values, kept))

    @classmethod
    def compressed(
        cls,
        indptr: NDArray[np.int64],
        codes: NDArray[Any],
        buckets: NDArray[np.uint8],
        centroids: NDArray[np.float16],
        weights: NDArray[np.float32],
        device: str,
    ) -> Self:
        """Bring documents that a residual codec made to a device.

        Args:
            indptr: (N + 1,) where the tokens of documents begin.
            codes: (T,) centroid of each token.
            buckets: (T, P) packed residuals, the first component in the lowest bits.
            centroids: (C, D).
            weights: (2 ** bits,) what a bucket stands for.
            device: a torch device.

        Raises:
            ConfigError: they do not fit there.
        """
        numbers = _on(device, codes, torch.int32)
        residuals = Residuals(numbers, _on(device, buckets), _on(device, weights))
        return cls(_on(device, indptr), _on(device, centroids), residuals)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def dim(self) -> int:
        """The width D of a token vector."""
        return int(self.vectors.shape[1])

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.vectors.device

    def tokens(self, chosen: torch.Tensor) -> torch.Tensor:
        """(n, D) the vectors of some tokens."""
        return self.residuals.added_to(self.vectors, chosen) if self.residuals else self.vectors[chosen]


# --- scores ----------------------------------------------------------------------------------------


def maxsim_scores(
    documents: DeviceDocuments,
    queries: MultiVector,
    rows: NDArray[np.int64],
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """MaxSim of each query with rows of its own, or of all with the same.

    Args:
        documents: N rows; one without tokens scores 0.
        queries: Q texts of the same width; one without tokens scores 0 against every row.
        rows: (Q, C) or (1, C), -1 for padding.
        dtype: what token vectors are rounded to before they are multiplied: float16, bfloat16 or float32. Products
            are added up in float32.

    Returns:
        (Q, C) float32 on the documents' device, -inf for padding.

    Raises:
        IncompatibleError: the widths differ.
        ConfigError: the vectors are wider than 1,024.
        ValueError: a query holds NaN or infinity.
        MissingExtraError: the documents are on a GPU and Triton is not installed.
    """
    asked = maxsim.checked(queries, documents.dim)
    if documents.dim > _WIDEST:
        raise ConfigError(
            f"token vectors of width {documents.dim} are too wide for a GPU's tiles, which hold {_WIDEST}; "
            "search on the CPU (device cpu)"
        )
    owners, pieces = _pieces(asked)
    tiles = torch.from_numpy(pieces).to(documents.device, dtype)
    owner = torch.from_numpy(owners).to(documents.device)
    chosen = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64)).to(documents.device)
    scores = torch.zeros((len(queries), rows.shape[1]), dtype=torch.float32, device=documents.device)
    if len(owners) and rows.shape[1]:
        lines = chosen if len(chosen) == 1 else chosen[owner]
        scores.index_add_(0, owner, maxima(documents, tiles, lines))
    return scores.masked_fill_(chosen < 0, -torch.inf)


def score_rows(
    documents: MultiVector, queries: MultiVector, rows: NDArray[np.int64], device: str
) -> NDArray[np.float32]:
    """``retrieval.maxsim.score_rows`` on a device, in float32; the order of additions differs.

    Args:
        documents: N rows, which are brought to the device.
        queries: Q texts of the same width.
        rows: (Q, C), -1 for padding.
        device: a torch device.

    Returns:
        (Q, C) scores, -inf for padding.

    Raises:
        IncompatibleError: the widths differ.
        ConfigError: the vectors are wider than 1,024, or do not fit there.
        ValueError: a query holds NaN or infinity, or a product exceeds float32.
        MissingExtraError: Triton is not installed.
    """
    scores = maxsim_scores(DeviceDocuments.stored(documents, device), queries, rows).cpu().numpy()
    if not np.isfinite(scores[rows >= 0]).all():
        raise ValueError("inner products of token vectors exceed float32; normalise the vectors")
    return scores


def best_rows(
    documents: MultiVector,
    norm: float,
    copy: DeviceDocuments,
    queries: MultiVector,
    rows: NDArray[np.int64],
    k: int,
) -> Hits:
    """``retrieval.maxsim.best_rows`` where a device finds the rows in question and the CPU scores those.

    Args:
        documents: N rows, memory-mapped or not.
        norm: at least the norm of every token vector.
        copy: the documents in float16 on a device.
        queries: Q texts of the same width.
        rows: (C,) distinct rows.
        k: results wanted.

    Raises:
        IncompatibleError: the widths differ.
        ConfigError: the vectors are wider than 1,024.
        ValueError: a query holds NaN or infinity, or a product exceeds float32.
        MissingExtraError: Triton is not installed.
    """
    hits = Hits.none(len(queries), k)
    block = max(1, _SCORES // max(1, len(rows)))
    for first in range(0, len(queries), block):
        asked = queries[first : first + block]
        for line, chosen in enumerate(_contenders(copy, documents.values.dtype, norm, asked, rows, k), first):
            best = maxsim.best_rows(documents, norm, queries[line : line + 1], chosen[None, :], k)
            hits.rows[line], hits.scores[line] = best.rows[0], best.scores[0]
    return hits


def _contenders(
    copy: DeviceDocuments,
    stored: np.dtype[Any],
    norm: float,
    queries: MultiVector,
    rows: NDArray[np.int64],
    k: int,
) -> Iterator[NDArray[np.int64]]:
    """For each query the rows that may be among the k best."""
    exact = maxsim.checked(queries, copy.dim).values.astype(np.float64)
    fits = norm <= _HALF and float(np.abs(exact).max(initial=0.0)) <= _HALF
    if len(rows) <= k or not fits:
        yield from (rows for _ in range(len(queries)))
        return
    estimates = maxsim_scores(copy, queries, rows[None, :], torch.float16)
    worst = estimates.topk(k).values[:, -1]
    for line in range(len(queries)):
        query = queries[line : line + 1].values
        error = largest_error(query, norm, exact_documents=stored == np.float16)
        kept = estimates[line] >= worst[line] - 2.0 * error
        yield rows[kept.nonzero()[:, 0].cpu().numpy()]


def largest_error(query: NDArray[Any], norm: float, *, exact_documents: bool) -> float:
    """How far an estimate in float16 may be from the CPU's score.

    A token d and a query token q are rounded to d' and q', and |<q,d> - <q',d'>| is at most |q - q'||d| + |q'||d - d'|,
    where |d - d'| is at most 2^-11 |d| and 2^-25 a dimension below float16's normal numbers. Products of float16 are
    exact in float32. A tensor core cuts off what it adds up instead of rounding it, so that D additions are off by at
    most 2 D u |q'||d'| with u = 2^-23 (Fasi, Higham, Mikaitis & Pranesh, PeerJ Computer Science 7, 2021); the CPU's
    score is off by half of that. Sums over L query tokens add L u of the score. Everything of second order is within
    the 8 that are added to D and L.

    Args:
        query: (L, D) numbers below 60,000.
        norm: at least the norm of every token vector, below 60,000.
        exact_documents: the document's vectors are stored in float16.
    """
    exact = query.astype(np.float64)
    dim, unit = exact.shape[1], 2.0**-23
    rounded = exact.astype(np.float16).astype(np.float64)
    lost = np.linalg.norm(exact - rounded, axis=1)
    lengths = np.linalg.norm(exact, axis=1) + lost
    moved = 0.0 if exact_documents else 2.0**-11 * norm + 2.0**-25 * dim**0.5
    added = (3.0 * (dim + 8) + len(exact) + 8) * unit * (norm + moved)
    return float((lost * norm + lengths * (moved + added)).sum())


# --- kernels ---------------------------------------------------------------------------------------


def maxima(documents: DeviceDocuments, pieces: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """MaxSim of pieces of queries, by Triton on a GPU or where its interpreter is asked for, else by torch.

    Args:
        documents: N rows, at most 1,024 wide.
        pieces: (P, PIECE, W) query tokens in the dtype to multiply in, zero where there are none; W is the power of two
            from 16 on that holds the documents' width.
        rows: (P, C) or (1, C) for all pieces, -1 for padding.

    Returns:
        (P, C) float32; a row without tokens and padding score 0.

    Raises:
        MissingExtraError: Triton is needed and not installed.
    """
    if documents.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return plain_maxima(documents, pieces, rows)
    try:
        from retrieval.maxsim_triton import fused_maxima
    except ImportError as error:
        raise MissingExtraError("triton", "gpu") from error
    return fused_maxima(documents, pieces, rows)


def plain_maxima(documents: DeviceDocuments, pieces: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The same by torch alone, on any device."""
    apply_threads()
    out = torch.empty((len(pieces), rows.shape[1]), dtype=torch.float32, device=pieces.device)
    for line, chosen in enumerate(rows):
        lines = slice(None) if len(rows) == 1 else slice(line, line + 1)
        for first in range(0, len(chosen), _PLAIN_ROWS):
            part = slice(first, first + _PLAIN_ROWS)
            out[lines, part] = _plain_block(documents, pieces[lines], chosen[part])
    return out


def _plain_block(documents: DeviceDocuments, pieces: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """(P, C) for rows that all pieces share."""
    starts = documents.indptr[rows.clamp(min=0)]
    lengths = documents.indptr[rows + 1] - starts  # 0 for padding
    slot = torch.repeat_interleave(lengths)
    within = torch.arange(len(slot), device=rows.device) - (lengths.cumsum(0) - lengths)[slot]
    tokens = documents.tokens(starts[slot] + within).to(pieces.dtype).float()
    lanes = pieces.flatten(0, 1)[:, : documents.dim].float()
    products = tokens @ lanes.T  # (T, P * PIECE)
    best = products.new_full((len(rows), len(lanes)), -torch.inf)
    best.scatter_reduce_(0, slot[:, None].expand_as(products), products, "amax")
    best[lengths == 0] = 0.0
    return best.view(len(rows), len(pieces), PIECE).sum(2).T


# --- arrays ----------------------------------------------------------------------------------------


def _pieces(queries: MultiVector) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Queries cut into pieces of ``PIECE`` tokens.

    Returns:
        (P,) the query of each piece, and (P, PIECE, W) its vectors, zero where there are none; W is a power of two.
    """
    lengths = np.diff(queries.indptr)
    counts = -(-lengths // PIECE)
    before = np.cumsum(counts) - counts
    first = np.repeat(before * PIECE - queries.indptr[:-1], lengths)
    width = max(16, 1 << (queries.dim - 1).bit_length())
    pieces = np.zeros((int(counts.sum()) * PIECE, width), dtype=np.float32)
    pieces[first + np.arange(len(first)), : queries.dim] = queries.values
    return np.repeat(np.arange(len(queries)), counts), pieces.reshape(-1, PIECE, width)


def _on(device: str, array: NDArray[Any], dtype: torch.dtype | None = None) -> torch.Tensor:
    """An array on a device, copied in parts, since it may be mapped from a file.

    Raises:
        ConfigError: it does not fit there.
    """
    kept = dtype or torch.from_numpy(np.zeros(0, array.dtype)).dtype
    try:
        out = torch.empty(array.shape, dtype=kept, device=device)
    except torch.cuda.OutOfMemoryError as error:
        size = array.size * kept.itemsize / 2**30
        raise ConfigError(
            f"{size:.1f} GiB of token vectors do not fit into the memory of {device}; search on the CPU (device cpu), "
            "or give the collection an index that compresses, such as plaid"
        ) from error
    for first in range(0, len(array), _COPIED):
        part = np.array(array[first : first + _COPIED])
        if part.dtype.kind == "u" and part.dtype.itemsize > 1:
            part = part.astype(np.int32)  # torch knows little of wide unsigned numbers
        out[first : first + _COPIED] = torch.from_numpy(part)
    return out
