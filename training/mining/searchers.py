"""What finds documents for a training set's queries: Tercet's searchers, a collection, or the model in training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.collection import Collection, CollectionSnapshot
from indexing.commit import COMMIT_FILE
from indexing.options import KNOWN_REPRESENTATIONS
from indexing.progress import Progress
from retrieval.bitmap import Bitmap
from retrieval.encoders import open_encoder
from retrieval.errors import ConfigError, IncompatibleError, unknown_name
from retrieval.fusion import Fused
from retrieval.protocols import Encoder, Searcher, SearchRequest
from retrieval.rerank import ordered
from retrieval.values import Hits
from training.examples.training_set import TrainingSet
from training.mining.document_index import TextEncoder, index_documents

Search = Callable[[Sequence[str], int], Hits]
"""From texts of queries and k to the k best rows of a set's documents for each, ties by ascending row."""

HYBRID = ("bm25", "dense", "late")
"""What ``hybrid`` fuses."""

_SEARCHED = ("bm25", "dense", "sparse", "late")
_BATCH = 512  # queries between two reports of progress


def open_search(
    name: str, data: TrainingSet, *, encoder: TextEncoder | None = None, folder: Path, progress: Progress
) -> Search:
    """A search in the documents of a training set.

    Args:
        name: ``bm25``, ``dense``, ``sparse`` or ``late``, with a checkpoint after a colon where it is not the default
            one (``dense:FOLDER``); several joined by "+", or ``hybrid`` for bm25, dense and late, fused by the sum of
            their scores after min-max (``retrieval.fusion``); ``model`` for ``encoder``; or the folder of a collection,
            which is searched as ``tercet search`` does and whose documents are matched by id.
        data: the set; rows of hits are rows of its documents.
        encoder: the model in training.
        folder: where vectors and indexes stay as long as the search is used; what is there under a name is replaced.
        progress: hears of encoding, of building and of every search.

    Raises:
        ConfigError: no such name, or no encoder for ``model``.
        IncompatibleError: the collection has none of the documents.
    """
    if (Path(name) / COMMIT_FILE).is_file():
        snapshot = Collection.open(name).snapshot()
        return _Batched(_Matched.of(snapshot, data, progress).search, name, progress)
    if name == "model":
        if encoder is None:
            raise ConfigError(
                "the searcher 'model' needs the encoder that is trained; choose another by its name"
            )
        index = index_documents(data, encoder, folder, "model", progress)
        return _Batched(index.search, name, progress)
    parts = HYBRID if name == "hybrid" else tuple(name.split("+"))
    searchers = [
        index_documents(data, own, folder / f"{place}", part.partition(":")[0], progress)
        for place, (part, own) in enumerate([(part, _encoder(part)) for part in parts])
    ]
    searcher: Searcher = searchers[0]
    if len(parts) > 1:
        searcher = Fused(tuple((part, found, 1.0) for part, found in zip(parts, searchers, strict=True)))
    return _Batched(searcher.search, name, progress)


def _encoder(part: str) -> Encoder[Any, Any]:
    """The encoder that NAME or NAME:MODEL stands for."""
    name, _, model = part.partition(":")
    if name not in _SEARCHED:
        raise unknown_name("searcher", part, (*_SEARCHED, "hybrid", "model", "the folder of a collection"))
    known = KNOWN_REPRESENTATIONS[name]
    return open_encoder(known.encoder(name, model or None, {}))


@dataclass(frozen=True)
class _Batched:
    """A search that answers some hundred queries at a time and says how far it is."""

    search: Callable[[Sequence[str], SearchRequest], Hits]
    name: str
    progress: Progress

    def __call__(self, queries: Sequence[str], k: int) -> Hits:
        self.progress.start(f"search with {self.name}", len(queries), "queries")
        request = SearchRequest(
            k=k, depth=2 * k
        )  # the parts of a fused search give twice as many, so that k remain
        found = [Hits.none(0, k)]
        for start in range(0, len(queries), _BATCH):
            batch = queries[start : start + _BATCH]
            found.append(self.search(batch, request))
            self.progress.advance(len(batch))
        return Hits.concat(found)


@dataclass(frozen=True)
class _Matched:
    """A search in a collection that returns a set's documents and no others.

    Attributes:
        searcher: of the collection.
        rows: (rows of the collection,) int64, the document of the set that each is, or -1.
        allowed: the rows that are one.
    """

    searcher: Searcher
    rows: NDArray[np.int64]
    allowed: Bitmap

    @classmethod
    def of(cls, snapshot: CollectionSnapshot, data: TrainingSet, progress: Progress) -> _Matched:
        """Match by id.

        Raises:
            IncompatibleError: no document is in both.
        """
        places = {id_: row for row, id_ in enumerate(data.documents["id"])}
        rows = np.concatenate(
            [
                np.array([places.get(id_, -1) for id_ in segment.documents.ids], dtype=np.int64)[
                    segment.documents.of_rows(np.arange(segment.n_rows))
                ]
                for segment in snapshot.segments
            ]
        )
        n_found = len(np.unique(rows[rows >= 0]))
        if not n_found:
            raise IncompatibleError(
                f"{snapshot.path} has no document of {data.name!r}, such as {data.documents['id'][0]!r}; "
                "index the documents of this set"
            )
        if n_found < len(places):
            progress.note(
                f"{snapshot.path} has {n_found:,} of the {len(places):,} documents of {data.name!r}"
            )
        return cls(snapshot.searcher(), rows, Bitmap.from_mask(rows >= 0))

    def search(self, queries: Sequence[str], request: SearchRequest) -> Hits:
        """The best documents of each query, ties by ascending row of the set."""
        found = self.searcher.search(queries, replace(request, allowed=self.allowed))
        rows = np.where(found.rows >= 0, self.rows[found.rows], -1)
        return ordered(rows, found.scores, "")
