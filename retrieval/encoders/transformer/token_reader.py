"""The texts of one task as token ids, and which of the tokens get a vector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.transformer.late_recipe import TokenRules
from retrieval.encoders.transformer.tokens import Piece, Tokenizer, Tokens
from retrieval.encoders.transformer.windows import Windows, window_places
from retrieval.errors import ConfigError


class TokenReader:
    """Applies ``TokenRules``; safe to share between threads.

    Attributes:
        rules: what is applied.
    """

    def __init__(self, folder: Path, rules: TokenRules, lower_case: bool = False) -> None:
        """Read ``folder/tokenizer.json``.

        Args:
            folder: the checkpoint's transformer.
            rules: of queries, or of documents; its length is known.
            lower_case: lower the case before anything else.

        Raises:
            ConfigError: queries are to be filled up, but the tokenizer has no token for that.
            CorruptError: the file cannot be read.
        """
        self.rules = rules
        self._tokenizer = Tokenizer(folder, rules.length or 512, lower_case)
        filler = self._tokenizer.id_of(rules.filler) if rules.pad_to else 0
        if filler is None:
            raise ConfigError(
                f"{folder} has no token {rules.filler!r} to fill queries up with; set the option augment to 0"
            )
        self._filler = filler
        ids = (self._tokenizer.id_of(word) for word in rules.skipped)
        self._skipped = np.array(sorted(found for found in ids if found is not None), dtype=np.int32)
        self._frame = self._tokenizer.frame()

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Token ids of the texts, without fillers."""
        return self._tokenizer(texts)

    def windows(self, tokens: Tokens) -> Windows:
        """The texts as the model reads them."""
        return Windows.of(tokens.ids, self.rules.window, self._frame)

    def fill(self, ids: NDArray[np.int32]) -> NDArray[np.int32]:
        """The ids of a text with its fillers behind them."""
        missing = self.rules.pad_to - len(ids)
        return ids if missing <= 0 else np.pad(ids, (0, missing), constant_values=self._filler)

    def kept(self, ids: NDArray[np.int32]) -> NDArray[np.bool_]:
        """(L,) which tokens of a text get a vector, its fillers included; ``ids`` come without them."""
        filled = self.fill(ids)
        keep = ~np.isin(filled, self._skipped) if len(self._skipped) else np.ones(len(filled), dtype=bool)
        if not self.rules.keeps_empty and int(keep[: len(ids)].sum()) <= sum(self._frame):
            keep[:] = False
        return keep

    def pieces(self, text: str) -> list[Piece]:
        """What the vectors of a text stand for, one for each."""
        pieces = self._tokenizer.pieces(text)
        (ids,) = self._tokenizer([text]).ids
        found: list[Piece] = []
        for places in window_places(len(ids), self.rules.window, self._frame):
            read = [pieces[place] for place in np.arange(len(ids))[places]]
            fillers = [(self.rules.filler, -1, -1)] * max(0, self.rules.pad_to - len(read))
            found += [
                piece for piece, keep in zip(read + fillers, self.kept(ids[places]), strict=True) if keep
            ]
        return found
