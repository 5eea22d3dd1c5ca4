"""SPLADE on our own engine: a masked language model's logits, reduced to one weight a term while they are made."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval.compute import apply_threads
from retrieval.encoders.sparse_rows import sparse_rows
from retrieval.encoders.tally import Tally
from retrieval.encoders.transformer.architectures import HEADS
from retrieval.encoders.transformer.bert import Bert, Norm, load_bert
from retrieval.encoders.transformer.checkpoint import Checkpoint
from retrieval.encoders.transformer.direct import lay_out, run_batches
from retrieval.encoders.transformer.linear import Linear, linear
from retrieval.encoders.transformer.tokens import Tokenizer
from retrieval.errors import CorruptError
from retrieval.values import Sparse

SLICE = 256
"""Tokens whose logits exist at a time: with 30,000 terms 31 MB in float32, whatever the batch."""

_GPU_SLICE = 4096  # an accelerator wants larger operations, and 250 MB in bfloat16 are little there


@dataclass(frozen=True)
class VocabularyHead:
    """Token vectors to one weight for each term of the vocabulary.

    The weight of a term is the maximum over tokens of log(1 + relu(logit)) (SPLADE v2, arXiv:2109.10086) or their
    sum (SPLADE, arXiv:2107.05720), with a second logarithm where the model wants it (arXiv:2504.14839).

    Attributes:
        transform: (T, D) to (T, D), with its activation.
        norm: normalisation of its output.
        decoder: (T, D) to the (T, V) logits.
        sums: add the tokens' weights up instead of taking the greatest.
        logarithms: how many, 1 or 2.
        slice_tokens: tokens whose logits exist at a time.
    """

    transform: Linear
    norm: Norm
    decoder: Linear
    sums: bool
    logarithms: int
    slice_tokens: int

    def __call__(self, hidden: Tensor, lengths: Sequence[int]) -> Iterator[Tensor]:
        """Weights of the texts, those that end in one slice of tokens after the other.

        Every slice but the last is of one size, whatever the lengths of the texts: a text may end in a later slice.

        Args:
            hidden: (T, D), the texts one after another, without padding.
            lengths: tokens of each text, at least 1.

        Yields:
            (n, V) float32 for the next n texts; n may be 0.
        """
        hidden = self.norm(self.transform(hidden))
        begun: Tensor | None = None
        parts = torch.split(hidden, self.slice_tokens)
        for part, (pieces, complete) in zip(parts, cut_pieces(lengths, self.slice_tokens), strict=True):
            pooled = self._pool(part, pieces)
            if begun is not None:
                pooled[0] = pooled[0] + begun if self.sums else torch.maximum(pooled[0], begun)
            begun = None if complete == len(pieces) else pooled[complete]
            yield pooled[:complete] if self.sums else self._saturate(pooled[:complete])

    def _pool(self, hidden: Tensor, pieces: Sequence[int]) -> Tensor:
        """(n, V) float32 of n texts, or pieces of texts, of so many tokens; those of equal length at once."""
        logits, start = self.decoder(hidden), 0
        alike: list[Tensor] = []
        for length, equals in itertools.groupby(pieces):
            stop = start + length * sum(1 for _ in equals)
            alike.append(self._reduce(logits[start:stop].view(-1, length, logits.shape[1])))
            start = stop
        return torch.cat(alike)

    def _reduce(self, logits: Tensor) -> Tensor:
        """(n, L, V) to (n, V) float32; the logarithm is monotone, so a maximum needs it only once a term."""
        if self.sums:
            return self._saturate(logits).sum(1, dtype=torch.float32)
        return logits.amax(1).float()

    def _saturate(self, x: Tensor) -> Tensor:
        """In place."""
        x.relu_()
        for _ in range(self.logarithms):
            x.log1p_()
        return x


def cut_pieces(lengths: Sequence[int], size: int) -> list[tuple[list[int], int]]:
    """Texts laid end to end and cut into slices of ``size`` tokens, the last of what is left.

    Returns:
        Of each slice the tokens it has of each text in it, and how many of these texts end in it: all of them, or
        all but the last.
    """
    slices: list[tuple[list[int], int]] = []
    pieces: list[int] = []
    room = size
    for length in lengths:
        while length > room:
            slices.append(([*pieces, room] if room else pieces, len(pieces)))
            length, pieces, room = length - room, [], size
        pieces.append(length)
        room -= length
    return [*slices, (pieces, len(pieces))] if pieces else slices


@dataclass(frozen=True)
class MaskedLanguageEngine:
    """A BERT-like model with a vocabulary head; texts in, sparse vectors out.

    Attributes:
        tokenizer: text to ids.
        bert: ids to token vectors.
        head: token vectors to weights of terms.
        dim: the vocabulary's size V.
        device: torch device name.
        place: the model's folder.
    """

    tokenizer: Tokenizer
    bert: Bert
    head: VocabularyHead
    dim: int
    device: str
    place: Path

    def encode(self, texts: Sequence[str], tally: Tally, task: str, keep: int | None) -> Sparse:
        """One row a text, of at most ``keep`` terms; long texts are cut and counted.

        Raises:
            CorruptError: a weight is not finite.
        """
        apply_threads()
        tokens = self.tokenizer(texts)
        tally.add(len(texts), int(tokens.lengths().sum()), tokens.n_truncated)
        batches, parts = run_batches(tokens, self.device, lambda ids: self._forward(ids, keep))
        return Sparse.concat(parts).take(np.argsort(np.concatenate(batches)))

    def _forward(self, ids: list[NDArray[np.int32]], keep: int | None) -> Sparse:
        """Rows of texts that are sorted by descending length."""
        with torch.inference_mode():
            flat, runs = lay_out(ids, self.device)
            hidden = self.bert(flat, runs)
            padded = runs[0].mask()
            if padded is not None:
                hidden = hidden[padded.view(-1)]
            weights = self.head(hidden, [len(part) for part in ids])
            return Sparse.concat([sparse_rows(part.cpu().numpy(), keep, self.place) for part in weights])


def load_masked_language(
    route: Checkpoint, *, max_length: int, device: str, dtype: str
) -> MaskedLanguageEngine:
    """Read weights and tokenizer.

    Raises:
        CorruptError: a file is damaged, or holds no masked language model.
    """
    folder = route.transformer
    bert = load_bert(folder, route.config, device, dtype)
    dim = len(bert.words)
    if route.config.get("vocab_size", dim) != dim:
        path = folder / "model.safetensors"
        raise CorruptError(
            path, f"there are {dim} word vectors; config.json says {route.config['vocab_size']}"
        )
    return MaskedLanguageEngine(
        tokenizer=Tokenizer(folder, max_length, bool(route.wrapper.get("do_lower_case", False))),
        bert=bert,
        head=_load_head(route, bert, device, dtype),
        dim=dim,
        device=device,
        place=folder,
    )


def _load_head(route: Checkpoint, bert: Bert, device: str, dtype: str) -> VocabularyHead:
    path = route.transformer / "model.safetensors"
    names, kind = HEADS[route.config["model_type"]], getattr(torch, dtype)
    tensors = _read(path, (names.dense, names.norm, names.decoder, names.bias))

    def placed(*choices: str) -> Tensor:
        found = next((tensors[name] for name in choices if name in tensors), None)
        if found is None:
            raise CorruptError(
                path, f"there is no tensor {choices[-1]!r}: the model has no head for its terms"
            )
        return found.to(device=device, dtype=kind).contiguous()

    tied = f"{names.decoder}.weight" not in tensors and route.config.get("tie_word_embeddings", True)
    activation = str(route.config.get(names.activation, "gelu"))
    _, _, pooling = route.modules[1]
    return VocabularyHead(
        transform=linear(placed(f"{names.dense}.weight"), placed(f"{names.dense}.bias"), activation),
        norm=Norm(placed(f"{names.norm}.weight"), placed(f"{names.norm}.bias"), bert.norm.eps),
        decoder=linear(
            bert.words if tied else placed(f"{names.decoder}.weight"),
            placed(f"{names.decoder}.bias", names.bias),
        ),
        sums=pooling.get("pooling_strategy") == "sum",
        logarithms=2 if pooling.get("activation_function") == "log1p_relu" else 1,
        slice_tokens=SLICE if device == "cpu" else _GPU_SLICE,
    )


def _read(path: Path, beginnings: tuple[str, ...]) -> dict[str, Tensor]:
    """The tensors with such names."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:  # load_bert has found it readable
        return {name: file.get_tensor(name) for name in file.keys() if name.startswith(beginnings)}
