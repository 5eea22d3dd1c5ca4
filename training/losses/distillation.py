"""The teacher's distribution over a query's own candidates."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional

from training.losses.options import Positive
from training.scored import Scored


def distillation(
    scored: Scored,
    *,
    teacher_temperature: Positive = 1.0,
    student_temperature: Positive = 1.0,
    normalise: Literal["none", "min-max"] = "none",
    scale: Positive = 30.0,
) -> Tensor:
    """Kullback-Leibler divergence KL(teacher || student) between softmaxes over own candidates.

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, arXiv:1503.02531: gradients shrink with the
    square of the temperature, so the loss is multiplied by the student's, squared. Normalised teachers are those of
    Geng et al., "Towards Competitive Search Relevance For Inference-Free Learned Sparse Retrievers", 2024,
    arXiv:2411.04403.

    Args:
        scored: a batch with a teacher.
        teacher_temperature: what the teacher's scores are divided by.
        student_temperature: what the student's scores are divided by.
        normalise: ``min-max`` maps the teacher's scores of each list to 0 to ``scale`` first.
        scale: of normalised scores; without effect on others.
    """
    teacher = scored.given("teacher")
    if normalise == "min-max":
        teacher = scale * _min_max(teacher)
    return divergence(scored.own, teacher, student_temperature, teacher_temperature)


def divergence(
    student: Tensor, teacher: Tensor, student_temperature: float, teacher_temperature: float
) -> Tensor:
    """Mean over rows of KL(softmax(teacher / its temperature) || softmax(student / its)), times the latter squared.

    Args:
        student: (B, N) scores.
        teacher: (B, N) scores, which get no gradient.
        student_temperature: above 0.
        teacher_temperature: above 0.
    """
    target = (teacher.detach() / teacher_temperature).softmax(1)
    shares = (student / student_temperature).log_softmax(1)
    return functional.kl_div(shares, target, reduction="batchmean") * student_temperature**2


def _min_max(scores: Tensor) -> Tensor:
    """Each row from 0 to 1; equal scores all become 0."""
    low, high = scores.aminmax(dim=1, keepdim=True)
    return (scores - low) / (high - low + 1e-6)
