"""Codes and features of queries without the model, from what every word piece stands for. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.codes.book import CodeBook
from retrieval.encoders.codes.entries import Entries
from retrieval.encoders.tally import Tally
from retrieval.encoders.token_pooling import unit_rows
from retrieval.encoders.transformer.term_tokens import TermTokenizer

_TOGETHER = 256  # queries whose features are held at a time
_PIECES = 4096  # word pieces whose vectors are


@dataclass(frozen=True, eq=False)
class StaticQueries:
    """Queries by lookup, as inference-free sparse retrieval does it (Geng et al., arXiv:2411.04403).

    A word piece has codes of its own, which are added up, and a vector, a bit a dimension; the mean vector of a query's
    pieces has features as a text's vector has.

    Attributes:
        book: its tables.
        tokenizer: text to word pieces.
        weights: (V,) of word pieces, 0 for those that do not count.
    """

    book: CodeBook
    tokenizer: TermTokenizer
    weights: NDArray[np.float32]

    @classmethod
    def over(cls, book: CodeBook, tokenizer: TermTokenizer) -> StaticQueries:
        """Queries by the tables of a book."""
        return cls(book, tokenizer, book.piece_idf.astype(np.float32) ** book.settings.rarity)

    @cached_property
    def _matrix(self) -> NDArray[np.float32]:
        return self.book.static_matrix.astype(np.float32)

    def queries(self, texts: Sequence[str], tally: Tally) -> Entries:
        """Codes and features of each query; dimensions count from the first code."""
        tokens = self.tokenizer(texts)
        tally.add(len(texts), int(tokens.lengths().sum()), tokens.n_truncated)
        parts = []
        for start in range(0, len(texts), _TOGETHER):
            part = self._entries(tokens.ids[start : start + _TOGETHER])
            parts.append(Entries(part.rows + start, part.dims, part.values))
        return Entries.joined(parts)

    def _entries(self, ids: Sequence[NDArray[np.int32]]) -> Entries:
        rows = np.repeat(np.arange(len(ids), dtype=np.int64), [len(part) for part in ids])
        pieces = np.concatenate(ids)
        counts = self.weights[pieces] > 0
        rows, pieces = rows[counts], pieces[counts]
        book, settings = self.book, self.book.settings
        codes = self._added(rows, pieces, book.static_codes, book.static_code_weights, len(book.codes))
        return Entries.joined(
            [
                codes.heaviest(settings.static_codes).times(settings.static_code_weight),
                self._features(rows, pieces, len(ids)).shifted(len(book.codes)),
            ]
        )

    def _features(self, rows: NDArray[np.int64], pieces: NDArray[np.int32], n: int) -> Entries:
        """The strongest features of the vector that the pieces of each query stand for."""
        book, settings = self.book, self.book.settings
        weights = self.weights[pieces]
        sums: NDArray[np.float32] = np.zeros((n, 8 * book.static_signs.shape[1]), dtype=np.float32)
        for start in range(0, len(pieces), _PIECES):
            part = slice(start, start + _PIECES)
            signs = np.unpackbits(book.static_signs[pieces[part]], axis=1).astype(np.float32) * 2 - 1
            factors = weights[part] * book.static_scales[pieces[part]]
            np.add.at(sums, rows[part], signs * factors[:, None])
        totals = np.bincount(rows, weights=weights, minlength=n).astype(np.float32)
        asked = np.flatnonzero(totals)
        means: NDArray[np.float32] = np.asarray(sums[asked] / totals[asked, None], dtype=np.float32)
        vectors = unit_rows(means @ self._matrix + book.static_mean.astype(np.float32))
        active = (vectors - book.feature_mean.astype(np.float32)) @ book.features.T + book.feature_bias
        places, dims = np.nonzero(active > 0)
        found = Entries(asked[places], dims, active[places, dims]).heaviest(settings.static_features)
        lengths = np.sqrt(np.bincount(found.rows, weights=found.values**2, minlength=n)).astype(np.float32)
        return found.times(settings.static_feature_weight / lengths[found.rows])

    def _added(
        self,
        rows: NDArray[np.int64],
        pieces: NDArray[np.int32],
        table: NDArray[np.int16],
        weights: NDArray[np.float16],
        width: int,
    ) -> Entries:
        """What the pieces of each query stand for."""
        values = weights[pieces].astype(np.float32) * self.weights[pieces][:, None]
        used = values > 0
        of_row = np.repeat(rows[:, None], table.shape[1], axis=1)
        return Entries.summed(of_row[used], table[pieces][used].astype(np.int64), values[used], width)
