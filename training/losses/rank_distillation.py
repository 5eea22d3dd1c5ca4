"""The teacher's order, pair by pair, with most weight at the top."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from training.losses.options import Positive
from training.scored import Scored


def rank_distillation(scored: Scored, *, temperature: Positive = 1.0) -> Tensor:
    """Pairwise logistic loss of every pair that the teacher orders, weighted by what swapping it does to 1 / rank.

    The distillation of Zamani & Bendersky, "Multivariate Representation Learning for Information Retrieval", SIGIR
    2023, arXiv:2304.14522, after Zeng et al. (CLDRD), SIGIR 2022: the sum over candidates d, d' of a query with
    teacher(d) > teacher(d') of |1/rank(d) - 1/rank(d')| log(1 + exp(student(d') - student(d))), ranks being the
    student's own (our reading; not checked against the paper). Equal scores are ranked in the order of the list. It
    is the mean over queries.

    Args:
        scored: a batch with a teacher.
        temperature: what the student's scores are divided by; cosines want about 0.05, unbounded scores 1.
    """
    own, teacher = scored.own / temperature, scored.given("teacher")
    reciprocal = 1 / _ranks(own.detach()).to(own.dtype)
    weights = (reciprocal[:, :, None] - reciprocal[:, None, :]).abs()
    ordered = (teacher[:, :, None] > teacher[:, None, :]).to(own.dtype)
    losses = -functional.logsigmoid(own[:, :, None] - own[:, None, :])
    return (ordered * weights * losses).sum((1, 2)).mean()


def _ranks(scores: Tensor) -> Tensor:
    """(B, n) ranks from 1, the highest score first."""
    return scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1) + 1
