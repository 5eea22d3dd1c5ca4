"""One example of each query: a document that answers it and some that do not, chosen anew for each epoch."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import ConfigError
from training.examples.training_set import TrainingSet

_SLICE = 256  # queries whose texts are looked up at once


@dataclass(frozen=True, slots=True)
class Example:
    """A query and n documents, the first of which answers it.

    Attributes:
        query: its text.
        documents: n texts.
        labels: n judgements; 0 is a negative.
        scores: a teacher's for each document, or None.
        keys: n numbers, the same for the same text in whatever set it stands.
        relevant: the keys of all documents that answer the query, or another one of the same text, so that they are no
            negatives in a batch.
    """

    query: str
    documents: tuple[str, ...]
    labels: tuple[float, ...]
    scores: tuple[float, ...] | None
    keys: tuple[int, ...]
    relevant: tuple[int, ...]


def text_key(text: str) -> int:
    """A hash of 64 bits, signed."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def draw(data: TrainingSet, seed: int, epoch: int, negatives: int) -> Iterator[Example]:
    """An example of every query, in their order; the same for the same arguments.

    Each list is shuffled once by the seed, and every epoch takes the next positive and the next negatives of it, so
    that none comes again before all have come. Where it has fewer negatives than asked, others are drawn from the
    documents at random, never one that has the text of an answer; a list with a teacher's scores repeats its own
    instead, since theirs are not known.

    Args:
        data: the set.
        seed: of the order and of random documents.
        epoch: from 0.
        negatives: of each example.

    Raises:
        ConfigError: there is no document that does not answer a query, or none with a score.
    """
    twins = _twins(data)
    for lists in data.lists.iter_slices(_SLICE):
        drawings = [_drawing(data, twins, seed, epoch, negatives, *one) for one in lists.iter_rows()]
        queries = data.queries["text"].gather(lists["query"]).to_list()
        texts = _texts(data, {row for one in drawings for row in one.needed()})
        for query, one in zip(queries, drawings, strict=True):
            yield one.example(query, texts, data)


def _twins(data: TrainingSet) -> dict[int, list[int]]:
    """What answers the other queries of the same text, by the row of the query, where there are any."""
    rows = np.flatnonzero(data.queries["text"].is_duplicated())
    answers: dict[str, list[int]] = defaultdict(list)
    texts = data.queries["text"].gather(rows).to_list()
    lists = data.lists.select("documents", "labels").gather(rows).iter_rows() if len(rows) else ()
    for text, (documents, labels) in zip(texts, lists, strict=True):
        answers[text] += documents[: sum(label > 0 for label in labels)]
    return {row: answers[text] for row, text in zip(rows.tolist(), texts, strict=True)}


def _texts(data: TrainingSet, rows: Iterable[int]) -> dict[int, str]:
    wanted = np.fromiter(rows, dtype=np.uint32)
    return dict(zip(wanted.tolist(), data.documents["text"].gather(wanted).to_list(), strict=True))


@dataclass(frozen=True, slots=True)
class _Drawing:
    """What was chosen of a list, by row and place, before texts are looked up.

    Attributes:
        query: its row.
        rows, labels, scores: the list.
        n_answers: how many of its first documents answer the query.
        others: documents that answer a query of the same text.
        places: in the list, of what is in the example.
        lacking: random documents that the example needs beside those.
        spare: rows of random documents, more than are needed, since some may be answers.
        rng: for what the spare ones do not suffice for.
    """

    query: int
    rows: list[int]
    labels: list[float]
    scores: list[float] | None
    n_answers: int
    others: list[int]
    places: list[int]
    lacking: int
    spare: list[int]
    rng: np.random.Generator

    def needed(self) -> Iterator[int]:
        """Rows whose texts the example takes."""
        yield from self.rows[: self.n_answers]
        yield from self.others
        yield from (self.rows[place] for place in self.places)
        yield from self.spare

    def example(self, query: str, texts: Mapping[int, str], data: TrainingSet) -> Example:
        """The example, once the texts of all rows are known."""
        answers = {texts[row] for row in [*self.rows[: self.n_answers], *self.others]}
        drawn = [texts[self.rows[place]] for place in self.places]
        if self.lacking:
            drawn += self._others([texts[row] for row in self.spare], answers, drawn[1:], data)
        return Example(
            query=query,
            documents=tuple(drawn),
            labels=(*(self.labels[place] for place in self.places), *[0.0] * self.lacking),
            scores=None if self.scores is None else tuple(self.scores[place] for place in self.places),
            keys=tuple(map(text_key, drawn)),
            relevant=tuple(sorted(map(text_key, answers))),
        )

    def _others(self, spare: list[str], answers: set[str], drawn: list[str], data: TrainingSet) -> list[str]:
        """Texts that answer nothing here, different ones while there are."""
        barred = answers.union(drawn)
        found = [text for text in dict.fromkeys(spare) if text not in barred]
        if len(found) < self.lacking:  # a small collection, or one of many equal texts
            every = data.documents["text"].gather(self.rng.permutation(data.documents.height))
            found = [text for text in dict.fromkeys(every) if text not in barred]
        if not found + drawn:
            raise ConfigError(
                f"{data.name}: every document answers the query {data.queries['id'][self.query]!r}; nothing is left "
                "as a negative; train without negatives (negatives.per_query = 0)"
            )
        return list(islice(cycle(found + drawn), self.lacking))


def _drawing(
    data: TrainingSet,
    twins: Mapping[int, list[int]],
    seed: int,
    epoch: int,
    negatives: int,
    query: int,
    rows: list[int],
    labels: list[float],
    scores: list[float] | None,
) -> _Drawing:
    order = np.random.default_rng([seed, query])
    n_answers = sum(label > 0 for label in labels)
    places = _turn(order.permutation(n_answers), epoch, 1)
    places += _turn(n_answers + order.permutation(len(rows) - n_answers), epoch, negatives)
    if scores is not None:
        places = _repeated(places, negatives, data, query)
    lacking = negatives + 1 - len(places)
    rng = np.random.default_rng([seed, query, epoch + 1]) if lacking else order
    n_spare = min(lacking and lacking + n_answers + 2, data.documents.height)
    spare = rng.choice(data.documents.height, n_spare, replace=False).tolist()
    others = twins.get(query, [])
    return _Drawing(query, rows, labels, scores, n_answers, others, places, lacking, spare, rng)


def _turn(order: NDArray[np.int64], epoch: int, n: int) -> list[int]:
    """The next n of an order that starts again at its end; all of it where it is shorter."""
    n = min(n, len(order))
    return order.take(np.arange(epoch * n, epoch * n + n), mode="wrap").tolist() if n else []


def _repeated(places: list[int], negatives: int, data: TrainingSet, query: int) -> list[int]:
    """The places with their negatives over and over, until there are as many as asked."""
    if len(places) == 1 < negatives + 1:
        raise ConfigError(
            f"{data.name}: all scored documents of the query {data.queries['id'][query]!r} answer it; "
            "mine negatives before documents are scored (negatives.searcher)"
        )
    return [*places[:1], *islice(cycle(places[1:]), negatives)]
