"""Queries to measure with: a file's, or pseudo-queries made of the collection's own documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexing.collection import CollectionSnapshot
from indexing.progress import Progress
from indexing.query_texts import read_queries
from indexing.tuning.sampling import dense_rows
from retrieval.errors import FormatError, TercetError
from retrieval.values import Dense

MOST = 2000
"""Queries used: a thousand put the bound of a mean recall within 0.01 of it, and a second half verifies."""
LEAST = 20
"""Queries of a file: ten to choose with and ten to verify."""

_BATCH = 256
_FEWEST = 200
"""Pseudo-queries made of a collection of few documents, several of each."""

_CROP_WORDS = (3, 12)
"""Chosen to be as hard as hard queries are. With MiniLM vectors, where an IVF index over MedQuAD finds 0.942 of the
best ten for real questions, it finds 0.950 for crops of 3 to 8 words, 0.955 for 3 to 12 and 0.966 for 4 to 16; a graph
over five other collections finds at ef 32 0.85, 0.94 and 0.91 for the questions of NFCorpus, SciFact and SQuAD, 0.80
for crops of 3 to 8 words and 0.87 for 4 to 16. Titles (0.97) and whole documents (0.98) are too easy to tune with."""
_MOVED = 0.75
"""Of its length, how far a vector is moved; the same graph then finds 0.88 at ef 32 and 0.95 at 96."""


@dataclass(frozen=True, eq=False)
class TuningQueries:
    """Encoded queries and what they are.

    Attributes:
        vectors: (Q, D), in random order.
        kind: "given", "crops" or "vectors".
        described: the same in words.
    """

    vectors: Dense
    kind: str
    described: str

    def __len__(self) -> int:
        return len(self.vectors)

    def halves(self) -> tuple[Dense, Dense]:
        """Those to choose with and those to verify with."""
        middle = len(self) // 2
        return self.vectors[:middle], self.vectors[middle:]


def given_queries(
    snapshot: CollectionSnapshot, name: str, path: Path, seed: int, progress: Progress
) -> TuningQueries:
    """The queries of a file, encoded; ``MOST`` of them drawn at random where there are more.

    Raises:
        FormatError: it cannot be read (see ``read_queries``), or it holds fewer than ``LEAST`` queries.
    """
    texts = read_queries(path)
    if len(texts) < LEAST:
        raise FormatError(
            f"holds {len(texts)} different queries, {LEAST} are the least to measure with; give more, or leave "
            "out --queries to measure with pseudo-queries made of the documents",
            path,
        )
    order = np.random.default_rng(seed).permutation(len(texts))[:MOST]
    vectors = _encoded(snapshot, name, [texts[place] for place in order], progress)
    return TuningQueries(vectors, "given", f"{len(order):,} queries of {path.name}")


def pseudo_queries(
    snapshot: CollectionSnapshot, name: str, rows: NDArray[np.int64], seed: int, progress: Progress
) -> TuningQueries:
    """Queries made of the rows' documents: crops of their texts, or their vectors where no text can be encoded.

    Args:
        rows: (n,) live rows, at least one and at most ``MOST``.
    """
    rng = np.random.default_rng(seed)
    rows = np.resize(rng.permutation(rows), max(len(rows), _FEWEST))
    texts = [crop(document.contents(), rng) for document in snapshot.passages(rows)]
    texts = list(dict.fromkeys(text for text in texts if text))
    if len(texts) >= LEAST:
        try:
            vectors = _encoded(snapshot, name, texts, progress)
        except TercetError as error:
            progress.note(f"pseudo-queries of texts cannot be encoded ({error}); vectors are changed instead")
        else:
            return TuningQueries(
                vectors, "crops", f"{len(texts):,} pseudo-queries, crops of documents encoded as queries"
            )
    moved = perturbed(dense_rows(snapshot, name, rows).values.astype(np.float32), rng)
    return TuningQueries(
        Dense(moved), "vectors", f"{len(rows):,} pseudo-queries, vectors of documents moved at random"
    )


def _encoded(snapshot: CollectionSnapshot, name: str, texts: Sequence[str], progress: Progress) -> Dense:
    encoder = snapshot.encoder(name)
    progress.start("encode queries", len(texts), "queries")
    parts: list[Dense] = []
    for start in range(0, len(texts), _BATCH):
        parts.append(encoder.encode_queries(texts[start : start + _BATCH]))
        progress.advance(len(parts[-1]))
    return Dense.concat(parts)


def crop(text: str, rng: np.random.Generator) -> str:
    """A random run of words, as long as questions are; "" of a text without words."""
    words = text.split()
    length = min(int(rng.integers(*_CROP_WORDS, endpoint=True)), len(words))
    start = int(rng.integers(len(words) - length + 1))
    return " ".join(words[start : start + length])


def perturbed(vectors: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """(n, D) vectors moved along the difference of two others, then brought back to their length.

    A difference lies in the directions in which the vectors differ; noise alike in all directions would leave them,
    and is far too easy: its inner products with all documents are nearly 0.
    """
    n = len(vectors)
    away = vectors[rng.permutation(n)] - vectors[rng.permutation(n)]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    moved = vectors + _MOVED * lengths * _units(away)
    return np.asarray(lengths * _units(moved), dtype=np.float32)


def _units(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """At unit length; zero stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
