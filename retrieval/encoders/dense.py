"""Dense encoder over sentence-transformers checkpoints: one vector a text."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from retrieval.compute import choose_device, choose_dtype
from retrieval.encoders.options import Option, chosen_options, read_options
from retrieval.encoders.tally import Tally
from retrieval.encoders.transformer.architectures import length_limit, reading_length, runs_directly
from retrieval.encoders.transformer.checkpoint import Checkpoint, read_checkpoint
from retrieval.encoders.transformer.identity import checkpoint_digest
from retrieval.encoders.transformer.location import DEFAULT_MODEL, locate
from retrieval.protocols import Fingerprints
from retrieval.values import Dense, Document

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval.encoders.transformer.direct import DirectEngine
    from retrieval.encoders.transformer.fallback import FallbackEngine

OPTIONS: dict[str, Option] = {
    "max_length": Option(int, least=3),
    "query_prompt": Option(str),
    "document_prompt": Option(str),
    "normalize": Option(bool),
    "truncate_dim": Option(int, least=1),
    "revision": Option(str),
    "trust_remote_code": Option(bool, default=False),
    "device": Option(str, default="auto"),
    "dtype": Option(str, default="auto"),
}


class DenseEncoder:
    """One vector a text, equal to ``SentenceTransformer.encode``'s.

    BERT, RoBERTa, XLM-RoBERTa and DistilBERT checkpoints run on tokenizers and torch alone; any other goes through
    sentence-transformers. A document is encoded as its title, a space and its text. Safe to share between threads.
    """

    family: ClassVar[str] = "dense"
    value: ClassVar[type] = Dense

    def __init__(self, model: str, checkpoint: Checkpoint, options: Mapping[str, Any]) -> None:
        """Describe an encoder; ``open`` is the usual way in.

        Args:
            model: the name it was opened with.
            checkpoint: its files.
            options: every name in ``OPTIONS``.
        """
        self.model = model
        self.checkpoint = checkpoint
        self.tally = Tally()
        self.query_prompt: str = _given(options["query_prompt"], checkpoint.query_prompt)
        self.document_prompt: str = _given(options["document_prompt"], checkpoint.document_prompt)
        self.normalize: bool = _given(options["normalize"], checkpoint.normalizes)
        self.truncate_dim: int | None = options["truncate_dim"]
        self.max_length: int | None = reading_length(checkpoint, options["max_length"])
        self._options = dict(options)
        self._lock = threading.Lock()
        self._engine: DirectEngine | FallbackEngine | None = None
        self._digest: str | None = None

    @classmethod
    def open(cls, model: str = DEFAULT_MODEL, options: Mapping[str, Any] | None = None) -> Self:
        """An encoder from its spec; reads small files only, weights with the first text.

        Args:
            model: ``default`` (all-MiniLM-L6-v2, no network), a folder, or a name on the Hugging Face Hub.
            options: ``max_length`` in tokens; ``query_prompt`` and ``document_prompt`` (empty for none), instead of
                the checkpoint's; ``normalize`` to unit length, by default where the checkpoint says so or is
                meant for cosine; ``truncate_dim`` for Matryoshka models; ``revision`` of a Hub repository;
                ``trust_remote_code``; ``device`` and ``dtype``, which the spec leaves out.

        Raises:
            ConfigError: an unknown option or a model that does not exist or cannot be reached.
            FormatError: a damaged JSON file in the checkpoint.
        """
        values = read_options(cls.family, options or {}, OPTIONS)
        return cls(model or DEFAULT_MODEL, read_checkpoint(locate(model, values["revision"])), values)

    @property
    def spec(self) -> dict[str, Any]:
        """``{"family", "model", "options"}``: what was chosen, without device and dtype."""
        return {"family": self.family, "model": self.model, "options": chosen_options(self._options, OPTIONS)}

    @property
    def fingerprints(self) -> Fingerprints:
        """Identity of the vectors: the checkpoint's content and the options that change them."""
        if self._digest is None:
            self._digest = checkpoint_digest(self.checkpoint)

        def of(prompt: str) -> str:
            facts = [self._digest, self.max_length, self.normalize, self.truncate_dim, prompt]
            return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

        return Fingerprints(of(self.document_prompt), of(self.query_prompt))

    @property
    def runs_directly(self) -> bool:
        """Whether texts are encoded without sentence-transformers."""
        return runs_directly(self.checkpoint)

    def encode_queries(self, texts: Sequence[str]) -> Dense:
        """(N, D) float32."""
        return Dense(self._encode([self.query_prompt + text for text in texts], "query"))

    def encode_documents(self, documents: Sequence[Document]) -> Dense:
        """(N, D) float32; texts longer than the maximum length are cut and counted in ``tally``."""
        texts = [self.document_prompt + document.contents() for document in documents]
        return Dense(self._encode(texts, "document"))

    @property
    def dim(self) -> int:
        """The width D; loads the weights."""
        return int(self._loaded().encode(["a"], Tally(), "query").shape[1])

    def _encode(self, texts: list[str], task: str) -> NDArray[np.float32]:
        engine = self._loaded()
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        return engine.encode(texts, self.tally, task)

    def _loaded(self) -> DirectEngine | FallbackEngine:
        with self._lock:
            if self._engine is None:
                self._engine = self._load()
            return self._engine

    def _load(self) -> DirectEngine | FallbackEngine:
        device = choose_device(self._options["device"])
        dtype = choose_dtype(device, self._options["dtype"])
        if self.runs_directly:
            from retrieval.encoders.transformer.direct import load_direct

            return load_direct(
                self.checkpoint,
                max_length=self.max_length or length_limit(self.checkpoint) or 512,
                dim=self.truncate_dim,
                normalize=self.normalize,
                device=device,
                dtype=dtype,
            )
        from retrieval.encoders.transformer.fallback import load_fallback

        return load_fallback(
            self.checkpoint,
            max_length=self.max_length,
            dim=self.truncate_dim,
            normalize=self.normalize,
            device=device,
            dtype=dtype,
            trust_remote_code=self._options["trust_remote_code"],
        )


def _given(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value
