"""What a loss sees of a batch: queries, their candidates, and how model and teacher score them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

Representation = tuple[Tensor, ...]
"""What the encoder made of M texts: one tensor (M, D) for dense and sparse models; (M, L, D) and a mask (M, L) for late
interaction; the tensors of M small networks for a Hypencoder's queries."""


@dataclass(frozen=True)
class Scored:
    """A batch of B queries with n candidates each, the first of which answers the query.

    Attributes:
        scores: (B, M) of every query against all M documents; M is B * n on one device. Those of query b are the n
            columns from ``(offset + b) * n``; where several devices gather their documents, M is W * B * n.
        n: candidates of a query.
        offset: queries of the devices before this one.
        labels: (B, n) judgements; 0 is a negative. None where the first candidate is the only one that answers.
        teacher: (B, n) the teacher's scores, or None.
        queries, documents: the representations of B and of this device's B * n texts, query by query.
        rivals: (B, M) bool, True where a document of another query must not count as a negative: it answers this
            query as well, or is the same text. None where there is none.
    """

    scores: Tensor
    n: int
    offset: int = 0
    labels: Tensor | None = None
    teacher: Tensor | None = None
    queries: Representation = ()
    documents: Representation = ()
    rivals: Tensor | None = None

    @cached_property
    def own(self) -> Tensor:
        """(B, n) scores of each query's own candidates."""
        return self.scores.gather(1, self.columns)

    @cached_property
    def columns(self) -> Tensor:
        """(B, n) int64: where a query's own candidates stand in ``scores``."""
        first = (self.offset + torch.arange(len(self.scores), device=self.scores.device)) * self.n
        return first[:, None] + torch.arange(self.n, device=self.scores.device)
