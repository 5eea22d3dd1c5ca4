"""Request bodies, validated, and the response shapes that /openapi.json describes."""

from __future__ import annotations

from collections.abc import Hashable
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

MAX_QUERIES = 256
MAX_HITS = 100_000
MAX_EXPLAINED = 1_000

QueryText = Annotated[str, StringConstraints(max_length=32_768)]
Span = tuple[int, int]


def _misfit(field: str, message: str) -> PydanticCustomError:
    """Fields that are fine alone but not together; errors.py reads the field to blame from the context."""
    return PydanticCustomError("misfit", "{message}", {"field": field, "message": message})


class SearchBody(BaseModel):
    """One query or many, and how to answer them."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="Search")

    query: QueryText | None = Field(default=None, description="One query; empty finds nothing.")
    queries: list[QueryText] | None = Field(
        default=None, max_length=MAX_QUERIES, description="Several queries, answered in order."
    )
    k: int = Field(default=10, ge=1, le=10_000, strict=True, description="Hits wanted for each query.")
    using: str | None = Field(
        default=None,
        max_length=512,
        description="bm25, dense, hybrid, another representation or index of the collection, or several joined by +.",
    )
    filter: str | None = Field(
        default=None,
        max_length=16_384,
        description="Condition on metadata, e.g. year >= 2020 and kind = 'class'.",
    )
    rerank: str | None = Field(default=None, max_length=512, description="Name of a reranker of this server.")
    query_bank: bool = Field(
        default=False,
        strict=True,
        description="Hold back documents that answer too many queries, as the collection's query bank tells.",
    )
    depth: int = Field(
        default=1000,
        ge=1,
        le=10_000,
        strict=True,
        description="Candidates each part of a fused search contributes. A reranker rescores the best 100, or k where "
        "that is more, but no more than depth; depth counts as k at least.",
    )
    explain: bool = Field(default=False, strict=True, description="Say why each hit scores what it does.")
    highlight: bool = Field(default=False, strict=True, description="Give the spans of the query's terms.")
    text: Literal["passage", "document", "none"] = Field(
        default="passage", description="Text of a hit: its best passage, the whole document, or none."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.query is None) == (self.queries is None):
            raise _misfit("query", "give either query (one text) or queries (a list)")
        asked = self.k * len(self.texts)
        if asked > MAX_HITS:
            raise _misfit("k", f"k times the number of queries is {asked}; at most {MAX_HITS}")
        if self.explain and asked > MAX_EXPLAINED:
            raise _misfit("explain", f"explains at most {MAX_EXPLAINED} hits; k times queries is {asked}")
        return self

    @property
    def texts(self) -> list[str]:
        """The queries as a list."""
        return [self.query] if self.query is not None else (self.queries or [])

    @property
    def manner(self) -> Hashable:
        """Everything but the queries: searches of equal manner can be answered as one."""
        return (
            self.using,
            self.rerank,
            self.query_bank,
            self.filter,
            self.k,
            self.depth,
            self.explain,
            self.highlight,
            self.text,
        )


class EmbeddingsBody(BaseModel):
    """The OpenAI embeddings request."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="Embeddings")

    input: QueryText | list[QueryText] = Field(description="A text or up to 256 texts.")
    model: str | None = Field(default=None, max_length=512, description="Ignored: one encoder is served.")
    encoding_format: Literal["float", "base64"] = "float"
    input_type: Literal["query", "document"] = Field(default="query", description="Which prompt to use.")
    user: str | None = Field(default=None, max_length=512, description="Ignored.")

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if not self.texts or len(self.texts) > MAX_QUERIES:
            raise _misfit("input", f"has {len(self.texts)} texts; give 1 to {MAX_QUERIES}")
        return self

    @property
    def texts(self) -> list[str]:
        """The input as a list."""
        return [self.input] if isinstance(self.input, str) else self.input


BODIES: dict[str, type[BaseModel]] = {
    str(body.model_config["title"]): body for body in (SearchBody, EmbeddingsBody)
}
"""Request bodies by title, as a ValidationError names them."""


class ExplanationShape(BaseModel):
    """One part of a score, and what it is made of."""

    label: str
    value: float
    facts: dict[str, Any] | None = None
    parts: list[ExplanationShape] | None = None


class Highlights(BaseModel):
    """Spans of the query's terms: [start, end) in Unicode code points."""

    title: list[Span]
    text: list[Span]


class HitShape(BaseModel):
    """A document found, by its best passage."""

    id: str
    score: float
    title: str
    text: str | None = Field(
        default=None, description="As the request's text says; by default the best passage."
    )
    passage: Span | None = Field(default=None, description="Where that passage lies in the document's text.")
    metadata: dict[str, str | int | float | bool | datetime | list[str] | None]
    highlights: Highlights | None = None
    explanation: ExplanationShape | None = None


class ResultShape(BaseModel):
    """The hits of one query, best first."""

    hits: list[HitShape]


class SearchAnswer(BaseModel):
    """What /v1/search answers."""

    results: list[ResultShape]
    took_ms: float


class DocumentShape(BaseModel):
    """A stored document."""

    id: str
    title: str
    text: str
    metadata: dict[str, str | int | float | bool | datetime | list[str] | None]


class ErrorFacts(BaseModel):
    """What went wrong, and where."""

    type: str
    message: str
    field: str | None = None
    request_id: str


class ErrorAnswer(BaseModel):
    """The one shape of every error."""

    error: ErrorFacts
