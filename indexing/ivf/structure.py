"""A FAISS index on disk, filled by one segment and searched without ever being changed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.file_facts import check_content
from indexing.ivf.factory import innermost, library, lists_of
from indexing.ivf.training import transforms_of
from retrieval.bitmap import Bitmap
from retrieval.compute import apply_threads
from retrieval.errors import CorruptError
from retrieval.values import Dense
from retrieval.values.storage import release_pages

_CHUNK = 8192  # rows added at a time
_QUERY_BITS = 8  # a RaBitQ query; unrounded queries take 25 times as long and more


def read_structure(path: Path, *, lists: int, mapped: bool) -> Any:
    """Open a FAISS index.

    Mapped, codes stay on disk until they are needed. FAISS can do so for the lists of an IVF, unless they are of
    FastScan (x4fs, RaBitQfs), and for the codes of an index without lists; refinements are read.

    Args:
        path: what FAISS wrote.
        lists: of the IVF in it, 0 where it has none.
        mapped: False reads it into memory, to be filled.

    Raises:
        CorruptError: FAISS cannot read it.
    """
    faiss = library()

    flags = (faiss.IO_FLAG_MMAP if lists else faiss.IO_FLAG_MMAP_IFC) if mapped else 0
    try:
        index = faiss.read_index(str(path), flags)
    except RuntimeError as error:
        raise CorruptError(path, f"not an index that FAISS reads ({error})") from error
    if mapped and lists:
        inverted = faiss.downcast_InvertedLists(innermost(index).invlists)
        if isinstance(inverted, faiss.OnDiskInvertedLists):
            inverted.prefetch_nthread = 0  # or every search starts 32 threads
    return index


def fill(index: Any, vectors: Dense, progress: Callable[[int], None]) -> None:
    """Add rows to a trained index, chunk by chunk; their numbers count from 0."""
    apply_threads()
    for start in range(0, len(vectors), _CHUNK):
        chunk = np.ascontiguousarray(vectors.values[start : start + _CHUNK], dtype=np.float32)
        index.add(chunk)
        release_pages(vectors.values)
        progress(len(chunk))


def list_members(index: Any) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Where each list of an IVF begins (L + 1,), and the rows list by list (N,)."""
    faiss = library()

    ivf = innermost(index)
    sizes = [ivf.invlists.list_size(number) for number in range(ivf.nlist)]
    starts = np.zeros(ivf.nlist + 1, dtype=np.int64)
    np.cumsum(sizes, out=starts[1:])
    members = np.empty(starts[-1], dtype=np.int32)
    for number, size in enumerate(sizes):
        if size:
            ids = ivf.invlists.get_ids(number)
            members[starts[number] : starts[number + 1]] = faiss.rev_swig_ptr(ids, size)
            ivf.invlists.release_ids(number, ids)
    return starts, members


class Structure:
    """The index of one segment, opened at the first search."""

    def __init__(self, path: Path, facts: dict[str, Any], shape: tuple[int, int], lists: int) -> None:
        self._path, self._facts, self._shape, self.lists = path, facts, shape, lists
        self._lock = threading.Lock()
        self._index: Any = None

    def opened(self) -> Any:
        """The FAISS index; its checksum is compared once.

        Raises:
            CorruptError: the file is damaged or holds another index.
        """
        with self._lock:
            if self._index is None:
                check_content(self._path, self._facts)
                index = read_structure(self._path, lists=self.lists, mapped=True)
                found = (index.ntotal, index.d)
                if found != self._shape or lists_of(index) != self.lists:
                    raise CorruptError(
                        self._path,
                        f"is over {found[0]} x {found[1]} vectors, not {self._shape}, or other lists",
                    )
                self._index = index
            return self._index

    def bits(self) -> float:
        """Bits of a code for each dimension."""
        index = self.opened()
        return 8 * innermost(index).code_size / index.d

    def filters(self) -> bool:
        """Whether FAISS leaves out rows while it searches: FastScan without lists and additive codes do not."""
        return _takes_selector(innermost(self.opened()))

    def nearest(
        self,
        queries: NDArray[np.float32],
        count: int,
        nprobe: int,
        refined: float,
        allowed: Bitmap | None,
    ) -> NDArray[np.int64]:
        """(Q, count) rows by FAISS's own score, -1 where fewer were found.

        Args:
            queries: (Q, D).
            count: candidates.
            nprobe: lists that are searched.
            refined: candidates that a refinement is given for each one it returns.
            allowed: without effect where not ``filters()``.
        """
        faiss = library()

        index = self.opened()
        apply_threads()
        selector = None
        if allowed is not None and _takes_selector(innermost(index)):
            selector = faiss.IDSelectorBitmap(np.ascontiguousarray(allowed.bits))
        parameters = _search_parameters(index, nprobe, refined, selector)
        return np.asarray(index.search(queries, count, params=parameters)[1], dtype=np.int64)

    def probed(self, queries: NDArray[np.float32], nprobe: int) -> NDArray[np.int64]:
        """(Q, nprobe) the lists a search goes through."""
        index = self.opened()
        for transform in transforms_of(index):
            queries = transform.apply(queries)
        return np.asarray(innermost(index).quantizer.search(queries, nprobe)[1], dtype=np.int64)


def _takes_selector(inner: Any) -> bool:
    faiss = library()

    refusing = (
        faiss.IndexFastScan,
        faiss.IndexPQ,
        faiss.IndexAdditiveQuantizer,
        faiss.IndexIVFAdditiveQuantizer,
    )
    lists_refusing = (faiss.IndexIVFAdditiveQuantizerFastScan,)
    return not isinstance(inner, refusing + lists_refusing)


def _search_parameters(index: Any, nprobe: int, refined: float, selector: Any) -> Any:
    """What FAISS is told of one search, layer by layer; None for an index that takes no parameters."""
    faiss = library()

    layer = faiss.downcast_index(index)
    chosen = {} if selector is None else {"sel": selector}
    if isinstance(layer, faiss.IndexPreTransform):
        inner = _search_parameters(layer.index, nprobe, refined, selector)
        return None if inner is None else faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(layer, faiss.IndexRefine):
        inner = _search_parameters(layer.base_index, nprobe, refined, selector)
        return faiss.IndexRefineSearchParameters(k_factor=refined, base_index_params=inner)
    if isinstance(layer, faiss.IndexIVFRaBitQ | faiss.IndexIVFRaBitQFastScan):
        return faiss.IVFRaBitQSearchParameters(nprobe=nprobe, qb=_QUERY_BITS, **chosen)
    if isinstance(layer, faiss.IndexIVF):
        return faiss.SearchParametersIVF(nprobe=nprobe, **chosen)
    if isinstance(layer, faiss.IndexRaBitQ):
        return faiss.RaBitQSearchParameters(qb=_QUERY_BITS, **chosen)
    return faiss.SearchParameters(**chosen) if chosen else None
