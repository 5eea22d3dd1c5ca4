"""In-batch ranking, beside sentence-transformers and by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.util import dot_score

from training.losses.ranking import ranking
from training.scored import Scored


@pytest.fixture
def plain(make_batch: Callable[..., Scored]) -> Scored:
    """One answer each and no rivals."""
    return replace(make_batch(), labels=None, rivals=None)


def theirs(scored: Scored, **options: object) -> torch.Tensor:
    loss = MultipleNegativesRankingLoss(None, scale=4.0, similarity_fct=dot_score, **options)
    columns = scored.documents[0].unflatten(0, (-1, scored.n)).unbind(1)
    return loss.compute_loss_from_embeddings([scored.queries[0], *columns], None)


def test_equals_sentence_transformers(plain: Scored) -> None:
    torch.testing.assert_close(ranking(plain, temperature=0.25), theirs(plain))


def test_equals_sentence_transformers_in_both_directions(plain: Scored) -> None:
    expected = theirs(plain, directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction")
    torch.testing.assert_close(ranking(plain, temperature=0.25, symmetric=True), expected)


def by_hand(scored: Scored, query: int) -> float:
    """The loss of one query, from sums of exponentials."""
    own = scored.columns[query].tolist()
    answers = [column for place, column in enumerate(own) if scored.positives[query, place]]
    rivals = [] if scored.rivals is None else scored.rivals[query].nonzero().flatten().tolist()
    weights = scored.scores[query].exp().tolist()
    others = sum(weight for column, weight in enumerate(weights) if column not in (*answers, *rivals))
    return sum(-math.log(weights[column] / (weights[column] + others)) for column in answers) / len(answers)


def test_answers_and_rivals_are_no_negatives(make_batch: Callable[..., Scored]) -> None:
    scored = make_batch()
    assert scored.rivals is not None and scored.rivals.any() and scored.positives.sum() > len(scored.own)
    expected = sum(by_hand(scored, query) for query in range(4)) / 4
    assert ranking(scored, temperature=1).item() == pytest.approx(expected)


def test_a_rival_document_does_not_count_against_its_query_either(plain: Scored) -> None:
    rivals = torch.zeros_like(plain.scores, dtype=torch.bool)
    rivals[1, 0] = True  # query 1 is answered by the first document of query 0
    without = replace(plain, rivals=rivals)
    blind = replace(plain, scores=plain.scores.masked_fill(rivals, -1e9))
    torch.testing.assert_close(ranking(without, symmetric=True), ranking(blind, symmetric=True))


def test_columns_of_a_later_device(plain: Scored) -> None:
    later = replace(plain, scores=plain.scores[2:], offset=2, queries=())
    earlier = replace(plain, scores=plain.scores[:2], queries=())
    mean = (ranking(earlier) + ranking(later)) / 2
    torch.testing.assert_close(mean, ranking(plain))


def test_labels_that_are_all_zero_leave_the_first(plain: Scored) -> None:
    torch.testing.assert_close(
        ranking(replace(plain, labels=torch.zeros_like(plain.own))), ranking(plain), rtol=0, atol=0
    )
