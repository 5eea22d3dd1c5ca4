"""Exact search over dense vectors; nothing but the vectors themselves is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from indexing.dense.device_copies import DeviceCopies, check_device_name, device_of_index
from indexing.dense.device_search import device_scan
from indexing.dense.explanation import explain_inner_products
from indexing.dense.scan import largest_norm, scan
from indexing.index_facts import read_norm, with_defaults, write_facts
from retrieval.protocols import Explanation, SearchRequest
from retrieval.values import Dense, Hits

if TYPE_CHECKING:
    from retrieval.device_vectors import DeviceVectors

_FACTS = "flat.json"


@dataclass(frozen=True, eq=False)
class FlatIndex:
    """Compares every allowed row with the query.

    The score is the inner product of the stored vectors as they are: a cosine where the encoder normalises,
    and not otherwise. float16 vectors are widened on the way; their scores are those of the rounded vectors.
    Hits and scores are the same on every device, to the last bit.

    Attributes:
        vectors: N rows, memory-mapped.
        norm: the largest norm of a row, which bounds the rounding error of a scan.
        device: where rows are estimated; see ``indexing.dense.device_search`` for any but ``cpu``.
    """

    vectors: Dense
    norm: float
    device: str = "cpu"
    _copies: DeviceCopies[DeviceVectors] = field(default_factory=DeviceCopies, repr=False)

    kind: ClassVar[str] = "flat"
    exact: ClassVar[bool] = True
    value: ClassVar[type] = Dense

    @classmethod
    def parameters(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """``device``: ``auto`` (a GPU where TERCET_DEVICE names one), ``cpu``, ``cuda`` (all GPUs), ``cuda:N``.

        ``auto`` is not written down, so that an index is the same whether it is said or not.

        Raises:
            ConfigError: an unknown parameter, or no such device.
        """
        device = with_defaults(cls.kind, given, {"device": "auto"})["device"]
        check_device_name(cls.kind, device)
        return {} if device == "auto" else {"device": device}

    @classmethod
    def build(
        cls,
        vectors: Dense,
        folder: Path,
        parameters: Mapping[str, Any],
        *,
        memory_bytes: int,
        progress: Callable[[int], None],
    ) -> None:
        """Write flat.json: the number of rows, the width and the largest norm."""
        write_facts(
            folder / _FACTS,
            {"n": len(vectors), "dim": vectors.dim, "norm": largest_norm(vectors, progress)},
        )

    @classmethod
    def load(cls, folder: Path, vectors: Dense, parameters: Mapping[str, Any]) -> Self:
        """Open what ``build`` wrote.

        Raises:
            CorruptError: flat.json is missing, damaged or about other vectors.
            ConfigError: there is no such GPU.
        """
        device = device_of_index(parameters.get("device", "auto"), folder)
        return cls(vectors, read_norm(folder / _FACTS, vectors), device)

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, queries: Dense, request: SearchRequest) -> Hits:
        """The k best allowed rows of each query, exactly; see ``indexing.dense.scan.scan``.

        Raises:
            IncompatibleError: the queries have another width.
            ValueError: a query holds NaN or infinity, or the bitmap is for another number of rows.
            ConfigError: the device has no room for the search and TERCET_STRICT_DEVICE is 1.
            MissingExtraError: the device is a GPU and Triton is not installed.
        """
        if self.device != "cpu":
            return device_scan(self._copies, self.device, self.vectors, self.norm, queries, request)
        return scan(self.vectors, self.norm, queries, request.k, request.allowed)

    def explain(self, queries: Dense, rows: NDArray[np.integer]) -> list[Explanation]:
        """The inner product of the first query with each row, with norms and cosine."""
        return explain_inner_products(self.vectors, queries, rows)
