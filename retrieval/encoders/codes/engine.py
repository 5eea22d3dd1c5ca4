"""Codes and features of texts through the model: tokenizers and torch alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from retrieval.compute import apply_threads
from retrieval.encoders.codes.book import CodeBook
from retrieval.encoders.codes.entries import Entries
from retrieval.encoders.sparse_rows import heaviest_entries
from retrieval.encoders.tally import Tally
from retrieval.encoders.transformer.bert import Bert, load_bert
from retrieval.encoders.transformer.checkpoint import Checkpoint
from retrieval.encoders.transformer.direct import read_batch, run_batches
from retrieval.encoders.transformer.tokens import Tokenizer

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
        bare: tokens of an empty text.
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
    bare: int

    def documents(self, texts: Sequence[str], tally: Tally) -> Entries:
        """For each document its nearest codes, weighted by their cosine, and its features."""
        return self._run(texts, tally, self._document_entries)

    def queries(self, texts: Sequence[str], tally: Tally) -> Entries:
        """For each query the codes near its tokens, added up, and its features."""
        return self._run(texts, tally, self._query_entries)

    def _run(self, texts: Sequence[str], tally: Tally, forward: Callable[[Ids], Entries]) -> Entries:
        apply_threads()
        tokens = self.tokenizer(texts)
        tally.add(len(texts), int(tokens.lengths().sum()), tokens.n_truncated)
        batches, parts = run_batches(tokens, self.device, forward)
        placed = zip(batches, parts, strict=True)
        return Entries.joined([Entries(batch[part.rows], part.dims, part.values) for batch, part in placed])

    def _document_entries(self, ids: Ids) -> Entries:
        """Of a document's tokens each looks at one code; of several with one code the nearest counts."""
        with torch.inference_mode():
            read = self._read(ids)
            cosines, codes = self._nearest(read.vectors, 1)
            features = self._features(read, self.book.settings.document_features)
        cosine = cosines[:, 0]
        kept = cosine > 0
        keys = (read.rows * len(self.book.codes) + codes[:, 0])[kept]
        order = np.argsort(keys, kind="stable")
        found, starts = np.unique(keys[order], return_index=True)
        best, rarest = (
            np.maximum.reduceat(values[kept][order], starts) if len(starts) else values[:0]
            for values in (cosine, cosine * self.idf[read.pieces])
        )
        rows, dims = np.divmod(found, len(self.book.codes))
        chosen = heaviest_entries(rows, rarest, self.book.settings.document_codes)
        return Entries.joined([Entries(rows[chosen], dims[chosen], best[chosen]), features])

    def _query_entries(self, ids: Ids) -> Entries:
        """Of a query's tokens each looks at several codes, more at near ones, more where it is rare."""
        settings = self.book.settings
        with torch.inference_mode():
            read = self._read(ids)
            cosines, codes = self._nearest(read.vectors, min(settings.token_codes, len(self.book.codes)))
            features = self._features(read, settings.query_features)
        above = np.maximum(cosines - settings.least_cosine, 0) / (1 - settings.least_cosine)
        rarity = self.idf[read.pieces] ** settings.rarity * settings.code_weight
        values = above**settings.sharpness * rarity[:, None]
        near = values > 0
        of_row = np.repeat(read.rows[:, None], values.shape[1], axis=1)
        near_codes = Entries.summed(of_row[near], codes[near], values[near], len(self.book.codes))
        return Entries.joined([near_codes, features.times(settings.feature_weight)])

    def _read(self, ids: Ids) -> _Read:
        hidden, pooled = read_batch(self.bert, ids, self.poolings, self.device)
        lengths = [len(part) for part in ids]
        pieces = np.concatenate(ids)
        counts = np.flatnonzero(self.idf[pieces] > 0)
        chosen = hidden[torch.from_numpy(counts).to(self.device)].float()
        vectors = F.normalize(F.normalize(chosen, dim=1) @ self.projection, dim=1)
        rows = np.repeat(np.arange(len(ids), dtype=np.int64), lengths)
        return _Read(
            rows[counts], pieces[counts], vectors, F.normalize(pooled, dim=1), np.array(lengths) <= self.bare
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

    def _features(self, read: _Read, keep: int) -> Entries:
        """The strongest features of each text, of unit length together."""
        active = F.relu((read.pooled - self.mean) @ self.features.T + self.bias)
        found = torch.topk(active, min(keep, active.shape[1]), dim=1)
        values = F.normalize(found.values, dim=1).cpu().numpy()
        values[read.empty] = 0
        rows, places = np.nonzero(values)
        dims = found.indices.cpu().numpy()[rows, places] + len(self.book.codes)
        return Entries(rows, dims, values[rows, places])


def load_code_engine(
    book: CodeBook, checkpoint: Checkpoint, *, max_length: int, device: str, dtype: str
) -> CodeEngine:
    """Read weights and tokenizer of the model.

    Args:
        book: learned with this model.
        checkpoint: the model.
        max_length: tokens read of a text.
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
        len(tokenizer([""]).ids[0]),
    )
