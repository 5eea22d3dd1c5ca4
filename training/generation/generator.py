"""What every generator is: documents go in, each comes out with queries that it should answer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from retrieval.endpoint import KEY_VARIABLE
from retrieval.values import Document
from training.generation.prompts import Prompt


@dataclass(frozen=True)
class GeneratorOptions:
    """What generators are opened with; each reads what it knows.

    Attributes:
        per_document: queries of each document.
        seed: of every choice; what a document gets depends on it and on the document alone.
        model: ``endpoint``: the name the server knows it by; ``local``: a folder or Hub id.
        prompt: what a language model is asked.
        temperature: its logits are divided by before a token is drawn; 0 takes the likeliest.
        max_tokens: of a query.
        url: of the endpoint, up to and including ``/v1``.
        api: ``chat`` or ``completions``.
        api_key_env: the environment variable that holds the key.
        concurrency: requests under way at a time.
        timeout: seconds that an answer may take.
        retries: attempts after the first.
        request: further keys of a request; null takes a key out.
        batch: documents that a local model reads at a time.
    """

    per_document: int = 2
    seed: int = 0
    model: str = ""
    prompt: Prompt = field(default_factory=Prompt)
    temperature: float = 0.7
    max_tokens: int = 64
    url: str = "https://api.openai.com/v1"
    api: str = "chat"
    api_key_env: str = KEY_VARIABLE
    concurrency: int = 8
    timeout: float = 120.0
    retries: int = 5
    request: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 8

    @property
    def of_language_models(self) -> dict[str, Any]:
        """What decides the answers of any language model, as JSON."""
        return {
            "model": self.model,
            "per_document": self.per_document,
            "seed": self.seed,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "prompt": self.prompt.facts(),
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """The queries of one document as they were made, before any is refused.

    Attributes:
        document: what they were made of.
        queries: at most as many as were asked for.
        prompt_tokens, completion_tokens: read and written for it, where a model did.
    """

    document: Document
    queries: tuple[str, ...]
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Generator(Protocol):
    """Makes queries of documents."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """JSON of all that decides its answers; equal facts, equal queries (as far as a model keeps to its seed)."""
        ...

    @property
    def takes_title(self) -> bool:
        """Whether the title becomes the query, so that documents have to be trained on without it."""
        ...

    def generate(self, documents: Iterable[Document]) -> Iterator[Answer]:
        """An answer for each document, in any order, as they come.

        What a document gets does not depend on the others nor on their order.
        """
        ...


def seed_of(seed: int, document: str, number: int) -> int:
    """63 bits from the run's seed, a document's id and the number of a query."""
    content = f"{seed}\0{number}\0{document}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little") >> 1


def random_of(seed: int, document: str, number: int) -> np.random.Generator:
    """Random numbers of one query of one document."""
    return np.random.default_rng(seed_of(seed, document, number))
