"""The terms of a vocabulary: their names, and which of them a text itself has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.transformer.tokens import Tokenizer
from retrieval.values import Strings

_NO_LIMIT = 1 << 30


class TermTokenizer(Tokenizer):
    """A tokenizer.json without the special tokens it would put around a text; safe to share between threads."""

    def __init__(self, folder: Path, max_length: int | None, lower_case: bool = False) -> None:
        """Read ``folder/tokenizer.json``.

        Args:
            folder: where it lies.
            max_length: tokens kept of a text; None keeps all.
            lower_case: lower the case before anything else.

        Raises:
            CorruptError: the file cannot be read.
        """
        super().__init__(folder, max_length or _NO_LIMIT, lower_case)
        self._tokenizer.post_processor = None

    def terms_of(self, text: str) -> NDArray[np.int32]:
        """Ids of the terms of a text, ascending, each once."""
        return np.unique(self([text]).ids[0])

    def names(self, dim: int) -> Strings:
        """The terms as the tokenizer writes them; an id without a token gets its number in brackets."""
        found = (self._tokenizer.id_to_token(term) for term in range(dim))
        return Strings.of(f"[{term}]" if name is None else name for term, name in enumerate(found))

    def special_terms(self) -> NDArray[np.int64]:
        """Ids of the tokens that stand for no text, such as [CLS], ascending."""
        added = self._tokenizer.get_added_tokens_decoder()
        return np.array(sorted(term for term, token in added.items() if token.special), dtype=np.int64)
