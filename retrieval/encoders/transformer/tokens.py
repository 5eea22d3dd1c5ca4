"""Texts to token ids, cut at the maximum length, without reading the whole of a huge text."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.compute import threads
from retrieval.encoders.surrogates import valid_text
from retrieval.errors import CorruptError

_CHARACTERS = 8  # read per token at first; English has about five
_MARGIN = 16  # tokens near a cut may differ from those of the whole text
_GROUP = 512  # texts handed to the tokenizer at a time


Piece = tuple[str, int, int]
"""A token: its text, and the characters it stands for; -1, -1 where it stands for none, such as [CLS]."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids of a batch of texts.

    Attributes:
        ids: one int32 array a text, special tokens included.
        n_truncated: how many texts were longer.
    """

    ids: list[NDArray[np.int32]]
    n_truncated: int

    def lengths(self) -> NDArray[np.int64]:
        """(N,) tokens of each text."""
        return np.fromiter((len(ids) for ids in self.ids), np.int64, len(self.ids))


class Tokenizer:
    """A tokenizer.json with a maximum length; safe to share between threads."""

    def __init__(self, folder: Path, max_length: int, lower_case: bool = False) -> None:
        """Read ``folder/tokenizer.json``.

        Args:
            folder: the checkpoint's transformer.
            max_length: tokens kept of a text, special tokens included.
            lower_case: lower the case before anything else.

        Raises:
            CorruptError: the file cannot be read.
        """
        _settle_threads()
        import tokenizers

        self.max_length = max_length
        path = folder / "tokenizer.json"
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises nothing narrower
            raise CorruptError(path, f"not a readable tokenizer ({error})") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)
        if lower_case:
            self._lower_case(tokenizers.normalizers)

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Token ids of the texts, in their order."""
        if len(texts) == 1 and len(texts[0]) <= self._characters:
            encoding = self._tokenizer.encode(valid_text(texts[0]))
            return Tokens([np.array(encoding.ids, dtype=np.int32)], int(bool(encoding.overflowing)))
        ids: list[NDArray[np.int32]] = []
        n_truncated = 0
        for start in range(0, len(texts), _GROUP):
            group = texts[start : start + _GROUP]
            cut = [_head(text, self._characters) for text in group]
            encodings = self._tokenizer.encode_batch_fast([valid_text(text) for text in cut])
            for text, shown, encoding in zip(group, cut, encodings, strict=True):
                settled = encoding if len(shown) == len(text) else self._settle(text, encoding)
                ids.append(np.array(settled.ids, dtype=np.int32))
                n_truncated += bool(settled.overflowing)
        return Tokens(ids, n_truncated)

    def pieces(self, text: str) -> list[Piece]:
        """What the ids of a text stand for, in their order."""
        encoding = self._settle(text, self._tokenizer.encode(valid_text(_head(text, self._characters))))
        added = encoding.special_tokens_mask
        return [
            (token, -1, -1) if special or start == stop else (text[start:stop].strip() or token, start, stop)
            for token, (start, stop), special in zip(encoding.tokens, encoding.offsets, added, strict=True)
        ]

    def frame(self) -> tuple[int, int]:
        """How many special tokens stand before and behind every text."""
        special = self._tokenizer.encode("a").special_tokens_mask
        return special.index(0), special[::-1].index(0)

    def id_of(self, token: str) -> int | None:
        """The id of a token of the vocabulary; None where there is no such token."""
        found = self._tokenizer.token_to_id(token)
        return None if found is None else int(found)

    @property
    def _characters(self) -> int:
        return _CHARACTERS * (self.max_length + _MARGIN)

    def _settle(self, text: str, encoding: Any) -> Any:
        """Read on until the tokens kept cannot depend on where the text was cut."""
        shown = self._characters
        while _n_tokens(encoding) < self.max_length + _MARGIN and shown < len(text):
            shown *= 8
            encoding = self._tokenizer.encode(valid_text(_head(text, shown)))
        return encoding

    def _lower_case(self, normalizers: Any) -> None:
        steps = [normalizers.Lowercase()]
        if self._tokenizer.normalizer is not None:
            steps.append(self._tokenizer.normalizer)
        self._tokenizer.normalizer = normalizers.Sequence(steps)


def _n_tokens(encoding: Any) -> int:
    return len(encoding.ids) + sum(len(part.ids) for part in encoding.overflowing)


def _head(text: str, characters: int) -> str:
    """About the first so many characters, ending between words where there is a space near."""
    if len(text) <= characters:
        return text
    space = text.rfind(" ", characters - 200, characters)
    return text[: space if space > 0 else characters]


_settled = threading.Event()


def _settle_threads() -> None:
    """The tokenizer's threads follow the one setting; they are made on first use and then stay."""
    if not _settled.is_set():
        os.environ.setdefault("RAYON_NUM_THREADS", str(threads()))
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true" if threads() > 1 else "false")
        _settled.set()
