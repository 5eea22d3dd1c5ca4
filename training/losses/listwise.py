"""A softmax over a query's own candidates."""

from __future__ import annotations

from torch import Tensor

from training.losses.options import Positive
from training.scored import Scored


def listwise(scored: Scored, *, temperature: Positive = 1.0) -> Tensor:
    """Cross entropy between labels and the softmax of a query's own candidates, for rerankers.

    Bruch et al., "An Analysis of the Softmax Cross Entropy Loss for Learning-to-Rank with Binary Relevance", ICTIR
    2019: a candidate's share of the target is its label over the sum of labels. With one positive it is the localized
    contrastive estimation of Gao et al., ECIR 2021, arXiv:2101.08751.

    Args:
        scored: a batch.
        temperature: what scores are divided by.
    """
    shares = scored.gains / scored.gains.sum(1, keepdim=True)
    return -(shares * (scored.own / temperature).log_softmax(1)).sum(1).mean()
