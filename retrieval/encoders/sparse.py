"""Sparse encoder over sentence-transformers checkpoints: a weight for each of the few terms that matter."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from retrieval.compute import choose_device, choose_dtype
from retrieval.encoders.options import Option, chosen_options, read_options
from retrieval.encoders.tally import Tally
from retrieval.encoders.transformer.architectures import (
    reading_length,
    runs_masked_language,
    runs_without_model,
)
from retrieval.encoders.transformer.checkpoint import Checkpoint
from retrieval.encoders.transformer.identity import checkpoint_digest
from retrieval.encoders.transformer.location import locate
from retrieval.encoders.transformer.routes import Routes, read_routes
from retrieval.encoders.transformer.term_tokens import TermTokenizer
from retrieval.errors import ConfigError
from retrieval.protocols import Fingerprints
from retrieval.values import Document, Sparse, Strings

OPTIONS: dict[str, Option] = {
    "max_length": Option(int, least=3),
    "max_active_dims": Option(int, least=1),
    "query_terms": Option(int, least=1),
    "document_terms": Option(int, least=1),
    "idf_free": Option(bool, default=False),
    "revision": Option(str),
    "trust_remote_code": Option(bool, default=False),
    "device": Option(str, default="auto"),
    "dtype": Option(str, default="auto"),
}


class SparseEngine(Protocol):
    """What encodes the texts of one route, or of both."""

    @property
    def dim(self) -> int:
        """The width V of a vector."""
        ...

    def encode(self, texts: Sequence[str], tally: Tally, task: str, keep: int | None) -> Sparse:
        """One row a text, of at most ``keep`` terms, for the task "query" or "document"."""
        ...


class SparseEncoder:
    """Weights of terms, equal to ``SparseEncoder.encode_query`` and ``encode_document`` of sentence-transformers.

    Masked language models of the kinds BERT, RoBERTa, XLM-RoBERTa and DistilBERT with SPLADE pooling run on tokenizers
    and torch alone, and queries that need no model on tokenizers alone; any other checkpoint goes through
    sentence-transformers. A document is encoded as its title, a space and its text. Safe to share between threads.
    """

    family: ClassVar[str] = "sparse"
    value: ClassVar[type] = Sparse

    def __init__(self, model: str, routes: Routes, options: Mapping[str, Any]) -> None:
        """Describe an encoder; ``open`` is the usual way in.

        Args:
            model: the name it was opened with.
            routes: its files.
            options: every name in ``OPTIONS``.

        Raises:
            ConfigError: an option that does not suit the model.
        """
        self.model = model
        self.routes = routes
        self.tally = Tally()
        self._options = dict(options)
        wanted = options["max_length"]
        self.max_active_dims: int | None = options["max_active_dims"] or routes.document.max_active_dims
        self.query_terms = _fewest(self.max_active_dims, options["query_terms"])
        self.document_terms = _fewest(self.max_active_dims, options["document_terms"])
        self.query_length = reading_length(routes.query, wanted)
        self.document_length = reading_length(routes.document, wanted)
        self.idf_free: bool = options["idf_free"]
        if self.idf_free and not self.has_vocabulary:
            raise ConfigError(f"idf_free: the vectors of {model} have no terms for the words of a query")
        self._locks = {"query": threading.Lock(), "document": threading.Lock()}
        self._engines: dict[str, SparseEngine] = {}

    @classmethod
    def open(cls, model: str, options: Mapping[str, Any] | None = None) -> Self:
        """An encoder from its spec; reads small files only, weights with the first text.

        Args:
            model: a folder, or a name on the Hugging Face Hub.
            options: ``max_length`` in tokens; ``max_active_dims``, the most terms of a vector, instead of the
                checkpoint's; ``query_terms`` and ``document_terms``, the same for queries and documents alone;
                ``idf_free`` for queries of their own terms, each with weight 1 and without the model;
                ``revision`` of a Hub repository; ``trust_remote_code``; ``device`` and ``dtype``, which the
                spec leaves out. Of terms with equal weight those of lower id stay.

        Raises:
            ConfigError: an unknown option, or a model that does not exist, cannot be reached or is no SparseEncoder.
            FormatError: a damaged JSON file in the checkpoint.
        """
        values = read_options(cls.family, options or {}, OPTIONS)
        if not model:
            raise ConfigError(
                "the sparse encoder has no default model; name a SparseEncoder's folder or Hub repository"
            )
        return cls(model, read_routes(locate(model, values["revision"])), values)

    @property
    def spec(self) -> dict[str, Any]:
        """``{"family", "model", "options"}``: what was chosen, without device and dtype."""
        return {"family": self.family, "model": self.model, "options": chosen_options(self._options, OPTIONS)}

    @cached_property
    def fingerprints(self) -> Fingerprints:
        """Identity of the vectors: the checkpoint's content and the options that change them."""
        documents = [self.document_length, self.max_active_dims, self.document_terms]
        queries = [self.query_length, self.max_active_dims, self.query_terms, self.idf_free]
        query, document = self.routes.query, self.routes.document
        return Fingerprints(
            _fingerprint(document, [*documents, document.document_prompt]),
            _fingerprint(query, [*queries, query.query_prompt]),
        )

    @property
    def runs_directly(self) -> bool:
        """Whether queries and documents are encoded without sentence-transformers."""
        return self._query_runs_directly and runs_masked_language(self.routes.document)

    @property
    def has_vocabulary(self) -> bool:
        """Whether dimensions are terms of the tokenizer; those of a sparse autoencoder are not."""
        return "SparseAutoEncoder" not in self.routes.document.types

    @property
    def dim(self) -> int:
        """The vocabulary's size V; loads the weights only where no setting says it."""
        known = _known_dim(self.routes.document)
        return self._loaded("document").dim if known is None else known

    @cached_property
    def vocabulary(self) -> Strings:
        """The V terms by id, as the tokenizer writes them; the features of a sparse autoencoder by number.

        Raises:
            ConfigError: the checkpoint has no tokenizer.json.
            CorruptError: it has a damaged one.
        """
        if not self.has_vocabulary:
            return Strings.of(f"feature {number}" for number in range(self.dim))
        return self._terms.names(self.dim)

    def tokens_of(self, text: str) -> NDArray[np.int32]:
        """Ids of the terms that a query's text has itself, ascending; a weight of any other is an expansion.

        Empty for a model whose dimensions are no terms.

        Raises:
            ConfigError: the checkpoint has no tokenizer.json.
            CorruptError: it has a damaged one.
        """
        return self._terms.terms_of(text) if self.has_vocabulary else np.zeros(0, dtype=np.int32)

    def names_in(self, text: str) -> Strings:
        """The names of all terms that a query can have, by id; the text does not matter.

        Raises:
            ConfigError: the checkpoint has no tokenizer.json.
            CorruptError: it has a damaged one.
        """
        return self.vocabulary

    def encode_queries(self, texts: Sequence[str]) -> Sparse:
        """(N, V) sparse; positive weights of at most ``query_terms`` terms a row."""
        prompt = "" if self.idf_free else self.routes.query.query_prompt
        return self._encode([prompt + text for text in texts], "query", self.query_terms)

    def encode_documents(self, documents: Sequence[Document]) -> Sparse:
        """(N, V) sparse; texts longer than the maximum length are cut and counted in ``tally``."""
        prompt = self.routes.document.document_prompt
        texts = [prompt + document.contents() for document in documents]
        return self._encode(texts, "document", self.document_terms)

    def _encode(self, texts: list[str], task: str, keep: int | None) -> Sparse:
        if not texts:
            nothing = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
            return Sparse(np.zeros(1, dtype=np.int64), *nothing, self.dim)
        return self._loaded(task).encode(texts, self.tally, task, keep)

    @cached_property
    def _terms(self) -> TermTokenizer:
        route = self.routes.query
        if not (route.transformer / "tokenizer.json").is_file():
            raise ConfigError(
                f"{route.transformer} has no tokenizer.json, so the terms of {self.model} have no names; "
                "save the model with a fast tokenizer"
            )
        lower_case = bool(route.wrapper.get("do_lower_case", False))
        return TermTokenizer(route.transformer, self.query_length, lower_case)

    @property
    def _query_runs_directly(self) -> bool:
        query = self.routes.query
        return self.idf_free or runs_without_model(query) or runs_masked_language(query)

    def _loaded(self, task: str) -> SparseEngine:
        """The engine of a task; both tasks share one where the same modules, or sentence-transformers, serve both."""
        if task == "query" and not self.idf_free:
            both_fall_back = not (self._query_runs_directly or runs_masked_language(self.routes.document))
            if self.routes.query is self.routes.document or both_fall_back:
                task = "document"
        with self._locks[task]:
            if task not in self._engines:
                self._engines[task] = self._load(task)
            return self._engines[task]

    def _load(self, task: str) -> SparseEngine:
        of_queries = task == "query"
        route = self.routes.query if of_queries else self.routes.document
        if of_queries and (self.idf_free or runs_without_model(route)):
            return self._load_without_model(route)
        device = choose_device(self._options["device"])
        dtype = choose_dtype(device, self._options["dtype"])
        if runs_masked_language(route):
            from retrieval.encoders.transformer.masked_language import load_masked_language

            length = self.query_length if of_queries else self.document_length
            return load_masked_language(route, max_length=length or 512, device=device, dtype=dtype)
        from retrieval.encoders.transformer.sparse_fallback import load_sparse_fallback

        return load_sparse_fallback(
            self.routes,
            max_length=self._options["max_length"],
            max_active_dims=self.max_active_dims,
            device=device,
            dtype=dtype,
            trust_remote_code=self._options["trust_remote_code"],
        )

    def _load_without_model(self, route: Checkpoint) -> SparseEngine:
        from retrieval.encoders.transformer.inference_free import load_inference_free, unweighted

        if self.idf_free:
            return unweighted(route, self._terms, self.dim)
        engine, known = load_inference_free(route, self._terms), _known_dim(self.routes.document)
        if known is not None and engine.dim != known:
            raise ConfigError(
                f"{self.model}: queries have weights for {engine.dim} terms, documents for {known}; "
                "they cannot be compared"
            )
        return engine


def _known_dim(route: Checkpoint) -> int | None:
    """The width of a route's vectors as far as a setting says it."""
    kind, _, config = route.modules[-1]
    if kind == "SpladePooling":
        found = route.config.get("vocab_size")
    else:
        found = config.get("hidden_dim") if kind == "SparseAutoEncoder" else None
    return None if found is None else int(found)


def _fingerprint(route: Checkpoint, facts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(["sparse", checkpoint_digest(route), *facts]).encode()).hexdigest()


def _fewest(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)
