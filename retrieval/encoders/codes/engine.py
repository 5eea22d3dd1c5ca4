"""Codes and features of texts through the model: tokenizers and torch alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from retrieval.compute import apply_threads
from retrieval.encoders.codes.book import CodeBook
from retrieval.encoders.codes.entries import Entries
from retrieval.encoders.sparse_rows import heaviest_entries, row_offsets
from retrieval.encoders.tally import Tally
from retrieval.encoders.transformer.bert import Bert, load_bert
from retrieval.encoders.transformer.checkpoint import Checkpoint
from retrieval.encoders.transformer.direct import read_batch, run_batches
from retrieval.encoders.transformer.tokens import Tokenizer
from retrieval.encoders.transformer.windows import Windows

_TOGETHER = 4096  # tokens compared with all codes at a time

Ids = list[NDArray[np.int32]]


@dataclass(frozen=True)
class _Read:
    """What the model says of a batch of B texts, T tokens of which count.

    Attributes:
        rows: (T,) the text of each token.
        pieces: (T,) its word piece.
        vectors: (T, D) unit vectors.
        pooled: (B, H) unit vectors.
        empty: (B,) texts without a token of their own.
    """

    rows: NDArray[np.int64]
    pieces: NDArray[np.int32]
    vectors: Tensor
    pooled: Tensor
    empty: NDArray[np.bool_]


Columns = tuple[NDArray[Any], ...]
"""(n,) int64 windows of a batch or texts, (n,) int64 dimensions, (n,) float32 values of one or more kinds; a place may
occur several times."""


@dataclass(frozen=True, eq=False)
class CodeEngine:
    """The model with a book of codes; texts in, entries of codes and features out.

    Dimensions count from the first code.

    Attributes:
        book: what was learned.
        tokenizer: text to ids.
        bert: ids to hidden states.
        poolings: token vectors to one.
        device: torch device name.
        projection, codes, features, bias, mean: of the book, on the device.
        idf: (V,) of word pieces.
        window: most tokens the model reads at a time; None for all.
        frame: special tokens before and behind a text.
    """

    book: CodeBook
    tokenizer: Tokenizer
    bert: Bert
    poolings: tuple[str, ...]
    device: str
    projection: Tensor
    codes: Tensor
    features: Tensor
    bias: Tensor
    mean: Tensor
    idf: NDArray[np.float32]
    window: int | None
    frame: tuple[int, int]

    def documents(self, texts: Sequence[str], tally: Tally) -> Entries:
        """For each document its nearest codes, weighted by their cosine, and its features.

        Of a document's tokens each looks at one code; of several with one code the nearest counts.
        """
        codes, features = self._run(texts, tally, self._document_codes)
        settings = self.book.settings
        rows, dims, cosines, rarities = _largest(codes, len(self.book.codes))
        chosen = heaviest_entries(rows, rarities, settings.document_codes)
        nearest = Entries(rows[chosen], dims[chosen], cosines[chosen])
        return Entries.joined([nearest, self._strongest(features, settings.document_features)])

    def queries(self, texts: Sequence[str], tally: Tally) -> Entries:
        """For each query the codes near its tokens, added up, and its features."""
        (rows, dims, values), features = self._run(texts, tally, self._query_codes)
        codes = Entries.summed(rows, dims, values, len(self.book.codes))
        strongest = self._strongest(features, self.book.settings.query_features)
        return Entries.joined([codes, strongest.times(self.book.settings.feature_weight)])

    def _run(
        self, texts: Sequence[str], tally: Tally, codes_of: Callable[[_Read], Columns]
    ) -> tuple[Columns, Columns]:
        """Codes of all tokens and features of all windows, by text."""
        apply_threads()
        tokens = self.tokenizer(texts)
        tally.add(len(texts), int(tokens.lengths().sum()), tokens.n_truncated)
        windows = Windows.of(tokens.ids, self.window, self.frame)

        def forward(ids: Ids) -> tuple[Columns, Columns]:
            with torch.inference_mode():
                read = self._read(ids)
                return codes_of(read), self._features(read)

        batches, parts = run_batches(windows.tokens, self.device, forward)
        rows = [windows.rows()[batch] for batch in batches]
        codes, features = zip(*parts, strict=True)
        return _by_text(rows, codes), _by_text(rows, features)

    def _document_codes(self, read: _Read) -> Columns:
        """The nearest code of each token, its cosine, and that times the token's idf."""
        cosines, codes = self._nearest(read.vectors, 1)
        cosine = cosines[:, 0]
        kept = cosine > 0
        rarity = cosine * self.idf[read.pieces]
        return read.rows[kept], codes[kept, 0], cosine[kept], rarity[kept]

    def _query_codes(self, read: _Read) -> Columns:
        """Several codes of each token, weighted more where they are near and more where the token is rare."""
        settings = self.book.settings
        cosines, codes = self._nearest(read.vectors, min(settings.token_codes, len(self.book.codes)))
        above = np.maximum(cosines - settings.least_cosine, 0) / (1 - settings.least_cosine)
        rarity = self.idf[read.pieces] ** settings.rarity * settings.code_weight
        values = above**settings.sharpness * rarity[:, None]
        near = values > 0
        of_row = np.repeat(read.rows[:, None], values.shape[1], axis=1)
        return of_row[near], codes[near], values[near]

    def _strongest(self, features: Columns, keep: int) -> Entries:
        """The strongest features of each text, of unit length together; of several windows the stronger counts."""
        strongest = Entries(*_largest(features, len(self.book.features))).heaviest(keep)
        lengths = np.sqrt(np.bincount(strongest.rows, weights=strongest.values**2)).astype(np.float32)
        return strongest.times(np.float32(1) / lengths[strongest.rows]).shifted(len(self.book.codes))

    def _read(self, ids: Ids) -> _Read:
        hidden, pooled = read_batch(self.bert, ids, self.poolings, self.device)
        lengths = [len(part) for part in ids]
        pieces = np.concatenate(ids)
        counts = np.flatnonzero(self.idf[pieces] > 0)
        chosen = hidden[torch.from_numpy(counts).to(self.device)].float()
        vectors = F.normalize(F.normalize(chosen, dim=1) @ self.projection, dim=1)
        rows = np.repeat(np.arange(len(ids), dtype=np.int64), lengths)
        return _Read(
            rows[counts],
            pieces[counts],
            vectors,
            F.normalize(pooled, dim=1),
            np.array(lengths) <= sum(self.frame),
        )

    def _nearest(self, vectors: Tensor, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """(T, count) cosines, descending, and codes."""
        cosines = np.empty((len(vectors), count), dtype=np.float32)
        codes = np.empty((len(vectors), count), dtype=np.int64)
        for start in range(0, len(vectors), _TOGETHER):
            found = torch.topk(vectors[start : start + _TOGETHER] @ self.codes.T, count, dim=1)
            cosines[start : start + _TOGETHER] = found.values.cpu().numpy()
            codes[start : start + _TOGETHER] = found.indices.cpu().numpy()
        return cosines, codes

    def _features(self, read: _Read) -> Columns:
        """The strongest features of each window, of unit length together."""
        active = F.relu((read.pooled - self.mean) @ self.features.T + self.bias)
        most = max(self.book.settings.document_features, self.book.settings.query_features)
        found = torch.topk(active, min(most, active.shape[1]), dim=1)
        values = F.normalize(found.values, dim=1).cpu().numpy()
        values[read.empty] = 0
        rows, places = np.nonzero(values)
        return rows, found.indices.cpu().numpy()[rows, places], values[rows, places]


def _by_text(rows: Sequence[NDArray[np.int64]], parts: Sequence[Columns]) -> Columns:
    """The columns of all batches, given the text of each window of a batch."""
    windows, *others = (np.concatenate(column) for column in zip(*parts, strict=True))
    starts = np.repeat(row_offsets([len(texts) for texts in rows])[:-1], [len(part[0]) for part in parts])
    return np.concatenate(rows)[starts + windows], *others


def _largest(columns: Columns, width: int) -> Columns:
    """Each place once, in order, with the largest of its values; dimensions are below ``width``."""
    rows, dims, *values = columns
    keys = rows * width + dims
    order = np.argsort(keys, kind="stable")
    found, starts = np.unique(keys[order], return_index=True)
    largest = (np.maximum.reduceat(part[order], starts) if len(starts) else part for part in values)
    return found // width, found % width, *largest


def load_code_engine(
    book: CodeBook,
    checkpoint: Checkpoint,
    *,
    max_length: int,
    window: int | None,
    device: str,
    dtype: str,
) -> CodeEngine:
    """Read weights and tokenizer of the model.

    Args:
        book: learned with this model.
        checkpoint: the model.
        max_length: tokens read of a text.
        window: tokens read at a time, at most; None for all.
        device: torch device name.
        dtype: of the model.

    Raises:
        CorruptError: a file is damaged.
    """

    def on_device(values: NDArray[np.floating]) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(device)

    lower_case = bool(checkpoint.wrapper.get("do_lower_case", False))
    tokenizer = Tokenizer(checkpoint.transformer, max_length, lower_case)
    return CodeEngine(
        book,
        tokenizer,
        load_bert(checkpoint.transformer, checkpoint.config, device, dtype),
        checkpoint.pooling,
        device,
        on_device(book.projection),
        on_device(book.codes),
        on_device(book.features),
        on_device(book.feature_bias),
        on_device(book.feature_mean),
        book.piece_idf.astype(np.float32),
        window,
        tokenizer.frame(),
    )
