"""Training sets for the training benchmarks: pairs of generated texts, as long as real ones.

Documents follow ``corpora.Corpus`` in length, topics and repetition. Its common terms are the whole words of the
default model's vocabulary, its rare ones such a word with a number behind it, which a tokenizer takes apart; so a word
is some 1.3 word pieces, as in English. A query is made of words of its document.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.corpora import Corpus
from retrieval.encoders.transformer.location import locate
from training.examples.reading import limited, read_training_set
from training.examples.training_set import LISTS, TEXTS, TrainingSet

QUERY_WORDS = 10
"""Of a generated query, on average."""


@dataclass(frozen=True)
class Pairs:
    """Generated pairs; the same for the same values.

    Attributes:
        median_words: of a document.
        spread: standard deviation of the logarithm of its length.
        seed: of everything.
    """

    median_words: float
    spread: float = 0.4
    seed: int = 0

    def training_set(self, n: int) -> TrainingSet:
        """n queries, each with the one document that answers it."""
        rng = np.random.default_rng([self.seed, 6])
        queries, documents = [], []
        for tokens, indptr in Corpus(self.seed, self.median_words, self.spread).documents(n):
            for start, stop in pairwise(indptr):
                terms = tokens[start:stop]
                asked = rng.choice(terms, min(len(terms), 3 + rng.poisson(QUERY_WORDS - 3)), replace=False)
                queries.append(self._text(asked))
                documents.append(self._text(terms))
        return paired(f"generated-{n}", queries, documents)

    def _text(self, terms: NDArray[np.int32]) -> str:
        numbers, words = np.divmod(terms, len(self._words))
        pairs = zip(words.tolist(), numbers.tolist(), strict=True)
        return " ".join(f"{self._words[word]}{number or ''}" for word, number in pairs)

    @cached_property
    def _words(self) -> list[str]:
        """The whole words of the vocabulary, which come by descending frequency."""
        lines = (locate("default") / "vocab.txt").read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line.isascii() and line.isalpha() and len(line) > 1]


def paired(name: str, queries: list[str], documents: list[str]) -> TrainingSet:
    """A training set whose i-th document answers its i-th query, and nothing else is judged."""
    rows = range(len(queries))
    lists = pl.DataFrame(
        {
            "query": rows,
            "documents": [[row] for row in rows],
            "labels": [[1.0] for _ in rows],
            "scores": [None for _ in rows],
        },
        schema=LISTS,
    )
    return TrainingSet(name, _texts("q", queries), _texts("d", documents), lists)


def _texts(prefix: str, texts: list[str]) -> pl.DataFrame:
    return pl.DataFrame({"id": [f"{prefix}{row}" for row in range(len(texts))], "text": texts}, schema=TEXTS)


def training_pairs(n: int, made: Pairs, source: Path | None) -> TrainingSet:
    """Generated pairs, or as many queries of a training set on disk."""
    return made.training_set(n) if source is None else limited(read_training_set(source), n, 0)
