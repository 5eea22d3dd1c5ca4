"""Training sets: what they hold, how they are saved, and what their fingerprint covers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import ConfigError, CorruptError
from training.examples.lists import PAIRS, lists_of, pairs_of
from training.examples.reading import joined
from training.examples.training_set import LISTS, TEXTS, TrainingSet, open_training_set

LISTED: list[tuple[Any, ...]] = [
    (0, [1, 0], [2, 0], [0.5, 0.25]),
    (1, [2], [1], None),
    (2, [0, 1, 2], [1, 1, 0], [1, -1, 0]),
]


def make(listed: list[tuple[Any, ...]] | None = None, name: str = "made") -> TrainingSet:
    lists = pl.DataFrame(LISTED if listed is None else listed, schema=LISTS, orient="row")
    queries = pl.DataFrame([(f"q{i}", f"query {i}") for i in range(3)], schema=TEXTS, orient="row")
    documents = pl.DataFrame([(f"d{i}", f"ünicode {i}") for i in range(3)], schema=TEXTS, orient="row")
    return TrainingSet(name, queries, documents, lists)


def test_a_saved_set_is_opened_as_it_was(tmp_path: Path) -> None:
    data = make()
    data.save(tmp_path / "set")
    opened = open_training_set(tmp_path / "set")
    assert opened.name == "made" and opened.fingerprint == data.fingerprint
    for frame in ("queries", "documents", "lists"):
        assert getattr(opened, frame).equals(getattr(data, frame))
    with pytest.raises(ConfigError, match="exists already"):
        data.save(tmp_path / "set")


@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "kind"])
def test_a_damaged_folder_is_refused(tmp_path: Path, damage: str) -> None:
    make().save(tmp_path / "set")
    file = tmp_path / "set" / "documents.arrow"
    content = file.read_bytes()
    match damage:
        case "cut":
            file.write_bytes(content[:-10])
        case "changed":
            file.write_bytes(content.replace(b"icode 1", b"icode 9"))
        case "missing":
            file.unlink()
        case "kind":
            file = tmp_path / "set" / "manifest.json"
            file.write_text(file.read_text().replace("training-set", "other"))
    with pytest.raises(CorruptError, match=file.name):
        open_training_set(tmp_path / "set")


def test_a_fingerprint_covers_all_content_and_nothing_else() -> None:
    data = make()
    chunked = replace(data, documents=pl.concat([data.documents[:1], data.documents[1:]], rechunk=False))
    assert chunked.fingerprint == data.fingerprint == make(name="other").fingerprint
    moved = data.documents.with_columns(id=pl.Series(["d", "0d1", "d2"]))
    changed = [
        replace(data, queries=data.queries.reverse()),
        replace(data, documents=moved),
        make([(0, [0, 1], [2, 0], [0.5, 0.25]), *LISTED[1:]]),
        make([(0, [1, 0], [1, 0], [0.5, 0.25]), *LISTED[1:]]),
        make([(0, [1, 0], [2, 0], None), *LISTED[1:]]),
        make([LISTED[0], (1, [2], [1], [0]), LISTED[2]]),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in changed)}) == len(changed) + 1


def test_selected_queries_come_in_the_order_asked_for() -> None:
    chosen = make().select([2, 0])
    assert chosen.queries["id"].to_list() == ["q2", "q0"]
    assert chosen.lists.rows() == [(0, *LISTED[2][1:]), (1, *LISTED[0][1:])]
    assert chosen.documents.height == 3
    assert make().select([]).queries.height == 0


@pytest.mark.parametrize(
    ("listed", "rule"),
    [
        (LISTED[:2], "a list for each query"),
        ([LISTED[1], LISTED[0], LISTED[2]], "in their order"),
        ([*LISTED[:2], (2, [3], [1], None)], "documents that exist"),
        ([*LISTED[:2], (2, [1, 1], [1, 0], None)], "each document once"),
        ([*LISTED[:2], (2, [0, 1], [1], None)], "a label for each document"),
        ([*LISTED[:2], (2, [0, 1], [1, 0], [1])], "a score for each document"),
        ([*LISTED[:2], (2, [0, 1], [1, 0], [1.0, float("nan")])], "finite scores"),
        ([*LISTED[:2], (2, [0, 1], [0, 1], None)], "what answers the query first"),
        ([*LISTED[:2], (2, [0], [0], None)], "what answers the query first"),
        ([*LISTED[:2], (2, [], [], None)], "what answers the query first"),
    ],
)
def test_lists_that_break_a_rule_are_refused(listed: list[tuple[Any, ...]], rule: str) -> None:
    with pytest.raises(ConfigError, match=rule):
        make(listed)


def test_columns_of_another_type_are_refused() -> None:
    data = make()
    with pytest.raises(ConfigError, match="queries have columns"):
        replace(data, queries=data.queries.with_columns(id=pl.lit(1)))


pairs = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 5),
        st.sampled_from([0.0, 1.0, 2.0]),
        st.sampled_from([None, 0.5, 1.5]),
    ),
    max_size=20,
)


@given(pairs)
def test_pairs_become_lists_and_lists_pairs(given_pairs: list[tuple[int, int, float, float | None]]) -> None:
    naive: dict[int, dict[int, tuple[float, float | None]]] = {}
    for query, document, label, score in given_pairs:
        best, first = naive.setdefault(query, {}).get(document, (label, score))
        naive[query][document] = (max(best, label), first)
    expected = []
    for query, judged in sorted(naive.items()):
        order = sorted(judged, key=lambda document: judged[document][0] <= 0)  # stable
        labels = [judged[document][0] for document in order]
        scores = [judged[document][1] for document in order]
        if labels[0] > 0:
            expected.append((query, order, labels, None if None in scores else scores))
    lists = lists_of(pl.DataFrame(given_pairs, schema=PAIRS, orient="row"))
    assert lists.schema == LISTS and lists.rows() == expected
    assert lists_of(pairs_of(lists)).equals(lists)


def test_joined_sets_keep_their_lists_and_their_ids_apart() -> None:
    one, other = make(name="one"), make(name="other").select([2, 1])
    both = joined([one, other])
    assert both.name == "one+other"
    assert both.queries["id"].to_list() == ["one/q0", "one/q1", "one/q2", "other/q2", "other/q1"]
    assert both.documents["id"].to_list()[2:4] == ["one/d2", "other/d0"]
    assert both.lists.rows()[:3] == LISTED
    assert both.lists.rows()[3:] == [(3, [3, 4, 5], *LISTED[2][2:]), (4, [5], [1], None)]
