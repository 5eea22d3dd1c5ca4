"""What is minimised: a weighted sum of losses of a batch, for any family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from training.auxiliaries.table import AUXILIARIES, Sizes, open_auxiliary
from training.families.family import Family, Features, Task
from training.losses.matryoshka import with_prefixes
from training.losses.table import open_loss
from training.recipe.options import LossOptions
from training.scored import Representation, Scored
from training.splade.query_table import query_weights
from training.trainer.gathering import gather, gather_documents, queries_before
from training.trainer.gradcache import cached_loss

BatchTeacher = Callable[[Mapping[str, Any]], Tensor]
"""From a batch to (B, B * n) scores of all its documents for all its queries, on this device."""


@dataclass(frozen=True)
class Term:
    """A loss in the sum.

    Attributes:
        name: in logs, unique.
        loss: of a batch; one with parameters is a module.
        options: its weight and what is taken of the prefixes.
    """

    name: str
    loss: Callable[[Scored], Tensor]
    options: LossOptions

    def weight(self, progress: float) -> float:
        """The weight when that share of the training is done: it rises quadratically (SPLADE, arXiv:2107.05720)."""
        risen = min(1.0, progress / self.options.warmup) ** 2 if self.options.warmup else 1.0
        return self.options.weight * risen

    def __call__(self, scored: Scored) -> Tensor:
        """The loss, unweighted."""
        if self.options.matryoshka:
            return with_prefixes(self.loss, scored, self.options.matryoshka)
        return self.loss(scored)


def open_terms(losses: Sequence[LossOptions], sizes: Sizes) -> list[Term]:
    """The terms that a recipe names.

    Raises:
        ConfigError: no such loss or option.
    """
    terms: list[Term] = []
    for options in losses:
        if options.name in AUXILIARIES:
            loss: Callable[[Scored], Tensor] = open_auxiliary(options.name, sizes, options.options)
        else:
            loss = open_loss(options.name, options.options)
        same = sum(term.options.name == options.name for term in terms)
        terms.append(Term(f"{options.name}-{same + 1}" if same else options.name, loss, options))
    return terms


class Objective(nn.Module):
    """Represents the texts of a batch, scores them and adds up the losses.

    Attributes:
        model: of the family.
        progress: share of the training that is done; whoever runs it sets it.
    """

    def __init__(
        self,
        model: Any,
        family: Family,
        terms: Sequence[Term],
        *,
        chunk: int = 0,
        teacher: BatchTeacher | None = None,
    ) -> None:
        """Put it together.

        Args:
            model: of the family.
            family: knows how to represent and to score.
            terms: the losses.
            chunk: texts that are encoded at once with GradCache; 0 encodes the batch at once.
            teacher: scores batches, where a loss asks for that.
        """
        super().__init__()
        self.model = model
        self.family = family
        self.terms = list(terms)
        self.auxiliaries = nn.ModuleList(term.loss for term in terms if isinstance(term.loss, nn.Module))
        self.chunk = chunk
        self.teacher = teacher
        self.progress = 0.0
        self._tables = (query_weights(model),)  # in a tuple, so that it is no parameter of this module
        self._special = torch.tensor(getattr(model.tokenizer, "all_special_ids", []), dtype=torch.long)

    def forward(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and each term without its weight by its name.

        Args:
            batch: as ``training.trainer.batches.Reader`` makes it.
        """
        calculate = partial(self._calculate, batch)
        if self.chunk and torch.is_grad_enabled():
            return cached_loss(self.model, self.family, batch["features"], self.chunk, calculate)
        return calculate(
            {
                task: self.family.represent(self.model, features, task)
                for task, features in batch["features"].items()
            }
        )

    def _calculate(
        self, batch: Mapping[str, Any], found: Mapping[Task, Representation]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        scored = self._pairs(batch, found) if self.family.joint else self._scored(batch, found)
        parts = {term.name: term(scored) for term in self.terms}
        weights = {term.name: term.weight(self.progress) for term in self.terms}
        total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        return total, {name: part.detach() for name, part in parts.items()}

    def _scored(self, batch: Mapping[str, Any], found: Mapping[Task, Representation]) -> Scored:
        """A batch whose documents are compared with every query."""
        queries, documents = found["query"], found["document"]
        scores = self.family.score(queries, gather_documents(documents))
        labels = batch["labels"]
        scored = Scored(
            scores,
            n=labels.shape[1],
            offset=queries_before(len(scores)),
            labels=labels,
            teacher=batch.get("scores"),
            queries=queries,
            documents=documents,
            teacher_batch=None if self.teacher is None else self.teacher(batch),
            domains=batch["domains"],
            tokens=self._tokens(batch["features"]["document"]) if len(self.auxiliaries) else None,
            idf=self._tables[0],
            progress=self.progress,
        )
        return replace(scored, rivals=rivals(scored, gather(batch["keys"]).flatten(), batch["relevant"]))

    def _pairs(self, batch: Mapping[str, Any], found: Mapping[Task, Representation]) -> Scored:
        """A batch whose documents were read together with one query each: no other query is compared with them."""
        labels = batch["labels"]
        own = found["document"][0].view(labels.shape)
        scored = Scored(
            own.new_zeros(len(own), own.numel()),
            n=labels.shape[1],
            labels=labels,
            teacher=batch.get("scores"),
            domains=batch["domains"],
            progress=self.progress,
        )
        foreign = torch.ones_like(scored.scores, dtype=torch.bool).scatter(1, scored.columns, False)
        return replace(scored, scores=scored.scores.scatter(1, scored.columns, own), rivals=foreign)

    def _tokens(self, features: Features) -> tuple[Tensor, Tensor] | None:
        """Ids, and which of them are words."""
        if "input_ids" not in features:
            return None
        ids = features["input_ids"]
        return ids, features["attention_mask"].bool() & ~torch.isin(ids, self._special.to(ids.device))


def rivals(scored: Scored, keys: Tensor, relevant: Tensor) -> Tensor:
    """(B, M) which documents of other queries have the text of one that answers a query.

    Args:
        scored: B queries against M documents.
        keys: (M,) of the documents' texts.
        relevant: (B, R) keys of what answers each query.
    """
    answers = relevant.sort(1).values
    asked = keys.expand(len(answers), -1).contiguous()
    places = torch.searchsorted(answers, asked).clamp(max=answers.shape[1] - 1)
    return (answers.gather(1, places) == asked).scatter(1, scored.columns, False)
