"""Late interaction on a GPU: MaxSim by kernel, index and baseline; see gpu_check.py."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from benchmarks.gpu_card import Card, Peak, Row, row
from indexing.maxsim import MaxSimIndex, largest_token_norm
from indexing.residual.codec import ResidualCodec
from retrieval.exact import maxsim_scores
from retrieval.maxsim_gpu import PIECE, DeviceDocuments, Residuals, maxima
from retrieval.protocols import SearchRequest
from retrieval.values import MultiVector

TOLERANCE = {torch.float16: 5e-3, torch.bfloat16: 5e-2}
"""By which a score of 32 query tokens of length 1 may be off."""
SAMPLE = 64  # rows that the oracle scores
EMPTY = 7  # a document without tokens
BLOCK = 2048  # documents of a padded product
BUCKET = 32  # lengths of padded documents are multiples of this
K = 10


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    card: Card
    n_documents: int = 100_000
    shortest: int = 40
    longest: int = 200
    dim: int = 128
    batches: tuple[int, ...] = (1, 16, 128)
    centroids: int = 1 << 16
    searched: int = 20_000

    @classmethod
    def of(cls, card: Card) -> Scale:
        """What suits a card."""
        return cls(card, 300, 4, 40, 32, (1, 3), 64, 200) if card.small else cls(card)


# --- generated documents


def lengths_to_indptr(scale: Scale) -> torch.Tensor:
    """Where the tokens of documents begin; one document has none."""
    bounds = (scale.shortest, scale.longest + 1)
    lengths = torch.randint(
        *bounds, (scale.n_documents,), generator=scale.card.generator(1), device=scale.card.device
    )
    lengths[EMPTY] = 0
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0))


def dense_documents(scale: Scale, dtype: torch.dtype) -> DeviceDocuments:
    """Token vectors."""
    indptr = lengths_to_indptr(scale)
    return DeviceDocuments(indptr, scale.card.unit(2, int(indptr[-1]), scale.dim).to(dtype))


def residual_documents(scale: Scale, bits: int) -> DeviceDocuments:
    """Random centroids and buckets, as far apart as ColBERTv2's are."""
    indptr, draw = lengths_to_indptr(scale), scale.card.generator(3)
    n_tokens, width = int(indptr[-1]), scale.dim * bits // 8
    shape = {"generator": draw, "device": scale.card.device}
    codes = torch.randint(0, scale.centroids, (n_tokens,), dtype=torch.int32, **shape)
    buckets = torch.randint(0, 256, (n_tokens, width), dtype=torch.uint8, **shape)
    weights = torch.linspace(-1, 1, 1 << bits, device=scale.card.device) * scale.dim**-0.5
    centroids = scale.card.unit(4, scale.centroids, scale.dim)
    return DeviceDocuments(indptr, centroids, Residuals(codes, buckets, weights))


def sampled(documents: DeviceDocuments, rows: np.ndarray) -> MultiVector:
    """Some documents in the host's memory, residuals decoded by the codec itself."""
    indptr = documents.indptr.cpu().numpy()
    lengths = indptr[rows + 1] - indptr[rows]
    tokens = np.concatenate([np.arange(indptr[r], indptr[r + 1]) for r in rows])
    chosen = torch.from_numpy(tokens).to(documents.device)
    if documents.residuals is None:
        values = documents.vectors[chosen].float().cpu().numpy()
    else:
        kept = documents.residuals
        weights = kept.weights.cpu().numpy()
        codec = ResidualCodec(
            documents.vectors.cpu().numpy(), np.zeros(len(weights) - 1, np.float32), weights
        )
        values = codec.decode(kept.codes[chosen].cpu().numpy(), kept.buckets[chosen].cpu().numpy())
    return MultiVector(np.concatenate([[0], np.cumsum(lengths)]), values)


# --- kernels


@dataclass(frozen=True)
class Case:
    """Documents, how they are stored, and a sample of them for the oracle."""

    scale: Scale
    peak: Peak
    section: str
    setting: str
    documents: DeviceDocuments
    dtype: torch.dtype

    def rows(self) -> Iterator[Row]:
        """Batches of every size; the baseline answers one of them, since it compiles anew for each."""
        everything = torch.arange(len(self.documents), device=self.scale.card.device)[None, :]
        drawn = np.random.default_rng(6).choice(len(self.documents), SAMPLE, replace=False)
        known = np.union1d(drawn, [EMPTY])
        sample = sampled(self.documents, known)
        for batch in self.scale.batches:
            pieces = self.scale.card.unit(5 + batch, batch, PIECE, self.scale.dim).to(self.dtype)
            asked = MultiVector(np.arange(batch + 1) * PIECE, pieces.flatten(0, 1).float().cpu().numpy())
            truth = np.where(np.diff(sample.indptr) > 0, maxsim_scores(asked, sample), 0)
            yield self._row("tercet", partial(maxima, self.documents, pieces, everything), known, truth)
            if batch == self.scale.batches[1]:
                baseline = Padded(self.documents, self.dtype, compiled=self.scale.card.device != "cpu")
                yield self._row(baseline.name, partial(baseline.scores, pieces), known, truth)

    def _row(
        self, engine: str, work: Callable[[], torch.Tensor], known: np.ndarray, truth: np.ndarray
    ) -> Row:
        off = float(np.abs(work().cpu().numpy()[:, known] - truth).max())
        taken = self.scale.card.seconds(work)
        operations = 2 * int(self.documents.indptr[-1]) * len(truth) * PIECE * self.scale.dim
        return row(
            self.section,
            engine,
            f"{self.setting}, {len(truth)} queries",
            correct=off <= TOLERANCE[self.dtype],
            error=off,
            qps=len(truth) / taken,
            **self.peak.figures(taken, operations, stored_bytes(self.documents)),
        )


def stored_bytes(documents: DeviceDocuments) -> int:
    """What has to be read at least once."""
    kept = documents.residuals
    parts = [documents.vectors, *((kept.codes, kept.buckets, kept.weights) if kept else ())]
    return sum(part.numel() * part.element_size() for part in parts)


class Padded:
    """The baseline: documents sorted by length and padded, one large product a block, then maxima and sums."""

    def __init__(self, documents: DeviceDocuments, dtype: torch.dtype, *, compiled: bool) -> None:
        """Everything that does not depend on the query is prepared; residuals stay compressed until they are used."""
        self.documents, self.dtype = documents, dtype
        self.name = "torch.compile" if compiled else "torch"
        lengths = documents.indptr.diff()
        self.blocks: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        for longest in torch.unique((lengths[lengths > 0] + BUCKET - 1) // BUCKET * BUCKET).tolist():
            rows = ((lengths <= longest) & (lengths > longest - BUCKET)).nonzero()[:, 0]
            within = torch.arange(longest, device=rows.device)
            for part in rows.split(BLOCK):
                lacking = BLOCK - len(
                    part
                )  # every block has the same shape, so that each bucket compiles once
                part = torch.nn.functional.pad(part, (0, lacking), value=int(part[0]))
                real = within < lengths[part][:, None]
                places = documents.indptr[part][:, None] + torch.where(real, within, 0)
                stored = places if documents.residuals else documents.tokens(places).to(dtype)
                self.blocks.append((part, stored, real))
        torch._dynamo.reset()
        self._block = torch.compile(self._score, dynamic=False) if compiled else self._score

    def scores(self, pieces: torch.Tensor) -> torch.Tensor:
        """(Q, N)."""
        out = torch.zeros((len(pieces), len(self.documents)), device=pieces.device)
        for rows, stored, real in self.blocks:
            out[:, rows] = self._block(pieces, stored, real)
        return out

    def _score(self, pieces: torch.Tensor, stored: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        if self.documents.residuals is not None:
            stored = self.documents.tokens(stored.flatten()).to(self.dtype)
        tokens = stored.view(real.numel(), -1)
        products = (pieces.flatten(0, 1) @ tokens.T).view(len(pieces), PIECE, *real.shape)
        return products.masked_fill(~real, -torch.inf).amax(3).sum(1, dtype=torch.float32)


def dense(card: Card, peak: Peak) -> Iterator[Row]:
    """Token vectors in both kinds of half precision."""
    scale = Scale.of(card)
    for dtype in (torch.float16, torch.bfloat16):
        if dtype is torch.bfloat16 and os.environ.get("TRITON_INTERPRET") == "1":
            continue  # which multiplies its bits as whole numbers
        documents = dense_documents(scale, dtype)
        yield from Case(scale, peak, "dense", str(dtype), documents, dtype).rows()


def residual(card: Card, peak: Peak) -> Iterator[Row]:
    """Residual codes, decompressed in the kernel."""
    scale = Scale.of(card)
    for bits in (2, 4):
        documents = residual_documents(scale, bits)
        yield from Case(scale, peak, "residual", f"{bits} bits", documents, torch.float16).rows()


# --- end to end


def search(card: Card, peak: Peak) -> Iterator[Row]:
    """The index kind maxsim on both devices, and the baseline with torch's top k."""
    scale = Scale.of(card)
    scale = replace(scale, n_documents=scale.searched)
    documents = dense_documents(scale, torch.float16)
    vectors = MultiVector(documents.indptr.cpu().numpy(), documents.vectors.cpu().numpy())
    pieces = scale.card.unit(7, scale.batches[1], PIECE, scale.dim)
    asked = MultiVector(np.arange(len(pieces) + 1) * PIECE, pieces.flatten(0, 1).cpu().numpy())
    here = MaxSimIndex(vectors, largest_token_norm(vectors))
    there = replace(here, device=scale.card.searched)
    request = SearchRequest(K)
    wanted, found = here.search(asked, request), there.search(asked, request)
    same = np.array_equal(wanted.rows, found.rows) and np.array_equal(wanted.scores, found.scores)
    baseline = Padded(documents, torch.float16, compiled=scale.card.device != "cpu")

    def timed(work: Callable[[], object]) -> dict[str, object]:
        taken = scale.card.seconds(work, rounds=3)
        return {"ms": 1e3 * taken, "qps": len(asked) / taken}

    setting = f"{len(vectors)} documents, {len(asked)} queries, k {K}"
    yield row("search", "tercet", f"{setting}, cpu", **timed(lambda: here.search(asked, request)))
    yield row(
        "search",
        "tercet",
        f"{setting}, {there.device}",
        correct=same,
        **timed(lambda: there.search(asked, request)),
    )
    yield row(
        "search", baseline.name, setting, **timed(lambda: baseline.scores(pieces).topk(K).indices.cpu())
    )


SECTIONS = {"dense": dense, "residual": residual, "search": search}
