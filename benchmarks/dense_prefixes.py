"""Fewer dimensions where they are enough: recall against time with a prefix of the vectors in the first stage.

Rege et al., "AdANNS: A Framework for Adaptive Semantic Search", NeurIPS 2023. The vectors here are not Matryoshka ones:
they are turned into the axes of their principal components, whose prefixes keep the most variance, which changes no
inner product. The rigid index is the same with all dimensions in every stage. A prefix of lists is used to choose lists
and to scan them, one of a graph on the walk over it; candidates are re-scored with all dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from benchmarks.dense_data import DenseData, K
from benchmarks.dense_measure import Point, Row, at_target, built, curves
from benchmarks.dense_peers import EFS, Variant, coarse_lists
from benchmarks.dense_tercet import make_collection, possible, tercet_variant
from benchmarks.dense_texts import save_array

PREFIXES = (32, 64, 96, 128, 192, 256, None)
RESCORED = (16, 40, 100)
TARGETS = (0.9, 0.95, 0.99)
ROUNDS = 3
DIM = 384


def rotated(data: DenseData) -> DenseData:
    """The same data in the axes of their principal components."""
    folder = data.folder / "rotated"
    if not (folder / "queries.npy").exists():
        vectors = np.asarray(data.documents)
        sample = vectors[:: max(1, len(vectors) // 50_000)]
        _, axes = np.linalg.eigh(np.cov(sample, rowvar=False))
        turn = axes[:, ::-1].astype(np.float32)
        for name, rows in (("documents", vectors), ("queries", data.queries)):
            turned = rows @ turn
            save_array(folder / f"{name}.npy", turned / np.linalg.norm(turned, axis=1, keepdims=True))
    return replace(data, folder=folder)


def prefix_variants(n: int) -> Iterator[Variant]:
    """A graph walked over prefixes, and lists chosen and scanned by prefixes; None is the rigid index."""
    graph = {"backend": "tercet", "m": 16}
    for prefix in PREFIXES:
        walks = [
            {"ef": ef, "prefix": prefix, "rescored": count} for ef in EFS for count in RESCORED if count <= ef
        ]
        yield replace(
            tercet_variant(f"hnsw prefix {prefix or 'all'}", "hnsw", graph, walks),
            folder="tercet-hnsw-prefixes",
        )
    lists = coarse_lists(n)
    scans = [
        {"nprobe": probe, "rescored": count}
        for probe in (2, 4, 8, 16, 32, 64, 128, 256)
        for count in RESCORED
        if probe <= lists
    ]
    for prefix in PREFIXES:
        given = {"factory": f"IVF{lists},Flat", "prefix": prefix, "inner": prefix}
        yield tercet_variant(f"ivf prefix {prefix or 'all'}", "ivf", given, scans)


def prefix_points(given: DenseData, reuse: bool) -> list[Point]:
    """All settings of all prefixes, measured on the data in their principal axes."""
    data = rotated(given)
    make_collection(data)
    variants = list(possible(prefix_variants(len(data.documents))))
    for variant in {variant.folder: variant for variant in variants}.values():
        built(variant, data, reuse)
    return curves(data, variants, ROUNDS)


def at_targets(data: DenseData, points: list[Point]) -> Iterator[Row]:
    """A row for each prefix and recall; ``x_rigid`` is its speed, ``multiplied_x`` its work over the rigid index's."""
    n = len(data.documents)
    for target in TARGETS:
        for kind in dict.fromkeys(point.variant.kind for point in points):
            mine = [point for point in points if point.variant.kind == kind]
            names = dict.fromkeys(point.variant.name for point in mine)
            rows = [_row(data, [p for p in mine if p.variant.name == name], target, n) for name in names]
            rigid = rows[-1]
            for row in filter(None, rows):
                if rigid:
                    row["x_rigid"] = round(row["qps"] / rigid["qps"], 2)
                if rigid and row["multiplied"]:
                    row["multiplied_x"] = round(row["multiplied"] / rigid["multiplied"], 2)
                yield row


def _row(data: DenseData, points: list[Point], target: float, n: int) -> Row | None:
    found = at_target(points, target)
    if found is None:
        return None
    lists = found.point.variant.kind == "ivf"
    least = [multiplied(point, n) for point in points if lists and point.recall >= target]
    return {
        "bench": "dense_prefixes", "data": data.name, "engine": "tercet", "at_recall": target,
        "setting": found.point.setting, "k": K, "threads": 1, "qps": round(found.qps, 1),
        "ms_p50": round(1e3 / found.qps, 4), "recall": round(found.point.recall, 4),
        "multiplied": min(least, default=None),
    }  # fmt: skip


def multiplied(point: Point, n: int) -> int:
    """Numbers multiplied by ivf for a query: dimensions times rows compared, lists taken as equally long."""
    lists, prefix = coarse_lists(n), point.variant.parameters["prefix"] or DIM
    scanned = point.knobs["nprobe"] * n / lists
    return round(prefix * (lists + scanned) + DIM * point.knobs["rescored"])
