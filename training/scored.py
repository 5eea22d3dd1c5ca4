"""What a loss sees of a batch: queries, their candidates, and how model and teacher score them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from retrieval.errors import ConfigError

Representation = tuple[Tensor, ...]
"""What the encoder made of M texts: one tensor (M, D) for dense and sparse models; (M, L, D) and a mask (M, L) for late
interaction; the tensors of M small networks for a Hypencoder's queries."""

_MISSING = {
    "teacher": "a teacher's scores of every candidate: name a teacher under [[teachers]] or train on scored lists",
    "teacher_batch": "a teacher's scores of every document of the batch: name one under [[teachers]] that scores them",
    "domains": "the training set that each query is of: it trains on several, under [[data]]",
    "tokens": "the token ids of the documents: train a family that reads a document by itself",
    "idf": "a query weight for every term of the vocabulary: train a sparse model with inference-free queries",
}


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
        teacher_batch: (B, M) the teacher's scores of every query against all documents, in the order of ``scores``, or
            None.
        domains: (B,) int64, the number of the training set that each query and its candidates are of, or None.
        tokens: (B * n, L) int64 token ids of this device's documents and (B * n, L) bool, True where an id is a word
            (neither padding nor special); None where nothing asks for them.
        idf: (V,) the weight that every query gives a term, where queries are read without a model, or None.
        progress: share of the training that is done, from 0 to 1.
    """

    scores: Tensor
    n: int
    offset: int = 0
    labels: Tensor | None = None
    teacher: Tensor | None = None
    queries: Representation = ()
    documents: Representation = ()
    rivals: Tensor | None = None
    teacher_batch: Tensor | None = None
    domains: Tensor | None = None
    tokens: tuple[Tensor, Tensor] | None = None
    idf: Tensor | None = None
    progress: float = 1.0

    @cached_property
    def own(self) -> Tensor:
        """(B, n) scores of each query's own candidates."""
        return self.scores.gather(1, self.columns)

    @cached_property
    def columns(self) -> Tensor:
        """(B, n) int64: where a query's own candidates stand in ``scores``."""
        first = (self.offset + torch.arange(len(self.scores), device=self.scores.device)) * self.n
        return first[:, None] + torch.arange(self.n, device=self.scores.device)

    @cached_property
    def gains(self) -> Tensor:
        """(B, n) how well each own candidate answers: its label; the first has 1 where no label is above 0."""
        if self.labels is None:
            gains = self.own.new_zeros(self.own.shape)
        else:
            gains = self.labels.to(self.own).clamp(min=0)
        first = torch.where(gains.any(1), gains[:, 0], 1)
        return torch.cat([first[:, None], gains[:, 1:]], 1)

    @cached_property
    def positives(self) -> Tensor:
        """(B, n) bool: which own candidates answer the query; at least one of each."""
        return self.gains > 0

    def given(self, name: Literal["teacher", "teacher_batch", "domains", "tokens", "idf"]) -> Any:
        """An attribute that not every batch has.

        Raises:
            ConfigError: this batch has none.
        """
        value = getattr(self, name)
        if value is None:
            raise ConfigError(f"this loss needs {_MISSING[name]}")
        return value

    def vectors(self, side: Literal["queries", "documents"]) -> Tensor:
        """(B, D) or (B * n, D) the representations of a model that makes one vector of a text, at least in float32.

        Raises:
            ConfigError: this model makes something else.
        """
        representation = getattr(self, side)
        if len(representation) != 1 or representation[0].ndim != 2:
            raise ConfigError(
                f"this loss needs one vector for each of the {side}, as families dense and sparse make"
            )
        return wide(representation[0])

    def widened(self) -> Scored:
        """The same batch with its scores at least in float32."""
        return replace(
            self,
            scores=wide(self.scores),
            teacher=None if self.teacher is None else wide(self.teacher),
            teacher_batch=None if self.teacher_batch is None else wide(self.teacher_batch),
        )


def wide(tensor: Tensor) -> Tensor:
    """A tensor of half precision in float32, any other as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
