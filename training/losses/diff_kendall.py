"""Kendall's rank correlation with the teacher, made differentiable."""

from __future__ import annotations

from torch import Tensor

from training.losses.options import Positive
from training.scored import Scored


def diff_kendall(scored: Scored, *, alpha: Positive = 0.5, temperature: Positive = 1.0) -> Tensor:
    """1 - tau, where the sign of each difference of scores is replaced by sigmoid(alpha x) - sigmoid(-alpha x).

    DiffKendall of Dong et al., "ParZC: Parametric Zero-Cost Proxies for Efficient NAS", AAAI 2025, arXiv:2402.02105, as
    a distillation of the teacher's order of a query's own candidates. It goes from 0 (the same order, far apart) to
    2; a query with one candidate has 1. The formula is not checked against the paper's own. The difference of
    sigmoids is tanh(alpha x / 2).

    Args:
        scored: a batch with a teacher.
        alpha: how fast a difference of scores becomes a sign.
        temperature: what the student's scores are divided by; cosines want about 0.05, unbounded scores 1.
    """
    n = scored.n
    agreement = _signs(scored.own / temperature, alpha) * _signs(scored.given("teacher").detach(), alpha)
    tau = agreement.sum((1, 2)) / max(1, n * (n - 1))  # every pair is there twice
    return 1 - tau.mean()


def _signs(scores: Tensor, alpha: float) -> Tensor:
    """(B, n, n) of (B, n): between -1 and 1, whether the first of two candidates scores higher."""
    return (alpha / 2 * (scores[:, :, None] - scores[:, None, :])).tanh()
