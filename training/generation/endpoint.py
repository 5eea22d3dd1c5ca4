"""Queries by a language model behind any OpenAI-compatible endpoint (Promptagator: Dai et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from indexing.progress import Progress
from retrieval.encoders.surrogates import valid_text
from retrieval.endpoint import Endpoint, EndpointError
from retrieval.errors import ConfigError, unknown_name
from retrieval.values import Document
from training.generation.generator import Answer, GeneratorOptions, seed_of
from training.generation.in_parallel import as_completed

APIS = {"chat": "/chat/completions", "completions": "/completions"}
"""Name -> path behind ``/v1``: a chat of turns, or a text to continue."""


@dataclass(frozen=True)
class EndpointGenerator:
    """``POST {url}/chat/completions`` or ``{url}/completions``, several documents at a time.

    A request asks for all queries of a document at once (``n``). A server that gives fewer is asked again with
    another seed, until there are enough. As in the paper, queries are drawn at temperature 0.7 by default.

    Attributes:
        endpoint: where requests go.
        options: see ``GeneratorOptions``.
    """

    takes_title: ClassVar[bool] = False

    endpoint: Endpoint
    options: GeneratorOptions

    @classmethod
    def open(cls, options: GeneratorOptions, documents: Iterable[Document], progress: Progress) -> Self:
        """Nothing is sent yet.

        Raises:
            ConfigError: no model is named, the API is unknown, or the address is none.
        """
        if not options.model:
            raise ConfigError("the endpoint generator needs a model: the name that the server knows it by")
        if options.api not in APIS:
            raise unknown_name("API of an endpoint", options.api, APIS)
        endpoint = Endpoint(
            options.url.rstrip("/") + APIS[options.api],
            api_key_env=options.api_key_env,
            timeout=options.timeout,
            retries=options.retries,
        )
        return cls(endpoint, options)

    @property
    def facts(self) -> dict[str, Any]:
        """What decides the answers; the address is no part of it, since a model may be served elsewhere."""
        options = self.options
        own = {"generator": "endpoint", "api": options.api, "request": dict(options.request)}
        return own | options.of_language_models

    def generate(self, documents: Iterable[Document]) -> Iterator[Answer]:
        """As answers come.

        Raises:
            EndpointError: the endpoint cannot be reached, refuses, or answers something else than completions.
        """
        try:
            yield from as_completed(self._answer, documents, self.options.concurrency)
        finally:
            self.endpoint.close()

    def _answer(self, document: Document) -> Answer:
        wanted, read, written = self.options.per_document, 0, 0
        texts: list[str] = []
        while len(texts) < wanted:
            answer = self.endpoint.post(self._body(document, len(texts)))
            found, prompt_tokens, completion_tokens = self._parsed(answer, document)
            texts += found
            read, written = read + prompt_tokens, written + completion_tokens
        queries = tuple(self.options.prompt.query_of(text) for text in texts[:wanted])
        return Answer(document, queries, read, written)

    def _body(self, document: Document, had: int) -> dict[str, Any]:
        """The request for what is left when a document has so many answers."""
        options = self.options
        shown = valid_text(options.prompt.shown(document))
        body: dict[str, Any] = {
            "model": options.model,
            "temperature": options.temperature,
            "max_tokens": options.max_tokens,
            "n": options.per_document - had,
            "seed": seed_of(options.seed, document.id, had) >> 32,  # servers take 31 bits
        }
        if options.api == "chat":
            body["messages"] = options.prompt.messages(shown)
        else:
            body |= {"prompt": options.prompt.text(shown), "stop": ["\n"]}
        return {name: value for name, value in {**body, **options.request}.items() if value is not None}

    def _parsed(self, answer: Any, document: Document) -> tuple[list[str], int, int]:
        """The texts of an answer, at least one, and the tokens that were read and written as the server counts."""
        try:
            choices = answer["choices"]
            texts = [
                (choice["message"]["content"] if self.options.api == "chat" else choice["text"]) or ""
                for choice in choices
            ]
            usage = answer.get("usage") or {}
            read, written = (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise self._malformed(answer, document) from error
        if not texts or not all(isinstance(text, str) for text in texts):
            raise self._malformed(answer, document)
        return texts, read, written

    def _malformed(self, answer: Any, document: Document) -> EndpointError:
        return EndpointError(
            f"{self.endpoint.url} answered for document {document.id!r} without the texts of any completion: "
            f"{answer!r:.200}; is it the {self.options.api} API?"
        )
