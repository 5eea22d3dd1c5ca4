"""MaxSim with every document in plain torch: what anyone would write without an index."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from retrieval.values import MultiVector


def plain_scan(
    documents: MultiVector, queries: MultiVector, k: int, threads: int
) -> tuple[str, Callable[[int], np.ndarray]]:
    """The faster of two ways on these data, by name, and what finds a query's (1, k) best rows with it.

    Both multiply all tokens with the query in bfloat16. "reduceat" takes the largest product of each document with
    numpy.maximum.reduceat, "filled up" with torch's amax over documents that copies of their last token bring to one
    length, which changes no maximum. segment_reduce, scatter_reduce and index_reduce took about twice as long.
    """
    torch.set_num_threads(threads)
    indptr, lengths = documents.indptr, np.diff(documents.indptr)
    rows = np.flatnonzero(lengths)
    values = torch.from_numpy(np.array(documents.values)).bfloat16()
    places = indptr[rows][:, None] + np.minimum(np.arange(lengths.max()), lengths[rows][:, None] - 1)
    filled = values[torch.from_numpy(places.ravel())]
    tokens = torch.from_numpy(np.array(queries.values)).bfloat16()
    asked = [tokens[start:stop] for start, stop in itertools.pairwise(queries.indptr.tolist())]

    def reduced(query: int) -> torch.Tensor:
        products = (asked[query] @ values.T).float().numpy()
        return torch.from_numpy(np.maximum.reduceat(products, indptr[rows], axis=1).sum(axis=0))

    def padded(query: int) -> torch.Tensor:
        products = (asked[query] @ filled.T).view(-1, len(rows), places.shape[1])
        return products.amax(dim=2).float().sum(dim=0)

    ways = {"reduceat": reduced, "filled up": padded}
    with torch.inference_mode():
        name = min(ways, key=lambda way: _seconds(ways[way], len(asked)))

    def search(query: int) -> np.ndarray:
        with torch.inference_mode():
            best = ways[name](query).topk(min(k, len(rows))).indices.numpy()
        return rows[best][None, :]

    return name, search


def _seconds(scan: Callable[[int], torch.Tensor], n_queries: int) -> float:
    """The median over a few queries."""
    taken = []
    for query in range(min(6, n_queries)):
        start = time.perf_counter()
        scan(query)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)
