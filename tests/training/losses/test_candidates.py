"""Losses of a query's own candidates and their labels, beside sentence-transformers and by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import TripletLoss
from sentence_transformers.sentence_transformer.losses.triplet import TripletDistanceMetric
from torch.nn import functional

from training.losses.listwise import listwise
from training.losses.pointwise import pointwise
from training.losses.triplet import triplet
from training.scored import Scored


def scores(rows: list[list[float]], labels: list[list[float]] | None = None) -> Scored:
    """A batch of queries whose own candidates have these scores."""
    own = torch.tensor(rows, dtype=torch.float64)
    return Scored(
        torch.block_diag(*own.unsqueeze(1).unbind()),
        own.shape[1],
        labels=None if labels is None else torch.tensor(labels, dtype=torch.float64),
    )


def test_listwise_shares_the_target_by_label() -> None:
    batch = scores([[2.0, 1.0, 0.0]], [[2.0, 1.0, 0.0]])
    total = math.log(math.exp(2) + math.e + 1)
    assert listwise(batch).item() == pytest.approx(total - (2 * 2 + 1 * 1) / 3)


def test_listwise_without_labels_is_the_cross_entropy_of_the_first(make_batch: Callable[..., Scored]) -> None:
    batch = replace(make_batch(), labels=None)
    expected = functional.cross_entropy(batch.own / 0.5, torch.zeros(4, dtype=torch.long))
    torch.testing.assert_close(listwise(batch, temperature=0.5), expected)


def test_pointwise_is_binary_cross_entropy() -> None:
    batch = scores([[1.0, -2.0], [0.0, 3.0]])
    losses = [math.log1p(math.exp(x)) for x in (-1.0, -2.0, -0.0, 3.0)]
    assert pointwise(batch).item() == pytest.approx(sum(losses) / 4)
    heavier = [5 * losses[0], losses[1], 5 * losses[2], losses[3]]
    assert pointwise(batch, positive_weight=5).item() == pytest.approx(sum(heavier) / 4)


def test_pointwise_counts_every_grade_above_zero() -> None:
    graded = scores([[1.0, 1.0, 1.0]], [[3.0, 1.0, 0.0]])
    flat = scores([[1.0, 1.0, 1.0]], [[1.0, 1.0, 0.0]])
    assert pointwise(graded) == pointwise(flat)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_triplet_with_a_margin_equals_sentence_transformers(
    distance: str, make_batch: Callable[..., Scored]
) -> None:
    batch = make_batch(n=2)
    queries, documents = (functional.normalize(side[0]) for side in (batch.queries, batch.documents))
    metric = getattr(TripletDistanceMetric, distance.upper())
    expected = TripletLoss(None, metric, 0.3).compute_loss_from_embeddings(
        [queries, documents[::2], documents[1::2]], None
    )
    unit = Scored(queries @ documents.T, 2)
    actual = triplet(unit, margin=0.3, distance=distance)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)  # theirs adds 1e-6 to differences


def test_triplet_without_a_margin_is_the_squared_share_of_the_nearer() -> None:
    near, distant = math.sqrt(2 - 2 * 0.9), math.sqrt(2 - 2 * 0.1)
    share = math.exp(near) / (math.exp(near) + math.exp(distant))
    assert triplet(scores([[0.9, 0.1]])).item() == pytest.approx(share**2)


def test_triplet_takes_every_pair_of_an_answer_and_another() -> None:
    batch = scores([[0.5, 0.2, 0.4, 0.0]], [[1, 1, 0, 0]])
    gaps = [0.4 - 0.5, 0.0 - 0.5, 0.4 - 0.2, 0.0 - 0.2]
    expected = sum(max(0.0, gap + 0.25) for gap in gaps) / 4
    assert triplet(batch, margin=0.25, distance="cosine").item() == pytest.approx(expected)
