"""Which texts of a training set are read: documents, and short texts such as queries are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.examples.training_set import TrainingSet

_FEWEST, _MOST = 3, 20
"""Words of a crop."""


@dataclass(frozen=True)
class Texts:
    """What is read of one set.

    Attributes:
        documents: some of its documents.
        short: some of its queries, then pieces cut out of its documents.
    """

    documents: tuple[str, ...]
    short: tuple[str, ...]


def texts_of(data: TrainingSet, n_documents: int, n_queries: int, n_crops: int, seed: int) -> Texts:
    """Texts of a set, chosen by the seed.

    Args:
        data: the set; it may be without queries.
        n_documents: most documents.
        n_queries: most queries.
        n_crops: pieces of documents; a document may give several.
        seed: of the choice.
    """
    rng = np.random.default_rng(seed)
    documents = data.documents["text"].gather(_some(data.documents.height, n_documents, rng)).to_list()
    queries = data.queries["text"].gather(_some(data.queries.height, n_queries, rng)).to_list()
    crops = [_crop(documents[row], rng) for row in rng.integers(len(documents), size=n_crops)]
    return Texts(tuple(documents), (*queries, *crops))


def _some(total: int, most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.sort(rng.choice(total, min(total, most), replace=False))


def _crop(text: str, rng: np.random.Generator) -> str:
    """A few words that stand together; of a shorter text all of them."""
    words = text.split()
    length = int(rng.integers(_FEWEST, _MOST))
    start = int(rng.integers(max(1, len(words) - length + 1)))
    return " ".join(words[start : start + length])
