"""BM25's analyser as an encoder: texts to term frequencies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from retrieval.analysis import ENGLISH_STOP_WORDS, Analyzer
from retrieval.encoders.tally import Tally
from retrieval.errors import ConfigError, unknown_name
from retrieval.protocols import Fingerprints
from retrieval.values import Document, Strings, Terms

FIELDS: dict[str, Callable[[Document], str]] = {
    "contents": Document.contents,
    "title": lambda document: document.title,
    "text": lambda document: document.text,
}
"""What a field reads of a document."""

_OPTIONS = ("language", "fields", "stopwords", "stemmer")
_ANALYSIS_VERSION = 1  # goes up when the same text may give other terms


class _Numbers(dict[str, int]):
    """Word -> number of its term in a batch, -1 for none; numbers are given on first sight."""

    def __init__(self, analyzer: Analyzer) -> None:
        self.analyzer = analyzer
        self.terms: dict[str, int] = {}

    def __missing__(self, word: str) -> int:
        term = self.analyzer.term(word)
        number = self.terms.setdefault(term, len(self.terms)) if term else -1
        self[word] = number
        return number


@dataclass(frozen=True)
class TermsEncoder:
    """Analysed text for BM25; the vocabulary of what it returns belongs to the batch.

    Attributes:
        language: "english" is Lucene's English chain; another name is a Snowball stemmer without stop words.
        fields: what is counted apart: ("contents",), or ("title", "text") as in Anserini's multifield
            indexes.
    """

    family: ClassVar[str] = "terms"
    value: ClassVar[type] = Terms

    language: str = "english"
    fields: tuple[str, ...] = ("contents",)
    analyzer: Analyzer = field(default_factory=Analyzer)
    tally: Tally = field(default_factory=Tally, compare=False, repr=False)

    @classmethod
    def open(cls, model: str = "", options: Mapping[str, Any] | None = None) -> Self:
        """An encoder from its spec.

        Args:
            model: must be empty or None; nothing is loaded.
            options: ``language``; ``fields``; ``stopwords`` (a list, or None for none); ``stemmer``
                ("porter", "none" or a Snowball algorithm).

        Raises:
            ConfigError: an unknown option, field, language or stemmer.
        """
        options = dict(options or {})
        for name in options:
            if name not in _OPTIONS:
                raise unknown_name("option of the terms encoder", name, _OPTIONS)
        if model:
            raise ConfigError(f"the terms encoder has no models, got {model!r}; choose by its options")
        language = str(options.get("language", "english"))
        fields = options.get("fields", ["contents"])
        if isinstance(fields, str) or not fields or len(set(fields)) != len(fields):
            raise ConfigError(f"fields of the terms encoder are a list of distinct names, got {fields!r}")
        for name in fields:
            if name not in FIELDS:
                raise unknown_name("field", name, FIELDS)
        english = language == "english"
        stop_words = options.get("stopwords", sorted(ENGLISH_STOP_WORDS) if english else None)
        if isinstance(stop_words, str):
            raise ConfigError(f"stopwords of the terms encoder are a list of words, got {stop_words!r}")
        analyzer = Analyzer(
            possessives=english,
            stop_words=frozenset(str(word).lower() for word in stop_words or ()),
            stemming=str(options.get("stemmer", "porter" if english else language)),
        )
        return cls(language, tuple(fields), analyzer)

    @property
    def spec(self) -> dict[str, Any]:
        """``{"family", "model", "options"}``, from which ``open_encoder`` makes an equal encoder."""
        return {"family": self.family, "model": "", "options": self._options()}

    @property
    def fingerprints(self) -> Fingerprints:
        """Identity of the analysis; the same for documents and queries."""
        facts = {"family": self.family, "version": _ANALYSIS_VERSION, **self._options()}
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return Fingerprints(digest, digest)

    def _options(self) -> dict[str, Any]:
        return {
            "language": self.language,
            "fields": list(self.fields),
            "stopwords": sorted(self.analyzer.stop_words),
            "stemmer": self.analyzer.stemming,
        }

    def encode_documents(self, documents: Sequence[Document]) -> Terms:
        """Count the terms of each field of each document.

        Vocabulary entries are numbered field by field, by first occurrence.
        """
        n = len(documents)
        lengths = np.zeros((n, len(self.fields)), dtype=np.int32)
        rows: list[NDArray[np.int64]] = []
        entries: list[NDArray[np.int64]] = []
        vocabulary: list[str] = []
        sizes: list[int] = []
        for position, name in enumerate(self.fields):
            read, numbers = FIELDS[name], _Numbers(self.analyzer)
            found: list[int] = []
            ends = np.zeros(n, dtype=np.int64)
            for row, document in enumerate(documents):
                found += self.analyzer.map(read(document), numbers.__getitem__)
                ends[row] = len(found)
            row_of = np.repeat(np.arange(n), np.diff(ends, prepend=0))
            entry = np.array(found, dtype=np.int64)
            kept = entry >= 0
            row_of, entry = row_of[kept], entry[kept]
            lengths[:, position] = np.bincount(row_of, minlength=n)
            rows.append(row_of)
            entries.append(entry + len(vocabulary))
            vocabulary += numbers.terms
            sizes.append(len(numbers.terms))
        indptr, indices, frequencies = _count(
            np.concatenate(rows), np.concatenate(entries), n, len(vocabulary)
        )
        self.tally.add(n, int(lengths.sum()), 0)
        term_fields = np.repeat(np.arange(len(sizes), dtype=np.uint8), sizes)
        return Terms(indptr, indices, frequencies, lengths, Strings.of(vocabulary), term_fields, self.fields)

    def encode_queries(self, texts: Sequence[str]) -> Terms:
        """Count the terms of each text; every term stands for the same word in each field."""
        numbers: dict[str, int] = {}
        n_fields = len(self.fields)
        indptr: list[int] = [0]
        indices: list[int] = []
        frequencies: list[int] = []
        lengths: list[list[int]] = []
        for text in texts:
            counts: dict[int, int] = {}
            n_tokens = 0
            for term in self.analyzer.terms(text):
                number = numbers.setdefault(term, len(numbers))
                counts[number] = counts.get(number, 0) + 1
                n_tokens += 1
            for number in sorted(counts):
                indices += range(number * n_fields, (number + 1) * n_fields)
                frequencies += [counts[number]] * n_fields
            indptr.append(len(indices))
            lengths.append([n_tokens] * n_fields)
        words = numbers if n_fields == 1 else [term for term in numbers for _ in range(n_fields)]
        return Terms(
            np.array(indptr, dtype=np.int64),
            np.array(indices, dtype=np.int32),
            np.array(frequencies, dtype=np.int32),
            np.array(lengths, dtype=np.int32).reshape(len(texts), n_fields),
            Strings.of(words),
            np.tile(np.arange(n_fields, dtype=np.uint8), len(numbers)),
            self.fields,
        )


def _count(
    rows: NDArray[np.int64], entries: NDArray[np.int64], n: int, n_entries: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """Equal (row, entry) pairs become one with a count: indptr (n+1,), indices and frequencies (nnz,)."""
    keys = rows * max(1, n_entries) + entries
    keys.sort()
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    kept = keys[first]
    frequencies = np.diff(first, append=len(keys)).astype(np.int32)
    kept_rows, indices = np.divmod(kept, max(1, n_entries))
    indptr = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(np.bincount(kept_rows, minlength=n), out=indptr[1:])
    return indptr, indices.astype(np.int32), frequencies
