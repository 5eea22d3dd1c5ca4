"""Losses of prefixes, beside sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss, MultipleNegativesRankingLoss
from torch import Tensor, nn
from torch.nn import functional

from retrieval.errors import ConfigError
from training.losses.matryoshka import prefix, with_prefixes
from training.losses.ranking import ranking
from training.losses.table import open_loss
from training.scored import Scored


class Encoder(nn.Module):
    """A model that has the vectors already."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["vectors"]}

    def get_embedding_dimension(self) -> int:
        return 6


@pytest.fixture
def scored(make_batch: Callable[..., Scored]) -> Scored:
    """Unit vectors, one answer each."""
    batch = make_batch()
    queries, documents = (functional.normalize(side[0]) for side in (batch.queries, batch.documents))
    return replace(
        batch,
        scores=queries @ documents.T,
        queries=(queries,),
        documents=(documents,),
        labels=None,
        rivals=None,
    )


def test_equals_sentence_transformers(scored: Scored) -> None:
    encoder: Any = Encoder()
    theirs = MatryoshkaLoss(encoder, MultipleNegativesRankingLoss(encoder, scale=20.0), [6, 4, 2])
    columns = scored.documents[0].unflatten(0, (-1, scored.n)).unbind(1)
    expected = theirs([{"vectors": column} for column in (scored.queries[0], *columns)], None)
    torch.testing.assert_close(with_prefixes(ranking, scored, (4, 2)), expected)


def test_without_prefixes_it_is_the_loss(scored: Scored) -> None:
    assert with_prefixes(ranking, scored, ()) == ranking(scored)


def test_a_prefix_keeps_what_the_teacher_says(scored: Scored) -> None:
    cut = prefix(scored, 3)
    assert cut.teacher is scored.teacher and cut.n == scored.n
    assert cut.documents[0].shape == (12, 3)
    torch.testing.assert_close(
        cut.scores[1, 2],
        functional.cosine_similarity(scored.queries[0][1, :3], scored.documents[0][2, :3], dim=0),
    )


def test_prefixes_are_scored_in_float32_under_autocast(scored: Scored) -> None:
    halves = replace(
        scored, queries=(scored.queries[0].bfloat16(),), documents=(scored.documents[0].bfloat16(),)
    )
    with torch.autocast("cpu", torch.bfloat16):
        assert prefix(halves, 2).scores.dtype == torch.float32


@pytest.mark.parametrize("width", [0, 6, 7])
def test_what_is_no_prefix_is_refused(width: int, scored: Scored) -> None:
    with pytest.raises(
        ConfigError, match=f"matryoshka = {width} is not the width of a prefix .* 6 dimensions"
    ):
        prefix(scored, width)


def test_models_without_one_vector_a_text_are_refused(scored: Scored) -> None:
    with pytest.raises(ConfigError, match="this loss needs one vector for each of the queries"):
        with_prefixes(open_loss("distillation"), replace(scored, queries=()), (2,))
