"""Keeping sparse representations cheap to search: what a term's average weight costs."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from torch import Tensor

from training.losses.options import Count, Positive
from training.recipe.ranges import Numbers
from training.scored import Scored
from training.trainer.gathering import mean_over_devices

_RAREST = 1e-8  # the frequency that a term which occurs nowhere counts with, so that its power stays finite


def flops(
    scored: Scored,
    *,
    who: Literal["queries", "documents"] = "documents",
    threshold: Count | None = None,
) -> Tensor:
    """The sum over terms of the squared mean weight: about the multiplications of scoring one text against another.

    Paria et al., "Minimizing FLOPs to Learn Efficient Sparse Representations", ICLR 2020, arXiv:2004.05665, as SPLADE
    uses it. The threshold is the l0 mask of Shen et al., "Exploring l0 Sparsification for Inference-free Sparse
    Retrievers", SIGIR 2025, arXiv:2504.14839, whose code takes positives and negatives apart; here all documents make
    one mean, as in sentence-transformers. The mean is over the texts of all devices.

    Args:
        scored: a batch of a sparse model.
        who: whose representations.
        threshold: texts with no more terms than that count as empty; None counts all.
    """
    return _mean_weights(scored.vectors(who), threshold).square().sum()


def idf_flops(scored: Scored, *, floor: Positive = 1.0) -> Tensor:
    """FLOPS of documents where the mean weight of a term is divided by its inverse document frequency.

    Our reading of the "IDF-aware penalty" of Geng et al., 2024, arXiv:2411.04403, whose published code has no such
    term. There inference-free queries alone bring idf in: a score is the sum of idf(t) w(t), so its gradient holds up
    rare terms against the penalty. Here the penalty itself spares them as well.

    Args:
        scored: a batch of a sparse model whose queries are read without a model.
        floor: terms of a lower idf count with this one; the loss is at most FLOPS over its square.
    """
    idf = scored.given("idf").detach().clamp(min=floor)
    return (_mean_weights(scored.vectors("documents"), None) / idf).square().sum()


def df_flops(
    scored: Scored, *, cutoff: Annotated[float, Numbers(0, 0.5, open=True)] = 0.1, steepness: Positive = 10.0
) -> Tensor:
    """FLOPS of documents where terms that many documents have weigh most.

    Porco et al., "An Alternative to FLOPS Regularization to Effectively Productionize SPLADE-Doc", SIGIR 2025,
    arXiv:2505.15070. FLOPS lets a model use a few terms in every document like the dimensions of a dense vector;
    this does not. A term's mean is multiplied, before it is squared, with 1 / (1 + (x^(log 2 / log cutoff) -
    1)^steepness), x being the share of documents that have it: 0 for rare terms, a half at the cutoff, 1 for a term
    of every document. That the weight stands inside the square, and the defaults, are our reading of secondary
    sources, not checked against the paper. It measures x on a validation set every 100 steps; here it is measured
    on the batch, which takes some 50 documents on all devices together.

    Args:
        scored: a batch of a sparse model.
        cutoff: the share of documents at which the weight is a half.
        steepness: how sharply it rises there.
    """
    weights = scored.vectors("documents")
    frequency = mean_over_devices((weights.detach() != 0).to(weights.dtype).mean(0))
    odds = frequency.clamp(min=_RAREST).pow(math.log(2) / math.log(cutoff)) - 1
    penalty = 1 / (1 + odds.clamp(min=0).pow(steepness))
    return (penalty * _mean_weights(weights, None)).square().sum()


def _mean_weights(weights: Tensor, threshold: int | None) -> Tensor:
    """(V,) mean absolute weight of each term over the texts of all devices; those let off count as empty."""
    if threshold is None:
        return mean_over_devices(weights.abs().mean(0))
    counted = ((weights != 0).sum(1) > threshold).to(weights.dtype)
    return mean_over_devices(counted @ weights.abs() / len(weights))
