"""Documents that do not answer a query but look as if they did: mined by a searcher, then judged by a teacher."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from indexing.progress import Progress
from retrieval.errors import ConfigError
from training.examples.training_set import LISTS, TrainingSet
from training.mining.searchers import Search
from training.recipe.options import NegativeOptions


def mine(
    data: TrainingSet, search: Search, options: NegativeOptions, seed: int, progress: Progress
) -> TrainingSet:
    """Give every query the negatives that a searcher finds.

    A negative is never judged relevant to the query, nor to another query of the same text, nor has it the text of a
    document that is; of documents with one text the best is taken. Ranks count what is left then. A list keeps its
    judged documents and has all of the window behind them, best first: which of them an example gets is decided when
    it is drawn. A list with fewer than ``per_query`` negatives is filled with random ones.

    Negatives of BM25 as in Karpukhin et al., "Dense passage retrieval", EMNLP 2020, arXiv:2004.04906; of the model in
    training, where this is called again during training, as in Xiong et al., "ANCE", ICLR 2021, arXiv:2007.00808. A
    window that starts late leaves out the ranks where most documents are that answer and are not judged.
    ``options.margin`` is for ``without_likely_answers``, since it takes a teacher's scores.

    Args:
        data: the set; a teacher's scores in it are dropped, since the new documents have none.
        search: over the set's documents, by ``open_search`` (``bm25``, ``dense``, ``sparse``, ``late``, several joined
            by "+", ``hybrid``, the folder of a collection, or ``model``); called once, with all queries.
        options: ``first``, ``last`` and ``per_query``.
        seed: of the random documents.
        progress: hears how many queries were given random documents.

    Raises:
        ConfigError: impossible ranks or ``per_query``, or a query that every document answers.
    """
    _check(options)
    candidates = _Candidates.of(data, seed)
    depth = min(data.documents.height, options.last + candidates.most_relevant)
    found = search(data.queries["text"].to_list(), depth).rows
    lists = _Lists()
    for query, judged, labels, _ in data.lists.iter_rows():
        window = candidates.new(query, found[query].tolist())[options.first - 1 : options.last]
        mined = candidates.new(query, window, judged)
        lacking = options.per_query - len(mined) - sum(label <= 0 for label in labels)
        others = candidates.random(query, [*judged, *mined], lacking)
        n_new = len(mined) + len(others)
        lists.add([*judged, *mined, *others], [*labels, *[0.0] * n_new], None, filled=bool(others))
    lists.tell(data.name, progress)
    return lists.of(data)


def without_likely_answers(
    data: TrainingSet, options: NegativeOptions, seed: int, progress: Progress
) -> TrainingSet:
    """Leave out negatives that a teacher scores nearly as high as what answers the query.

    Positive-aware mining (Moreira et al., "NV-Retriever", 2024, arXiv:2407.15831, TopK-PercPos): negatives stay whose
    score is at most ``margin`` times the positive's. With a cross-encoder as the teacher it is the denoising of Qu et
    al., "RocketQA", NAACL 2021, arXiv:2010.08191. Two things differ. With several positives the mean of their scores
    counts. The limit is s - (1 - margin) |s|, which is the same for a score s of at least 0, and below s for logits
    that are negative too.

    A list that is left with fewer than ``per_query`` negatives is filled with random ones and loses its scores: ask the
    teacher again, who scores no pair twice.

    Args:
        data: with scores.
        options: ``margin`` and ``per_query``; without a margin the set is returned as it is.
        seed: of the random documents.
        progress: hears how many negatives were left out and how many queries were given random documents.

    Raises:
        ConfigError: a query without scores, an impossible margin or ``per_query``, or a query that every document
            answers.
    """
    if options.margin is None:
        return data
    _check(options)
    candidates = _Candidates.of(data, seed)
    lists = _Lists()
    n_left_out = 0
    for query, rows, labels, scores in data.lists.iter_rows():
        if scores is None:
            raise ConfigError(
                f"negatives.margin needs a teacher's scores, and the query {data.queries['id'][query]!r} of "
                f"{data.name!r} has none; name a teacher in [[teachers]] or leave the margin out"
            )
        kept = _below(labels, scores, options.margin)
        n_left_out += len(rows) - len(kept)
        n_negatives = sum(labels[place] <= 0 for place in kept)
        others = candidates.random(query, rows, options.per_query - n_negatives)
        lists.add(
            [*(rows[place] for place in kept), *others],
            [*(labels[place] for place in kept), *[0.0] * len(others)],
            None if others else [scores[place] for place in kept],
            filled=bool(others),
        )
    progress.note(
        f"{data.name}: {n_left_out:,} negatives left out that score above {options.margin:g} of the positive"
    )
    lists.tell(data.name, progress)
    return lists.of(data)


def _below(labels: Sequence[float], scores: Sequence[float], margin: float) -> list[int]:
    """Places of the positives and of the negatives within the margin."""
    positive = float(np.mean([score for label, score in zip(labels, scores, strict=True) if label > 0]))
    limit = positive - (1.0 - margin) * abs(positive)
    return [
        place
        for place, (label, score) in enumerate(zip(labels, scores, strict=True))
        if label > 0 or score <= limit
    ]


@dataclass(frozen=True)
class _Candidates:
    """Which documents may be a query's negatives.

    Attributes:
        data: the set.
        twins: (M,) the first document that has the text of each.
        distinct: the documents that are first with their text.
        relevant: for each query, the twins of what answers it or another query of the same text.
        rng: of random documents.
    """

    data: TrainingSet
    twins: list[int]
    distinct: NDArray[np.int64]
    relevant: list[set[int]]
    rng: np.random.Generator

    @classmethod
    def of(cls, data: TrainingSet, seed: int) -> _Candidates:
        twins = data.documents.with_row_index().select(pl.first("index").over("text")).to_series().to_list()
        answers: defaultdict[str, set[int]] = defaultdict(set)
        texts = data.queries["text"].to_list()
        for query, rows, labels, _ in data.lists.iter_rows():
            answers[texts[query]] |= {
                twins[row] for row, label in zip(rows, labels, strict=True) if label > 0
            }
        relevant = [answers[text] for text in texts]
        return cls(data, twins, np.unique(twins), relevant, np.random.default_rng(seed))

    @property
    def most_relevant(self) -> int:
        """Documents that are relevant to one query, at most."""
        return max(map(len, self.relevant), default=0)

    def new(self, query: int, rows: Iterable[int], known: Iterable[int] = ()) -> list[int]:
        """The rows that do not answer the query and whose text is neither that of a known row nor repeated; no -1."""
        seen = self.relevant[query] | {self.twins[row] for row in known}
        kept = []
        for row in rows:
            if row >= 0 and self.twins[row] not in seen:
                seen.add(self.twins[row])
                kept.append(row)
        return kept

    def random(self, query: int, known: Sequence[int], n: int) -> list[int]:
        """So many others at random, or as many as there are; none for n below 1.

        Raises:
            ConfigError: the query would have no negative at all, since every document is relevant.
        """
        if n < 1:
            return []
        tried = min(len(self.distinct), n + len(known) + len(self.relevant[query]))
        rows = self.rng.choice(self.distinct, tried, replace=False).tolist()
        found = self.new(query, rows, known)[:n]
        if not found and len(self.distinct) <= len(self.relevant[query]):
            raise ConfigError(
                f"every document of {self.data.name!r} answers the query "
                f"{self.data.queries['id'][query]!r}; train without negatives (negatives.per_query = 0)"
            )
        return found


@dataclass
class _Lists:
    """The lists of a set in the making, query by query."""

    documents: list[list[int]] = field(default_factory=list)
    labels: list[list[float]] = field(default_factory=list)
    scores: list[list[float] | None] = field(default_factory=list)
    n_filled: int = 0

    def add(
        self, documents: list[int], labels: list[float], scores: list[float] | None, *, filled: bool
    ) -> None:
        """The list of the next query; ``filled`` where it has random documents."""
        self.documents.append(documents)
        self.labels.append(labels)
        self.scores.append(scores)
        self.n_filled += filled

    def tell(self, name: str, progress: Progress) -> None:
        """Say how many lists have random documents."""
        if self.n_filled:
            progress.note(
                f"{name}: {self.n_filled:,} of {len(self.documents):,} queries lacked negatives and were given random "
                "documents"
            )

    def of(self, data: TrainingSet) -> TrainingSet:
        """The set with these lists."""
        columns = {"documents": self.documents, "labels": self.labels, "scores": self.scores}
        lists = pl.DataFrame({"query": range(len(self.documents)), **columns}, schema=LISTS)
        return replace(data, lists=lists)


def _check(options: NegativeOptions) -> None:
    """Raises ConfigError: a value that cannot be."""
    if not 1 <= options.first <= options.last:
        raise ConfigError(
            f"negatives.first is {options.first} and negatives.last is {options.last}; "
            "ranks count from 1, and the first is at most the last"
        )
    if options.per_query < 0:
        raise ConfigError(f"negatives.per_query is {options.per_query}; it is at least 0")
    if options.margin is not None and not 0 < options.margin <= 1:
        raise ConfigError(f"negatives.margin is {options.margin:g}; it is a share above 0 and at most 1")
