"""Losses with parameters of their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from retrieval.errors import ConfigError
from training.auxiliaries.domain import DomainAdversary, ramp
from training.auxiliaries.table import Sizes
from training.auxiliaries.word_prediction import WordPrediction
from training.scored import Scored

SIZES = Sizes(width=6, vocabulary=11, domains=3)


@pytest.fixture
def scored(make_batch: Callable[..., Scored]) -> Scored:
    return make_batch(dtype=torch.float32)


def test_words_count_once_and_padding_never() -> None:
    torch.manual_seed(0)
    module = WordPrediction(SIZES)
    document = torch.randn(2, 6)
    ids = torch.tensor([[1, 4, 4, 7, 0], [3, 3, 0, 0, 0]])
    words = torch.tensor([[False, True, True, True, False], [False] * 5])
    batch = Scored(torch.zeros(1, 2), 2, documents=(document,), tokens=(ids, words))
    shares = module.words(document).log_softmax(1)
    torch.testing.assert_close(module(batch), -(shares[0, 4] + shares[0, 7]) / 2 / 2)


def test_word_prediction_learns_the_words(scored: Scored) -> None:
    torch.manual_seed(0)
    module = WordPrediction(SIZES)
    first = module(scored).item()
    optimiser = torch.optim.Adam(module.parameters(), 0.1)
    for _ in range(50):
        optimiser.zero_grad()
        module(scored).backward()
        optimiser.step()
    assert module(scored).item() < 0.9 * first


@pytest.mark.parametrize("who", ["queries", "documents"])
def test_the_gradient_is_reversed_for_vectors_and_not_for_the_classifier(who: str, scored: Scored) -> None:
    torch.manual_seed(0)
    module = DomainAdversary(SIZES, who=who, strength=0.5, schedule=False)
    vectors = getattr(scored, who)[0]
    repeats = len(vectors) // len(scored.queries[0])
    domains = scored.domains.repeat_interleave(repeats)

    straight = vectors.clone().requires_grad_()
    expected = functional.cross_entropy(module.classifier(straight), domains)
    classifier = torch.autograd.grad(expected, tuple(module.parameters()), retain_graph=True)
    expected.backward(inputs=[straight])

    reversed_ = vectors.clone().requires_grad_()
    loss = module(replace(scored, **{who: (reversed_,)}))
    loss.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(reversed_.grad, -0.5 * straight.grad)
    for parameter, gradient in zip(module.parameters(), classifier, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_a_single_training_set_cannot_be_told_from_others() -> None:
    with pytest.raises(ConfigError, match=r"only one; add a second \[\[data\]\]"):
        DomainAdversary(replace(SIZES, domains=1))


def test_the_schedule_rises_from_nothing() -> None:
    assert ramp(0.0) == 0
    assert ramp(1.0) == pytest.approx(1, abs=1e-4)
    assert ramp(0.2) == pytest.approx(2 / (1 + math.exp(-2)) - 1)


def test_the_schedule_follows_the_training(scored: Scored) -> None:
    def gradient(progress: float) -> torch.Tensor:
        torch.manual_seed(0)
        vectors = scored.documents[0].clone().requires_grad_()
        DomainAdversary(SIZES)(replace(scored, documents=(vectors,), progress=progress)).backward()
        assert vectors.grad is not None
        return vectors.grad

    assert not gradient(0.0).any()
    torch.testing.assert_close(gradient(0.2), gradient(1.0) * ramp(0.2) / ramp(1.0))


def test_what_a_batch_lacks_is_named(scored: Scored) -> None:
    with pytest.raises(ConfigError, match="token ids of the documents"):
        WordPrediction(SIZES)(replace(scored, tokens=None))
    with pytest.raises(ConfigError, match="the training set that each query is of"):
        DomainAdversary(SIZES)(replace(scored, domains=None))
