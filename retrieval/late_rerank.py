"""A second stage without another model: exact MaxSim over token vectors the collection stores already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from retrieval.compute import choose_search_device
from retrieval.encoders.options import Option, read_options
from retrieval.errors import ConfigError
from retrieval.maxsim import score_rows
from retrieval.protocols import Snapshot, Store
from retrieval.rerank import check_snapshot, ordered
from retrieval.values import Hits, MultiVector

OPTIONS: dict[str, Option] = {"device": Option(str, default="auto")}


@dataclass(frozen=True)
class LateReranker:
    """Scores candidates by late interaction (Khattab & Zaharia, "ColBERT", SIGIR 2020, arXiv:2004.12832).

    Candidates of any first stage are scored with the vectors of a representation as they are stored, so a query costs
    its own encoding and a few ms for 100 candidates.

    Attributes:
        representation: its name in the collection.
        device: where candidates are scored; elsewhere than on the ``cpu``, sums are rounded in another order.
    """

    representation: str = "late"
    device: str = "cpu"

    family: ClassVar[str] = "late"

    @classmethod
    def open(cls, model: str, options: Mapping[str, Any] | None = None) -> Self:
        """A reranker over a representation of token vectors, "late" unless named.

        Args:
            model: the representation's name.
            options: ``device``, ``cpu`` or a CUDA GPU; ``auto`` takes TERCET_DEVICE, else the CPU.

        Raises:
            ConfigError: an unknown option, or a GPU that does not exist.
        """
        values = read_options(cls.family, options or {}, OPTIONS)
        return cls(model or cls.representation, choose_search_device(values["device"]))

    def rerank(self, queries: Sequence[str], hits: Hits, snapshot: Snapshot) -> Hits:
        """The same rows by MaxSim, ties by ascending row; padding stays at the end.

        Raises:
            ConfigError: the collection has no such representation, or one of other vectors.
            IncompatibleError: the hits belong to another commit of the collection, or the encoder to other vectors.
            MissingExtraError: the device is a GPU and Triton is not installed.
        """
        check_snapshot(hits, snapshot)
        store = self._store(snapshot)
        distinct = np.unique(hits.rows[hits.rows >= 0])
        if not len(distinct):
            return hits
        documents = store.take(distinct)
        if not isinstance(documents, MultiVector):
            raise ConfigError(
                f"the reranker 'late' needs token vectors, and {self.representation!r} has "
                f"{type(documents).__name__} ones; name a representation that has them, late:NAME"
            )
        asked = snapshot.encoder(self.representation).encode_queries(list(queries))
        places = np.where(hits.rows >= 0, np.searchsorted(distinct, hits.rows), -1)
        return ordered(hits.rows, self._scores(documents, asked, places), hits.snapshot)

    def _scores(
        self, documents: MultiVector, queries: MultiVector, rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        if self.device == "cpu":
            return score_rows(documents, queries, rows)
        from retrieval import maxsim_gpu

        return maxsim_gpu.score_rows(documents, queries, rows, self.device)

    def _store(self, snapshot: Snapshot) -> Store[Any]:
        """The stored vectors, said to be missing before anything is found to rerank."""
        try:
            return snapshot.store(self.representation)
        except ConfigError as error:
            raise ConfigError(
                f"the reranker 'late' needs stored token vectors: {error}; index the collection --with late, or name "
                "a representation that has them, late:NAME"
            ) from error
