"""The teacher's margins between candidates."""

from __future__ import annotations

from torch import Tensor

from training.losses.options import Positive
from training.scored import Scored


def margin_mse(scored: Scored, *, temperature: Positive = 1.0) -> Tensor:
    """Mean squared error between the student's and the teacher's margin of the first candidate over each other one.

    Hofstätter et al., "Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge Distillation", 2020,
    arXiv:2010.02666. A query with one candidate counts as 0.

    Args:
        scored: a batch with a teacher.
        temperature: what the student's scores are divided by; cosines that follow a teacher of logits want about 0.05,
            unbounded scores 1.
    """
    error = scored.own / temperature - scored.given("teacher").detach()
    margins = error[:, :1] - error[:, 1:]
    return margins.square().sum() / max(1, margins.numel())
