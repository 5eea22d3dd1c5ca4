"""A retriever that looks for negatives which fool its ranker."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from training.losses.options import Positive
from training.scored import Scored


def adversarial(scored: Scored, *, temperature: Positive = 1.0) -> Tensor:
    """AR2's objective of the retriever against the ranker, over a query's own candidates.

    Zhang et al., "Adversarial Retriever-Ranker for Dense Text Retrieval", ICLR 2022, arXiv:2110.03611: the sum over
    negatives d of log softmax(ranker(d+), ranker(d))_1 * log p(d), where p is the retriever's softmax. The first
    factor is far below 0 where d fools the ranker, and the loss then wants p(d) high. The ranker gets no gradient; it
    learns by ``listwise`` in a step of its own. It is the mean over queries; d+ is the first candidate.

    AR2 minimises it with weight lambda (0.5) beside the ranker's distillation with 1 - lambda, which is
    ``distillation``: the cross entropy of the paper and its divergence differ by the ranker's entropy, which has no
    gradient.

    Args:
        scored: a batch with the ranker's scores as the teacher.
        temperature: what the retriever's scores are divided by; AR2's are unbounded dot products.
    """
    ranker = scored.given("teacher").detach()
    fooled = functional.logsigmoid(ranker[:, :1] - ranker)
    shares = (scored.own / temperature).log_softmax(1)
    return (fooled * shares).masked_fill(scored.positives, 0).sum(1).mean()
