"""A document that answers nearer to the query than one that does not."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from training.losses.options import Positive
from training.scored import Scored

_NEAREST = 1e-12  # squared distance below which the root's gradient is cut off


def triplet(
    scored: Scored, *, margin: Positive | None = None, distance: Literal["euclidean", "cosine"] = "euclidean"
) -> Tensor:
    """Every pair of a candidate that answers and one that does not, by their distances from the query.

    Hoffer & Ailon, "Deep metric learning using Triplet network", 2015, arXiv:1412.6622: with d+ the share of the
    nearer document's distance in a softmax over both distances, the loss is d+ squared (theirs up to a constant
    factor). With a margin it is the hinge max(0, distance+ - distance- + margin) of Schroff et al., "FaceNet", 2015,
    arXiv:1503.03832. It is the mean over queries of the mean over their pairs; a query without a negative counts as
    0.

    Args:
        scored: a batch.
        margin: None takes the softmax.
        distance: ``euclidean`` is sqrt(2 - 2 score), that of unit vectors whose scores are cosines; ``cosine`` is 1 -
            score, which unbounded scores can take as well.
    """
    far = 1 - scored.own
    if distance == "euclidean":
        far = (2 * far).clamp(min=_NEAREST).sqrt()
    gaps = far[:, :, None] - far[:, None, :]
    each = gaps.sigmoid().square() if margin is None else (gaps + margin).relu()
    pairs = (scored.positives[:, :, None] & ~scored.positives[:, None, :]).to(each.dtype)
    return ((each * pairs).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)).mean()
