"""Losses that follow a teacher, beside sentence-transformers and by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from scipy.stats import kendalltau
from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss, MarginMSELoss
from torch import Tensor

from training.losses.adversarial import adversarial
from training.losses.diff_kendall import diff_kendall
from training.losses.distillation import distillation
from training.losses.margin_mse import margin_mse
from training.losses.rank_distillation import rank_distillation
from training.losses.table import open_loss
from training.losses.tct import tct
from training.scored import Scored


@pytest.fixture
def scored(make_batch: Callable[..., Scored]) -> Scored:
    return make_batch(n=4)


def columns(scored: Scored) -> list[Tensor]:
    """Queries, then the documents by their place in a list, as sentence-transformers wants them."""
    return [scored.queries[0], *scored.documents[0].unflatten(0, (-1, scored.n)).unbind(1)]


def test_margin_mse_equals_sentence_transformers(scored: Scored) -> None:
    expected = MarginMSELoss(None).compute_loss_from_embeddings(columns(scored), scored.teacher)
    torch.testing.assert_close(margin_mse(scored), expected)


@pytest.mark.parametrize(("student", "teacher"), [(1.0, 1.0), (3.0, 3.0), (0.5, 2.0)])
def test_distillation_equals_sentence_transformers(scored: Scored, student: float, teacher: float) -> None:
    theirs = DistillKLDivLoss(None, student_temperature=student, teacher_temperature=teacher)
    expected = theirs.compute_loss_from_embeddings(columns(scored), scored.teacher)
    actual = distillation(scored, student_temperature=student, teacher_temperature=teacher)
    torch.testing.assert_close(actual, expected)


def test_the_square_of_the_temperature_holds_gradients_up(scored: Scored) -> None:
    """Hinton et al. 2015, section 2.1: without it gradients shrink with 1 / T^2 as T grows."""

    def norm(temperature: float) -> float:
        own = scored.scores.clone().requires_grad_()
        distillation(
            replace(scored, scores=own),
            student_temperature=temperature,
            teacher_temperature=temperature,
        ).backward()
        assert own.grad is not None
        return own.grad.norm().item()

    assert norm(100.0) == pytest.approx(norm(1000.0), rel=0.02)


def test_min_max_spans_zero_to_scale(scored: Scored) -> None:
    assert scored.teacher is not None
    low, high = scored.teacher.min(1, keepdim=True).values, scored.teacher.max(1, keepdim=True).values
    spread = replace(scored, teacher=30 * (scored.teacher - low) / (high - low + 1e-6))
    torch.testing.assert_close(distillation(scored, normalise="min-max"), distillation(spread))
    moved = replace(scored, teacher=scored.teacher * 1000 - 7)
    torch.testing.assert_close(
        distillation(moved, normalise="min-max"),
        distillation(scored, normalise="min-max"),
        rtol=1e-4,
        atol=1e-4,
    )


def test_tct_softens_the_teacher_alone_over_the_whole_batch(scored: Scored) -> None:
    assert scored.teacher_batch is not None
    total = 0.0
    for student, teacher in zip(scored.scores.tolist(), scored.teacher_batch.tolist(), strict=True):
        wanted = [math.exp(score / 0.25) for score in teacher]
        made = [math.exp(score) for score in student]
        for want, make in zip(wanted, made, strict=True):
            share = want / sum(wanted)
            total += share * math.log(share / (make / sum(made)))
    assert tct(scored).item() == pytest.approx(total / len(scored.scores))


def test_diff_kendall_of_far_scores_is_kendalls_tau(scored: Scored) -> None:
    assert scored.teacher is not None
    taus = [kendalltau(a, b).statistic for a, b in zip(scored.own, scored.teacher, strict=True)]
    assert diff_kendall(scored, alpha=1e9).item() == pytest.approx(1 - sum(taus) / len(taus))


def test_diff_kendall_is_made_of_sigmoids() -> None:
    batch = Scored(torch.tensor([[1.0, 0.0]]), 2, teacher=torch.tensor([[0.0, 2.0]]))

    def sign(x: float) -> float:
        return 1 / (1 + math.exp(-0.5 * x)) - 1 / (1 + math.exp(0.5 * x))

    assert diff_kendall(batch).item() == pytest.approx(1 - sign(1.0) * sign(-2.0))


def test_rank_distillation_by_hand(scored: Scored) -> None:
    assert scored.teacher is not None
    total = 0.0
    for own, teacher in zip(scored.own.tolist(), scored.teacher.tolist(), strict=True):
        rank = {place: 1 + sum(other > own[place] for other in own) for place in range(4)}
        for better in range(4):
            for worse in range(4):
                if teacher[better] > teacher[worse]:
                    weight = abs(1 / rank[better] - 1 / rank[worse])
                    total += weight * math.log1p(math.exp(own[worse] - own[better]))
    assert rank_distillation(scored).item() == pytest.approx(total / len(scored.own))


def test_rank_distillation_of_equal_scores_still_teaches() -> None:
    batch = Scored(torch.zeros(1, 3, requires_grad=True), 3, teacher=torch.tensor([[1.0, 3.0, 2.0]]))
    rank_distillation(batch).backward()
    assert batch.scores.grad is not None
    assert batch.scores.grad[0].argmin() == 1  # its score is to rise most


@pytest.mark.parametrize("name", ["margin-mse", "diff-kendall", "rank-distillation", "adversarial"])
def test_temperature_divides_the_students_scores(name: str, scored: Scored) -> None:
    cosines = replace(scored, scores=scored.scores * 0.05)
    torch.testing.assert_close(open_loss(name, {"temperature": 0.05})(cosines), open_loss(name)(scored))


def test_adversarial_by_hand() -> None:
    own, ranker = [1.0, 0.5, -1.0], [2.0, 3.0, -4.0]
    batch = Scored(torch.tensor([own]), 3, teacher=torch.tensor([ranker]))
    shares = [math.exp(score) / sum(map(math.exp, own)) for score in own]
    expected = sum(
        math.log(math.exp(ranker[0]) / (math.exp(ranker[0]) + math.exp(ranker[place])))
        * math.log(shares[place])
        for place in (1, 2)
    )
    assert adversarial(batch).item() == pytest.approx(expected)


def test_adversarial_wants_the_negative_that_fools_the_ranker() -> None:
    own = torch.zeros(1, 4, requires_grad=True)
    adversarial(Scored(own, 4, teacher=torch.tensor([[0.0, -5.0, 5.0, -5.0]]))).backward()
    assert own.grad is not None
    assert own.grad.argmin() == 2


def test_adversarial_leaves_other_answers_out() -> None:
    own = torch.tensor([[1.0, 0.5, -1.0]])
    teacher = torch.tensor([[2.0, 3.0, -4.0]])
    labels = torch.tensor([[1.0, 1.0, 0.0]])
    with_two = adversarial(Scored(own, 3, teacher=teacher, labels=labels))
    fooled = math.log(1 / (1 + math.exp(-4 - 2)))
    assert with_two.item() == pytest.approx(fooled * own.log_softmax(1)[0, 2].item())


def test_distillation_has_the_gradient_of_ar2s_cross_entropy(scored: Scored) -> None:
    assert scored.teacher is not None
    ours, theirs = (scored.scores.clone().requires_grad_() for _ in range(2))
    distillation(replace(scored, scores=ours), teacher_temperature=2.0).backward()
    target = (scored.teacher / 2).softmax(1)
    (-(target * theirs.gather(1, scored.columns).log_softmax(1)).sum(1).mean()).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
