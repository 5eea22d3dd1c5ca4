"""Clustering of dense vectors that pass through a device block by block: training and filling of inverted lists.

A device without room leaves the work to torch on the CPU, after one warning (``indexing.dense.device_copies``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from indexing.dense.device_copies import DeviceCopies
from retrieval.compute import apply_threads
from retrieval.values.storage import release_pages

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

_BLOCK = 1 << 25  # numbers of vectors on a device at a time
_PRODUCTS = 1 << 26  # products on a device at a time


def assign(values: NDArray[Any], centroids: NDArray[np.float32], device: str) -> NDArray[np.int32]:
    """(N,) the centroid that has the largest inner product with each vector, in float32 as torch multiplies it.

    Args:
        values: (N, D) float16 or float32, memory-mapped or not.
        centroids: (L, D), at least one.
        device: a torch device.

    Raises:
        ConfigError: the device has no room and TERCET_STRICT_DEVICE is 1.
    """

    def work(place: str) -> NDArray[np.int32]:
        table = _brought(centroids, place).T
        found = np.empty(len(values), dtype=np.int32)
        for start, block in _blocks(values, place, len(centroids)):
            found[start : start + len(block)] = (block @ table).argmax(1).cpu().numpy()
        return found

    return _on(device, DeviceCopies(), work)


def spherical_kmeans(
    values: NDArray[Any],
    count: int,
    device: str,
    *,
    iterations: int,
    rng: np.random.Generator,
    progress: Callable[[int], None],
) -> NDArray[np.float32]:
    """Centroids of unit length by Lloyd's iteration over inner products (Dhillon & Modha, Machine Learning 42, 2001).

    It starts from distinct vectors drawn at random; a centroid that loses all its vectors is drawn anew. The same
    vectors and draws give the same centroids on the same device.

    Args:
        values: (N, D) float16 or float32, N at least ``count``; they are read once an iteration.
        count: number of centroids.
        device: a torch device.
        iterations: rounds of assignment and averaging.
        rng: where the draws come from.
        progress: called with 1 after each iteration.

    Returns:
        (count, D).

    Raises:
        ConfigError: the device has no room and TERCET_STRICT_DEVICE is 1.
    """
    centroids, state = _drawn(values, count, rng), DeviceCopies[Any]()
    for _ in range(iterations):
        sums = _on(device, state, partial(_sums, values, centroids))
        norms = np.linalg.norm(sums, axis=1)
        empty = norms < 1e-6
        centroids = (sums / np.maximum(norms, 1e-12)[:, None]).astype(np.float32)
        centroids[empty] = _drawn(values, int(empty.sum()), rng)
        progress(1)
    return centroids


def _drawn(values: NDArray[Any], count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    chosen = np.array(values[np.sort(rng.choice(len(values), count, replace=False))], dtype=np.float32)
    return chosen / np.maximum(np.linalg.norm(chosen, axis=1, keepdims=True), 1e-12)


def _sums(values: NDArray[Any], centroids: NDArray[np.float32], place: str) -> NDArray[np.float64]:
    """(L, D) the sum of the vectors that are nearest to each centroid, added up in one order."""
    import torch

    table = _brought(centroids, place)
    sums = torch.zeros(centroids.shape, dtype=torch.float32, device=place)
    for _, block in _blocks(values, place, len(centroids)):
        owner, order = (block @ table.T).argmax(1).sort(stable=True)
        lengths = torch.bincount(owner, minlength=len(centroids))
        sums += torch.segment_reduce(block[order], "sum", lengths=lengths, axis=0, initial=0)
    return sums.cpu().numpy().astype(np.float64)


def _blocks(values: NDArray[Any], place: str, count: int) -> Iterator[tuple[int, torch.Tensor]]:
    """Where each block of vectors begins, and the block as float32 on the device."""
    apply_threads()
    step = max(1, min(_BLOCK // max(1, values.shape[1]), _PRODUCTS // count))
    for start in range(0, len(values), step):
        yield start, _brought(values[start : start + step], place)
        release_pages(values)


def _brought(values: NDArray[Any], place: str) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.array(values)).to(place).float()


def _on(device: str, state: DeviceCopies[Any], work: Callable[[str], T]) -> T:
    """Work on a device, or on the CPU where that has no room, now or before."""
    done = state.attempt(device, lambda: work(device))
    return work("cpu") if done is None else done
