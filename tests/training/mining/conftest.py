"""Small training sets, and a listener of progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl
import pytest

from training.examples.training_set import LISTS, TrainingSet

DOCUMENTS = (
    "river mountain search engine",
    "the cat and the dog in the river of a mountain",
    "fast red fish, slow green bird",
    "index vector",
    "alpha beta gamma delta old new vector query document",
    "river river river",
    "index vector",  # the text of d3
    "slow old dog",
    "cat",
    "blue bird in a green river",
    "search the index",
    "mountain mountain engine",
)
QUERIES = ("river mountain", "old dog", "vector index", "green bird", "the search engine")
ANSWERS = {0: [0], 1: [7], 2: [3], 3: [2, 9], 4: [10]}


@dataclass
class Heard:
    """What a task has reported."""

    stages: list[tuple[str, int | None, str]] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def start(self, stage: str, total: int | None, unit: str) -> None:
        self.stages.append((stage, total, unit))
        self.done.append(0)

    def expect(self, total: int) -> None:
        pass

    def advance(self, amount: int) -> None:
        self.done[-1] += amount

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def make_set() -> Callable[..., TrainingSet]:
    """A function that makes a training set; by default of a dozen documents and five queries."""
    return _make_set


def _make_set(
    documents: Sequence[str] = DOCUMENTS,
    queries: Sequence[str] = QUERIES,
    answers: Mapping[int, Sequence[int]] = ANSWERS,
    others: Mapping[int, Sequence[int]] | None = None,
    scores: Sequence[Sequence[float] | None] | None = None,
    name: str = "little",
) -> TrainingSet:
    """A set; ``answers`` and ``others`` are rows of documents by row of a query."""
    others = others or {}
    rows = [[*answers[query], *others.get(query, ())] for query in range(len(queries))]
    labels = [
        [1.0] * len(answers[query]) + [0.0] * len(others.get(query, ())) for query in range(len(queries))
    ]
    return TrainingSet(
        name,
        pl.DataFrame({"id": [f"q{row}" for row in range(len(queries))], "text": list(queries)}),
        pl.DataFrame({"id": [f"d{row}" for row in range(len(documents))], "text": list(documents)}),
        pl.DataFrame(
            {
                "query": range(len(queries)),
                "documents": rows,
                "labels": labels,
                "scores": scores or [None] * len(queries),
            },
            schema=LISTS,
        ),
    )
