"""Features that keep cosines."""

from __future__ import annotations

import numpy as np
import pytest

from indexing.progress import Silent
from retrieval.errors import ConfigError
from training.codes.features import Features, FeatureTraining, train_features


@pytest.fixture
def sets() -> list[np.ndarray]:
    """Vectors around a few directions, as those of texts of a few topics."""
    rng = np.random.default_rng(0)
    topics = rng.normal(size=(12, 24))
    found = []
    for _ in range(2):
        vectors = topics[rng.integers(0, 12, 300)] + 0.8 * rng.normal(size=(300, 24)) + 0.5
        found.append((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16))
    return found


def codes_of(features: Features, vectors: np.ndarray, active: int) -> np.ndarray:
    z = np.maximum((vectors - features.mean) @ features.directions.T + features.bias, 0)
    z[z < np.sort(z, axis=1)[:, -active][:, None]] = 0
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def agreement(features: Features, vectors: np.ndarray) -> float:
    """Correlation of the cosines of codes with those of vectors."""
    codes = codes_of(features, vectors, 8)
    pairs = np.triu_indices(len(vectors), 1)
    return float(np.corrcoef((codes @ codes.T)[pairs], (vectors @ vectors.T)[pairs])[0, 1])


def trained(sets: list[np.ndarray], steps: int, seed: int = 0) -> tuple[Features, list[dict[str, float]]]:
    return train_features(sets, FeatureTraining(64, 8, steps, 64, seed), Silent())


def test_training_brings_the_cosines_of_codes_near_to_those_of_vectors(sets: list[np.ndarray]) -> None:
    vectors = sets[0][:200].astype(np.float32)
    first, (features, curve) = trained(sets, 1)[0], trained(sets, 200)
    assert agreement(features, vectors) > agreement(first, vectors) + 0.02
    assert curve[-1]["step"] == 200
    assert np.mean([entry["loss"] for entry in curve[-5:]]) < np.mean([entry["loss"] for entry in curve[:5]])
    np.testing.assert_allclose(
        features.mean, np.mean([part.astype(np.float64).mean(axis=0) for part in sets], axis=0), atol=1e-6
    )


def test_the_seed_decides(sets: list[np.ndarray]) -> None:
    one, two, other = (trained(sets, 5, seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.directions, two.directions)
    np.testing.assert_array_equal(one.bias, two.bias)
    assert not np.array_equal(one.directions, other.directions)


def test_bytes_are_near_to_the_directions() -> None:
    directions = np.random.default_rng(0).normal(size=(5, 24)).astype(np.float32)
    directions[3] = 0
    stored, scales = Features(
        directions, np.zeros(5, np.float32), np.zeros(24, np.float32)
    ).bytes_and_scales()
    again = stored * scales.astype(np.float32)[:, None]
    assert np.abs(again - directions).max() < np.abs(directions).max() / 127
    assert not again[3].any()


def test_too_few_texts_are_refused(sets: list[np.ndarray]) -> None:
    with pytest.raises(ConfigError, match=r"601 features .* 600 texts .* model\.options\.features"):
        train_features(sets, FeatureTraining(601, 8, 1, 64, 0), Silent())
