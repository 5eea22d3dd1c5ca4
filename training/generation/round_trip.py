"""Round-trip consistency (Promptagator: Dai et al. 2022): a query is kept if it finds the document it was made of."""

from __future__ import annotations

import polars as pl

from training.examples.lists import lists_of, pairs_of
from training.examples.training_set import TrainingSet
from training.mining.searchers import Search


def round_trip(data: TrainingSet, search: Search, top: int) -> TrainingSet:
    """The pairs of query and document where the search finds the one by the other.

    Args:
        data: the set.
        search: in its documents.
        top: ranks at which a document counts as found; 1 in the paper.

    Returns:
        A set without the other pairs, and without queries that have none left.
    """
    hits = search(data.queries["text"].to_list(), top).rows[:, :top]
    pairs = pairs_of(data.lists)
    queries, documents = (pairs[name].to_numpy() for name in ("query", "document"))
    found = (hits[queries] == documents[:, None]).any(axis=1)
    lists = lists_of(pairs.filter(pl.Series(found)))
    numbered = lists.with_columns(query=pl.int_range(lists.height, dtype=pl.UInt32))
    return TrainingSet(data.name, data.queries[lists["query"]], data.documents, numbered)
