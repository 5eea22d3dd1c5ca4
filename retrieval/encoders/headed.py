"""What encoders share whose checkpoint ends with heads of ours behind a dense model."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from retrieval.compute import choose_device, choose_dtype
from retrieval.encoders.options import Option, chosen_options, read_options
from retrieval.encoders.tally import Tally
from retrieval.encoders.transformer.architectures import length_limit, reading_length
from retrieval.encoders.transformer.checkpoint import Checkpoint
from retrieval.encoders.transformer.identity import checkpoint_digest
from retrieval.encoders.transformer.location import locate
from retrieval.errors import ConfigError
from retrieval.protocols import Fingerprints
from retrieval.values import Document

if TYPE_CHECKING:
    from retrieval.encoders.transformer.direct import DirectEngine
    from retrieval.encoders.transformer.head_engine import Heads, Made

OPTIONS: dict[str, Option] = {
    "max_length": Option(int, least=3),
    "query_prompt": Option(str),
    "document_prompt": Option(str),
    "revision": Option(str),
    "device": Option(str, default="auto"),
    "dtype": Option(str, default="auto"),
}
"""Options of every such family; one with more has a table of its own."""


class HeadedEncoder:
    """A dense model with heads: its files, options and identity, and texts through it.

    A document is encoded as its title, a space and its text. Safe to share between threads.
    """

    family: ClassVar[str]
    module: ClassVar[str]
    """What modules.json calls the heads."""
    options: ClassVar[dict[str, Option]] = OPTIONS

    def __init__(
        self, model: str, checkpoint: Checkpoint, before: Checkpoint, heads: Path, options: Mapping[str, Any]
    ) -> None:
        """Describe an encoder; ``open`` is the usual way in.

        Args:
            model: the name it was opened with.
            checkpoint: its files.
            before: what of them comes before the heads.
            heads: the folder of the heads.
            options: every name in the family's table.
        """
        self.model = model
        self.checkpoint = checkpoint
        self.tally = Tally()
        self.max_length: int | None = reading_length(before, options["max_length"])
        self.query_prompt = _given(options["query_prompt"], checkpoint.query_prompt)
        self.document_prompt = _given(options["document_prompt"], checkpoint.document_prompt)
        self._before, self._folder, self._options = before, heads, dict(options)
        self._lock = threading.Lock()
        self._engine: tuple[DirectEngine, Any] | None = None

    @classmethod
    def open(cls, model: str, options: Mapping[str, Any] | None = None) -> Self:
        """An encoder from its spec; reads small files only, weights with the first text.

        Args:
            model: a folder that `tercet train` made, or such a repository on the Hugging Face Hub.
            options: ``max_length`` in tokens; ``query_prompt`` and ``document_prompt`` (empty for none), instead of
                the checkpoint's; ``revision`` of a Hub repository; ``device`` and ``dtype`` of the transformer, which
                the spec leaves out; and what the family's own table has.

        Raises:
            ConfigError: an unknown option, or a model that does not exist, cannot be reached or is of another family.
            FormatError: a damaged JSON file in the checkpoint.
        """
        from retrieval.encoders.transformer.head_engine import split_heads

        values = read_options(cls.family, options or {}, cls.options)
        if not model:
            raise ConfigError(
                f"the {cls.family} encoder has no default model; name the folder of a trained one"
            )
        folder = locate(model, values["revision"])
        return cls(model, *split_heads(folder, cls.module, f"{cls.family} model"), values)

    @property
    def spec(self) -> dict[str, Any]:
        """``{"family", "model", "options"}``: what was chosen, without device and dtype."""
        chosen = chosen_options(self._options, self.options)
        return {"family": self.family, "model": self.model, "options": chosen}

    @cached_property
    def fingerprints(self) -> Fingerprints:
        """Identity of what it makes: the checkpoint's content and the options that change it."""
        facts = [self.family, checkpoint_digest(self.checkpoint), self.max_length, *self._identity()]

        def of(prompt: str) -> str:
            return hashlib.sha256(json.dumps([*facts, prompt]).encode()).hexdigest()

        return Fingerprints(of(self.document_prompt), of(self.query_prompt))

    def _identity(self) -> list[Any]:
        """Further facts that change what is made."""
        return []

    def _load_heads(self, folder: Path, device: str) -> Any:
        """The heads, on a device, to be called by ``_run``'s function."""
        raise NotImplementedError

    def _query_texts(self, texts: Sequence[str]) -> list[str]:
        return [self.query_prompt + text for text in texts]

    def _document_texts(self, documents: Sequence[Document]) -> list[str]:
        return [self.document_prompt + document.contents() for document in documents]

    def _run(self, texts: Sequence[str], heads: Heads) -> Made:
        """What the heads make of texts, at least one."""
        from retrieval.encoders.transformer.head_engine import run_heads

        return run_heads(self._loaded()[0], texts, self.tally, heads)

    def _loaded(self) -> tuple[DirectEngine, Any]:
        """The transformer with its pooling, and the heads; read at the first call."""
        with self._lock:
            if self._engine is None:
                from retrieval.encoders.transformer.direct import load_direct

                device = choose_device(self._options["device"])
                engine = load_direct(
                    self._before,
                    max_length=self.max_length or length_limit(self._before) or 512,
                    dim=None,
                    normalize=self._before.normalizes,
                    device=device,
                    dtype=choose_dtype(device, self._options["dtype"]),
                )
                self._engine = (engine, self._load_heads(self._folder, device))
            return self._engine


def _given(value: str | None, otherwise: str) -> str:
    return otherwise if value is None else value
