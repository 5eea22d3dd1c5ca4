"""Static vectors and codes of word pieces, on made-up pieces whose bags are known."""

from __future__ import annotations

import numpy as np
import pytest

from training.codes.names import naming_pieces, nearest_words
from training.codes.static_tables import Bags, Pieces, fit_static_vectors, piece_vectors, static_codes

V, H = 80, 64


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture
def pieces() -> Pieces:
    rng = np.random.default_rng(0)
    words, pooled, alone = (unit(rng.normal(size=(V, H))).astype(np.float32) for _ in range(3))
    counts = rng.integers(0, 9, V)
    return Pieces(words, pooled, alone, (alone * counts[:, None]).astype(np.float32), counts)


def bags_of(pieces: Pieces, weights: np.ndarray, n: int, seed: int) -> tuple[Bags, np.ndarray]:
    """Texts whose vectors are the weighted means of a map of their pieces, and those vectors."""
    rng = np.random.default_rng(seed)
    truth = pieces.words @ unit(np.random.default_rng(9).normal(size=(H, H))) + pieces.alone
    ids = [rng.integers(0, V, rng.integers(4, 20)).astype(np.int32) for _ in range(n)]
    means = np.stack([(truth[own] * weights[own][:, None]).sum(0) / weights[own].sum() for own in ids])
    vectors = unit(means + 0.1)
    return Bags(ids, vectors.astype(np.float16)), vectors


def test_means_of_static_vectors_are_near_the_vectors_of_texts(pieces: Pieces) -> None:
    weights = np.random.default_rng(1).uniform(0.5, 2, V).astype(np.float32)
    known, _ = bags_of(pieces, weights, 3000, 2)
    found = fit_static_vectors(pieces, [known], weights, np.random.default_rng(3))
    assert found.signs.shape == (V, H // 8) and found.scales.shape == (V,)
    new, vectors = bags_of(pieces, weights, 200, 4)
    table = (np.unpackbits(found.signs, axis=1) * 2.0 - 1) * found.scales[:, None].astype(np.float64)
    means = np.stack([(table[own] * weights[own][:, None]).sum(0) / weights[own].sum() for own in new.ids])
    got = unit(means @ found.matrix.astype(np.float64) + found.mean)
    cosines = (got * vectors).sum(axis=1)
    unknowing = (unit(vectors.mean(axis=0)) * vectors).sum(axis=1)
    assert 1 - cosines.mean() < 0.5 * (1 - unknowing.mean())


def test_pieces_without_weight_do_not_count(pieces: Pieces) -> None:
    weights = np.ones(V, dtype=np.float32)
    weights[:5] = 0
    bags, _ = bags_of(pieces, np.maximum(weights, 1e-9), 300, 2)
    other = Bags([np.concatenate([own, [0, 1]]).astype(np.int32) for own in bags.ids], bags.pooled)
    nothing = Bags([*other.ids, np.zeros(3, np.int32)], np.concatenate([bags.pooled, bags.pooled[:1]]))
    one, two, three = (
        fit_static_vectors(pieces, [one], weights, np.random.default_rng(3)) for one in (bags, other, nothing)
    )
    np.testing.assert_allclose(two.matrix, one.matrix, atol=2e-3)
    np.testing.assert_allclose(three.matrix, one.matrix, atol=2e-2)


def test_codes_of_a_piece_are_the_nearest_above_the_least_cosine() -> None:
    codes = np.eye(4, dtype=np.float32)
    vectors = unit(np.array([[0.9, 0.4, 0.1, 0.0], [0.0, 0.0, 1.0, 0.0]])).astype(np.float32)
    found, weights = static_codes(vectors, codes, np.array([True, False]), 2, 0.3)
    assert found.tolist()[0] == [0, 1]
    np.testing.assert_allclose(weights[0], (vectors[0, :2] - 0.3) / 0.7, atol=1e-3)
    assert not weights[1].any()


def test_pieces_that_are_seen_rarely_stay_near_what_they_are_alone(pieces: Pieces) -> None:
    other = unit(np.random.default_rng(5).normal(size=H)).astype(np.float32)
    counts = np.array([0, 1, 1000])
    three = Pieces(
        pieces.words[:3],
        pieces.pooled[:3],
        pieces.alone[:3],
        (counts[:, None] * other).astype(np.float32),
        counts,
    )
    never, once, often = three.in_context
    np.testing.assert_allclose(never, three.alone[0], atol=1e-6)
    np.testing.assert_allclose(once, (3 * three.alone[1] + other) / 4, atol=1e-6)
    np.testing.assert_allclose(often, other, atol=1e-2)
    near = piece_vectors(three, np.eye(H, dtype=np.float32))
    np.testing.assert_allclose(near[2], unit(unit(often) + three.alone[2]), atol=1e-5)


def test_names_are_the_nearest_whole_words() -> None:
    words = ["cancer", "tumor", "river", "malignant", "##noma", "the", "ox", "seldom"]
    telling = np.array([True, True, True, True, True, False, True, True])
    named = naming_pieces(words, telling, np.array([10, 10, 10, 10, 10, 10, 10, 9]))
    assert [words[piece] for piece in named] == ["cancer", "tumor", "river", "malignant"]
    vectors = unit(np.array([[1, 0.1], [1, 0.3], [0, 1], [1, 0.2]])).astype(np.float32)
    directions = np.array([[1, 0.0], [0, 1]], dtype=np.float32)
    assert nearest_words(directions, vectors, [words[piece] for piece in named]) == [
        "~ cancer malignant tumor",
        "~ river tumor malignant",
    ]
