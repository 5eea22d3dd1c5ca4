"""Pairs of a query and a document as one number each, so that sets of them can be sorted, joined and searched."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from training.examples.training_set import TrainingSet


def pair_keys(queries: NDArray[np.integer[Any]], documents: NDArray[np.integer[Any]]) -> NDArray[np.uint64]:
    """(P,) keys that sort by query, then by document."""
    return queries.astype(np.uint64) << np.uint64(32) | documents.astype(np.uint64)


def key_rows(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows (P,) of queries and documents that keys stand for."""
    return (keys >> np.uint64(32)).astype(np.int64), (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)


def listed_pairs(data: TrainingSet) -> NDArray[np.uint64]:
    """(P,) the key of every document of every list, in order."""
    rows = data.lists["documents"].explode().to_numpy()
    queries = np.repeat(np.arange(data.lists.height), data.lists["documents"].list.len().to_numpy())
    return pair_keys(queries, rows)


def parts(
    keys: NDArray[np.uint64], by: Literal["query", "document"], together: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Distinct pairs cut where a query or document ends.

    Args:
        keys: (P,) ascending.
        by: what the pairs of a part are sorted by; then by the other.
        together: how many queries or documents make a part.

    Yields:
        Rows of the queries and of the documents of a part.
    """
    queries, documents = key_rows(keys)
    if by == "document":
        order = np.argsort(documents, kind="stable")
        queries, documents = queries[order], documents[order]
    first = np.flatnonzero(np.diff(queries if by == "query" else documents, prepend=-1))
    bounds = [*first[::together].tolist(), len(keys)]
    for start, stop in itertools.pairwise(bounds):
        yield queries[start:stop], documents[start:stop]
