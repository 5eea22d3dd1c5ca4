"""Dense representations that fill their space."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from training.scored import Scored
from training.trainer.gathering import gather


def spread_out(scored: Scored, *, who: Literal["queries", "documents"] = "documents") -> Tensor:
    """Global orthogonal regularisation: cosines of different texts have the mean and square of random directions.

    Zhang et al., "Learning Spread-out Local Feature Descriptors", ICCV 2017, arXiv:1708.06320: the squared mean cosine,
    plus what the mean squared cosine has above 1 / D. It keeps vectors from collapsing onto a few directions. This is
    sentence-transformers' loss, both terms added, over the texts of all devices.

    Args:
        scored: a batch of a dense model.
        who: whose representations.
    """
    from sentence_transformers.sentence_transformer.losses import GlobalOrthogonalRegularizationLoss

    mean, second_moment = GlobalOrthogonalRegularizationLoss(None).compute_gor(gather(scored.vectors(who)))
    total: Tensor = mean + second_moment
    return total
