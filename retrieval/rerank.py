"""Second stages: rerankers by name, and a searcher that puts one behind another searcher."""

from __future__ import annotations

import dataclasses
import importlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from retrieval.compute import apply_threads, choose_device, choose_dtype
from retrieval.encoders.options import Option, read_options
from retrieval.encoders.surrogates import valid_text
from retrieval.encoders.transformer.location import locate
from retrieval.errors import ConfigError, IncompatibleError
from retrieval.protocols import Explanation, Reranker, Searcher, SearchRequest, Snapshot
from retrieval.values import Hits

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

RERANKERS: dict[str, str] = {
    "cross-encoder": "retrieval.rerank:CrossEncoderReranker",
    "late": "retrieval.late_rerank:LateReranker",
}
"""Reranker family -> "module:Class"; the class has ``open(model, options)``."""

MODELS: dict[str, str] = {
    "minilm": "cross-encoder/ms-marco-MiniLM-L6-v2",
    "bge": "BAAI/bge-reranker-base",
}
"""Short names of cross-encoders."""

OPTIONS: dict[str, Option] = {
    "max_length": Option(int, least=4),
    "batch": Option(int, default=32, least=1),
    "revision": Option(str),
    "trust_remote_code": Option(bool, default=False),
    "device": Option(str, default="auto"),
    "dtype": Option(str, default="auto"),
}


def open_reranker(name: str, options: Mapping[str, Any] | None = None) -> Reranker:
    """A reranker from ``FAMILY`` or ``FAMILY:MODEL``, or from the name or folder of a cross-encoder alone.

    Raises:
        ConfigError: no such family, model or option.
    """
    family, _, model = name.partition(":")
    if family not in RERANKERS:
        family, model = "cross-encoder", name
    module, _, attribute = RERANKERS[family].partition(":")
    opened: Reranker = getattr(importlib.import_module(module), attribute).open(model, options)
    return opened


class CrossEncoderReranker:
    """Reads query and passage together (Nogueira and Cho, 2019, arXiv:1901.04085).

    Scores are the model's own, after its activation; only their order within a query means something. The model
    is loaded with the first call; calls take turns, since the tokenizer keeps state.
    """

    family: ClassVar[str] = "cross-encoder"

    def __init__(self, model: str, folder: str, options: Mapping[str, Any]) -> None:
        """See ``open``; options holds every name in ``OPTIONS``."""
        self.model = model
        self._folder = folder
        self._options = dict(options)
        self._lock = threading.Lock()
        self._loaded: CrossEncoder | None = None

    @classmethod
    def open(cls, model: str, options: Mapping[str, Any] | None = None) -> Self:
        """A reranker over a sentence-transformers CrossEncoder.

        Args:
            model: a name in ``MODELS``, a folder, or a name on the Hugging Face Hub.
            options: ``max_length`` in tokens of query and passage together; ``batch`` pairs at a time;
                ``revision``; ``trust_remote_code``; ``device``; ``dtype``.

        Raises:
            ConfigError: an unknown option, or a model that does not exist or cannot be reached.
        """
        values = read_options(cls.family, options or {}, OPTIONS)
        if not model or model == "default":
            raise ConfigError(
                f"the cross-encoder reranker needs a model: {', '.join(MODELS)}, a folder or a Hub name"
            )
        try:
            folder = locate(MODELS.get(model, model), values["revision"])
        except ConfigError as error:
            raise ConfigError(f"reranker {model!r}: {error}; short names: {', '.join(MODELS)}") from error
        return cls(model, str(folder), values)

    def rerank(self, queries: Sequence[str], hits: Hits, snapshot: Snapshot) -> Hits:
        """The same rows by the model's scores, ties by ascending row; padding stays at the end.

        Raises:
            IncompatibleError: the hits belong to another commit of the collection.
        """
        check_snapshot(hits, snapshot)
        where = np.nonzero(hits.rows >= 0)
        rows = hits.rows[where]
        distinct, inverse = np.unique(rows, return_inverse=True)
        texts = (
            [valid_text(passage.contents()) for passage in snapshot.passages(distinct)]
            if len(distinct)
            else []
        )
        places = zip(where[0].tolist(), inverse.tolist(), strict=True)
        pairs = [(valid_text(queries[query]), texts[place]) for query, place in places]
        scores = np.full(hits.scores.shape, -np.inf, dtype=np.float32)
        scores[where] = self.scores(pairs)
        return ordered(hits.rows, scores, hits.snapshot)

    def scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """(N,) one score a (query, passage) pair; longer pairs first, so that padding is small."""
        if not pairs:
            return np.zeros(0, dtype=np.float32)
        with self._lock:
            model = self._model()
            apply_threads()
            found = model.predict(
                list(pairs), batch_size=self._options["batch"], show_progress_bar=False, convert_to_numpy=True
            )
        scores = np.asarray(found, dtype=np.float32)
        if scores.ndim != 1:
            raise ConfigError(
                f"model {self.model!r} gives {scores.shape[1]} scores a pair; a reranker gives one"
            )
        # Beyond float32, or no number at all: the worst score that is not padding.
        return np.nan_to_num(scores, nan=float(np.finfo(np.float32).min))

    def _model(self) -> CrossEncoder:
        if self._loaded is None:
            device = choose_device(self._options["device"])
            dtype = choose_dtype(device, self._options["dtype"])
            import torch
            from sentence_transformers import CrossEncoder

            try:
                self._loaded = CrossEncoder(
                    self._folder,
                    device=device,
                    max_length=self._options["max_length"],
                    trust_remote_code=self._options["trust_remote_code"],
                    local_files_only=True,
                    model_kwargs={"dtype": getattr(torch, dtype)},
                )
            except (OSError, ValueError, ImportError, KeyError, RuntimeError, TypeError) as error:
                raise ConfigError(f"sentence-transformers cannot load {self._folder}: {error}") from error
        return self._loaded


@dataclass(frozen=True)
class Reranked:
    """A searcher whose best hits a reranker puts in a new order; what lies deeper is dropped.

    A request has ``max(k, depth)`` candidates rescored, but no more than ``request.depth``: a small request is
    still chosen from ``depth`` candidates, a large one gets all of its k hits, and the caller bounds the cost.

    Attributes:
        first: finds the candidates.
        reranker: scores them.
        snapshot: holds their text.
        depth: candidates a query of a request for no more hits than that.
    """

    first: Searcher
    reranker: Reranker
    snapshot: Snapshot
    depth: int = 100

    def search(self, queries: Sequence[str], request: SearchRequest) -> Hits:
        """The k best documents of each query, or ``request.depth`` if that is less: nothing deeper is scored."""
        candidates = min(max(request.k, self.depth), request.depth)
        found = self.first.search(queries, dataclasses.replace(request, k=candidates))
        return self.reranker.rerank(queries, found, self.snapshot).cut(request.k)

    def explain(
        self, query: str, rows: NDArray[np.integer], request: SearchRequest | None = None
    ) -> list[Explanation]:
        """The reranker's score of each row, with the first stage's explanation below it."""
        asked = np.asarray(rows, dtype=np.int64)
        if not len(asked):
            return []
        flat = np.zeros((1, len(asked)), dtype=np.float32)
        hits = self.reranker.rerank([query], Hits(asked[None, :], flat, self.snapshot.token), self.snapshot)
        score = dict(zip(hits.rows[0].tolist(), hits.scores[0].tolist(), strict=True))
        below = self.first.explain(query, asked, request)
        return [
            Explanation("reranker", score[int(row)], (part,)) for row, part in zip(asked, below, strict=True)
        ]


def check_snapshot(hits: Hits, snapshot: Snapshot) -> None:
    """Refuse hits whose rows may be others by now.

    Raises:
        IncompatibleError: they belong to another commit of the collection.
    """
    if hits.snapshot and hits.snapshot != snapshot.token:
        raise IncompatibleError(
            f"hits of snapshot {hits.snapshot!r} cannot be reranked with snapshot {snapshot.token!r}; search again"
        )


def ordered(rows: NDArray[np.int64], scores: NDArray[np.float32], snapshot: str) -> Hits:
    """Every line by descending score, then ascending row, padding last."""
    order = np.lexsort((rows, -scores, rows < 0), axis=1)
    return Hits(np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1), snapshot)
