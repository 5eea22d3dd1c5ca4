"""Dense search on a GPU with the CPU's results: the GPU finds the rows in question, the CPU scores those.

An index keeps its vectors on the device from the first search on, in half precision. Vectors that do not fit are
brought there in blocks for each batch of at least ``_WORTH_STREAMING`` queries; smaller batches are searched on the
CPU, unless TERCET_STRICT_DEVICE is 1. This module imports torch where a device is used, and not before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexing.dense.candidate_search import search_candidates
from indexing.dense.device_copies import DeviceCopies, strict_device
from retrieval.bitmap import Bitmap
from retrieval.protocols import SearchRequest
from retrieval.values import Dense, Hits
from retrieval.values.storage import release_pages

if TYPE_CHECKING:
    import torch

    from retrieval.dense_gpu import Contenders
    from retrieval.device_vectors import DeviceVectors

_WORKSPACE = 2 << 30  # bytes of a device left to estimates and to others
_STREAMED = 1 << 28  # bytes of vectors that pass through a device at a time
_WORTH_STREAMING = 64
"""Queries from which vectors that do not fit on a device are brought there anyway. A bus delivers them no faster than
the CPU's own memory does, so it is the multiplication that has to be worth it; where exactly is not measured."""
_NORMAL = (1e-30, 1e37)  # products of norms whose terms are normal numbers of float32


# --- exact search ----------------------------------------------------------------------------------


def device_scan(
    copies: DeviceCopies[DeviceVectors],
    device: str,
    vectors: Dense,
    norm: float,
    queries: Dense,
    request: SearchRequest,
) -> Hits:
    """``indexing.dense.scan.scan`` on a device, with the same rows and scores to the last bit.

    Args:
        copies: what the index has on devices.
        device: a torch device.
        vectors: N rows, memory-mapped or not; finite.
        norm: at least the norm of every row.
        queries: Q vectors of the same width.
        request: how many hits are wanted, and which rows are allowed.

    Raises:
        IncompatibleError: the widths differ.
        ValueError: a query holds NaN or infinity, or the bitmap is for another number of rows.
        ConfigError: the device has no room and TERCET_STRICT_DEVICE is 1.
        MissingExtraError: the device is a GPU and Triton is not installed.
    """

    def nearest(asked: NDArray[np.float32], allowed: Bitmap | None) -> NDArray[np.int64]:
        wanted = min(request.k, len(vectors) if allowed is None else allowed.count())
        resident = copies.has(device) or _fits(device, vectors)

        def find(chosen: NDArray[np.float32]) -> Contenders:
            if not resident:
                return _streamed(device, vectors, norm, chosen, wanted, allowed)
            from retrieval.dense_gpu import near_rows
            from retrieval.device_vectors import DeviceVectors

            there = copies.on(device, lambda: DeviceVectors.of(vectors.values, norm, device))
            return near_rows(there, chosen, wanted, allowed=_mask(there, allowed))

        none = np.empty((len(asked), 0), dtype=np.int64)  # a query without candidates is scanned on the CPU
        if not resident:
            copies.warn(
                f"{device} has no room for {len(vectors):,} x {vectors.dim} vectors: they pass through it in blocks "
                f"for {_WORTH_STREAMING} queries and more, and fewer are searched on the CPU"
            )
            if len(asked) < _WORTH_STREAMING and not strict_device():
                return none
        rows = copies.attempt(device, lambda: _settled(_ordinary(asked, norm), asked, find))
        return none if rows is None else rows

    return search_candidates(vectors, norm, queries, request, nearest)


def _ordinary(asked: NDArray[np.float32], norm: float) -> NDArray[np.int64]:
    """The queries whose products with the vectors are normal numbers of float32."""
    reach = np.linalg.norm(asked.astype(np.float64), axis=1) * norm
    return np.flatnonzero((reach >= _NORMAL[0]) & (reach <= _NORMAL[1]))


def _settled(
    chosen: NDArray[np.int64], asked: NDArray[np.float32], find: Callable[[NDArray[np.float32]], Contenders]
) -> NDArray[np.int64]:
    """(Q, C) what is found for chosen queries; -1 for the others and for those that are not settled."""
    if not len(chosen):
        return np.empty((len(asked), 0), dtype=np.int64)
    found = find(asked[chosen])
    rows = np.full((len(asked), found.rows.shape[1]), -1, dtype=np.int64)
    rows[chosen] = found.rows.masked_fill(~found.settled[:, None], -1).cpu().numpy()
    return rows


def _mask(there: DeviceVectors, allowed: Bitmap | None) -> torch.Tensor | None:
    return None if allowed is None or allowed.count() == allowed.n else there.mask(allowed)


def _fits(device: str, vectors: Dense) -> bool:
    """Whether a device has room for the vectors and for a search beside them."""
    from retrieval.device_vectors import DeviceVectors

    needed = DeviceVectors.bytes_needed(len(vectors), vectors.dim)
    return needed + _WORKSPACE <= _free_bytes(device)


def _free_bytes(device: str) -> float:
    if not device.startswith("cuda"):
        return float("inf")
    import torch

    kept, used = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept - used  # what torch keeps it can give again


def _streamed(
    device: str, vectors: Dense, norm: float, asked: NDArray[np.float32], k: int, allowed: Bitmap | None
) -> Contenders:
    """The rows in question, with no more than a block of vectors on the device at a time."""
    import torch

    from retrieval.dense_gpu import joined, near_rows
    from retrieval.device_vectors import TILE, DeviceVectors

    step = max(TILE, _STREAMED // (2 * max(1, vectors.dim)) // TILE * TILE)
    best: Contenders | None = None
    for start in range(0, len(vectors), step):
        block = vectors.values[start : start + step]
        part = DeviceVectors.of(block, norm, device)
        mask = None if allowed is None else part.mask(allowed.slice(start, start + len(block)))
        found = near_rows(part, asked, k, allowed=mask)
        found = found._replace(rows=torch.where(found.rows >= 0, found.rows + start, -1))
        best = found if best is None else joined([best, found], k)
        release_pages(vectors.values)
    assert best is not None
    return best


# --- inverted lists --------------------------------------------------------------------------------


class InvertedLists(NamedTuple):
    """Which rows are searched together.

    Attributes:
        offsets: (L + 1,) where the lists begin in ``rows``.
        rows: (N,) every row once, list after list.
    """

    offsets: NDArray[np.int64]
    rows: NDArray[np.integer]


def lists_nearest(
    copies: DeviceCopies[DeviceVectors],
    device: str,
    vectors: Dense,
    norm: float,
    lists: InvertedLists,
    asked: NDArray[np.float32],
    probes: NDArray[np.int64] | torch.Tensor,
    k: int,
    allowed: Bitmap | None = None,
) -> NDArray[np.int64] | None:
    """Candidates from inverted lists on a device, for ``indexing.dense.candidate_search.search_candidates``.

    Their final scores have the k best rows of the lists that a query looks at, to the last bit.

    Args:
        copies: what the index has on devices.
        device: a torch device.
        vectors: N rows, memory-mapped or not; finite.
        norm: at least the norm of every row.
        lists: of the same rows.
        asked: (Q, D) queries, at least one.
        probes: (Q, P) the distinct lists that each query looks at, -1 for none; in the host's memory or, by
            ``retrieval.dense_gpu.nearest_lists``, on the device.
        k: results wanted.
        allowed: the rows that may be returned; None means all.

    Returns:
        (Q, C) rows, -1 for padding, and nothing but padding for a query that an exact scan has to answer; None where
        the device has no room, for the caller to search on the CPU.

    Raises:
        ConfigError: the device has no room and TERCET_STRICT_DEVICE is 1.
        MissingExtraError: the device is a GPU and Triton is not installed.
    """

    def work() -> NDArray[np.int64]:
        import torch

        from retrieval.dense_gpu import near_rows
        from retrieval.device_vectors import DeviceVectors

        there = copies.on(
            device,
            lambda: DeviceVectors.of(
                vectors.values,
                norm,
                device,
                rows=np.asarray(lists.rows, dtype=np.int64),
                offsets=np.append(lists.offsets, lists.offsets[-1]),  # the last list is empty
            ),
        )
        looked = torch.as_tensor(probes, device=there.device)
        looked = torch.where(looked < 0, len(lists.offsets) - 1, looked)
        chosen = _ordinary(asked, norm)
        if len(chosen) < len(asked):
            looked = looked[torch.as_tensor(chosen, device=there.device)]
        mask = _mask(there, allowed)
        return _settled(chosen, asked, lambda some: near_rows(there, some, k, probes=looked, allowed=mask))

    return copies.attempt(device, work)
