"""Late interaction on a GPU: correct first, then how near the card's own ceilings.

    python benchmarks/gpu_check.py [SECTION ...] [--small] [--json]

Everything is generated. `ceilings` measures the card: a bfloat16 matrix product, and a copy counted as read and
written. `dense` and `residual` score every document for a batch of 32-token queries, from token vectors and from
residual codes; the scores that are timed are compared with the oracle on a sample of rows. `share` is the time that
the binding ceiling allows (operations at the measured product, or bytes that must be read at the measured copy) over
the time taken. The baseline is the same by torch.compile over documents sorted by length and padded to the next 32,
padding prepared beforehand. `search` is the index kind maxsim from query vectors to the best 10, on the card and on
the CPU, whose hits must be equal; the baseline there ends in torch's top k. `encode` is the dense encoder.

`--small` runs the same code in seconds, on a CPU where there is no card (the kernels through plain torch, or with
TRITON_INTERPRET=1 through Triton's interpreter); its times mean nothing. The exit code is 1 if anything is incorrect.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from benchmarks.corpora import Corpus
from indexing.maxsim import MaxSimIndex, largest_token_norm
from indexing.residual.codec import ResidualCodec
from retrieval.errors import ConfigError
from retrieval.exact import maxsim_scores
from retrieval.maxsim_gpu import PIECE, DeviceDocuments, Residuals, maxima
from retrieval.protocols import SearchRequest
from retrieval.values import Document, MultiVector

Row = dict[str, object]
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

    device: str = "cuda"
    n_documents: int = 100_000
    shortest: int = 40
    longest: int = 200
    dim: int = 128
    batches: tuple[int, ...] = (1, 16, 128)
    centroids: int = 1 << 16
    matrix: int = 8192
    copied_bytes: int = 1 << 31
    texts: int = 4096
    searched: int = 20_000
    rounds: int = 20


SMALL = Scale("cpu", 300, 4, 40, 32, (1, 3), 64, 256, 1 << 20, 32, 200, 1)


def seconds(scale: Scale, work: Callable[[], object]) -> float:
    """The median time of a piece of work, warm."""
    cuda, taken = scale.device != "cpu", []
    for round_ in range(-3 if cuda else 0, scale.rounds):
        if cuda:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            work()
            end.record()
            end.synchronize()
            taken_now = begin.elapsed_time(end) / 1e3
        else:
            start = time.perf_counter()
            work()
            taken_now = time.perf_counter() - start
        if round_ >= 0:
            taken.append(taken_now)
    return statistics.median(taken)


def row(section: str, engine: str, setting: str, **figures: object) -> Row:
    """One line of output."""
    rounded = {name: round(v, 6) if isinstance(v, float) else v for name, v in figures.items()}
    return {"bench": "gpu_check", "section": section, "engine": engine, "setting": setting, **rounded}


# --- the card


def measured_ceilings(scale: Scale) -> tuple[float, float]:
    """Operations a second of a bfloat16 product, bytes a second of a copy."""
    left, right = (torch.randn(scale.matrix, scale.matrix, device=scale.device).bfloat16() for _ in range(2))
    operations = 2 * scale.matrix**3 / seconds(scale, lambda: left @ right)
    source = torch.randint(0, 255, (scale.copied_bytes,), dtype=torch.uint8, device=scale.device)
    target = torch.empty_like(source)
    return operations, 2 * scale.copied_bytes / seconds(scale, lambda: target.copy_(source))


def ceilings(scale: Scale, peak: tuple[float, float]) -> Iterator[Row]:
    """What the card does at best."""
    name = torch.cuda.get_device_name() if scale.device != "cpu" else "cpu"
    versions = f"torch {torch.__version__}"
    yield row("ceilings", name, versions, tflops=peak[0] / 1e12, gb_s=peak[1] / 1e9)


# --- generated texts


def generator(scale: Scale, seed: int) -> torch.Generator:
    """Random numbers on the device."""
    return torch.Generator(scale.device).manual_seed(seed)


def unit(scale: Scale, seed: int, *shape: int) -> torch.Tensor:
    """Random vectors of length 1 in half precision."""
    out = torch.empty(shape, dtype=torch.float16, device=scale.device)
    draw = generator(scale, seed)
    for part in out.split(1 << 20):
        fresh = torch.randn(part.shape, generator=draw, device=scale.device)
        part.copy_(torch.nn.functional.normalize(fresh, dim=-1))
    return out


def lengths_to_indptr(scale: Scale) -> torch.Tensor:
    """Where the tokens of documents begin; one document has none."""
    bounds = (scale.shortest, scale.longest + 1)
    lengths = torch.randint(*bounds, (scale.n_documents,), generator=generator(scale, 1), device=scale.device)
    lengths[EMPTY] = 0
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0))


def dense_documents(scale: Scale, dtype: torch.dtype) -> DeviceDocuments:
    """Token vectors."""
    indptr = lengths_to_indptr(scale)
    return DeviceDocuments(indptr, unit(scale, 2, int(indptr[-1]), scale.dim).to(dtype))


def residual_documents(scale: Scale, bits: int) -> DeviceDocuments:
    """Random centroids and buckets, as far apart as ColBERTv2's are."""
    indptr, draw = lengths_to_indptr(scale), generator(scale, 3)
    n_tokens, width = int(indptr[-1]), scale.dim * bits // 8
    shape = {"generator": draw, "device": scale.device}
    codes = torch.randint(0, scale.centroids, (n_tokens,), dtype=torch.int32, **shape)
    buckets = torch.randint(0, 256, (n_tokens, width), dtype=torch.uint8, **shape)
    weights = torch.linspace(-1, 1, 1 << bits, device=scale.device) * scale.dim**-0.5
    centroids = unit(scale, 4, scale.centroids, scale.dim)
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
    peak: tuple[float, float]
    section: str
    setting: str
    documents: DeviceDocuments
    dtype: torch.dtype

    def rows(self) -> Iterator[Row]:
        """Batches of every size; the baseline answers one of them, since it compiles anew for each."""
        everything = torch.arange(len(self.documents), device=self.scale.device)[None, :]
        drawn = np.random.default_rng(6).choice(len(self.documents), SAMPLE, replace=False)
        known = np.union1d(drawn, [EMPTY])
        sample = sampled(self.documents, known)
        for batch in self.scale.batches:
            pieces = unit(self.scale, 5 + batch, batch, PIECE, self.scale.dim).to(self.dtype)
            asked = MultiVector(np.arange(batch + 1) * PIECE, pieces.flatten(0, 1).float().cpu().numpy())
            truth = np.where(np.diff(sample.indptr) > 0, maxsim_scores(asked, sample), 0)
            yield self._row("tercet", partial(maxima, self.documents, pieces, everything), known, truth)
            if batch == self.scale.batches[1]:
                baseline = Padded(self.documents, self.dtype, compiled=self.scale.device != "cpu")
                yield self._row(baseline.name, partial(baseline.scores, pieces), known, truth)

    def _row(
        self, engine: str, work: Callable[[], torch.Tensor], known: np.ndarray, truth: np.ndarray
    ) -> Row:
        off = float(np.abs(work().cpu().numpy()[:, known] - truth).max())
        taken, n_bytes = seconds(self.scale, work), stored_bytes(self.documents)
        operations = 2 * int(self.documents.indptr[-1]) * len(truth) * PIECE * self.scale.dim
        allowed = {"operations": operations / self.peak[0], "bytes": n_bytes / self.peak[1]}
        binding = max(allowed, key=lambda name: allowed[name])
        return row(
            self.section,
            engine,
            f"{self.setting}, {len(truth)} queries",
            correct=off <= TOLERANCE[self.dtype],
            error=off,
            ms=1e3 * taken,
            qps=len(truth) / taken,
            tflops=operations / taken / 1e12,
            gb_s=n_bytes / taken / 1e9,
            binding=binding,
            share=allowed[binding] / taken,
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


def dense(scale: Scale, peak: tuple[float, float]) -> Iterator[Row]:
    """Token vectors in both kinds of half precision."""
    for dtype in (torch.float16, torch.bfloat16):
        if dtype is torch.bfloat16 and os.environ.get("TRITON_INTERPRET") == "1":
            continue  # which multiplies its bits as whole numbers
        documents = dense_documents(scale, dtype)
        yield from Case(scale, peak, "dense", str(dtype), documents, dtype).rows()


def residual(scale: Scale, peak: tuple[float, float]) -> Iterator[Row]:
    """Residual codes, decompressed in the kernel."""
    for bits in (2, 4):
        documents = residual_documents(scale, bits)
        yield from Case(scale, peak, "residual", f"{bits} bits", documents, torch.float16).rows()


# --- end to end


def search(scale: Scale, peak: tuple[float, float]) -> Iterator[Row]:
    """The index kind maxsim on both devices, and the baseline with torch's top k."""
    scale = replace(scale, n_documents=scale.searched)
    documents = dense_documents(scale, torch.float16)
    vectors = MultiVector(documents.indptr.cpu().numpy(), documents.vectors.cpu().numpy())
    pieces = unit(scale, 7, scale.batches[1], PIECE, scale.dim)
    asked = MultiVector(np.arange(len(pieces) + 1) * PIECE, pieces.flatten(0, 1).cpu().numpy())
    here = MaxSimIndex(vectors, largest_token_norm(vectors))
    there = replace(here, device="cuda" if scale.device == "cuda" else "cpu:0")
    request = SearchRequest(K)
    wanted, found = here.search(asked, request), there.search(asked, request)
    same = np.array_equal(wanted.rows, found.rows) and np.array_equal(wanted.scores, found.scores)
    baseline = Padded(documents, torch.float16, compiled=scale.device != "cpu")

    def timed(work: Callable[[], object]) -> dict[str, object]:
        taken = seconds(replace(scale, rounds=min(3, scale.rounds)), work)
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


def encode(scale: Scale, peak: tuple[float, float]) -> Iterator[Row]:
    """The default dense encoder on the device, against itself in float32 on the CPU."""
    from retrieval.encoders import open_encoder

    corpus = Corpus(seed=0)
    texts = [Document(str(n), text) for n, text in enumerate(corpus.texts(scale.texts))]
    try:
        encoder, exact = (
            open_encoder({"family": "dense", "options": options})
            for options in ({"device": scale.device}, {"device": "cpu", "dtype": "float32"})
        )
        got = encoder.encode_documents(texts[:32]).values.astype(np.float32)
    except (ConfigError, ImportError) as error:  # the model comes with a package of its own
        yield row("encode", "tercet", "dense", skipped=str(error))
        return
    cosine = float((got * exact.encode_documents(texts[:32]).values).sum(1).min())
    taken = seconds(replace(scale, rounds=min(3, scale.rounds)), lambda: encoder.encode_documents(texts))
    yield row(
        "encode",
        "tercet",
        f"dense, {len(texts)} documents",
        correct=cosine > 0.999,
        cosine_min=cosine,
        ms=1e3 * taken,
        qps=len(texts) / taken,
    )


SECTIONS = {"ceilings": ceilings, "dense": dense, "residual": residual, "search": search, "encode": encode}


def main() -> int:
    """Run as a script; 1 if anything is incorrect."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all")
    parser.add_argument(
        "--small", action="store_true", help="seconds instead of minutes, on a CPU if need be"
    )
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    unknown = [name for name in given.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"unknown section {unknown[0]!r}; valid: {', '.join(SECTIONS)}")
    card = torch.cuda.is_available()
    if not card and not given.small:
        parser.error("there is no CUDA GPU here; --small runs the same code on a CPU")
    scale = replace(SMALL, device="cuda" if card else "cpu") if given.small else Scale()
    peak, correct = measured_ceilings(scale), True
    for name in given.sections or SECTIONS:
        for line in SECTIONS[name](scale, peak):
            correct &= bool(line.get("correct", True))
            print(json.dumps(line) if given.json else shown(line), flush=True)
    return 0 if correct else 1


def shown(line: Row) -> str:
    """A line for people."""
    fixed = ("bench", "section", "engine", "setting")
    figures = "  ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in line.items()
        if name not in fixed
    )
    return f"{line['section']:<9} {line['engine']:<14} {line['setting']:<44} {figures}"


if __name__ == "__main__":
    sys.exit(main())
