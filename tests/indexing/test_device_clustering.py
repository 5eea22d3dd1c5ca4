"""Clustering on a device: torch's CPU stands for a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from indexing.dense import device_clustering
from indexing.dense.device_clustering import assign, spherical_kmeans
from retrieval.errors import ConfigError

DEVICE = "cuda" if torch.cuda.is_available() else "cpu:0"  # "cpu" would be the CPU's own kernels


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rows_are_assigned_to_the_nearest_centroid_in_blocks(dtype, monkeypatch):
    rng = np.random.default_rng(27)
    values = rng.standard_normal((500, 6)).astype(dtype)
    centroids = rng.standard_normal((9, 6)).astype(np.float32)
    monkeypatch.setattr(device_clustering, "_BLOCK", 100)
    products = values.astype(np.float64) @ centroids.T.astype(np.float64)
    assert np.array_equal(assign(values, centroids, DEVICE), products.argmax(1))
    assert assign(values[:0], centroids, DEVICE).shape == (0,)


def test_clusters_are_found_again_whatever_the_blocks(monkeypatch):
    rng = np.random.default_rng(29)
    centres = np.eye(5, 8)
    values = (centres[rng.integers(0, 5, 2000)] + 0.01 * rng.standard_normal((2000, 8))).astype(np.float32)
    steps, found = [], []
    for block in (1 << 20, 400):
        monkeypatch.setattr(device_clustering, "_BLOCK", block)
        found.append(
            spherical_kmeans(
                values, 20, DEVICE, iterations=6, rng=np.random.default_rng(30), progress=steps.append
            )
        )
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    assert steps == [1] * 12
    np.testing.assert_allclose(np.linalg.norm(found[0], axis=1), 1, atol=1e-5)
    assert ((found[0] @ centres.T).max(0) > 0.99).all()


def test_a_centroid_that_loses_all_its_vectors_is_drawn_anew():
    values = np.repeat(np.eye(2, dtype=np.float32), 10, axis=0)
    found = spherical_kmeans(
        values, 5, DEVICE, iterations=3, rng=np.random.default_rng(31), progress=lambda step: None
    )
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)


def test_without_room_the_cpu_assigns_or_it_is_an_error(monkeypatch, caplog):
    brought = device_clustering._brought

    def full(values, place):
        if place == DEVICE:
            raise torch.cuda.OutOfMemoryError("tried to allocate 14.31 GiB")
        return brought(values, place)

    monkeypatch.setattr(device_clustering, "_brought", full)
    values = np.eye(4, dtype=np.float32)
    monkeypatch.delenv("TERCET_STRICT_DEVICE", raising=False)
    assert assign(values, values[::-1].copy(), DEVICE).tolist() == [3, 2, 1, 0]
    assert len(caplog.records) == 1 and f"{DEVICE} has no memory left" in caplog.text
    caplog.clear()
    rng = np.random.default_rng(0)
    spherical_kmeans(values, 2, DEVICE, iterations=3, rng=rng, progress=lambda step: None)
    assert len(caplog.records) == 1
    monkeypatch.setenv("TERCET_STRICT_DEVICE", "1")
    with pytest.raises(ConfigError, match="no memory left"):
        assign(values, values, DEVICE)
