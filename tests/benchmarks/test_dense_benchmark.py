"""What the figures of benchmarks/dense.py rest on: generated vectors, recall by score, speed at a recall."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _benchmarks_importable(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def unit_rows(n: int, dim: int = 24, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_generated_vectors_begin_with_the_real_ones_and_fewer_are_the_first_of_more():
    from benchmarks.dense_generated import resampled

    real = unit_rows(60)
    few, many = resampled(real, 150), resampled(real, 400)
    np.testing.assert_array_equal(many[:60], real)
    np.testing.assert_allclose(few, many[:150], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(many, axis=1), 1, atol=1e-5)
    assert len(np.unique(many.round(4), axis=0)) == 400  # no row is drawn twice


def test_a_generated_vector_lies_about_as_far_from_its_neighbours_as_real_ones_do():
    from benchmarks.dense_generated import resampled

    real = unit_rows(300)
    made = resampled(real, 900)
    scores = made @ made.T
    np.fill_diagonal(scores, -1)
    nearest = scores.max(axis=1)
    assert abs(np.median(nearest[:300]) - np.median(nearest[300:])) < 0.12


def test_queries_move_towards_their_nearest_document_only():
    from benchmarks.dense_generated import answered

    documents, queries = unit_rows(50), unit_rows(8, seed=1)
    moved = answered(queries, documents)
    before, after = queries @ documents.T, moved @ documents.T
    nearest = before.argmax(axis=1)
    assert (after.argmax(axis=1) == nearest).all()
    assert (after.max(axis=1) > before.max(axis=1)).all()
    assert ((moved * queries).sum(axis=1) > 0.98).all()


def test_recall_counts_equally_good_rows_once(tmp_path):
    from benchmarks.dense_data import DenseData

    documents = np.concatenate([np.repeat(unit_rows(1), 12, axis=0), -unit_rows(5, seed=2)])
    np.save(tmp_path / "documents.npy", documents)
    np.save(tmp_path / "queries.npy", documents[:1])
    data = DenseData("twelve", tmp_path, len(documents))
    assert data.recall(np.arange(2, 12)[None]) == 1.0  # any ten of twelve equal rows
    assert data.recall(np.zeros((1, 10), dtype=np.int64)) == 0.1
    assert data.recall(np.array([[0, 1, -1, -1, -1, -1, -1, -1, 13, 14]])) == 0.2


def test_speed_at_a_recall_lies_between_the_settings_around_it():
    pytest.importorskip("hnswlib")
    from benchmarks.dense_measure import Point, at_target, frontier
    from benchmarks.dense_peers import hnswlib_variant

    one, other = hnswlib_variant(16), hnswlib_variant(32)
    points = [
        Point(one, {"ef": 10}, 0.90, [1e-3, 1e-3, 9.0]),  # the median counts
        Point(one, {"ef": 20}, 1.00, [1e-2]),
        Point(other, {"ef": 10}, 0.89, [2e-3]),  # slower at less recall: not on the frontier
    ]
    assert [point.recall for point in frontier(points)] == [0.90, 1.00]
    found = at_target(points, 0.95)
    assert found.point.knobs == {"ef": 20}
    assert found.qps == pytest.approx((1000 * 100) ** 0.5)
    assert at_target(points, 0.5).qps == pytest.approx(1000)  # the fastest there is, not more
    assert at_target(points[:1], 0.95) is None


def test_filters_keep_what_they_say():
    from benchmarks.dense_filters import filter_of

    order = np.array([3, 1, 4, 0, 2])
    assert filter_of("correlated", order, 2, 0).rows().tolist() == [1, 3]
    assert filter_of("anti-correlated", order, 2, 0).rows().tolist() == [0, 2]
    assert filter_of("random", order, 3, 0).count() == 3


def test_a_process_that_measures_one_variant_finds_it():
    for package in ("usearch", "kannolo"):
        pytest.importorskip(package)
    from benchmarks.dense_peers import peers
    from benchmarks.dense_prefixes import prefix_variants
    from benchmarks.dense_tercet import tercet_variants

    variants = [*peers(100_000), *tercet_variants(100_000), *prefix_variants(100_000)]
    names = [(variant.engine, variant.name) for variant in variants]
    assert len(set(names)) == len(names)
    assert len({variant.folder for variant in variants if variant.engine != "tercet"}) == len(
        list(peers(100_000))
    )


def test_prefixes_are_set_beside_the_rigid_index_and_plotted(tmp_path):
    pytest.importorskip("matplotlib")
    from benchmarks.dense_data import DenseData
    from benchmarks.dense_measure import Point
    from benchmarks.dense_plots import plot_engines, plot_prefixes
    from benchmarks.dense_prefixes import at_targets, multiplied, prefix_variants

    np.save(tmp_path / "documents.npy", unit_rows(20_000, 4))
    variants = list(prefix_variants(20_000))
    points = [
        Point(variant, knobs, 0.9 + 0.1 * step, [1e-3 * (1 + step) * (1 + number)])
        for number, variant in enumerate(variants)
        for step, knobs in enumerate([variant.ladder[0], variant.ladder[-1]])
    ]
    rows = list(at_targets(DenseData("some", tmp_path, 20_000), points))
    assert len(rows) == 3 * len(variants)
    lists = [row for row in rows if row["setting"].startswith("ivf") and row["at_recall"] == 0.9]
    assert [row["multiplied_x"] for row in lists] == sorted(row["multiplied_x"] for row in lists)
    assert lists[-1]["multiplied_x"] == lists[-1]["x_rigid"] == 1.0
    (point,) = (p for p in points if p.variant.name == "ivf prefix 32" and p.recall == 0.9)
    per_list = 20_000 / 512
    assert multiplied(point, 20_000) == round(32 * (512 + 2 * per_list) + 384 * 16)
    plot_prefixes(points, 20_000, tmp_path / "prefixes.png")
    plot_engines({"some": points, "other": points}, tmp_path / "engines.png")
    assert (tmp_path / "prefixes.png").stat().st_size > 10_000
