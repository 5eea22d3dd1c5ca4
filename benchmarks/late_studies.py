"""What fixed dimensional encodings find, and what narrower and compressed token vectors are worth; run by late.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.late_data import NAMES, K, LateData, corpus, late_data, projected
from indexing.fde.encodings import Encodings
from indexing.fde.recipe import Recipe
from indexing.residual.codec import ResidualCodec
from indexing.residual.training import train_codec
from retrieval.maxsim import best_rows
from retrieval.values import MultiVector

Row = dict[str, Any]

WIDTHS = (1_280, 2_560, 5_120, 10_240)
PUBLISHED = {1_280: (20, 3, 8), 2_560: (20, 4, 8), 5_120: (20, 5, 8), 10_240: (20, 5, 16)}
"""Dimensions -> repetitions, bits and width in MUVERA's experiments."""
CANDIDATES = (50, 100, 200, 500, 1000)
SEEDS = 10

DIMS = (32, 48, 64, 96, 128, 384)
BITS = (1, 2, 4, 8, 16)

_NORM = 1.01  # of a unit vector in float16
_ROWS = 1024  # encoded at a time


# --- shares of the exact top 10 among candidates


def shares(quick: bool, limit: int | None, path: Path) -> Iterator[Row]:
    """A row for each variant and number of dimensions, means over seeds, on SciFact; plots them."""
    data = late_data("scifact", limit, limit and max(20, limit // 10))
    if data is None:
        return
    exact = exact_rows(data.documents, data.queries)
    seeds, widths = (2, WIDTHS[:2]) if quick or limit else (SEEDS, WIDTHS)
    rows = []
    for variant in ("tercet", "published"):
        for dims in widths:
            found = np.array(
                [_found(data, exact, _drawn(variant, dims, data, seed)) for seed in range(1, seeds + 1)]
            )
            rows.append(_share_row(data.name, variant, dims, found))
            yield rows[-1]
    _plot_shares(rows, path)


def recipe_of(variant: str, dims: int) -> Recipe:
    """Tercet's defaults with more or fewer repetitions, or MUVERA's parameters."""
    if variant == "published":
        repetitions, bits, width = PUBLISHED[dims]
        return Recipe(repetitions=repetitions, bits=bits, width=width, projection="signs", power=1.0)
    default = Recipe()
    return replace(default, repetitions=dims // (default.width << default.bits))


def _drawn(variant: str, dims: int, data: LateData, seed: int) -> Encodings:
    recipe = replace(recipe_of(variant, dims), seed=seed)
    encodings = Encodings.draw(recipe, data.documents.dim)
    if variant == "tercet":
        return encodings
    drawn = np.random.default_rng([seed, dims]).standard_normal(encodings.planes.shape)
    return replace(
        encodings, planes=drawn.astype(np.float32)
    )  # independent of each other, as SimHash has them


def _found(data: LateData, exact: np.ndarray, encodings: Encodings) -> list[float]:
    """The share of the exact top 10 among as many candidates as ``CANDIDATES`` says."""
    asked = encodings.queries(data.queries)
    scores = np.concatenate(
        [
            encodings.documents(data.documents[start : start + _ROWS]) @ asked.T
            for start in range(0, len(data.documents), _ROWS)
        ]
    ).T
    ranks = np.array(
        [(mine[None, :] > mine[best][:, None]).sum(axis=1) for mine, best in zip(scores, exact, strict=True)]
    )
    return [float((ranks < count).mean()) for count in CANDIDATES]


def _share_row(data: str, variant: str, dims: int, found: np.ndarray) -> Row:
    recipe = recipe_of(variant, dims)
    engine = "tercet" if variant == "tercet" else "muvera"
    shape = f"{recipe.repetitions} x 2^{recipe.bits} x {recipe.width}"
    means, deviations = found.mean(axis=0), found.std(axis=0)
    return {
        "bench": "late_shares", "data": data, "engine": engine,
        "setting": f"{shape}, {recipe.projection}, power {recipe.power}", "k": K, "dims": dims, "seeds": len(found),
        **{f"in_{count}": round(float(mean), 4) for count, mean in zip(CANDIDATES, means, strict=True)},
        "deviation_100": round(float(deviations[1]), 4),
    }  # fmt: skip


def _plot_shares(rows: list[Row], path: Path) -> None:
    figure, (panel,) = _panels(1)
    for row in rows:
        dashed = "--" if row["engine"] != "tercet" else "-"
        label = f"{'published' if row['engine'] != 'tercet' else 'tercet'}, {row['dims']:,} dimensions"
        colour = f"C{WIDTHS.index(row['dims'])}"
        shown = [row[f"in_{count}"] for count in CANDIDATES]
        panel.plot(CANDIDATES, shown, dashed, color=colour, marker="o", markersize=3, label=label)
    panel.set(title="SciFact", xlabel="candidates", ylabel="share of the exact top 10", xscale="log")
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
