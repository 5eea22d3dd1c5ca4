"""Sparse late interaction: several sparse vectors a text, one for each of its tokens."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from retrieval.compute import choose_device, choose_dtype
from retrieval.encoders.options import Option, chosen_options, read_options
from retrieval.encoders.tally import Tally
from retrieval.encoders.transformer.architectures import reading_length, runs_masked_language
from retrieval.encoders.transformer.checkpoint import Checkpoint
from retrieval.encoders.transformer.identity import checkpoint_digest
from retrieval.encoders.transformer.location import locate
from retrieval.encoders.transformer.routes import read_routes
from retrieval.encoders.transformer.term_tokens import TermTokenizer
from retrieval.encoders.transformer.tokens import Piece
from retrieval.errors import ConfigError
from retrieval.protocols import Fingerprints
from retrieval.values import Document, MultiSparse, Sparse, Strings

if TYPE_CHECKING:
    from retrieval.encoders.transformer.token_terms import TokenTermsEngine

OPTIONS: dict[str, Option] = {
    "max_length": Option(int, least=3),
    "terms_per_token": Option(int, default=20, least=1),
    "query_terms_per_token": Option(int, least=1),
    "revision": Option(str),
    "device": Option(str, default="auto"),
    "dtype": Option(str, default="auto"),
}


class SlimEncoder:
    """The heaviest terms of every token by a masked language model's head (SLIM, SIGIR 2023, arXiv:2302.06587).

    Takes the checkpoints whose head is run directly: masked language models of the kinds BERT, RoBERTa, XLM-RoBERTa
    and DistilBERT, plain or with SPLADE pooling, which is left out. Each text has a vector for every token but [CLS].
    A document is encoded as its title, a space and its text. Safe to share between threads.
    """

    family: ClassVar[str] = "slim"
    value: ClassVar[type] = MultiSparse

    def __init__(self, model: str, checkpoint: Checkpoint, options: Mapping[str, Any]) -> None:
        """Describe an encoder; ``open`` is the usual way in.

        Args:
            model: the name it was opened with.
            checkpoint: its files, of a kind that is run directly.
            options: every name in ``OPTIONS``.

        Raises:
            ConfigError: the model cannot read as many tokens as are wanted.
        """
        self.model = model
        self.checkpoint = checkpoint
        self.tally = Tally()
        self.document_terms: int = options["terms_per_token"]
        self.query_terms: int = options["query_terms_per_token"] or self.document_terms
        self.max_length = reading_length(checkpoint, options["max_length"]) or 512
        self._options = dict(options)
        self._lock = threading.Lock()
        self._engine: TokenTermsEngine | None = None

    @classmethod
    def open(cls, model: str, options: Mapping[str, Any] | None = None) -> Self:
        """An encoder from its spec; reads small files only, weights with the first text.

        Args:
            model: a folder, or a name on the Hugging Face Hub.
            options: ``max_length`` in tokens; ``terms_per_token``, the most terms of a token's vector;
                ``query_terms_per_token``, the same for queries; ``revision`` of a Hub repository; ``device`` and
                ``dtype``, which the spec leaves out.

        Raises:
            ConfigError: an unknown option, or a model that does not exist, cannot be reached, or is no masked
                language model that is run directly.
            FormatError: a damaged JSON file in the checkpoint.
        """
        values = read_options(cls.family, options or {}, OPTIONS)
        if not model:
            raise ConfigError(
                "the slim encoder has no default model; name the folder or Hub repository of a masked language model"
            )
        routes = read_routes(locate(model, values["revision"]))
        if routes.query is not routes.document or not runs_masked_language(routes.document):
            raise ConfigError(
                f"{model} is not one masked language model for queries and documents of a kind that runs without "
                "transformers; the slim encoder needs such a BERT, RoBERTa, XLM-RoBERTa or DistilBERT"
            )
        return cls(model, routes.document, values)

    @property
    def spec(self) -> dict[str, Any]:
        """``{"family", "model", "options"}``: what was chosen, without device and dtype."""
        return {"family": self.family, "model": self.model, "options": chosen_options(self._options, OPTIONS)}

    @cached_property
    def fingerprints(self) -> Fingerprints:
        """Identity of the vectors: the checkpoint's content and the options that change them."""
        model = [self.family, checkpoint_digest(self.checkpoint), self.max_length]

        def digest(*facts: Any) -> str:
            return hashlib.sha256(json.dumps([*model, *facts]).encode()).hexdigest()

        return Fingerprints(
            digest(self.document_terms, self.checkpoint.document_prompt),
            digest(self.query_terms, self.checkpoint.query_prompt),
        )

    @property
    def dim(self) -> int:
        """The vocabulary's size V; loads the weights only where config.json does not say it."""
        known = self.checkpoint.config.get("vocab_size")
        return self._loaded().model.dim if known is None else int(known)

    @cached_property
    def vocabulary(self) -> Strings:
        """The V terms by id, as the tokenizer writes them (CorruptError: tokenizer.json is damaged)."""
        return self._terms.names(self.dim)

    def tokens_of(self, text: str) -> NDArray[np.int32]:
        """Ids of the terms that a query's text has itself, ascending; a weight of any other is an expansion."""
        return self._terms.terms_of(text)

    def query_tokens(self, text: str) -> list[str]:
        """What the vectors of a query stand for, one for each."""
        pieces = self._loaded().pieces(self.checkpoint.query_prompt + text)
        return [token for token, _, _ in pieces]

    def document_tokens(self, document: Document) -> list[Piece]:
        """What the vectors of a document stand for, one for each: token, start and end in the document's text.

        Start and end are -1 for tokens of the title and special ones.
        """
        contents = self.checkpoint.document_prompt + document.contents()
        before = len(contents) - len(document.text)
        return [
            (token, start - before, stop - before) if start >= before else (token, -1, -1)
            for token, start, stop in self._loaded().pieces(contents)
        ]

    def encode_queries(self, texts: Sequence[str]) -> MultiSparse:
        """N rows; positive weights of at most ``query_terms`` terms a token."""
        return self._encode([self.checkpoint.query_prompt + text for text in texts], self.query_terms)

    def encode_documents(self, documents: Sequence[Document]) -> MultiSparse:
        """N rows; texts longer than the maximum length are cut and counted in ``tally``."""
        prompt = self.checkpoint.document_prompt
        return self._encode([prompt + document.contents() for document in documents], self.document_terms)

    def _encode(self, texts: list[str], keep: int) -> MultiSparse:
        if not texts:
            none, start = np.zeros(0, dtype=np.int32), np.zeros(1, dtype=np.int64)
            return MultiSparse(start, Sparse(start, none, none.astype(np.float32), self.dim))
        return self._loaded().encode(texts, self.tally, keep)

    @cached_property
    def _terms(self) -> TermTokenizer:
        lower_case = bool(self.checkpoint.wrapper.get("do_lower_case", False))
        return TermTokenizer(self.checkpoint.transformer, self.max_length, lower_case)

    def _loaded(self) -> TokenTermsEngine:
        with self._lock:
            if self._engine is None:
                from retrieval.encoders.transformer.masked_language import load_masked_language
                from retrieval.encoders.transformer.token_terms import TokenTermsEngine

                device = choose_device(self._options["device"])
                dtype = choose_dtype(device, self._options["dtype"])
                self._engine = TokenTermsEngine(
                    load_masked_language(
                        self.checkpoint, max_length=self.max_length, device=device, dtype=dtype
                    )
                )
            return self._engine
