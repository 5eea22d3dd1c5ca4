"""One sparse vector a token: the few terms a masked language model finds likeliest in its place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval.compute import apply_threads
from retrieval.encoders.sparse_rows import heaviest, not_finite, row_offsets
from retrieval.encoders.tally import Tally
from retrieval.encoders.transformer.direct import lay_out, run_batches
from retrieval.encoders.transformer.masked_language import MaskedLanguageEngine
from retrieval.encoders.transformer.tokens import Piece
from retrieval.values import MultiSparse, Sparse


@dataclass(frozen=True)
class TokenTermsEngine:
    """A masked language model without pooling over tokens; texts in, ragged sparse token vectors out.

    The weight of a term is log(1 + relu(logit)), with a second logarithm where the checkpoint has one. The token put
    before every text, [CLS], gets no vector; [SEP] behind it does (Li, Lin, Ma & Lin, "SLIM", SIGIR 2023,
    arXiv:2302.06587, and its code).

    Attributes:
        model: tokenizer, transformer and head.
    """

    model: MaskedLanguageEngine

    def encode(self, texts: Sequence[str], tally: Tally, keep: int) -> MultiSparse:
        """One row a text, of at most ``keep`` terms a token; long texts are cut and counted.

        Args:
            texts: at least one.
            tally: what is read is added to it, [CLS] included.
            keep: the heaviest terms that stay; of terms with equal weight those of lower id.

        Raises:
            CorruptError: a weight is not finite.
        """
        apply_threads()
        tokens = self.model.tokenizer(texts)
        tally.add(len(texts), int(tokens.lengths().sum()), tokens.n_truncated)
        batches, parts = run_batches(tokens, self.model.device, lambda ids: self._forward(ids, keep))
        return MultiSparse.concat(parts).take(np.argsort(np.concatenate(batches)))

    def pieces(self, text: str) -> list[Piece]:
        """What the vectors of a text stand for, one for each."""
        (ids,) = self.model.tokenizer([text]).ids
        return [
            piece
            for piece, keep in zip(self.model.tokenizer.pieces(text), self._kept(ids), strict=True)
            if keep
        ]

    @cached_property
    def _before(self) -> NDArray[np.int32]:
        """The token before every text; none for a tokenizer that puts nothing there."""
        return self.model.tokenizer([""]).ids[0][:1]

    def _kept(self, ids: NDArray[np.int32]) -> NDArray[np.bool_]:
        """(L,) which tokens of a text get a vector."""
        kept = np.ones(len(ids), dtype=np.bool_)
        kept[:1] = not np.array_equal(ids[:1], self._before)
        return kept

    def _forward(self, ids: list[NDArray[np.int32]], keep: int) -> MultiSparse:
        """Rows of texts that are sorted by descending length."""
        model, head = self.model, self.model.head
        kept = [self._kept(part) for part in ids]
        with torch.inference_mode():
            flat, runs = lay_out(ids, model.device)
            hidden = model.bert(flat, runs)
            padded = runs[0].mask()
            if padded is not None:
                hidden = hidden[padded.view(-1)]
            hidden = hidden[torch.from_numpy(np.concatenate(kept)).to(model.device)]
            hidden = head.norm(head.transform(hidden))
            parts = [self._terms(head.decoder(part), keep) for part in torch.split(hidden, head.slice_tokens)]
        return MultiSparse(row_offsets([int(part.sum()) for part in kept]), Sparse.concat(parts))

    def _terms(self, logits: Tensor, keep: int) -> Sparse:
        """The heaviest terms of (T, V) logits; their logarithms are monotone, so only those kept are computed."""
        best = logits.topk(min(keep, logits.shape[1]), dim=1, sorted=False).values
        if not bool((best < math.inf).all()):  # NaN is among the greatest, too
            raise not_finite(self.model.place)
        # a threshold instead of topk's own choice, which among equals is arbitrary
        chosen = (logits >= best.amin(1, keepdim=True)) & (logits > 0)
        rows, terms = (part.cpu().numpy() for part in chosen.nonzero(as_tuple=True))
        weights = logits[chosen].float()
        for _ in range(self.model.head.logarithms):
            weights.log1p_()
        indptr = row_offsets(np.bincount(rows, minlength=len(logits)))
        found = Sparse(indptr, terms.astype(np.int32), weights.cpu().numpy(), self.model.dim)
        return heaviest(found, keep)
