"""Each candidate by itself: does it answer?"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from training.losses.options import Positive
from training.scored import Scored


def pointwise(scored: Scored, *, positive_weight: Positive = 1.0) -> Tensor:
    """Binary cross entropy of every own candidate, whose score is the log odds that it answers.

    Nogueira & Cho, "Passage Re-ranking with BERT", 2019, arXiv:1901.04085. Judgements above 0 all count as answers.

    Args:
        scored: a batch.
        positive_weight: of candidates that answer, beside 1 for the others, which are usually more.
    """
    answers = scored.positives.to(scored.own.dtype)
    return functional.binary_cross_entropy_with_logits(
        scored.own, answers, pos_weight=scored.own.new_tensor(positive_weight)
    )
