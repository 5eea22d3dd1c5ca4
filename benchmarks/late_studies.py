"""What fixed dimensional encodings find, and what narrower and compressed token vectors are worth; run by late.py."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.late_data import NAMES, K, LateData, corpus, late_data, projected
from indexing.fde.code_scan import CodeScan
from indexing.fde.encodings import Encodings
from indexing.fde.recipe import Recipe
from indexing.residual.codec import ResidualCodec
from indexing.residual.training import train_codec
from retrieval.maxsim import best_rows
from retrieval.protocols import SearchRequest
from retrieval.values import Dense, MultiVector

Row = dict[str, Any]

WIDTHS = (1_280, 2_560, 5_120, 10_240)
PUBLISHED = {1_280: (20, 3, 8), 2_560: (20, 4, 8), 5_120: (20, 5, 8), 10_240: (20, 5, 16)}
"""Dimensions -> repetitions, bits and width in MUVERA's experiments."""
VARIANTS = {"tercet": "tercet", "published": "muvera"}
"""What is encoded as -> engine of its rows."""
STORAGES = ("float32", "pq")
CANDIDATES = (50, 100, 200, 500, 1000)
PERCENT = (80, 85, 90, 95)
SEEDS = 10

PUBLISHED_CANDIDATES = {
    20_000: (60, 90, 200, 700),
    10_000: (60, 100, 200, 800),
    4_000: (80, 200, 300, 1200),
    2_000: (200, 300, 800, 5600),
}
"""MUVERA's Table 1: dimensions, as it rounds them -> candidates that hold the judged passage for so many percent."""
PUBLISHED_RECALL = {
    2_560: ("20 x 2^4 x 8", 0.7775, 0.0017, 0.9185),
    5_120: ("20 x 2^4 x 16", 0.8046, 0.0029, 0.9367),
    10_240: ("20 x 2^5 x 16", 0.8282, 0.0027, 0.9488),
    20_480: ("20 x 2^5 x 32", 0.8368, 0.0019, 0.9537),
}
"""MUVERA's Table 2: dimensions -> repetitions, blocks and width, R@100 with its deviation over ten seeds, R@1000."""

DIMS = (32, 48, 64, 96, 128, 384)
BITS = (1, 2, 4, 8, 16)

_NORM = 1.01  # of a unit vector in float16
_ROWS = 1024  # encoded at a time


# --- shares of the exact top 10 among candidates


def shares(quick: bool, limit: int | None, path: Path) -> Iterator[Row]:
    """A row for each variant, number of dimensions and storage, means over seeds, on SciFact; plots them.

    The published figures follow: of MS MARCO, and of judged passages instead of the exact top 10, so that they compare
    with ``judged_100`` and ``judged_1000`` at most. All of it takes ten minutes on two cores.
    """
    data = late_data("scifact", limit, limit and max(20, limit // 10))
    if data is None:
        return
    exact, judged = exact_rows(data.documents, data.queries), judged_rows(data)
    seeds, widths = (2, WIDTHS[:2]) if quick or limit else (SEEDS, WIDTHS)
    rows = []
    for variant in VARIANTS:
        for dims in widths:
            ranks = _Ranks()
            for seed in range(1, seeds + 1):
                for storage, scores in _estimates(data, _drawn(variant, dims, data, seed)):
                    ranks.add(storage, scores, exact, judged)
            for storage in STORAGES:
                rows.append(_share_row(data.name, variant, dims, storage, ranks))
                yield rows[-1]
    yield from published_rows()
    _plot_shares(rows, path)


def recipe_of(variant: str, dims: int) -> Recipe:
    """Tercet's defaults with more or fewer repetitions, or MUVERA's parameters."""
    if variant == "published":
        repetitions, bits, width = PUBLISHED[dims]
        return Recipe(repetitions=repetitions, bits=bits, width=width, projection="signs", power=1.0)
    default = Recipe()
    return replace(default, repetitions=dims // (default.width << default.bits))


def judged_rows(data: LateData) -> list[np.ndarray]:
    """The relevant rows of each query, of those that are there."""
    rows = {document: row for row, document in enumerate(data.ids)}
    return [
        np.array(
            [rows[d] for d, grade in data.qrels[query].items() if grade > 0 and d in rows], dtype=np.int64
        )
        for query in data.query_ids
    ]


def _drawn(variant: str, dims: int, data: LateData, seed: int) -> Encodings:
    recipe = replace(recipe_of(variant, dims), seed=seed)
    encodings = Encodings.draw(recipe, data.documents.dim)
    if variant == "tercet":
        return encodings
    drawn = np.random.default_rng([seed, dims]).standard_normal(encodings.planes.shape)
    return replace(
        encodings, planes=drawn.astype(np.float32)
    )  # independent of each other, as SimHash has them


def _estimates(data: LateData, encodings: Encodings) -> Iterator[tuple[str, np.ndarray]]:
    """(Q, N) what the products of encodings are, as they are and after PQ-256-8."""
    asked = encodings.queries(data.queries)
    parts = range(0, len(data.documents), _ROWS)
    encoded = np.concatenate([encodings.documents(data.documents[start : start + _ROWS]) for start in parts])
    yield "float32", asked @ encoded.T
    with tempfile.TemporaryDirectory() as folder:
        CodeScan.build([encoded], encoded, Path(folder))
        scan = CodeScan.load(Path(folder), encoded.shape)
        hits = scan.search(Dense(asked), SearchRequest(k=len(encoded)))
    scores = np.empty((len(asked), len(encoded)), dtype=np.float32)
    np.put_along_axis(scores, hits.rows, hits.scores, axis=1)
    yield "pq", scores


class _Ranks:
    """Places of the exact top 10 and of judged rows among candidates, by storage and seed."""

    def __init__(self) -> None:
        self.exact: dict[str, list[np.ndarray]] = {storage: [] for storage in STORAGES}
        self.judged: dict[str, list[list[np.ndarray]]] = {storage: [] for storage in STORAGES}

    def add(self, storage: str, scores: np.ndarray, exact: np.ndarray, judged: list[np.ndarray]) -> None:
        """Note the places by the scores of one seed."""
        self.exact[storage].append(np.array([_places(*pair) for pair in zip(scores, exact, strict=True)]))
        self.judged[storage].append([_places(*pair) for pair in zip(scores, judged, strict=True)])

    def shares(self, storage: str, count: int) -> np.ndarray:
        """For each seed the share of the exact top 10 among so many candidates."""
        return np.array([(places < count).mean() for places in self.exact[storage]])

    def recall(self, storage: str, count: int) -> float:
        """The share of a query's judged rows among so many candidates, the mean over queries and seeds."""
        found = [(own < count).mean() for places in self.judged[storage] for own in places if len(own)]
        return float(np.mean(found))

    def needed(self, storage: str, share: float) -> int:
        """Candidates among which so much of the exact top 10 is."""
        places = np.sort(np.concatenate(self.exact[storage]), axis=None)
        return int(places[int(np.ceil(share * len(places))) - 1]) + 1


def _places(scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """How many rows score higher than each of some."""
    return (scores[None, :] > scores[rows][:, None]).sum(axis=1)


def _share_row(data: str, variant: str, dims: int, storage: str, ranks: _Ranks) -> Row:
    recipe = recipe_of(variant, dims)
    shape = f"{recipe.repetitions} x 2^{recipe.bits} x {recipe.width}"
    compressed = ", PQ-256-8" if storage == "pq" else ""
    return {
        "bench": "late_shares", "data": data, "engine": VARIANTS[variant],
        "setting": f"{shape}, {recipe.projection}, power {recipe.power}{compressed}", "k": K, "dims": dims,
        "storage": storage, "bytes_per_document": dims // 8 if storage == "pq" else 4 * dims,
        "seeds": len(ranks.exact[storage]),
        **{f"in_{count}": round(float(ranks.shares(storage, count).mean()), 4) for count in CANDIDATES},
        "deviation_100": round(float(ranks.shares(storage, 100).std()), 4),
        **{f"candidates_{percent}": ranks.needed(storage, percent / 100) for percent in PERCENT},
        **{f"judged_{count}": round(ranks.recall(storage, count), 4) for count in (100, 1000)},
    }  # fmt: skip


def published_rows() -> Iterator[Row]:
    """MUVERA's Tables 1 and 2: how many candidates hold the judged passage, and how often 100 and 1,000 do."""
    common = {"bench": "late_shares", "data": "msmarco (published)", "engine": "muvera", "storage": "float32"}
    for dims, needed in PUBLISHED_CANDIDATES.items():
        columns = {f"candidates_{percent}": count for percent, count in zip(PERCENT, needed, strict=True)}
        yield {**common, "setting": f"Table 1, about {dims:,} dimensions", **columns}
    for dims, (shape, at_100, deviation, at_1000) in PUBLISHED_RECALL.items():
        yield {
            **common, "setting": f"Table 2, {shape}", "dims": dims, "seeds": 10, "deviation_100": deviation,
            "judged_100": at_100, "judged_1000": at_1000,
        }  # fmt: skip


def _plot_shares(rows: list[Row], path: Path) -> None:
    figure, panels = _panels(len(VARIANTS))
    for panel, (variant, engine) in zip(panels, VARIANTS.items(), strict=True):
        for row in rows:
            if row["engine"] == engine:
                dashed, suffix = ("--", ", PQ-256-8") if row["storage"] == "pq" else ("-", "")
                shown = [row[f"in_{count}"] for count in CANDIDATES]
                colour, label = f"C{WIDTHS.index(row['dims'])}", f"{row['dims']:,} dimensions{suffix}"
                panel.plot(CANDIDATES, shown, dashed, color=colour, marker="o", markersize=3, label=label)
        if variant == "published":
            for dims, needed in PUBLISHED_CANDIDATES.items():
                label = f"MS MARCO, judged: {dims:,} (Table 1)"
                panel.plot(
                    needed, [p / 100 for p in PERCENT], ":", color="grey", alpha=dims**0.5 / 144, label=label
                )
        title = "SciFact, Tercet's encodings" if variant == "tercet" else "SciFact, MUVERA's encodings"
        panel.set(title=title, xlabel="candidates", ylabel="share of the exact top 10", xscale="log")
        panel.set_xticks(CANDIDATES, [str(count) for count in CANDIDATES])
    _save(figure, path)


# --- nDCG against bytes a token


def curve(quick: bool, limit: int | None, path: Path) -> Iterator[Row]:
    """A row for each data set, number of dimensions and bits: exact MaxSim over the vectors as they are decoded."""
    rows = []
    for name in NAMES[1:] if quick else NAMES:
        n_queries = limit and max(20, limit // 10)
        data = late_data(name, limit, n_queries, raw=True)
        if data is None:
            continue
        documents = corpus(name, limit)
        for dim in (64, 128) if quick or limit else DIMS:
            for bits, ndcg in _by_bits(data, *projected(data, documents, dim), (2, 4, 16) if quick else BITS):
                size = dim * 2 if bits == 16 else dim * bits / 8 + 2
                rows.append(
                    {
                        "bench": "late_curve", "data": data.name, "engine": "tercet",
                        "setting": f"{dim} dimensions, {bits} bits", "k": K, "dims": dim, "bits": bits,
                        "bytes_per_token": size, "ndcg10": ndcg,
                    }
                )  # fmt: skip
                yield rows[-1]
    if any(row["ndcg10"] is not None for row in rows):
        _plot_curve(rows, path)


def _by_bits(
    data: LateData, documents: MultiVector, queries: MultiVector, chosen: tuple[int, ...]
) -> Iterator[tuple[int, float | None]]:
    finest = train_codec(
        documents, bits=8, centroids=None, memory_bytes=1 << 30, progress=lambda rows: None
    )  # fmt: skip
    nearest = finest.nearest()(documents.values)
    for bits in chosen:
        stored = documents
        if bits < 16:
            codec = coarser(finest, bits)
            codes, packed = codec.encode(documents.values, lambda values: nearest)
            stored = MultiVector(documents.indptr, codec.decode(codes, packed))
        yield bits, data.ndcg(exact_rows(stored, queries))


def coarser(codec: ResidualCodec, bits: int) -> ResidualCodec:
    """The codec that training for fewer bits gives, without training anew.

    Its cutoffs and weights are quantiles of the same residuals; all of them are cutoffs of the codec with 8 bits.
    """
    if bits == codec.bits:
        return codec
    step = 1 << (codec.bits - bits)
    return ResidualCodec(
        codec.centroids, codec.cutoffs[step - 1 :: step], codec.cutoffs[step // 2 - 1 :: step]
    )


def _plot_curve(rows: list[Row], path: Path) -> None:
    names = list(dict.fromkeys(row["data"] for row in rows))
    figure, panels = _panels(len(names))
    for panel, name in zip(panels, names, strict=True):
        for number, dim in enumerate(DIMS):
            mine = [row for row in rows if (row["data"], row["dims"]) == (name, dim)]
            if mine:
                sizes, values = [row["bytes_per_token"] for row in mine], [row["ndcg10"] for row in mine]
                panel.plot(
                    sizes, values, marker="o", markersize=3, color=f"C{number}", label=f"{dim} dimensions"
                )
        panel.set(title=name, xlabel="bytes a token", ylabel="nDCG@10", xscale="log")
    _save(figure, path)


# --- both


def exact_rows(documents: MultiVector, queries: MultiVector) -> np.ndarray:
    """(Q, K) the best rows by MaxSim."""
    asked = MultiVector(queries.indptr, np.asarray(queries.values, dtype=np.float32))
    return best_rows(documents, _NORM, asked, np.arange(len(documents))[None, :], K).rows


def _panels(count: int) -> tuple[Any, list[Any]]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, count, figsize=(6 * count, 4.2), squeeze=False)
    return figure, list(panels[0])


def _save(figure: Any, path: Path) -> None:
    for panel in figure.axes:
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
