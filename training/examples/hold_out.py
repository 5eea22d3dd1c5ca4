"""Held-out queries: a part of a training set to choose by, which shares nothing with the rest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from training.examples.lists import lists_of, pairs_of
from training.examples.training_set import TrainingSet


def hold_out(
    data: TrainingSet, n_queries: int, n_documents: int, seed: int
) -> tuple[TrainingSet, TrainingSet]:
    """Split off queries to choose by, with a sample of the documents to search them in.

    No training query shares its text with a held-out one or is answered by a document with the text of one that answers
    a held-out query; those documents are not trained on as negatives either.

    Args:
        data: the whole set.
        n_queries: to hold out; at most half of them are.
        n_documents: in the sample, which holds all that answer held-out queries even where those are more; 0 takes all.
        seed: of the choice.

    Returns:
        What to train on and what to choose by.
    """
    rng = np.random.default_rng(seed)
    held = _chosen(data.queries.height, min(n_queries, data.queries.height // 2), rng)
    answers = pairs_of(data.lists).filter(pl.col("label") > 0)
    held_answers = answers.filter(pl.col("query").is_in(held))["document"].unique()
    texts = data.documents["text"]
    answering = texts.is_in(texts.gather(held_answers).implode())
    shared = answers.filter(answering.gather(answers["document"]))["query"]
    asked = data.queries["text"]
    numbers = data.lists["query"]
    kept = ~(asked.is_in(asked.gather(held).implode()) | numbers.is_in(shared.implode()))
    searched = _sample(held_answers.to_numpy(), data.documents.height, n_documents, rng)
    return (
        _part(data, np.flatnonzero(kept), ~answering.to_numpy()),
        _part(data, held, searched),
    )


def sampled(data: TrainingSet, n_queries: int, n_documents: int, seed: int) -> TrainingSet:
    """Queries to choose by of a set that is not trained on, all of which may be used.

    Args:
        data: the whole set.
        n_queries: that are used, or all where there are fewer.
        n_documents: in the sample, as for ``hold_out``.
        seed: of the choice.
    """
    rng = np.random.default_rng(seed)
    held = _chosen(data.queries.height, min(n_queries, data.queries.height), rng)
    answers = pairs_of(data.lists).filter(pl.col("label") > 0)
    held_answers = answers.filter(pl.col("query").is_in(held))["document"].unique()
    return _part(data, held, _sample(held_answers.to_numpy(), data.documents.height, n_documents, rng))


def _chosen(total: int, wanted: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """So many rows, ascending."""
    return np.sort(rng.choice(total, wanted, replace=False))


def _sample(
    required: NDArray[np.uint32], total: int, wanted: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Which documents are in a sample that holds the required ones."""
    if wanted == 0:
        return np.ones(total, dtype=np.bool_)
    chosen = np.zeros(total, dtype=np.bool_)
    chosen[required] = True
    others = np.flatnonzero(~chosen)
    chosen[rng.choice(others, min(len(others), max(0, wanted - len(required))), replace=False)] = True
    return chosen


def _part(data: TrainingSet, queries: NDArray[np.integer], documents: NDArray[np.bool_]) -> TrainingSet:
    """Some of the queries over some of the documents; the others leave the lists."""
    chosen = data.select(queries)
    rows = (np.cumsum(documents) - 1).astype(np.uint32)
    pairs = pairs_of(chosen.lists)
    pairs = pairs.filter(documents[pairs["document"].to_numpy()])
    pairs = pairs.with_columns(document=pl.Series(rows[pairs["document"].to_numpy()]))
    return replace(chosen, documents=data.documents.filter(documents), lists=lists_of(pairs))
