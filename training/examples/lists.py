"""Lists of a training set as pairs of query and document, one a row, and back."""

from __future__ import annotations

import polars as pl

from training.examples.training_set import LISTS

PAIRS = pl.Schema(
    [("query", pl.UInt32), ("document", pl.UInt32), ("label", pl.Float32), ("score", pl.Float32)]
)
"""Columns of pairs: rows of a query and a document, the judgement, and a teacher's score or null."""


def pairs_of(lists: pl.DataFrame) -> pl.DataFrame:
    """The lists taken apart, in their order."""
    lengths = pl.col("documents").list.len()
    unscored = pl.lit(None, dtype=pl.Float32).repeat_by(lengths)
    return lists.select(
        "query",
        document="documents",
        label="labels",
        score=pl.coalesce("scores", unscored),
    ).explode("document", "label", "score", empty_as_null=False)


def lists_of(pairs: pl.DataFrame) -> pl.DataFrame:
    """The pairs of each query as one list: first what answers it, otherwise in the order given.

    A pair that occurs again keeps its best judgement and its first score. A query with a document without a score has
    none at all; one that nothing answers has no list.
    """
    place = pl.int_range(pl.len(), dtype=pl.UInt32)
    once = (
        pairs.with_columns(place=place)
        .group_by("query", "document")
        .agg(pl.col("label").max(), pl.col("score").first(), pl.col("place").min())
        .sort("query", pl.col("label") <= 0, "place")
    )
    lists = once.group_by("query", maintain_order=True).agg(
        pl.col("document").alias("documents"),
        pl.col("label").alias("labels"),
        pl.col("score").alias("scores"),
    )
    return (
        lists.filter(pl.col("labels").list.first() > 0)
        .with_columns(
            scores=pl.when(pl.col("scores").list.eval(pl.element().is_not_null()).list.all()).then("scores")
        )
        .select(LISTS.names())
    )
