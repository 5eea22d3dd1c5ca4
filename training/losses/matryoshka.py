"""Losses of the prefixes of dense vectors, so that a vector can be cut short."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from retrieval.errors import ConfigError
from training.scored import Scored
from training.trainer.gathering import gather


def with_prefixes(loss: Callable[[Scored], Tensor], scored: Scored, widths: Sequence[int]) -> Tensor:
    """The loss of whole vectors plus that of each prefix.

    Kusupati et al., "Matryoshka Representation Learning", NeurIPS 2022, arXiv:2205.13147, with equal weights, as in
    sentence-transformers.

    Args:
        loss: of a batch.
        scored: a batch of a dense model that scores by cosine.
        widths: of prefixes, each shorter than the vectors.

    Raises:
        ConfigError: a width is not shorter than the vectors, or the model makes something else than vectors.
    """
    total = loss(scored)
    for width in widths:
        total = total + loss(prefix(scored, width))
    return total


def prefix(scored: Scored, width: int) -> Scored:
    """The batch as the first dimensions of its vectors see it: cut, brought to unit length and scored by cosine.

    What a teacher says stays. Documents are gathered where there are several devices.

    Raises:
        ConfigError: the width is not shorter than the vectors, or the model makes something else than vectors.
    """
    queries, documents = scored.vectors("queries"), scored.vectors("documents")
    if not 0 < width < queries.shape[1]:
        raise ConfigError(
            f"matryoshka = {width} is not the width of a prefix of vectors of {queries.shape[1]} dimensions"
        )
    with torch.autocast(queries.device.type, enabled=False):
        queries, documents = (functional.normalize(each[:, :width]) for each in (queries, documents))
        scores = queries @ gather(documents).T
    return replace(scored, scores=scores, queries=(queries,), documents=(documents,))
