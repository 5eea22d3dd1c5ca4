"""Sparse encoder of words and codes: exact words beside what a model means by them, in one inverted index."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from retrieval.compute import choose_device, choose_dtype
from retrieval.encoders.codes.book import CodeBook, CodeSettings, book_digest, is_book, read_settings
from retrieval.encoders.codes.entries import Entries
from retrieval.encoders.codes.static_queries import StaticQueries
from retrieval.encoders.codes.words import (
    ENGLISH,
    bucket,
    document_shares,
    document_words,
    idf_of,
    query_words,
)
from retrieval.encoders.options import Option, chosen_options, read_options
from retrieval.encoders.sparse_rows import heaviest
from retrieval.encoders.tally import Tally
from retrieval.encoders.transformer.architectures import runs_directly
from retrieval.encoders.transformer.checkpoint import Checkpoint, read_checkpoint
from retrieval.encoders.transformer.identity import checkpoint_digest
from retrieval.encoders.transformer.location import locate
from retrieval.encoders.transformer.term_tokens import TermTokenizer
from retrieval.encoders.transformer.windows import reading
from retrieval.errors import ConfigError, CorruptError, IncompatibleError
from retrieval.protocols import Fingerprints
from retrieval.values import Document, Sparse
from retrieval.values.storage import load_arrays, save_arrays, whole

if TYPE_CHECKING:
    from retrieval.encoders.codes.engine import CodeEngine

DEFAULT = "default-sparse"
"""The book that comes with Tercet."""

OPTIONS: dict[str, Option] = {
    "queries": Option(str, default="model"),
    "max_length": Option(int, least=3),
    "window": Option(int, least=0),
    "query_terms": Option(int, least=1),
    "device": Option(str, default="auto"),
    "dtype": Option(str, default="auto"),
}

_STATE = "word-idf"


class CodesEncoder:
    """Terms of three kinds: words, codes of tokens, and features of the whole text.

    Words are Lucene's English terms, hashed to a fixed number of dimensions and weighted as BM25 does it. A token's
    code is the nearest of a few thousand directions to its contextual vector (visual words, Sivic & Zisserman, ICCV
    2003, applied to the token vectors of late interaction), so tokens of like meaning share a term. Features are a
    sparse code of the text's one vector (compare CSR, Wen et al., arXiv:2503.01776), so texts of like topic share
    terms. A document's words are weighted by their frequency alone; the idf of a query's words is the mean of one in
    general, which the book has, and that of a sample of the corpus.

    Queries go through the model, or with the option ``queries`` = "static" through tables by word piece, without torch.
    Documents are the same for both. A document is encoded as its title, a space and its text; all of its words count,
    codes and features see the first ``max_length`` tokens, 8,192 where nothing is said, in windows that the model can
    read. Safe to share between threads.
    """

    family: ClassVar[str] = "codes"
    value: ClassVar[type] = Sparse

    def __init__(
        self,
        model: str,
        folder: Path,
        settings: CodeSettings,
        checkpoint: Checkpoint,
        options: Mapping[str, Any],
        idf: NDArray[np.float16] | None = None,
        loaded: _Loaded | None = None,
    ) -> None:
        """Describe an encoder; ``open`` is the usual way in.

        Args:
            model: the name it was opened with.
            folder: of the book.
            settings: of the book.
            checkpoint: the model below.
            options: every name in ``OPTIONS``.
            idf: (W,) of the words of queries, where it was fitted before.
            loaded: what was read already.

        Raises:
            ConfigError: an option that does not suit the model.
        """
        if options["queries"] not in ("model", "static"):
            raise ConfigError(f"queries is {options['queries']!r}; valid: model, static")
        self.model = model
        self.settings = settings
        self.tally = Tally()
        length, self.window = reading(checkpoint, options["max_length"], options["window"])
        self.max_length = length or 512
        self._folder = folder
        self._checkpoint = checkpoint
        self._options = dict(options)
        self._idf = idf
        self._loaded = loaded or _Loaded(folder, checkpoint, self.max_length, self.window, options)

    @classmethod
    def open(cls, model: str = DEFAULT, options: Mapping[str, Any] | None = None) -> Self:
        """An encoder from its spec; reads small files only, the rest with the first text.

        Args:
            model: ``default-sparse``, which comes with Tercet, or the folder of another book of codes.
            options: ``queries``, "model" or "static"; ``max_length`` in tokens; ``window``, the
                most tokens of a window, 0 to cut texts at what the model reads; ``query_terms``, the most terms of a
                query; ``device`` and ``dtype``, which the spec leaves out.

        Raises:
            ConfigError: an unknown option, or a folder without a book.
            CorruptError: the book is damaged.
            IncompatibleError: it was learned with another model than the one that is here.
        """
        values = read_options(cls.family, options or {}, OPTIONS)
        folder = locate(model or DEFAULT)
        if not is_book(folder):
            raise ConfigError(
                f"{folder} holds no book of codes; give {DEFAULT}, or a folder that `tercet train` made of "
                'a recipe with family = "codes"'
            )
        settings = read_settings(folder)
        try:
            checkpoint = read_checkpoint(locate(settings.model))
        except ConfigError as error:
            raise ConfigError(f"the book of codes in {folder} needs the model below it: {error}") from error
        if not runs_directly(checkpoint):
            raise ConfigError(f"codes need a BERT-like model, not {settings.model}")
        if checkpoint_digest(checkpoint) != settings.model_digest:
            raise IncompatibleError(
                f"the codes in {folder} were learned with another model than {checkpoint.folder}, though it is named "
                f"{settings.model} as well; train them anew, or install the model they were learned with"
            )
        return cls(model or DEFAULT, folder, settings, checkpoint, values)

    @property
    def spec(self) -> dict[str, Any]:
        """``{"family", "model", "options"}``: what was chosen, without device, dtype and what was fitted."""
        return {"family": self.family, "model": self.model, "options": chosen_options(self._options, OPTIONS)}

    @cached_property
    def fingerprints(self) -> Fingerprints:
        """Identity of the vectors: the book, the model, what was fitted, and the options that change them.

        The fitted idf is of queries alone, so documents do not depend on it.
        """
        reads = [self.max_length, self.window]
        shared = ["codes", book_digest(self._folder), self.settings.model_digest, *reads]
        fitted = None if self._idf is None else hashlib.sha256(self._idf.tobytes()).hexdigest()
        queries = [fitted, self._options["queries"], self._options["query_terms"]]
        return Fingerprints(_fingerprint(shared), _fingerprint([*shared, *queries]))

    @property
    def dim(self) -> int:
        """The width of a vector."""
        return self._loaded.book.dim

    # --- what is learnt from the corpus ---

    @property
    def needs_fit(self) -> bool:
        """Whether the words of a corpus have yet to be counted."""
        return self._idf is None

    def fit(self, documents: Sequence[Document]) -> Self:
        """The encoder with an idf of words that knows these documents; without documents, the idf in general."""
        general = self._loaded.book.word_idf
        if not documents:
            return self._with(general, self._options)
        own = idf_of(document_shares(ENGLISH.encode_documents(documents), len(general)))
        return self._with(((general + own) / 2).astype(np.float16), self._options)

    def save_state(self, folder: Path) -> None:
        """Write the idf into an existing folder.

        Raises:
            ConfigError: there is none.
        """
        if self._idf is None:
            raise ConfigError(f"the encoder of {self.model} has nothing to save; fit it first")
        save_arrays(folder, _STATE, {}, idf=self._idf)

    def with_state(self, folder: Path) -> Self:
        """The encoder with the idf that ``save_state`` wrote.

        Raises:
            CorruptError: a file is missing or damaged.
            IncompatibleError: it was fitted for a book with another number of words.
        """
        with whole(folder):
            idf = np.array(load_arrays(folder, _STATE)[1]["idf"])
        n_words = len(self._loaded.book.word_idf)
        if idf.ndim == 1 and len(idf) != n_words:
            raise IncompatibleError(
                f"{folder} was fitted for a book of codes with {len(idf)} words, that in {self._folder} has {n_words}; "
                "open it with the book it was made with, or index the collection again"
            )
        if idf.ndim != 1 or idf.dtype != np.float16 or not np.isfinite(idf).all():
            raise CorruptError(
                folder / "idf.npy", f"it is {idf.dtype} {idf.shape}, not weights of {n_words} words"
            )
        return self._with(idf, self._options)

    def with_queries(self, how: str) -> Self:
        """The same encoder whose queries go through the "model", or "static" ones through tables.

        Raises:
            ConfigError: another word.
        """
        return self._with(self._idf, self._options | {"queries": how})

    def _with(self, idf: NDArray[np.float16] | None, options: Mapping[str, Any]) -> Self:
        return type(self)(
            self.model, self._folder, self.settings, self._checkpoint, options, idf, self._loaded
        )

    # --- encoding ---

    def encode_queries(self, texts: Sequence[str]) -> Sparse:
        """(N, dim) sparse; positive weights, of at most ``query_terms`` terms a row where that is set.

        Before ``fit`` words have the idf that they have in general.

        Raises:
            CorruptError: a file of the model is damaged.
        """
        if not texts:
            return self._nothing()
        idf = self._loaded.book.word_idf if self._idf is None else self._idf
        words = query_words(texts, idf)
        static = self._options["queries"] == "static"
        engine = self._loaded.static if static else self._loaded.engine
        found = self._rows(len(texts), words, engine.queries(texts, self.tally))
        keep = self._options["query_terms"]
        return found if keep is None else heaviest(found, keep)

    def encode_documents(self, documents: Sequence[Document]) -> Sparse:
        """(N, dim) sparse; texts longer than the maximum length are counted in ``tally``.

        Raises:
            CorruptError: a file of the model is damaged.
        """
        if not documents:
            return self._nothing()
        settings, book = self.settings, self._loaded.book
        words = document_words(documents, len(book.word_idf), settings.k1, settings.b, settings.words)
        texts = [document.contents() for document in documents]
        return self._rows(len(documents), words, self._loaded.engine.documents(texts, self.tally))

    def _rows(self, n: int, words: Entries, meant: Entries) -> Sparse:
        found = Entries.joined([words, meant.shifted(self._loaded.book.first_code)])
        if not np.isfinite(found.values).all():
            raise CorruptError(
                self._checkpoint.folder, "the model gives weights that are not finite; its files are damaged"
            )
        return found.to_rows(n, self.dim)

    def _nothing(self) -> Sparse:
        return Entries.joined([]).to_rows(0, self.dim)

    # --- explanations ---

    def tokens_of(self, text: str) -> NDArray[np.int32]:
        """Dimensions of the words that a query's text has itself, ascending; any other is an expansion."""
        n_words = len(self._loaded.book.word_idf)
        found = {bucket(word, n_words) for word in ENGLISH.encode_queries([text]).vocabulary}
        return np.array(sorted(found), dtype=np.int32)

    def names_in(self, text: str) -> Mapping[int, str]:
        """The names of all terms that a query can have: its own stems, codes and features."""
        book = self._loaded.book
        words = {bucket(word, len(book.word_idf)): word for word in ENGLISH.encode_queries([text]).vocabulary}
        return dict(enumerate(book.names, book.first_code)) | words


class _Loaded:
    """The book and what runs it, read when first asked for; shared by an encoder and those fitted from it."""

    def __init__(
        self,
        folder: Path,
        checkpoint: Checkpoint,
        max_length: int,
        window: int | None,
        options: Mapping[str, Any],
    ) -> None:
        self._folder = folder
        self._checkpoint = checkpoint
        self._max_length = max_length
        self._window = window
        self._options = options
        self._lock = threading.RLock()
        self._book: CodeBook | None = None
        self._engine: CodeEngine | None = None
        self._static: StaticQueries | None = None

    @property
    def book(self) -> CodeBook:
        with self._lock:
            if self._book is None:
                self._book = CodeBook.load(self._folder)
            return self._book

    @property
    def engine(self) -> CodeEngine:
        with self._lock:
            if self._engine is None:
                from retrieval.encoders.codes.engine import load_code_engine

                device = choose_device(self._options["device"])
                self._engine = load_code_engine(
                    self.book,
                    self._checkpoint,
                    max_length=self._max_length,
                    window=self._window,
                    device=device,
                    dtype=choose_dtype(device, self._options["dtype"]),
                )
            return self._engine

    @property
    def static(self) -> StaticQueries:
        with self._lock:
            if self._static is None:
                lower_case = bool(self._checkpoint.wrapper.get("do_lower_case", False))
                tokenizer = TermTokenizer(self._checkpoint.transformer, self._max_length, lower_case)
                self._static = StaticQueries.over(self.book, tokenizer)
            return self._static


def _fingerprint(facts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
