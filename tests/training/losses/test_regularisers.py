"""Regularisers of representations, beside sentence-transformers and by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from sentence_transformers.sparse_encoder.losses import FlopsLoss
from torch.nn import functional

from training.losses.flops import df_flops, flops, idf_flops
from training.losses.l1 import l1
from training.losses.spread_out import spread_out
from training.scored import Scored


@pytest.fixture
def scored(make_batch: Callable[..., Scored]) -> Scored:
    return make_batch()


def sparse(rows: list[list[float]]) -> Scored:
    """A batch whose documents have these weights."""
    return Scored(torch.zeros(1, len(rows)), len(rows), documents=(torch.tensor(rows),))


@pytest.mark.parametrize("threshold", [None, 0, 3, 4, 6])
@pytest.mark.parametrize("who", ["queries", "documents"])
def test_flops_equals_sentence_transformers(who: str, threshold: int | None, scored: Scored) -> None:
    expected = FlopsLoss(None, threshold).compute_loss_from_embeddings(getattr(scored, who)[0])
    actual = flops(scored, who=who, threshold=threshold)
    torch.testing.assert_close(actual, expected, check_dtype=False)


def test_flops_by_hand() -> None:
    batch = sparse([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]])
    assert flops(batch).item() == pytest.approx(2.0**2 + 1.0**2)
    assert flops(batch, threshold=1).item() == pytest.approx(0.5**2 + 1.0**2)


def test_idf_flops_spares_rare_terms() -> None:
    batch = replace(sparse([[2.0, 2.0, 2.0]]), idf=torch.tensor([0.0, 1.0, 4.0]))
    assert idf_flops(batch).item() == pytest.approx(4 + 4 + 0.25)
    assert idf_flops(batch, floor=2).item() == pytest.approx(1 + 1 + 0.25)


def test_idf_flops_with_idf_at_the_floor_is_flops(scored: Scored) -> None:
    torch.testing.assert_close(idf_flops(replace(scored, idf=torch.zeros(6))), flops(scored))


def test_df_flops_weighs_terms_by_the_share_of_documents() -> None:
    """Ten documents: one has the first term, five have the second, all the third, none the last."""
    rows = [[float(i == 0), float(i < 5), 1.0, 0.0] for i in range(10)]
    by_hand = 0.5 * 0.1, 1 / (1 + (0.5 ** (-0.30103) - 1) ** 10) * 0.5, 1.0
    assert df_flops(sparse(rows)).item() == pytest.approx(sum(part**2 for part in by_hand), rel=1e-5)


def test_df_flops_lets_rare_terms_off() -> None:
    spread = torch.eye(50)
    shared = torch.zeros(50, 50)
    shared[:, 0] = 1
    losses = [
        df_flops(Scored(torch.zeros(1, 50), 50, documents=(documents,))).item()
        for documents in (spread, shared)
    ]
    assert losses[0] < 1e-6 and losses[1] == pytest.approx(1)


def test_l1_is_the_mean_sum_of_weights(scored: Scored) -> None:
    assert l1(scored).item() == pytest.approx(scored.queries[0].sum().item() / 4)
    assert l1(scored, who="documents").item() == pytest.approx(scored.documents[0].sum().item() / 12)


def test_spread_out_by_hand(scored: Scored) -> None:
    unit = functional.normalize(scored.documents[0])
    cosines = torch.stack([unit[i] @ unit[j] for i in range(12) for j in range(12) if i != j])
    expected = cosines.mean() ** 2 + (cosines.square().mean() - 1 / 6).relu()
    torch.testing.assert_close(spread_out(scored), expected)


def test_spread_out_is_nothing_for_orthogonal_vectors() -> None:
    assert spread_out(sparse(torch.eye(6).tolist())).item() == 0
