"""Short sparse representations."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from training.scored import Scored


def l1(scored: Scored, *, who: Literal["queries", "documents"] = "queries") -> Tensor:
    """The mean over texts of the sum of their weights.

    Lassance & Clinchant, "An Efficiency Study for SPLADE Models", SIGIR 2022, arXiv:2207.03834, regularise queries
    with it in the place of FLOPS: what costs time is how many terms a query has, not how they spread.

    Args:
        scored: a batch of a sparse model.
        who: whose representations.
    """
    return scored.vectors(who).abs().sum(1).mean()
