"""The documents of a training set behind an index, so that miners and teachers can search them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from indexing.assembly import build_index, index_spec
from indexing.encoder_fitting import spread
from indexing.fitting import fitted, shared_folder
from indexing.kinds import kind_class
from indexing.planner import planned_search
from indexing.progress import Progress
from indexing.segment import index_folder, segment_folder
from retrieval.errors import ConfigError
from retrieval.protocols import Explanation, Fitted, SearchRequest
from retrieval.values import Dense, Document, Hits, MultiVector, QueryNetwork, Sparse, Terms
from training.examples.training_set import TrainingSet
from training.mining.stored_vectors import as_documents, store_vectors

_SEGMENT = "00000001"
_MEMORY_BYTES = 512 * 10**6
_KINDS: dict[type, tuple[str, int, str]] = {
    Terms: ("bm25", 0, "bm25"),
    Dense: ("flat", 200_000, "hnsw"),
    Sparse: ("inverted", 0, "inverted"),
    MultiVector: ("maxsim", 2_000, "plaid"),
    QueryNetwork: ("hypencoder", 5_000, "hypencoder-graph"),
}
"""What an encoder makes of a query -> the exact kind, the rows up to which it is used, and the kind for more."""


class TextEncoder(Protocol):
    """What makes vectors of texts: an encoder of ``retrieval.encoders``, or a model in training with its two calls."""

    def encode_queries(self, texts: Sequence[str]) -> Any:
        """One value row a text."""
        ...

    def encode_documents(self, documents: Sequence[Document]) -> Any:
        """One value row a document."""
        ...


@dataclass(frozen=True)
class DocumentIndex:
    """A ``retrieval.protocols.Searcher`` whose rows are those of a training set's documents.

    Attributes:
        encoder: of queries and documents.
        index: of any kind of ``indexing.kinds``.
    """

    encoder: TextEncoder
    index: Any

    @property
    def floor(self) -> float | None:
        """What a document scores that shares no term with the query and is not returned; None: there is no such."""
        return 0.0 if self.index.value in (Terms, Sparse) else None

    def search(self, queries: Sequence[str], request: SearchRequest) -> Hits:
        """The best documents of each query, ties by ascending row."""
        return planned_search(self.index, self.encoder.encode_queries(queries), request)

    def explain(
        self, query: str, rows: NDArray[np.integer], request: SearchRequest | None = None
    ) -> list[Explanation]:
        """Why each document scores what it does."""
        return self.index.explain(self.encoder.encode_queries([query]), rows)


def index_documents(
    data: TrainingSet, encoder: TextEncoder, folder: Path, name: str, progress: Progress
) -> DocumentIndex:
    """Encode and index the documents of a set, exactly where there are few and approximately where there are many.

    An encoder that learns from documents is fitted on a sample of these.

    Args:
        data: the set.
        encoder: of anything but sparse token vectors.
        folder: where vectors and index stay as long as they are searched; laid out like a collection's, with room for
            several names. What was there under the same name is replaced.
        name: of letters, digits and dashes.
        progress: hears of what is encoded and built.

    Raises:
        ConfigError: there are no documents, or no kind for what the encoder makes.
        FormatError: the encoder makes numbers that are not finite.
    """
    if isinstance(encoder, Fitted) and encoder.needs_fit:
        sample = spread(np.arange(data.documents.height))
        encoder = encoder.fit(as_documents(data.documents[sample]))
    segment = segment_folder(folder, _SEGMENT)
    vectors = store_vectors(
        lambda block: encoder.encode_documents(as_documents(block)),
        data.documents,
        segment / "vectors" / name,
        f"documents for {name}",
        progress,
    )
    spec = index_spec(index_kind(getattr(encoder, "query_value", type(vectors)), len(vectors)), {})
    (spec,) = fitted(folder, name, (spec,), vectors, memory_bytes=_MEMORY_BYTES, progress=progress)
    build_index(folder, _SEGMENT, name, spec, 1, memory_bytes=_MEMORY_BYTES, progress=progress)
    index = kind_class(spec.kind).load(
        index_folder(segment, f"{name}-{spec.kind}", 1),
        vectors,
        spec.parameters,
        **shared_folder(folder, name, spec),
    )
    return DocumentIndex(encoder, index)


def index_kind(value: type, n: int) -> str:
    """The kind of index for n rows that queries of a value search.

    Raises:
        ConfigError: there is none.
    """
    if value not in _KINDS:
        raise ConfigError(
            f"{value.__name__} vectors cannot be mined with; choose an encoder that makes "
            + ", ".join(known.__name__ for known in _KINDS)
        )
    exact, rows, approximate = _KINDS[value]
    return exact if n <= rows else approximate
