"""Late-interaction encoder: one vector a token, of any transformer and of MultiVectorEncoder checkpoints."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from retrieval.compute import choose_device, choose_dtype
from retrieval.encoders.options import Option, chosen_options, read_options
from retrieval.encoders.tally import Tally
from retrieval.encoders.token_pooling import first_vectors, pooled_rows
from retrieval.encoders.token_projection import TokenProjection
from retrieval.encoders.transformer.batches import text_groups
from retrieval.encoders.transformer.identity import checkpoint_digest
from retrieval.encoders.transformer.late_recipe import LateRecipe, read_recipe
from retrieval.encoders.transformer.location import DEFAULT_MODEL, locate
from retrieval.encoders.transformer.tokens import Piece
from retrieval.errors import ConfigError, CorruptError
from retrieval.protocols import Fingerprints
from retrieval.values import Document, MultiVector

OPTIONS: dict[str, Option] = {
    "dim": Option(int, least=1),
    "projection": Option(str, default="fitted"),
    "max_length": Option(int, least=3),
    "query_max_length": Option(int, least=3),
    "window": Option(int, least=0),
    "augment": Option(int, least=0),
    "skip_punctuation": Option(bool),
    "first_tokens": Option(int, least=1),
    "pool_factor": Option(float, least=1),
    "query_prompt": Option(str),
    "document_prompt": Option(str),
    "revision": Option(str),
    "trust_remote_code": Option(bool, default=False),
    "device": Option(str, default="auto"),
    "dtype": Option(str, default="auto"),
}

DIM = 128
"""The width of vectors of models that were not trained for late interaction, unless theirs is less."""

SAMPLE = 1000
"""Documents a projection is fitted on."""


class LateEngine(Protocol):
    """What makes token vectors as the model has them."""

    @property
    def width(self) -> int:
        """The width D of a vector."""
        ...

    def encode(self, texts: Sequence[str], tally: Tally, task: str) -> MultiVector:
        """One row a text, of float32 vectors, for the task "query" or "document"."""
        ...

    def pieces(self, text: str, task: str) -> list[Piece]:
        """What the vectors of a text stand for, one for each."""
        ...


class LateEncoder:
    """One vector a token (Khattab & Zaharia, SIGIR 2020, arXiv:2004.12832), in float16.

    A MultiVectorEncoder checkpoint gives the vectors that sentence-transformers gives. Of any other model, which need
    not be trained for this, the last hidden states of all tokens, [CLS] and [SEP] included, are made unit vectors, then
    projected to 128 dimensions by a whitened SVD that is fitted on the corpus, and made unit vectors again; a text
    without any token of its own has no vector, and one longer than the model reads has those of several windows. BERT,
    RoBERTa, XLM-RoBERTa and DistilBERT run on tokenizers and torch alone, anything else goes through
    sentence-transformers, without windows. A document is encoded as its title, a space and its text.
    Safe to share between threads.
    """

    family: ClassVar[str] = "late"
    value: ClassVar[type] = MultiVector

    def __init__(
        self,
        model: str,
        recipe: LateRecipe,
        options: Mapping[str, Any],
        projection: TokenProjection | None = None,
        engine: LateEngine | None = None,
    ) -> None:
        """Describe an encoder; ``open`` is the usual way in.

        Args:
            model: the name it was opened with.
            recipe: what its files and the options say.
            options: every name in ``OPTIONS``.
            projection: what was fitted before.
            engine: the loaded model, where it is already.

        Raises:
            ConfigError: an option that does not suit the model.
        """
        self.model = model
        self.recipe = recipe
        self.tally = Tally()
        self._options = dict(options)
        self._projection = projection
        self._engine = engine
        self._lock = threading.Lock()
        if options["projection"] not in ("fitted", "none"):
            raise ConfigError(f"projection is {options['projection']!r}; valid: fitted, none")
        if recipe.width is not None:
            self._checked_dim(recipe.width)

    @classmethod
    def open(cls, model: str = DEFAULT_MODEL, options: Mapping[str, Any] | None = None) -> Self:
        """An encoder from its spec; reads small files only, weights with the first text.

        Args:
            model: ``default`` (all-MiniLM-L6-v2, no network), a folder, or a name on the Hugging Face Hub.
            options: ``dim``, the width of a vector, by default 128, or what a MultiVectorEncoder has;
                ``projection`` "none" for the model's own width; ``max_length`` of documents and
                ``query_max_length`` in tokens, by default 8,192 where texts are read in windows, else what the model
                reads; ``window``, the most tokens of a window, 0 to cut texts at what the model reads;
                ``augment``, the tokens queries are filled up to with mask tokens;
                ``skip_punctuation`` for no vectors of a document's punctuation; ``first_tokens``, the most vectors of
                a document; ``pool_factor``, how many of a document's vectors become one;
                ``query_prompt`` and ``document_prompt`` (empty for none), instead of the checkpoint's;
                ``revision`` of a Hub repository; ``trust_remote_code``; ``device`` and ``dtype``, which the spec
                leaves out.

        Raises:
            ConfigError: an unknown option or one that does not suit the model, or a model that does not exist,
                cannot be reached or has no token vectors.
            FormatError: a damaged JSON file in the checkpoint.
        """
        values = read_options(cls.family, options or {}, OPTIONS)
        return cls(model or DEFAULT_MODEL, read_recipe(locate(model, values["revision"]), values), values)

    @property
    def spec(self) -> dict[str, Any]:
        """``{"family", "model", "options"}``: what was chosen, without device, dtype and what was fitted."""
        return {"family": self.family, "model": self.model, "options": chosen_options(self._options, OPTIONS)}

    @cached_property
    def fingerprints(self) -> Fingerprints:
        """Identity of the vectors: the checkpoint's content, the options that change them, and what was fitted."""
        recipe, options = self.recipe, self._options
        fitted = None if self._projection is None else self._projection.digest
        dim = self.dim if recipe.width is not None else [options["dim"], options["projection"]]
        shared = [checkpoint_digest(recipe.checkpoint), recipe.unread_settings, dim, fitted]
        pooling = None if recipe.pooling is None else asdict(recipe.pooling)
        documents = [asdict(recipe.document), pooling, options["first_tokens"]]
        return Fingerprints(
            _fingerprint([*shared, *documents]), _fingerprint([*shared, asdict(recipe.query)])
        )

    @property
    def runs_directly(self) -> bool:
        """Whether texts are encoded without sentence-transformers."""
        return self.recipe.runs_directly

    @property
    def dim(self) -> int:
        """The width of a vector; loads the weights only where no setting says the model's."""
        return self._checked_dim(self._width)

    # --- what is learnt from the corpus ---

    @property
    def needs_fit(self) -> bool:
        """Whether a projection is wanted and not there."""
        return self._projection is None and self.dim < self._width

    def fit(self, documents: Sequence[Document]) -> Self:
        """The encoder with a projection fitted on these documents, or on 1,000 of them where there are more.

        Deterministic: the same documents in the same order give the same projection. It whitens the vectors of models
        that were not trained for late interaction; those of others keep their proportions.

        Raises:
            CorruptError: the model gives numbers that are not finite.
        """
        if self.dim == self._width:
            return self._with(None)
        if len(documents) > SAMPLE:
            chosen = sorted(random.Random(0).sample(range(len(documents)), SAMPLE))
            documents = [documents[row] for row in chosen]
        vectors = (rows.values for rows in self._raw_documents(documents, Tally()))
        whiten = not self.recipe.trained
        return self._with(TokenProjection.fit(vectors, self._width, self.dim, whiten=whiten))

    def save_state(self, folder: Path) -> None:
        """Write the projection into an existing folder.

        Raises:
            ConfigError: there is none.
        """
        if self._projection is None:
            raise ConfigError(f"the late encoder of {self.model} has nothing to save; fit it first")
        self._projection.save(folder)

    def with_state(self, folder: Path) -> Self:
        """The encoder with the projection that ``save_state`` wrote.

        Raises:
            CorruptError: a file is missing or damaged, or the projection is of other widths.
        """
        return self._with(TokenProjection.load(folder, self._width, self.dim))

    def _with(self, projection: TokenProjection | None) -> Self:
        return type(self)(self.model, self.recipe, self._options, projection, self._engine)

    # --- encoding ---

    def encode_queries(self, texts: Sequence[str]) -> MultiVector:
        """One row a text, of vectors in float16.

        Raises:
            ConfigError: the encoder needs to be fitted first.
            CorruptError: the model gives numbers that are not finite.
        """
        prompt = self.recipe.query.prompt
        shown = [prompt + text for text in texts]
        raw = self._raw(shown, self.tally, "query", lambda row: f"the query {texts[row][:60]!r}")
        return self._finished(self._narrowed(rows) for rows in raw)

    def encode_documents(self, documents: Sequence[Document]) -> MultiVector:
        """One row a document, of vectors in float16; long texts are cut and counted in ``tally``.

        Raises:
            ConfigError: the encoder needs to be fitted first.
            CorruptError: the model gives numbers that are not finite.
        """
        return self._finished(map(self._of_documents, self._raw_documents(documents, self.tally)))

    def query_tokens(self, text: str) -> list[str]:
        """The text of each token that ``encode_queries`` gives a vector, such as ``[CLS]`` or a part of a word."""
        return [piece for piece, _, _ in self._loaded().pieces(self.recipe.query.prompt + text, "query")]

    def document_tokens(self, document: Document) -> list[Piece]:
        """(text, start, end) of each token that ``encode_documents`` gives a vector.

        Start and end are characters of the document's text; they are -1 for special tokens and those of the prompt
        and the title. A vector that pooling made of several tokens is described by the first of them.
        """
        text = self.recipe.document.prompt + document.contents()
        pieces = self._loaded().pieces(text, "document")[: self._options["first_tokens"]]
        if self.recipe.pooling is not None:
            (raw,) = self._raw_documents([document], Tally())
            leaders = self.recipe.pooling.leaders(self._narrowed(self._first(raw)).values)
            pieces = [pieces[position] for position in np.unique(leaders)]
        before = len(text) - len(document.text)
        return [
            (piece, max(0, start - before), stop - before) if stop > before else (piece, -1, -1)
            for piece, start, stop in pieces
        ]

    def _finished(self, parts: Iterable[MultiVector]) -> MultiVector:
        """The parts as one, in float16."""
        if self.needs_fit:
            raise ConfigError(
                f"the late encoder of {self.model} makes {self.dim} dimensions of {self._width} by a projection that "
                'is not there yet; fit it on documents, or set the option projection to "none"'
            )
        nothing = MultiVector(np.zeros(1, dtype=np.int64), np.zeros((0, self.dim), dtype=np.float16))
        halves = (MultiVector(rows.indptr, rows.values.astype(np.float16)) for rows in parts)
        return MultiVector.concat([nothing, *halves])

    def _of_documents(self, rows: MultiVector) -> MultiVector:
        """From the model's own vectors to those that are stored."""
        rows = self._narrowed(self._first(rows))
        return rows if self.recipe.pooling is None else pooled_rows(rows, self.recipe.pooling)

    def _first(self, rows: MultiVector) -> MultiVector:
        most = self._options["first_tokens"]
        return rows if most is None else first_vectors(rows, most)

    def _narrowed(self, rows: MultiVector) -> MultiVector:
        return rows if self._projection is None else MultiVector(rows.indptr, self._projection(rows.values))

    def _raw_documents(self, documents: Sequence[Document], tally: Tally) -> Iterator[MultiVector]:
        texts = [self.recipe.document.prompt + document.contents() for document in documents]
        return self._raw(texts, tally, "document", lambda row: f"the document {documents[row].id!r}")

    def _raw(
        self, texts: list[str], tally: Tally, task: str, describe: Callable[[int], str]
    ) -> Iterator[MultiVector]:
        """The model's own vectors, of some texts at a time."""
        engine = self._loaded()
        for group in text_groups(texts):
            rows = engine.encode(texts[group], tally, task)
            damaged = _first_damaged(rows)
            if damaged is not None:
                raise CorruptError(
                    self.recipe.checkpoint.folder,
                    f"the model gives {describe(group.start + damaged)} vectors that are not finite; its files are "
                    'damaged, or its numbers too large for half precision (option dtype "float32")',
                )
            yield rows

    def _checked_dim(self, width: int) -> int:
        wanted = self._options["dim"]
        if self._options["projection"] == "none":
            if wanted not in (None, width):
                raise ConfigError(
                    f"dim is {wanted}, but without a projection {self.model} has {width} dimensions"
                )
            return width
        if wanted is not None and wanted > width:
            raise ConfigError(f"dim is {wanted}; the vectors of {self.model} have {width} dimensions")
        if wanted is None:
            return width if self.recipe.trained else min(DIM, width)
        return int(wanted)

    @property
    def _width(self) -> int:
        return self._loaded().width if self.recipe.width is None else self.recipe.width

    def _loaded(self) -> LateEngine:
        with self._lock:
            if self._engine is None:
                self._engine = self._load()
            return self._engine

    def _load(self) -> LateEngine:
        device = choose_device(self._options["device"])
        dtype = choose_dtype(device, self._options["dtype"])
        if self.runs_directly:
            from retrieval.encoders.transformer.token_vectors import load_token_engine

            return load_token_engine(self.recipe, device=device, dtype=dtype)
        from retrieval.encoders.transformer.late_fallback import load_late_fallback

        return load_late_fallback(self.recipe, self._options, device=device, dtype=dtype)


def _fingerprint(facts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(["late", *facts]).encode()).hexdigest()


def _first_damaged(rows: MultiVector) -> int | None:
    """The first row with a number that is not finite."""
    damaged = np.flatnonzero(~np.isfinite(rows.values).all(axis=1))
    return int(np.searchsorted(rows.indptr, damaged[0], side="right")) - 1 if len(damaged) else None
