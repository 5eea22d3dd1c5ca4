"""The documents of a whole batch as one another's negatives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from training.losses.options import Positive
from training.scored import Scored
from training.trainer.gathering import gather


def ranking(scored: Scored, *, temperature: Positive = 0.05, symmetric: bool = False) -> Tensor:
    """In-batch softmax: -log of the share of a document that answers among itself and all that do not.

    Henderson et al., "Efficient Natural Language Response Suggestion for Smart Reply", 2017, arXiv:1705.00652;
    InfoNCE of van den Oord et al., 2018, arXiv:1807.03748. The negatives of a query are all documents of the batch
    but those of its own list that answer it and its rivals. Where several of its list answer, the loss is the mean
    over these, none of which counts as a negative of another.

    Args:
        scored: a batch; scores against the documents of all devices where there are several.
        temperature: what scores are divided by; 0.05 (a scale of 20) suits cosines, 1 unbounded dot products.
        symmetric: whether each document must find its query among all queries as well (Günther et al., 2023,
            arXiv:2310.19923); the loss is then the mean of both directions.
    """
    logits = scored.scores / temperature
    own, positives = logits.gather(1, scored.columns), scored.positives
    excluded = torch.zeros_like(logits, dtype=torch.bool).scatter(1, scored.columns, positives)
    if scored.rivals is not None:
        excluded = excluded | scored.rivals
    negatives = _without(logits, excluded).logsumexp(1, keepdim=True)
    loss = _mean(-functional.logsigmoid(own - negatives), positives)
    return (loss + _reverse(scored, logits)) / 2 if symmetric else loss


def _reverse(scored: Scored, logits: Tensor) -> Tensor:
    """The cross entropy of each query among all queries, from the documents that answer it."""
    columns = scored.columns.flatten()
    by_document = gather(logits)[:, columns].T  # (B * n, queries of all devices)
    if scored.rivals is not None:
        by_document = _without(by_document, gather(scored.rivals.to(torch.uint8))[:, columns].T.bool())
    rows = (scored.columns // scored.n).flatten()
    each = functional.cross_entropy(by_document, rows, reduction="none")
    return _mean(each.view_as(scored.columns), scored.positives)


def _without(logits: Tensor, excluded: Tensor) -> Tensor:
    """Logits of which some have no share of a softmax: the least number, since -inf alone in a row would give NaN."""
    return logits.masked_fill(excluded, torch.finfo(logits.dtype).min)


def _mean(each: Tensor, positives: Tensor) -> Tensor:
    """The mean over queries of the mean over those of their candidates that answer."""
    share = positives.to(each.dtype)
    return ((each * share).sum(1) / share.sum(1)).mean()
