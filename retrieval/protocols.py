"""What encoders, stores, indexes, searchers and rerankers promise one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from retrieval.bitmap import Bitmap
from retrieval.values import Document, Hits

if TYPE_CHECKING:
    from retrieval.encoders.tally import Tally

Q_contra = TypeVar("Q_contra", contravariant=True)
Q_co = TypeVar("Q_co", covariant=True)
D_co = TypeVar("D_co", covariant=True)
V_co = TypeVar("V_co", covariant=True)


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """How to search.

    Attributes:
        k: hits wanted for each query, at least 1; may exceed the number of rows.
        depth: candidates each part of a fused search contributes; a reranked search rescores no more.
        allowed: the only rows that may be returned; None allows all.
        time_budget_ms: a wish, honoured by kinds that can stop early; None means no limit.
        explain: whether the caller will ask for explanations (lets a searcher keep what they need).
    """

    k: int = 10
    depth: int = 1000
    allowed: Bitmap | None = None
    time_budget_ms: float | None = None
    explain: bool = False

    def __post_init__(self) -> None:
        if self.k < 1 or self.depth < 1:
            raise ValueError(f"k and depth are at least 1, got k={self.k} depth={self.depth}")


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a row has its score: a tree whose leaves are terms, tokens or list positions.

    Attributes:
        label: what this part is, for people.
        value: its contribution to the parent, or the score at the root.
        parts: what it is made of.
        facts: further figures worth showing (tf, df, rank, ...).
    """

    label: str
    value: float
    parts: tuple[Explanation, ...] = ()
    facts: Mapping[str, float | int | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """What identifies an encoder's output (dtype and device left out).

    Attributes:
        documents: weights, tokenizer, document prompt, maximum length, pooling; gates opening a collection.
        queries: the same for queries; keys caches.
    """

    documents: str
    queries: str


class Encoder(Protocol[Q_co, D_co]):
    """Turns texts into vectors.

    Every class in ``FAMILIES`` also has ``open(model, options) -> Self``; ``spec`` is what reopens it.
    """

    @property
    def spec(self) -> Mapping[str, Any]:
        """``{"family", "model", "options"}``: JSON that ``open_encoder`` turns into an equal encoder."""
        ...

    @property
    def fingerprints(self) -> Fingerprints:
        """Identity of the vectors this encoder makes."""
        ...

    @property
    def value(self) -> type:
        """The type of what it makes: Dense, Terms, ... (a class attribute)."""
        ...

    @property
    def tally(self) -> Tally:
        """Counts of texts, tokens and truncations so far."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> Q_co:
        """One value row a text."""
        ...

    def encode_documents(self, documents: Sequence[Document]) -> D_co:
        """One value row a document."""
        ...


@runtime_checkable
class Fitted(Protocol):
    """What an encoder has besides ``Encoder`` where it learns something from a sample of the corpus first.

    What it has learned is part of its fingerprints and not of its ``spec``; a collection keeps it beside the spec.
    An encoder that cannot do without it refuses to encode (ConfigError).
    """

    @property
    def needs_fit(self) -> bool:
        """Whether it has yet to learn."""
        ...

    def fit(self, documents: Sequence[Document]) -> Self:
        """The encoder with what it learns from these documents; the same documents teach it the same."""
        ...

    def save_state(self, folder: Path) -> None:
        """Write what it has learned as files into an existing, empty folder."""
        ...

    def with_state(self, folder: Path) -> Self:
        """The encoder with what was saved; nothing of the folder is read later.

        Raises:
            CorruptError: a file is missing, damaged or of another encoder.
        """
        ...


class Store(Protocol[V_co]):
    """Vectors by row, for re-scoring, MaxSim, similar documents and feedback."""

    def __len__(self) -> int: ...

    def take(self, rows: NDArray[np.integer]) -> V_co:
        """The vectors of the rows, in that order."""
        ...


class Index(Protocol[Q_contra]):
    """A searchable structure over the rows of one segment."""

    kind: ClassVar[str]
    exact: ClassVar[bool]

    def __len__(self) -> int: ...

    def search(self, queries: Q_contra, request: SearchRequest) -> Hits:
        """The best rows of each query; ties by ascending row; never mutates."""
        ...

    def explain(self, queries: Q_contra, rows: NDArray[np.integer]) -> list[Explanation]:
        """Why each row scores what it does for the first query."""
        ...


class Snapshot(Protocol):
    """One commit of a collection, as readers see it."""

    @property
    def token(self) -> str:
        """Identity of the commit; equals ``Hits.snapshot``."""
        ...

    def documents(self, rows: NDArray[np.integer]) -> list[Document]:
        """The document each row belongs to."""
        ...

    def passages(self, rows: NDArray[np.integer]) -> list[Document]:
        """The chunk each row is, as a document (title kept, text cut to the chunk)."""
        ...

    def encoder(self, name: str) -> Encoder[Any, Any]:
        """The encoder of a representation."""
        ...

    def store(self, name: str) -> Store[Any]:
        """The stored vectors of a representation."""
        ...


class Searcher(Protocol):
    """Answers text queries with hits of one snapshot."""

    def search(self, queries: Sequence[str], request: SearchRequest) -> Hits:
        """The best documents of each query, each by its best row."""
        ...

    def explain(
        self, query: str, rows: NDArray[np.integer], request: SearchRequest | None = None
    ) -> list[Explanation]:
        """Why each row scores what it does for the query; the request it was found with, where that matters."""
        ...


class Reranker(Protocol):
    """Scores candidates anew."""

    def rerank(self, queries: Sequence[str], hits: Hits, snapshot: Snapshot) -> Hits:
        """The same rows, ordered by the new scores."""
        ...
