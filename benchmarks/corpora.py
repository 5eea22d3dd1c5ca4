"""Generated corpora for benchmarks: one seeded recipe, the same documents however many are asked for.

Terms follow a Zipf-Mandelbrot law (Mandelbrot 1953) over VOCABULARY ranks with the head cut off, as after a stop
list; 40% of a document's tokens come from its topic, a Zipf law over TOPIC_TERMS terms of its own; a token
repeats an earlier one of its document with probability 0.15 (burstiness); lengths are log-normal. Queries are terms of
documents. Blocks of 10,000 documents are generated independently, so a smaller corpus is the beginning of a larger
one.

    ids = Corpus(seed=0).documents(1_000_000)        # iterator of (tokens, indptr)
    texts = Corpus(seed=0).texts(1_000)              # iterator of str
    queries = Corpus(seed=0).queries(500, 1_000_000) # list of token id lists
    vectors = vectors(100_000, 384, seed=0)          # clustered unit vectors
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.values import Sparse, Strings, Terms

BLOCK = 10_000
VOCABULARY = 400_000
TOPICS = 500
TOPIC_TERMS = 1_500
_CONSONANTS = "bdfghjklmnprtvz"
_SYLLABLES = [consonant + vowel for consonant in _CONSONANTS for vowel in "aeiou"]


def word(number: int) -> str:
    """A made-up word, one for each number; ends in "k", so that no stemmer touches it."""
    out = ""
    number += len(_SYLLABLES)  # at least two syllables
    while number:
        number, syllable = divmod(number, len(_SYLLABLES))
        out += _SYLLABLES[syllable]
    return out + "k"


def _zipf(n: int, exponent: float, shift: float) -> NDArray[np.float64]:
    """Cumulative probabilities of ranks 0 .. n-1 under the Zipf-Mandelbrot law."""
    weights = 1.0 / (np.arange(1, n + 1) + shift) ** exponent
    return np.cumsum(weights) / weights.sum()


@dataclass(frozen=True)
class Corpus:
    """A corpus without end; every method is a pure function of the seed and its arguments."""

    seed: int = 0
    median_length: float = 50.0
    spread: float = 0.55

    @cached_property
    def _general(self) -> NDArray[np.float64]:
        return _zipf(VOCABULARY, 1.05, 25.0)

    @cached_property
    def _topical(self) -> NDArray[np.float64]:
        return _zipf(TOPIC_TERMS, 0.9, 5.0)

    @cached_property
    def _topics(self) -> NDArray[np.int64]:
        """(TOPICS, TOPIC_TERMS) terms of each topic, rarely the commonest ones."""
        rng = np.random.default_rng([self.seed, 1])
        spread = np.exp(rng.uniform(np.log(200), np.log(VOCABULARY), size=(TOPICS, TOPIC_TERMS)))
        return spread.astype(np.int64) - 1

    def _block(self, block: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        rng = np.random.default_rng([self.seed, 2, block])
        lengths = np.exp(rng.normal(np.log(self.median_length), self.spread, BLOCK)).astype(np.int64)
        lengths = lengths.clip(1, 2_000)
        indptr = np.zeros(BLOCK + 1, dtype=np.int64)
        np.cumsum(lengths, out=indptr[1:])
        n = int(indptr[-1])
        tokens = np.searchsorted(self._general, rng.random(n))
        topic = np.repeat(np.searchsorted(_zipf(TOPICS, 0.6, 3.0), rng.random(BLOCK)), lengths)
        topical = np.flatnonzero(rng.random(n) < 0.4)
        ranks = np.searchsorted(self._topical, rng.random(len(topical)))
        tokens[topical] = self._topics[topic[topical], ranks]
        starts = np.repeat(indptr[:-1], lengths)
        again = np.flatnonzero((rng.random(n) < 0.15) & (np.arange(n) > starts))
        earlier = starts[again] + (rng.random(len(again)) * (again - starts[again])).astype(np.int64)
        tokens[again] = tokens[earlier]
        return tokens.astype(np.int32), indptr

    def documents(self, n: int) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int64]]]:
        """Token ids of n documents, a block at a time: tokens, and (rows + 1,) where each row starts."""
        for block in range((n + BLOCK - 1) // BLOCK):
            tokens, indptr = self._block(block)
            rows = min(BLOCK, n - block * BLOCK)
            yield tokens[: indptr[rows]], indptr[: rows + 1]

    def texts(self, n: int) -> Iterator[str]:
        """The same documents as text."""
        words: dict[int, str] = {}
        for tokens, indptr in self.documents(n):
            for start, stop in itertools.pairwise(indptr):
                yield " ".join(words.setdefault(t, word(t)) for t in tokens[start:stop].tolist())

    def queries(self, n: int, n_documents: int) -> list[list[int]]:
        """n queries of two to about twelve distinct terms, each from one of the first n_documents documents."""
        rng = np.random.default_rng([self.seed, 3])
        blocks = (n_documents + BLOCK - 1) // BLOCK
        queries: list[list[int]] = []
        while len(queries) < n:
            tokens, indptr = self._block(int(rng.integers(blocks)))
            for row in rng.integers(min(BLOCK, n_documents), size=min(50, n - len(queries))):
                distinct = np.unique(tokens[indptr[row] : indptr[row + 1]])
                size = min(len(distinct), 2 + int(rng.poisson(4.0)))
                queries.append(rng.choice(distinct, size=size, replace=False).tolist())
        return queries

    def vocabulary(self) -> Strings:
        """The words of all token ids."""
        return Strings.of(word(number) for number in range(VOCABULARY))


def terms_of(tokens: NDArray[np.int32], indptr: NDArray[np.int64], vocabulary: Strings) -> Terms:
    """Term frequencies of documents given as token ids."""
    n, size = len(indptr) - 1, len(vocabulary)
    lengths = np.diff(indptr)
    keys = np.repeat(np.arange(n), lengths) * size + tokens
    keys.sort()
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    rows, indices = np.divmod(keys[first], size)
    bounds = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=n), out=bounds[1:])
    return Terms(
        bounds,
        indices.astype(np.int32),
        np.diff(first, append=len(keys)).astype(np.int32),
        lengths.astype(np.int32).reshape(-1, 1),
        vocabulary,
        np.zeros(size, dtype=np.uint8),
    )


def vectors(n: int, dim: int, seed: int = 0, clusters: int = 1_000) -> NDArray[np.float32]:
    """(n, dim) unit vectors around Zipf-sized clusters, with the falling spectrum of real embeddings."""
    rng = np.random.default_rng([seed, 4])
    spectrum = (np.arange(1, dim + 1) ** -0.5).astype(np.float32)
    centres = rng.standard_normal((clusters, dim), dtype=np.float32) * spectrum
    out = np.empty((n, dim), dtype=np.float32)
    sizes = _zipf(clusters, 0.7, 5.0)
    for block, start in enumerate(range(0, n, BLOCK)):
        part = np.random.default_rng([seed, 5, block])
        rows = out[start : start + BLOCK]
        chosen = np.searchsorted(sizes, part.random(BLOCK))[: len(rows)]
        noise = part.standard_normal((BLOCK, dim), dtype=np.float32)[: len(rows)]
        rows[:] = centres[chosen] + 0.7 * noise * spectrum
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return out


@dataclass(frozen=True)
class SparseCorpus:
    """Learned-sparse vectors without end, with the lists, weights and topics of a real SPLADE index.

    A document belongs to one of ``topics`` topics of 250 terms each and draws ``draws`` terms: 60% of its topic (15% of
    those of a second topic), 25% of its theme of 1,200 terms, of which there are 60 with Zipf-sized shares, the rest of
    the whole vocabulary by a Zipf-Mandelbrot law. Weights follow beta laws; a topic has weights of its own for its
    terms, which its documents share up to some noise, as texts on one subject do. A query is made of 8% terms of one
    document, 70% of that document's topic and the rest common ones of low weight, as expansion adds them.

    The constants were matched to the vectors that a SPLADE head makes of SciFact and NFCorpus; the table is in
    docs/benchmarks.md. There are to be 9 sqrt(n) topics (``of_size``): larger collections repeat themselves more, and
    with a number of topics that grows as the square root the share of blocks that pass their bounds is that of real
    vectors at 8,816 and at 36,193 documents.
    """

    seed: int = 0
    draws: float = 130.0
    terms: int = 34
    vocabulary: int = 30_522
    used: int = 28_000
    themes: int = 60
    topics: int = 850

    @classmethod
    def of_size(cls, n: int, seed: int = 0) -> SparseCorpus:
        """The corpus to take n documents of."""
        return cls(seed, topics=max(10, round(9 * n**0.5)))

    @cached_property
    def _law(self) -> NDArray[np.float64]:
        return _zipf(self.used, 0.95, 40.0)

    @cached_property
    def _within_topic(self) -> NDArray[np.float64]:
        return _zipf(250, 0.7, 10.0)

    @cached_property
    def _tables(self) -> dict[str, NDArray[Any]]:
        rng, shape = np.random.default_rng([self.seed, 1]), (self.topics, 250)
        theme_of = np.searchsorted(_zipf(self.themes, 0.5, 3.0), rng.random(self.topics))
        theme_terms = np.searchsorted(self._law, rng.random((self.themes, 1_200)))
        of_theme = theme_terms[theme_of][np.arange(self.topics)[:, None], rng.integers(0, 1_200, shape)]
        anywhere = np.searchsorted(_zipf(self.used, 0.4, 200.0), rng.random(shape))
        falling = np.sort(rng.beta(0.75, 2.0, shape), axis=1)[:, ::-1]
        return {
            "theme_of": theme_of,
            "theme_terms": theme_terms,
            "topic_terms": np.where(rng.random(shape) < 0.5, of_theme, anywhere),
            "topic_weights": 0.85 * falling + 0.15 * rng.beta(0.75, 2.0, shape),
            "names": rng.permutation(self.vocabulary)[: self.used],
        }

    def _topics_of(self, block: int) -> NDArray[np.int64]:
        """(2, BLOCK) the topic of each document, and its second one."""
        rng = np.random.default_rng([self.seed, 4, block])
        return np.searchsorted(_zipf(self.topics, 0.7, 10.0), rng.random((2, BLOCK)))

    def _block(self, block: int) -> Sparse:
        rng, tables = np.random.default_rng([self.seed, 2, block]), self._tables
        lengths = np.exp(rng.normal(np.log(self.draws), 0.3, BLOCK)).astype(np.int64).clip(20, 400)
        total, row = int(lengths.sum()), np.repeat(np.arange(BLOCK), lengths)
        first, second = self._topics_of(block)
        topic = np.where(rng.random(total) < 0.85, first[row], second[row])
        source = rng.random(total)
        terms = np.searchsorted(self._law, rng.random(total))
        weights = rng.beta(0.8, 4.0, total)
        own = source < 0.6
        ranks = np.searchsorted(self._within_topic, rng.random(int(own.sum())))
        terms[own] = tables["topic_terms"][topic[own], ranks]
        weights[own] = 0.8 * tables["topic_weights"][topic[own], ranks] + 0.2 * rng.beta(
            0.75, 2.0, len(ranks)
        )
        near = ~own & (source < 0.85)
        ranks = np.searchsorted(_zipf(1_200, 0.8, 20.0), rng.random(int(near.sum())))
        terms[near] = tables["theme_terms"][tables["theme_of"][topic[near]], ranks]
        weights[near] = rng.beta(0.8, 3.5, len(ranks))
        weights = (3.5 * weights + 0.01).astype(np.float32)
        keys = row * self.vocabulary + tables["names"][terms]
        order = np.lexsort((-weights, keys))
        kept = order[np.flatnonzero(np.diff(keys[order], prepend=-1))]
        rows, indices = np.divmod(keys[kept], self.vocabulary)
        indptr = np.zeros(BLOCK + 1, dtype=np.int64)
        np.cumsum(np.bincount(rows, minlength=BLOCK), out=indptr[1:])
        return Sparse(indptr, indices.astype(np.int32), weights[kept], self.vocabulary)

    def documents(self, n: int) -> Sparse:
        """The first n documents."""
        parts = [self._block(block) for block in range((n + BLOCK - 1) // BLOCK)]
        return Sparse.concat(parts)[:n]

    def queries(self, n: int, n_documents: int) -> Sparse:
        """n queries, each about one of the first n_documents documents."""
        rng, tables = np.random.default_rng([self.seed, 3]), self._tables
        blocks = rng.integers(0, (n_documents + BLOCK - 1) // BLOCK, max(1, n // 50))
        made = {
            int(block): (self._block(int(block)), self._topics_of(int(block))[0])
            for block in np.unique(blocks)
        }
        rows = []
        for query in range(n):
            block = int(blocks[query % len(blocks)])
            row = int(rng.integers(0, min(BLOCK, n_documents - block * BLOCK)))
            about, topic = made[block][0][row : row + 1], made[block][1][row]
            size = int(np.clip(rng.normal(self.terms, 8), 12, 60))
            own, topical = min(len(about.indices), int(0.08 * size)), int(0.7 * size)
            share = about.values.astype(np.float64)
            chosen = rng.choice(len(about.indices), own, replace=False, p=share / share.sum())
            ranks = np.searchsorted(self._within_topic, rng.random(topical))
            rest = size - own - topical
            common = np.searchsorted(self._law, rng.random(rest))
            drawn = np.concatenate(
                [
                    about.indices[chosen],
                    tables["names"][np.concatenate([tables["topic_terms"][topic, ranks], common])],
                ]
            )
            weights = np.concatenate(
                [
                    0.3 + 2.2 * rng.beta(1.3, 1.3, own),
                    1.25 * (tables["topic_weights"][topic, ranks] + rng.beta(0.9, 2.2, topical)),
                    2.5 * rng.beta(0.8, 6.0, rest),
                ]
            )
            terms, first = np.unique(drawn, return_index=True)
            rows.append((terms, weights[first]))
        indptr = np.cumsum([0] + [len(terms) for terms, _ in rows]).astype(np.int64)
        return Sparse(
            indptr,
            np.concatenate([terms for terms, _ in rows]).astype(np.int32),
            np.concatenate([weights for _, weights in rows]).astype(np.float32),
            self.vocabulary,
        )
