"""Local intrinsic dimension against the formula written out, against known dimensions, and on odd vectors."""

from __future__ import annotations

import numpy as np
import pytest

from indexing.dense import intrinsic_dimension
from indexing.dense.clusters import cluster_rows
from indexing.dense.intrinsic_dimension import (
    IntrinsicDimension,
    global_dimension,
    local_dimensions,
    maximum_likelihood,
    neighbour_distances,
)
from retrieval.values import Dense


def flat_patch(n: int, d: int, dim: int = 24, seed: int = 0) -> Dense:
    """Points of a d-dimensional cube, turned at random in a wider space."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((dim, d)))[0]
    return Dense((rng.random((n, d)) @ axes.T).astype(np.float32))


def naive_distances(values: np.ndarray, k: int) -> np.ndarray:
    """(N, k) by comparing every pair in float64, each row's own entry taken out by its number."""
    exact = values.astype(np.float64)
    found = []
    for row, point in enumerate(exact):
        far = np.linalg.norm(exact - point, axis=1)
        found.append(np.sort(np.delete(far, row))[:k])
    return np.array(found)


def naive_dimension(distances: list[float]) -> float:
    """Levina and Bickel's equation 8, term by term, over neighbours apart from the point."""
    apart = sorted(distance for distance in distances if distance > 0)
    if not apart:
        return 0.0
    terms = [np.log(apart[-1] / distance) for distance in apart[:-1]]
    return (len(apart) - 1) / sum(terms) if sum(terms) > 0 else np.inf


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_estimates_are_the_formula_over_all_pairs(dtype):
    values = flat_patch(600, 5).values.astype(dtype)
    found = neighbour_distances(Dense(values), 20)
    np.testing.assert_allclose(found, naive_distances(values, 20), rtol=1e-5)
    expected = [naive_dimension(list(line)) for line in naive_distances(values, 20)]
    np.testing.assert_allclose(local_dimensions(Dense(values), 20), expected, rtol=1e-4)


def test_vectors_of_any_length_count_by_distance_not_by_inner_product():
    values = flat_patch(300, 3).values * np.random.default_rng(1).uniform(0.1, 9, (300, 1)).astype(np.float32)
    np.testing.assert_allclose(neighbour_distances(Dense(values), 7), naive_distances(values, 7), rtol=1e-4)


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_the_scale_of_the_vectors_does_not_matter(factor):
    values = flat_patch(400, 4).values
    scaled = Dense(values * np.float32(factor))
    np.testing.assert_allclose(local_dimensions(scaled, 30), local_dimensions(Dense(values), 30), rtol=1e-3)


@pytest.mark.parametrize("d", [2, 5, 9])
def test_a_set_of_known_dimension_is_judged_right(d):
    found = global_dimension(local_dimensions(flat_patch(4000, d), 50))
    # The cube's edge makes many dimensions look like fewer.
    assert found.harmonic == pytest.approx(d, rel=0.06 + 0.02 * d)
    assert found.harmonic <= found.mean
    assert found.median == pytest.approx(found.mean, rel=0.1)


def test_cells_find_what_all_pairs_find_or_nearly(monkeypatch):
    vectors = flat_patch(3000, 6)
    exact = local_dimensions(vectors, 20)
    for name, value in {"EXACT_ROWS": 1000, "_CELL": 64, "_REACH": 1024}.items():
        monkeypatch.setattr(intrinsic_dimension, name, value)
    done: list[int] = []
    near = local_dimensions(vectors, 20, progress=done.append)
    assert sum(done) == len(vectors)
    assert np.corrcoef(exact, near)[0, 1] > 0.9
    assert np.mean(np.isclose(exact, near, rtol=1e-5)) > 0.6
    assert local_dimensions(vectors, 20).tolist() == near.tolist()
    assert global_dimension(near).harmonic == pytest.approx(global_dimension(exact).harmonic, rel=0.02)


def test_a_crowd_of_duplicates_costs_no_more_than_other_rows(monkeypatch):
    for name, value in {"EXACT_ROWS": 200, "_CELL": 32, "_REACH": 256}.items():
        monkeypatch.setattr(intrinsic_dimension, name, value)
    values = flat_patch(2000, 4).values.copy()
    values[:1500] = values[0]  # one cell of 1,500 rows, of which each is compared with 256
    found = local_dimensions(Dense(values), 10)
    assert (found[:1500] == 0).all()
    assert (found[1501:] > 0).all()


def test_duplicates_are_left_out_of_an_estimate():
    values = flat_patch(60, 3).values
    twice = np.concatenate([values, values[:5], values[:1]])
    found = neighbour_distances(Dense(twice), len(twice) - 1)
    assert (found[:5, 0] == 0).all() and (found[0, :2] == 0).all() and found[5, 0] > 0
    expected = [naive_dimension(list(line)) for line in naive_distances(twice, len(twice) - 1)]
    np.testing.assert_allclose(local_dimensions(Dense(twice), 100), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("distances", "expected"),
    [
        ([1.0, 2.0, 4.0], 2 / (np.log(4) + np.log(2))),
        ([0.0, 1.0, 2.0, 4.0], 2 / (np.log(4) + np.log(2))),
        ([4.0, 0.0, 1.0, 2.0], 2 / (np.log(4) + np.log(2))),
        ([0.0, 0.0], 0.0),
        ([3.0, 3.0, 3.0], np.inf),
        ([0.0, 3.0], np.inf),
        ([1e-300, 1e300], 1 / np.log(1e300) / 2),
    ],
)
def test_the_estimate_of_a_few_distances(distances, expected):
    assert maximum_likelihood(np.array([distances]))[0] == pytest.approx(expected)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_rows_have_the_neighbours_there_are(n):
    vectors = flat_patch(n, 2)
    assert neighbour_distances(vectors, 5).shape == (n, max(0, n - 1))
    found = local_dimensions(vectors, 5)
    assert len(found) == n
    assert not np.isnan(found).any()


def test_all_rows_alike_have_no_dimension():
    vectors = Dense(np.full((50, 8), 0.5, dtype=np.float32))
    assert local_dimensions(vectors).tolist() == [0.0] * 50
    assert global_dimension(local_dimensions(vectors)) == IntrinsicDimension(0.0, 0.0, 0.0)
    assert local_dimensions(Dense(np.zeros((50, 8), dtype=np.float32))).tolist() == [0.0] * 50


def test_one_figure_for_all_points_by_hand():
    found = global_dimension(np.array([0.0, 2.0, 4.0, 4.0, np.inf]))
    assert found.mean == pytest.approx(10 / 3)
    assert found.median == 4.0
    assert found.harmonic == pytest.approx(4 / (1 / 2 + 1 / 4 + 1 / 4 + 0))
    assert global_dimension(np.array([np.inf])).harmonic == np.inf


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(ValueError, match="at least 2 neighbours, got k=1"):
        local_dimensions(flat_patch(10, 2), 1)
    broken = flat_patch(10, 2).values.copy()
    broken[4, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        local_dimensions(Dense(broken), 3)


def test_clusters_hold_every_row_once_by_its_nearest_centroid():
    vectors = flat_patch(700, 4)
    clusters = cluster_rows(vectors, 9, seed=3)
    assert sorted(clusters.rows.tolist()) == list(range(700))
    for cluster in range(9):
        rows = clusters.members(cluster)
        assert (np.diff(rows) > 0).all()
        far = np.linalg.norm(vectors.values[rows][:, None] - clusters.centroids[None], axis=2)
        assert (far[:, cluster] <= far.min(axis=1) + 1e-5).all()
    again = cluster_rows(vectors, 9, seed=3)
    assert again.rows.tolist() == clusters.rows.tolist()
    assert cluster_rows(Dense(vectors.values[:1]), 1, seed=0).rows.tolist() == [0]
