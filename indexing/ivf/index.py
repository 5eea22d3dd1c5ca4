"""The index kind ``ivf``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from indexing.dense.candidate_search import search_candidates
from indexing.dense.device_copies import DeviceCopies, check_device_name, device_of_index
from indexing.dense.device_search import InvertedLists, lists_nearest
from indexing.dense.explanation import explain_inner_products
from indexing.dense.scan import largest_norm, scan
from indexing.file_facts import NO_FILE, check_content, check_size, file_facts
from indexing.index_facts import read_facts, with_defaults, write_facts
from indexing.ivf.factory import (
    check_factory,
    code_size,
    default_factory,
    default_nprobe,
    empty_index,
    library,
    lists_of,
)
from indexing.ivf.structure import Structure, fill, list_members, read_structure
from indexing.ivf.training import FACTS as TRAINED_FACTS
from indexing.ivf.training import ROTATIONS, TRAINED, train_structure
from retrieval.bitmap import Bitmap
from retrieval.errors import ConfigError, CorruptError, IncompatibleError, unknown_name
from retrieval.protocols import Explanation, SearchRequest
from retrieval.values import Dense, Hits
from retrieval.values.storage import map_array

if TYPE_CHECKING:
    from retrieval.device_vectors import DeviceVectors

DEFAULTS: dict[str, Any] = {
    "factory": None,
    "nprobe": None,
    "rescored": None,
    "refined": 4.0,
    "prefix": None,
    "inner": None,
    "rotation": "none",
    "device": "auto",
}
_FACTS = "ivf.json"
_STRUCTURE = "structure.faiss"
_LARGEST = 1_000_000  # of a parameter
_HIDDEN = 0.5
"""A query whose lists hold less than this part of the allowed rows to be expected there is far from those."""
_SCAN_COST = 0.4
"""Rows an exact scan compares in the time that a search takes for a row of the lists it probes: codes are small, but
a search has lists to choose and candidates to fetch (45,000 x 384: 0.25 ms for 6,000 rows, and 0.08 us a row)."""


@dataclass(frozen=True, eq=False)
class IvfIndex:
    """Looks through FAISS's lists or codes for candidates and scores those like ``FlatIndex`` does.

    Filters and deletes work inside FAISS (Douze et al., "The Faiss library", arXiv:2401.08281). The neighbours among
    a share s of the rows lie further away, so 1 / s^(1/4) times as many lists are searched (recall@10 0.955 and 0.942
    at random shares of 10% and 1%, where as many lists as usual hold 0.94 and 0.80). Where the allowed rows avoid a
    query's neighbourhood no lists are nearer than others, nor do codes tell their scores apart: it is scanned
    exactly. Codes that FAISS cannot filter are searched for more candidates, and the scan has the last word
    (``search_candidates``).

    On a GPU the stored vectors themselves are compared, list by list (``indexing.dense.device_search``); codes and
    refinements are FAISS's on the CPU. A hit's score is the same.

    Attributes:
        vectors: N rows, memory-mapped.
        norm: the largest norm of a row.
        structure: opened at the first search, once, and shared by all copies made with ``dataclasses.replace``.
        members: where each list begins and the rows list by list; None without lists.
        nprobe: lists searched; at most all.
        rescored: candidates scored for good; None for a number that suits k and the size of codes.
        refined: candidates that a refinement in the factory, such as Refine(SQ8), is given for each it returns.
        device: where lists are looked through.
    """

    vectors: Dense
    norm: float
    structure: Structure | None
    members: tuple[NDArray[np.int64], NDArray[np.int32]] | None
    nprobe: int
    rescored: int | None
    refined: float
    device: str = "cpu"
    _copies: DeviceCopies[DeviceVectors] = field(default_factory=DeviceCopies, repr=False)

    kind: ClassVar[str] = "ivf"
    exact: ClassVar[bool] = False
    value: ClassVar[type] = Dense

    def __post_init__(self) -> None:
        _check_number("nprobe", self.nprobe)
        _check_number("rescored", self.rescored)
        _check_refined(self.refined)

    # --- building and opening

    @classmethod
    def parameters(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """``factory``, ``prefix``, ``inner`` and ``rotation`` for building; ``nprobe``, ``rescored`` and ``refined``.

        ``factory`` is a FAISS string (None or "auto": by the number of rows, see ``fit``). ``prefix`` dimensions choose
        lists and ``inner`` are coded (None: all); "pca" as ``rotation`` makes both mean something for vectors of an
        encoder that was not trained for it. OPQ is no such rotation, since it spreads what matters over all
        dimensions; in a factory it is what PQ needs after ``inner`` dimensions were cut by "pca". ``device`` is that of
        ``FlatIndex``, and like there ``auto`` is not written down.

        Raises:
            ConfigError: an unknown parameter, an impossible value, or a string FAISS cannot read, with the part.
        """
        full = with_defaults(cls.kind, given, DEFAULTS)
        if full["factory"] == "auto":
            full["factory"] = None
        if full["factory"] is not None:
            if not isinstance(full["factory"], str):
                raise ConfigError(f"ivf parameter factory is {full['factory']!r}; it must be a FAISS string")
            check_factory(full["factory"])
        for name in ("nprobe", "rescored", "prefix", "inner"):
            _check_number(name, full[name])
        _check_refined(full["refined"])
        if full["rotation"] not in ROTATIONS:
            raise unknown_name("rotation of index kind 'ivf'", str(full["rotation"]), ROTATIONS)
        check_device_name(cls.kind, full["device"])
        if full["device"] == "auto":
            del full["device"]
        return full

    @classmethod
    def fit(cls, vectors: Dense, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters with a factory and an ``nprobe``, where none are given, for as many rows as these."""
        dim = parameters["inner"] or vectors.dim
        factory = parameters["factory"] or default_factory(len(vectors), dim)
        lists = lists_of(empty_index(dim, factory))
        return {**parameters, "factory": factory, "nprobe": parameters["nprobe"] or default_nprobe(lists)}

    @classmethod
    def train(
        cls,
        vectors: Dense,
        parameters: Mapping[str, Any],
        folder: Path,
        *,
        memory_bytes: int,
        progress: Callable[[int], None],
    ) -> None:
        """Learn what the structure needs; see ``train_structure``.

        Raises:
            ConfigError: the factory or a prefix does not fit the width, or there are too few vectors to train on.
        """
        train_structure(
            vectors, cls.fit(vectors, parameters), folder, memory_bytes=memory_bytes, progress=progress
        )

    @classmethod
    def memory_needed(cls, n: int, dim: int, parameters: Mapping[str, Any], *, half: bool = False) -> int:
        """Bytes a build holds: codes and row numbers, in arrays that grow by doubling."""
        inner = parameters["inner"] or dim
        code = code_size(empty_index(inner, parameters["factory"] or default_factory(n, inner)))
        return int(1.7 * n * (code + 8)) + 8192 * 4 * (dim + inner)

    @classmethod
    def build(
        cls,
        vectors: Dense,
        folder: Path,
        parameters: Mapping[str, Any],
        *,
        memory_bytes: int,
        progress: Callable[[int], None],
        shared: Path,
    ) -> None:
        """Fill the trained structure with a segment's rows and write it with ivf.json.

        Raises:
            ConfigError: the build needs more memory than it may take.
            IncompatibleError: the vectors have another width than those that were trained on.
            CorruptError: what ``train`` wrote is damaged.
        """
        trained = _trained_facts(shared)
        if trained["dim"] != vectors.dim:
            raise IncompatibleError(
                f"the vectors have width {vectors.dim}, the ivf structure {trained['dim']}; build the collection anew"
            )
        index = read_structure(shared / TRAINED, lists=trained["lists"], mapped=False)
        needed = int(1.7 * len(vectors) * (code_size(index) + 8))
        if needed > memory_bytes:
            raise ConfigError(
                f"an ivf index over {len(vectors):,} vectors takes {needed / 1e9:.2f} GB to build, "
                f"{memory_bytes / 1e9:.2f} GB are allowed; allow more (--memory), or name smaller codes (PQ, RaBitQ)"
            )
        norm = largest_norm(vectors)
        facts = NO_FILE
        if len(vectors):
            fill(index, vectors, progress)
            if trained["lists"]:
                starts, members = list_members(index)
                np.save(folder / "starts.npy", starts)
                np.save(folder / "members.npy", members)
            _write(index, folder / _STRUCTURE)
            facts = file_facts(folder / _STRUCTURE)
        about = {"n": len(vectors), "dim": vectors.dim, "trained": trained["crc32"]}
        write_facts(folder / _FACTS, {**about, "norm": norm, **facts})

    @classmethod
    def load(cls, folder: Path, vectors: Dense, parameters: Mapping[str, Any], *, shared: Path) -> Self:
        """Open what ``build`` wrote; the structure is opened, and its checksum compared, at the first search.

        Raises:
            CorruptError: a file is missing, damaged or cut short, or about other vectors or another training.
            ConfigError: there is no such GPU.
        """
        trained = _trained_facts(shared)
        about = {"n": len(vectors), "dim": vectors.dim, "trained": trained["crc32"]}
        facts = read_facts(folder / _FACTS, about, "norm")
        lists, structure, members = int(trained["lists"]), None, None
        if len(vectors):
            check_size(folder / _STRUCTURE, facts)
            structure = Structure(folder / _STRUCTURE, facts, vectors.values.shape, lists)
            members = _mapped_members(folder, lists, len(vectors)) if lists else None
        nprobe = parameters["nprobe"] or default_nprobe(lists)
        return cls(
            vectors,
            float(facts["norm"]),
            structure,
            members,
            nprobe,
            parameters["rescored"],
            parameters["refined"],
            device_of_index(parameters.get("device", "auto"), folder),
        )

    def __len__(self) -> int:
        return len(self.vectors)

    # --- search

    def search(self, queries: Dense, request: SearchRequest) -> Hits:
        """The k best rows among the candidates, and never fewer than min(k, allowed rows).

        Raises:
            CorruptError: the structure on disk is damaged.
            IncompatibleError: the queries have another width.
            ValueError: a query holds NaN or infinity, or the bitmap is for another number of rows.
            ConfigError: the device has no room for the search and TERCET_STRICT_DEVICE is 1.
            MissingExtraError: the device is a GPU and Triton is not installed.
        """

        def nearest(asked: NDArray[np.float32], allowed: Bitmap | None) -> NDArray[np.int64]:
            return self._nearest(asked, allowed, request.k)

        return search_candidates(self.vectors, self.norm, queries, request, nearest)

    def exact_search(self, queries: Dense, request: SearchRequest) -> Hits:
        """The same question answered by comparing every allowed row."""
        return scan(self.vectors, self.norm, queries, request.k, request.allowed)

    def candidates(self, k: int) -> int:
        """How many rows a search scores for good for k results.

        Unless ``rescored`` says so it is k and some square roots of k, more where codes are coarse: 58 for 10 with two
        bits a dimension and 200 with one, each of which finds what the lists hold.
        """
        if self.rescored is not None or self.structure is None:
            return max(self.rescored or 0, k)
        return k + math.ceil(60 * math.sqrt(k) / max(0.5, self.structure.bits()) ** 2)

    def with_candidates(self, count: int) -> Self:
        """Itself: rows are filtered before candidates are counted, and the lists to search follow from the filter."""
        return self

    def scan_equivalent(self, candidates: int) -> float:
        """How many rows an exact scan compares in the time of a search."""
        share = 1.0 if self.members is None else min(1.0, self.nprobe / (len(self.members[0]) - 1))
        return _SCAN_COST * share * len(self) + 2 * candidates

    def explain(self, queries: Dense, rows: NDArray[np.integer]) -> list[Explanation]:
        """The inner product of the first query with each row, with norms and cosine."""
        return explain_inner_products(self.vectors, queries, rows)

    def _nearest(self, asked: NDArray[np.float32], allowed: Bitmap | None, k: int) -> NDArray[np.int64]:
        assert self.structure is not None  # there is a row to find
        count, nprobe = min(self.candidates(k), len(self)), self.nprobe
        if allowed is None:
            return self._through_lists(asked, k, count, nprobe, None)
        share = allowed.count() / len(self)
        if not self.structure.filters():
            count = min(math.ceil(count / share), len(self))
        if self.members is None:
            return self.structure.nearest(asked, count, nprobe, self.refined, allowed)
        lists = len(self.members[0]) - 1
        wider = min(lists, math.ceil(nprobe / share**0.25))
        near = ~self._hidden(asked, allowed, wider, share)
        if not near.any():
            return np.empty((len(asked), 0), dtype=np.int64)
        found = self._through_lists(asked[near], k, count, wider, allowed)
        rows = np.full((len(asked), found.shape[1]), -1, dtype=np.int64)
        rows[near] = found
        return rows

    def _through_lists(
        self, asked: NDArray[np.float32], k: int, count: int, nprobe: int, allowed: Bitmap | None
    ) -> NDArray[np.int64]:
        """(Q, C) candidates, by codes on the CPU or by stored vectors on the device."""
        assert self.structure is not None
        if self.device != "cpu" and self.members is not None:
            probed = self.structure.probed(asked, nprobe)
            lists = InvertedLists(*self.members)
            rows = lists_nearest(
                self._copies, self.device, self.vectors, self.norm, lists, asked, probed, k, allowed
            )
            if rows is not None:
                return rows
        return self.structure.nearest(asked, count, nprobe, self.refined, allowed)

    def _hidden(
        self, asked: NDArray[np.float32], allowed: Bitmap, nprobe: int, share: float
    ) -> NDArray[np.bool_]:
        """(Q,) whether the lists near a query hold far fewer allowed rows than lists do on average."""
        from indexing.ivf.kernels import count_allowed
        from retrieval.kernels import frozen

        assert self.structure is not None
        assert self.members is not None
        counts = np.empty((len(asked), 2), dtype=np.int64)
        probed = self.structure.probed(asked, nprobe)
        starts, members = self.members
        count_allowed(probed, frozen(starts), frozen(members), frozen(allowed.bits), counts)
        return counts[:, 1] < _HIDDEN * share * counts[:, 0]


def _check_number(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST:
        raise ConfigError(f"ivf parameter {name} is {value!r}; it must be an integer from 1 to {_LARGEST}")


def _check_refined(value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 1 <= value <= 1000:
        raise ConfigError(f"ivf parameter refined is {value!r}; it must be a number from 1 to 1000")


def _trained_facts(shared: Path) -> dict[str, Any]:
    facts = read_facts(shared / TRAINED_FACTS, {}, "dim", "lists", "bytes", "crc32")
    check_content(shared / TRAINED, facts)
    return facts


def _mapped_members(folder: Path, lists: int, n: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    starts, members = map_array(folder / "starts.npy"), map_array(folder / "members.npy")
    for name, array, shape in (("starts", starts, (lists + 1,)), ("members", members, (n,))):
        if array.shape != shape:
            raise CorruptError(folder / f"{name}.npy", f"has shape {array.shape}, expected {shape}")
    return starts, members


def _write(index: Any, path: Path) -> None:
    faiss = library()

    faiss.write_index(index, str(path))
