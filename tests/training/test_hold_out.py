"""Held-out queries share nothing with those that are trained on."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.examples.hold_out import hold_out, sampled
from training.examples.lists import PAIRS, lists_of
from training.examples.training_set import TEXTS, TrainingSet

Lists = list[tuple[set[int], set[int]]]


def make(lists: Lists, query_texts: list[int], document_texts: list[int]) -> TrainingSet:
    """A set with these answers and negatives of each query; equal numbers are equal texts."""
    pairs = [
        (query, document, float(document in answers), float(document))
        for query, (answers, negatives) in enumerate(lists)
        for document in sorted(answers) + sorted(negatives - answers)
    ]
    return TrainingSet(
        "made",
        pl.DataFrame(
            [(f"q{i}", f"query {t}") for i, t in enumerate(query_texts)], schema=TEXTS, orient="row"
        ),
        pl.DataFrame(
            [(f"d{i}", f"text {t}") for i, t in enumerate(document_texts)], schema=TEXTS, orient="row"
        ),
        lists_of(pl.DataFrame(pairs, schema=PAIRS, orient="row")),
    )


@st.composite
def training_sets(draw: st.DrawFn) -> TrainingSet:
    n_queries, n_documents = draw(st.integers(1, 8)), draw(st.integers(1, 12))
    rows = st.integers(0, n_documents - 1)
    lists = [(draw(st.sets(rows, min_size=1, max_size=3)), draw(st.sets(rows))) for _ in range(n_queries)]
    query_texts = [draw(st.integers(0, 20)) for _ in range(n_queries)]
    return make(lists, query_texts, [draw(st.integers(0, 15)) for _ in range(n_documents)])


def judged(data: TrainingSet) -> dict[str, dict[str, tuple[float, float]]]:
    """Query id -> document id -> label and score."""
    return {
        data.queries["id"][query]: {
            data.documents["id"][row]: (label, score)
            for row, label, score in zip(rows, labels, scores, strict=True)
        }
        for query, rows, labels, scores in data.lists.rows()
    }


def answers(data: TrainingSet) -> set[str]:
    """Texts of documents that answer something."""
    return {
        data.documents["text"][row]
        for rows, labels in data.lists.select("documents", "labels").rows()
        for row, label in zip(rows, labels, strict=True)
        if label > 0
    }


@given(training_sets(), st.integers(0, 9), st.integers(0, 14), st.integers(0, 3))
def test_a_set_that_is_not_trained_on_is_used_whole(
    data: TrainingSet, n_queries: int, n_documents: int, seed: int
) -> None:
    dev = sampled(data, n_queries, n_documents, seed)
    assert dev.queries.height == min(n_queries, data.queries.height)
    wanted = data.documents.height if n_documents == 0 else min(n_documents, data.documents.height)
    assert dev.documents.height >= wanted
    whole = judged(data)
    for query, found in judged(dev).items():
        kept = {one: pair for one, pair in whole[query].items() if one in set(dev.documents["id"])}
        assert found == kept
        assert {one for one, (label, _) in whole[query].items() if label > 0} <= found.keys()


@given(training_sets(), st.integers(0, 5), st.integers(0, 14), st.integers(0, 3))
def test_held_out_queries_share_nothing_with_training(
    data: TrainingSet, n_queries: int, n_documents: int, seed: int
) -> None:
    train, dev = hold_out(data, n_queries, n_documents, seed)
    assert dev.queries.height == min(n_queries, data.queries.height // 2)
    assert not set(train.queries["text"]) & set(dev.queries["text"])
    assert not answers(dev) & set(train.documents["text"])
    whole = judged(data)
    for part in (train, dev):
        kept = set(part.documents["id"])
        for query, listed in judged(part).items():
            expected = {document: value for document, value in whole[query].items() if document in kept}
            assert listed == expected and any(label > 0 for label, _ in listed.values())
    n_answers = len(
        {document for one in judged(dev).values() for document, (label, _) in one.items() if label > 0}
    )
    total = data.documents.height
    assert dev.documents.height == (total if n_documents == 0 else min(total, max(n_documents, n_answers)))
    # Every query that shares nothing is still trained on.
    left = set(data.queries["id"]) - set(train.queries["id"]) - set(dev.queries["id"])
    texts = dict(data.queries.rows())
    by_id = dict(data.documents.rows())
    for query in left:
        shared = {by_id[document] for document, (label, _) in whole[query].items() if label > 0} & answers(
            dev
        )
        assert shared or texts[query] in set(dev.queries["text"])


def test_the_choice_follows_from_the_seed() -> None:
    data = make([({i}, set()) for i in range(40)], list(range(40)), list(range(40)))
    chosen = [hold_out(data, 10, 20, seed)[1].fingerprint for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]


@pytest.mark.parametrize("n_queries", [0, 1])
def test_a_single_query_is_never_held_out(n_queries: int) -> None:
    train, dev = hold_out(make([({0}, {1})], [0], [0, 1]), n_queries, 1, 0)
    assert (train.queries.height, dev.queries.height, train.documents.height) == (1, 0, 2)
