"""Dense search on a GPU: exact, by inverted lists and by FAISS, beside the CPU; see gpu_check.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from benchmarks.gpu_card import Card, Peak, Row, row
from indexing.dense import faiss_gpu
from indexing.dense.candidate_search import search_candidates
from indexing.dense.device_clustering import assign, spherical_kmeans
from indexing.dense.device_copies import DeviceCopies
from indexing.dense.device_search import InvertedLists, lists_nearest
from indexing.dense.flat import FlatIndex
from indexing.dense.scan import largest_norm, rank_rows
from retrieval.bitmap import Bitmap
from retrieval.compute import apply_threads
from retrieval.dense_gpu import near_rows, nearest_lists
from retrieval.dense_tiles import Visits, tile_maxima
from retrieval.device_vectors import DeviceVectors, tiles_of
from retrieval.errors import ConfigError, MissingExtraError
from retrieval.exact import dense_scores
from retrieval.protocols import SearchRequest
from retrieval.topk import top_k
from retrieval.values import Dense, Hits

K = 10
CHECKED = 16  # queries that the oracle answers
BLOCK = 1 << 18  # rows that the oracle and the generator have in work
BASELINE = 1 << 29  # products of the baseline at a time
AGREEMENT = (
    0.95  # of hits by lists: of two centroids equally near to within rounding, either may be looked at
)


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    card: Card
    sizes: tuple[int, ...] = (1_000_000, 10_000_000)
    dim: int = 384
    batches: tuple[int, ...] = (1, 16, 128, 1024)
    indexed: int = 1_000_000
    lists: int = 4096
    sample: int = 400_000
    probes: tuple[int, ...] = (1, 8, 32, 128)
    links: int = 16

    @classmethod
    def of(cls, card: Card) -> Scale:
        """What suits a card."""
        return cls(card, (700, 1500), 24, (1, 20), 1500, 12, 600, (1, 4), 4) if card.small else cls(card)


# --- exact search


def flat(card: Card, peak: Peak) -> Iterator[Row]:
    """Every row for every query, without leaving the card."""
    scale = Scale.of(card)
    for n in scale.sizes:
        try:
            values = card.unit(20, n, scale.dim)
        except torch.cuda.OutOfMemoryError as error:
            yield row("flat", "tercet", f"{n} x {scale.dim}", skipped=str(error))
            continue
        there = resident(values)
        for batch in scale.batches:
            yield from exact_rows(card, peak, there, card.unit(21 + batch, batch, scale.dim))


def exact_rows(card: Card, peak: Peak, there: DeviceVectors, asked: torch.Tensor) -> Iterator[Row]:
    """One batch of queries by us, by our first kernel alone, and by torch."""
    values, (n, dim), queries = there.values, there.values.shape, asked.float().cpu().numpy()
    found = near_rows(there, queries[:CHECKED], K).rows
    facts: dict[str, dict[str, object]] = {
        "tercet": {
            "correct": holds_the_best(values, asked[:CHECKED], found),
            "contenders": float((found >= 0).sum(1).double().mean()),
        }
    }
    visits = Visits.whole(there.first_tile, len(there.bounds) - 1, len(asked))
    works: dict[str, Callable[[], object]] = {
        "tercet": partial(near_rows, there, queries, K),
        "kernel": partial(tile_maxima, there, asked, visits, None),
        "torch": partial(baseline, values, asked),
    }
    operations, n_bytes = 2 * n * dim * len(asked), values.numel() * values.element_size()
    for engine, work in works.items():
        taken = card.seconds(work)
        figures = {**facts.get(engine, {}), "qps": len(asked) / taken}
        yield row(
            "flat",
            engine,
            f"{n} x {dim}, {len(asked)} queries",
            **figures,
            **peak.figures(taken, operations, n_bytes),
        )


def resident(values: torch.Tensor) -> DeviceVectors:
    """Vectors that are on the device already."""
    bounds, first_tile = (
        torch.from_numpy(part).to(values.device) for part in tiles_of(np.array([0, len(values)]))
    )
    norm = max(float(part.double().norm(dim=1).max()) for part in values.split(BLOCK))
    return DeviceVectors(values, 1.0, norm, 0.0, bounds, first_tile)


def holds_the_best(values: torch.Tensor, asked: torch.Tensor, rows: torch.Tensor) -> bool:
    """Whether rows (Q, C) hold all that are at least as good as the K-th best in float64."""
    scores = torch.cat([asked.double() @ part.double().T for part in values.split(BLOCK)], dim=1)
    kth = scores.topk(K).values[:, -1]
    wanted = (scores >= kth[:, None]).sum(1)
    found = scores.gather(1, rows.clamp(min=0)).masked_fill(rows < 0, -torch.inf)
    return bool(((found >= kth[:, None]).sum(1) == wanted).all())


def baseline(values: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    """Torch's product and top k, in half precision."""
    best: list[torch.Tensor] = []
    names: list[torch.Tensor] = []
    step = max(1, BASELINE // len(asked))
    for start in range(0, len(values), step):
        part = (asked @ values[start : start + step].T).topk(min(K, len(values) - start), dim=1)
        best.append(part.values)
        names.append(part.indices + start)
    return torch.cat(names, 1).gather(1, torch.cat(best, 1).topk(K, dim=1).indices)


def index(card: Card, peak: Peak) -> Iterator[Row]:
    """The index kind flat from query vectors to hits, on both devices, with and without a filter."""
    scale = Scale.of(card)
    vectors = Dense(card.unit(22, scale.indexed, scale.dim).cpu().numpy())
    here = FlatIndex(vectors, largest_norm(vectors))
    there = replace(here, device=card.searched)
    tenth = Bitmap.from_mask(np.random.default_rng(0).random(len(vectors)) < 0.1)
    for batch in scale.batches:
        asked = Dense(card.unit(23 + batch, batch, scale.dim).float().cpu().numpy())
        for name, allowed in (("all rows", None), ("a tenth allowed", tenth)):
            request = SearchRequest(K, allowed=allowed)
            setting = f"{len(vectors)} x {scale.dim}, {batch} queries, {name}"
            right = same(here.search(asked, request), there.search(asked, request))
            for engine, used, figures in (("cpu", here, {}), (card.searched, there, {"correct": right})):
                taken = card.seconds(partial(used.search, asked, request), rounds=3)
                yield row("index", engine, setting, **figures, ms=1e3 * taken, qps=batch / taken)


def same(one: Hits, other: Hits) -> bool:
    """Equal to the last bit."""
    return np.array_equal(one.rows, other.rows) and np.array_equal(one.scores, other.scores)


# --- inverted lists


def clustered(card: Card, seed: int, n: int, scale: Scale) -> torch.Tensor:
    """Unit vectors in half precision around as many random centres as there are lists, about 45 degrees from them."""
    centres, draw = card.unit(24, scale.lists, scale.dim).float(), card.generator(seed)
    out = torch.empty((n, scale.dim), dtype=torch.float16, device=card.device)
    for part in out.split(BLOCK):
        chosen = torch.randint(scale.lists, (len(part),), generator=draw, device=card.device)
        noise = torch.randn(part.shape, generator=draw, device=card.device) * scale.dim**-0.5
        part.copy_(torch.nn.functional.normalize(centres[chosen] + noise, dim=-1))
    return out


def lists(card: Card, peak: Peak) -> Iterator[Row]:
    """Training, filling and searching of inverted lists, and FAISS's on the CPU over the same centroids."""
    scale = Scale.of(card)
    vectors = Dense(clustered(card, 25, scale.indexed, scale).cpu().numpy())
    setting = f"{len(vectors)} x {scale.dim}, {scale.lists} lists"
    sample = vectors.values[: scale.sample]
    rng, state = np.random.default_rng(0), {"iterations": 4, "progress": lambda step: None}
    train = partial(spherical_kmeans, sample, scale.lists, card.searched, rng=rng, **state)
    centroids = train()
    yield row("lists", "tercet", f"train on {len(sample)}, {setting}", s=card.seconds(train, rounds=1))
    for device in dict.fromkeys((card.searched, "cpu")):
        fill = partial(assign, sample, centroids, device)
        yield row("lists", device, f"assign {len(sample)}, {setting}", s=card.seconds(fill, rounds=1))
    owner = assign(vectors.values, centroids, card.searched)
    rows = np.argsort(owner, kind="stable")
    offsets = np.searchsorted(owner[rows], np.arange(scale.lists + 1)).astype(np.int64)
    yield from searched_lists(scale, vectors, centroids, InvertedLists(offsets, rows), setting)


def searched_lists(
    scale: Scale, vectors: Dense, centroids: np.ndarray, kept: InvertedLists, setting: str
) -> Iterator[Row]:
    """Both engines at every number of lists that are looked at."""
    card, norm, copies = scale.card, largest_norm(vectors), DeviceCopies()
    table = torch.from_numpy(centroids).to(card.device)
    peer = cpu_lists(vectors, centroids)
    exact = replace(FlatIndex(vectors, norm), device=card.searched)

    def ours(asked: Dense, nprobe: int) -> np.ndarray:
        def nearest(queries: np.ndarray, allowed: Bitmap | None) -> np.ndarray:
            probes = nearest_lists(table, queries, nprobe)
            rows = lists_nearest(copies, card.searched, vectors, norm, kept, queries, probes, K, allowed)
            assert rows is not None, "the card has no room"
            return rows

        return search_candidates(vectors, norm, asked, SearchRequest(K), nearest).rows

    for batch in scale.batches:
        asked = Dense(clustered(card, 26 + batch, batch, scale).float().cpu().numpy())
        best = exact.search(asked, SearchRequest(K)).rows
        for nprobe in scale.probes:
            found, theirs = ours(asked, nprobe), partial(peer, asked.values, nprobe)
            truth = within_lists(vectors, centroids, kept, asked[:CHECKED], nprobe)
            right = float((found[:CHECKED] == truth).mean()) >= AGREEMENT
            name = f"{setting}, {nprobe} searched, {batch} queries"
            work = partial(ours, asked, nprobe)
            yield timed_search(card, card.searched, name, work, best, found, correct=right)
            yield timed_search(card, "faiss cpu", name, theirs, best, theirs())


def within_lists(
    vectors: Dense, centroids: np.ndarray, kept: InvertedLists, asked: Dense, nprobe: int
) -> np.ndarray:
    """(Q, K) the best rows in the nearest lists, by definition."""
    rows = np.full((len(asked), K), -1, dtype=np.int64)
    near = top_k(dense_scores(asked, Dense(centroids)), nprobe).rows
    for line, chosen in enumerate(near):
        seen = np.concatenate([kept.rows[kept.offsets[one] : kept.offsets[one + 1]] for one in chosen])
        if len(seen) < K:  # made up for by an exact scan
            seen = np.arange(len(vectors))
        rows[line] = top_k(dense_scores(asked[line : line + 1], vectors.take(seen)), K, seen).rows[0]
    return rows


def cpu_lists(vectors: Dense, centroids: np.ndarray) -> Callable[[np.ndarray, int], np.ndarray]:
    """FAISS's inverted lists of vectors as they are, over the same centroids, on all cores."""
    import faiss

    apply_threads()
    quantizer = faiss.IndexFlatIP(vectors.dim)
    quantizer.add(centroids)
    peer = faiss.IndexIVFFlat(quantizer, vectors.dim, len(centroids), faiss.METRIC_INNER_PRODUCT)
    peer.is_trained = True
    for start in range(0, len(vectors), BLOCK):
        peer.add(vectors.values[start : start + BLOCK].astype(np.float32))

    def search(queries: np.ndarray, nprobe: int) -> np.ndarray:
        return peer.search(queries, K, params=faiss.SearchParametersIVF(nprobe=nprobe))[1]

    return search


def timed_search(
    card: Card,
    engine: str,
    setting: str,
    work: Callable[[], object],
    best: np.ndarray,
    found: np.ndarray,
    **figures: object,
) -> Row:
    """One line about a search: recall of the best K and speed."""
    recall = float(
        np.mean([len(set(a) & set(b)) / K for a, b in zip(best.tolist(), found.tolist(), strict=True)])
    )
    taken = card.seconds(work, rounds=5)
    return row("lists", engine, setting, **figures, recall=recall, ms=1e3 * taken, qps=len(found) / taken)


# --- FAISS


def faiss(card: Card, peak: Peak) -> Iterator[Row]:
    """FAISS on the card, its candidates scored by the CPU as those of every index are."""
    scale = Scale.of(card)
    vectors = Dense(clustered(card, 25, scale.indexed, scale).cpu().numpy())
    asked = Dense(clustered(card, 27, scale.batches[-1], scale).float().cpu().numpy())
    best = replace(FlatIndex(vectors, largest_norm(vectors)), device=card.searched)
    truth = best.search(asked, SearchRequest(K)).rows
    builds: dict[str, Callable[[], faiss_gpu.FaissOnGpu]] = {
        "flat": partial(faiss_gpu.flat_on_gpu, vectors, "cuda"),
        **{
            f"IVF{scale.lists},Flat, {nprobe} searched": partial(
                faiss_gpu.ivf_on_gpu, vectors, f"IVF{scale.lists},Flat", nprobe, "cuda"
            )
            for nprobe in scale.probes
        },
        f"CAGRA, {2 * scale.links} links": partial(faiss_gpu.cagra_on_gpu, vectors, scale.links, "cuda"),
    }
    for name, build in builds.items():
        setting = f"{len(vectors)} x {scale.dim}, {name}, {len(asked)} queries"
        try:
            there = build()
        except (MissingExtraError, ConfigError) as error:
            yield row("faiss", "faiss gpu", setting, skipped=str(error))
            continue

        def search() -> Hits:
            rows = there.nearest(asked.values, 3 * K)  # noqa: B023  (called before the loop goes on)
            return rank_rows(vectors, asked.values, rows, K)

        yield {**timed_search(card, "faiss gpu", setting, search, truth, search().rows), "section": "faiss"}
        if "CAGRA" in name:
            graph = faiss_gpu.to_cpu(there)
            graph.hnsw.efSearch = 64
            walk = partial(graph.search, asked.values, K)
            line = timed_search(card, "its graph, cpu", setting, walk, truth, walk()[1])
            yield {**line, "section": "faiss"}


SECTIONS = {"flat": flat, "index": index, "lists": lists, "faiss": faiss}
