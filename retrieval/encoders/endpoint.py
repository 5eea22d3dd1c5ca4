"""Dense encoder behind any OpenAI-compatible embeddings endpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.options import Option, read_options
from retrieval.encoders.surrogates import valid_text
from retrieval.encoders.tally import Tally
from retrieval.endpoint import KEY_VARIABLE, Endpoint, EndpointError
from retrieval.errors import ConfigError
from retrieval.protocols import Fingerprints
from retrieval.values import Dense, Document

OPTIONS: dict[str, Option] = {
    "base_url": Option(str, default="https://api.openai.com/v1"),
    "api_key_env": Option(str, default=KEY_VARIABLE),
    "dimensions": Option(int, least=1),
    "query_prompt": Option(str, default=""),
    "document_prompt": Option(str, default=""),
    "normalize": Option(bool, default=True),
    "batch": Option(int, default=64, least=1),
    "concurrency": Option(int, default=4, least=1),
    "timeout": Option(float, default=60.0, least=0.001),
    "retries": Option(int, default=5, least=0),
}


class EndpointEncoder:
    """``POST {base_url}/embeddings`` with ``{"model", "input"}``; answers are put in order by their "index".

    The address and the key are no part of the fingerprint: the same model may be served elsewhere.
    """

    family: ClassVar[str] = "endpoint"
    value: ClassVar[type] = Dense

    def __init__(self, model: str, options: Mapping[str, Any]) -> None:
        """See ``open``; options holds every name in ``OPTIONS``."""
        self.model = model
        self.tally = Tally()
        self._options = dict(options)
        self._endpoint = Endpoint(
            self._options["base_url"].rstrip("/") + "/embeddings",
            api_key_env=self._options["api_key_env"],
            timeout=self._options["timeout"],
            retries=self._options["retries"],
        )
        self._dim: int | None = self._options["dimensions"]

    @classmethod
    def open(cls, model: str, options: Mapping[str, Any] | None = None) -> Self:
        """An encoder from its spec; nothing is sent yet.

        Args:
            model: the name the server knows the model by.
            options: ``base_url`` up to and including ``/v1``; ``api_key_env``, the environment variable that
                holds the key (sent only when set); ``dimensions`` to ask for; ``query_prompt`` and
                ``document_prompt`` put before texts; ``normalize`` to unit length; ``batch`` texts a request;
                ``concurrency`` of requests; ``timeout`` in seconds; ``retries`` after the first attempt.

        Raises:
            ConfigError: no model, an unknown option, a wrong value or an address that is none.
        """
        values = read_options(cls.family, options or {}, OPTIONS)
        if not model:
            raise ConfigError("the endpoint encoder needs the name of the server's model")
        return cls(model, values)

    @property
    def spec(self) -> dict[str, Any]:
        """``{"family", "model", "options"}``; the key itself is never in it."""
        chosen = {name: value for name, value in self._options.items() if value != OPTIONS[name].default}
        return {"family": self.family, "model": self.model, "options": chosen}

    @property
    def fingerprints(self) -> Fingerprints:
        """Identity of the vectors, as far as it can be known from here: model name, width, prompts."""

        def of(prompt: str) -> str:
            facts = [
                self.family,
                self.model,
                self._options["dimensions"],
                self._options["normalize"],
                self._options[prompt],
            ]
            return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

        return Fingerprints(of("document_prompt"), of("query_prompt"))

    def encode_queries(self, texts: Sequence[str]) -> Dense:
        """(N, D) float32.

        Raises:
            EndpointError: the endpoint cannot be reached, refuses or answers nonsense.
        """
        return Dense(self._encode([self._options["query_prompt"] + text for text in texts]))

    def encode_documents(self, documents: Sequence[Document]) -> Dense:
        """(N, D) float32.

        Raises:
            EndpointError: the endpoint cannot be reached, refuses or answers nonsense.
        """
        prompt = self._options["document_prompt"]
        return Dense(self._encode([prompt + document.contents() for document in documents]))

    def close(self) -> None:
        """Close idle connections; the next call opens new ones."""
        self._endpoint.close()

    def _encode(self, texts: list[str]) -> NDArray[np.float32]:
        if not texts:
            return np.zeros((0, self._dim or 0), dtype=np.float32)
        size = self._options["batch"]
        batches = [texts[start : start + size] for start in range(0, len(texts), size)]
        if len(batches) == 1:
            parts = [self._request(batches[0])]
        else:
            from concurrent.futures import ThreadPoolExecutor

            with ThreadPoolExecutor(self._options["concurrency"]) as pool:
                parts = list(pool.map(self._request, batches))
        widths = {part.shape[1] for part in parts}
        if len(widths) > 1:
            raise EndpointError(
                f"{self._endpoint.url} answered with vectors of different widths: {sorted(widths)}"
            )
        vectors = np.concatenate(parts)
        self._dim = int(vectors.shape[1])
        if self._options["normalize"]:
            norms = np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
            vectors = (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
        return vectors

    def _request(self, texts: list[str]) -> NDArray[np.float32]:
        """The vectors of one batch."""
        body: dict[str, Any] = {"model": self.model, "input": [valid_text(text) or " " for text in texts]}
        if self._options["dimensions"] is not None:
            body["dimensions"] = self._options["dimensions"]
        return self._vectors(self._endpoint.post(body), len(texts))

    def _vectors(self, answer: Any, n: int) -> NDArray[np.float32]:
        """(n, D) from an answer, in the order of the texts."""
        try:
            items = answer["data"]
            order = [int(item.get("index", place)) for place, item in enumerate(items)]
            rows = [item["embedding"] for item in items]
            tokens = int((answer.get("usage") or {}).get("total_tokens") or 0)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise EndpointError(
                f'{self._endpoint.url} answered without "data" of "embedding"s: {answer!r:.200}'
            ) from error
        if sorted(order) != list(range(n)):
            raise EndpointError(
                f"{self._endpoint.url} answered with {len(rows)} vectors for {n} texts (indices {order[:8]})"
            )
        try:
            found = np.array(rows, dtype=np.float32)
        except (ValueError, TypeError) as error:
            raise EndpointError(
                f"{self._endpoint.url} answered with vectors that are not lists of numbers"
            ) from error
        wanted = self._options["dimensions"]
        if found.ndim != 2 or found.shape[1] == 0 or (wanted is not None and found.shape[1] != wanted):
            width = found.shape[1] if found.ndim == 2 else "uneven"
            raise EndpointError(
                f"{self._endpoint.url} answered with vectors of width {width}, expected {wanted or 'some'}"
            )
        if not np.isfinite(found).all():
            raise EndpointError(f"{self._endpoint.url} answered with numbers that are not finite")
        vectors = np.empty_like(found)
        vectors[order] = found
        self.tally.add(n, tokens, 0)
        return vectors
