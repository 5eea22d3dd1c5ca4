"""Examples drawn from training sets, and the data sets made of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexing.progress import Silent
from retrieval.errors import ConfigError
from training.examples.dataset import are_scored, examples_dataset
from training.examples.drawing import Example, draw, text_key
from training.examples.training_set import LISTS, TEXTS, TrainingSet

Listed = tuple[list[int], list[int], list[float] | None]


def make(lists: list[Listed], n_documents: int, n_texts: int | None = None) -> TrainingSet:
    """A set whose documents have n_texts different texts in turn."""
    distinct = n_texts or n_documents
    return TrainingSet(
        "made",
        pl.DataFrame([(f"q{i}", f"query {i}") for i in range(len(lists))], schema=TEXTS, orient="row"),
        pl.DataFrame(
            [(f"d{i}", f"text {i % distinct}") for i in range(n_documents)], schema=TEXTS, orient="row"
        ),
        pl.DataFrame([(i, *one) for i, one in enumerate(lists)], schema=LISTS, orient="row"),
    )


LISTED: Listed = ([4, 2, 0, 1, 3], [2, 1, 0, 0, 0], None)


def numbers(example: Example) -> list[int]:
    return [int(text.removeprefix("text ")) for text in example.documents]


def test_epochs_take_turns_before_anything_comes_again() -> None:
    data = make([LISTED] * 3, 9)
    for query in range(3):
        drawn = [list(draw(data, 5, epoch, 1))[query] for epoch in range(6)]
        assert Counter(numbers(one)[0] for one in drawn) == {4: 3, 2: 3}
        assert Counter(numbers(one)[1] for one in drawn) == {0: 2, 1: 2, 3: 2}
        for one in drawn:
            assert one.query == f"query {query}"
            assert one.labels == ({4: 2, 2: 1}[numbers(one)[0]], 0)
            assert one.scores is None
            assert one.relevant == tuple(sorted((text_key("text 4"), text_key("text 2"))))
            assert one.keys == tuple(map(text_key, one.documents))


def test_what_answers_a_query_of_the_same_text_is_no_negative() -> None:
    listed: list[Listed] = [([0, 1], [1, 0], None), ([2], [1], None), ([3, 4], [1, 1], None)]
    data = make(listed, 6)
    same = data.queries.with_columns(text=pl.Series(["asked twice", "asked once", "asked twice"]))
    drawn = list(draw(replace(data, queries=same), 0, 0, 3))
    for query in (0, 2):
        assert drawn[query].relevant == tuple(sorted(text_key(f"text {row}") for row in (0, 3, 4)))
    assert drawn[1].relevant == (text_key("text 2"),)
    assert not {"text 0", "text 3", "text 4"} & set(drawn[0].documents[1:])


def test_the_same_arguments_draw_the_same() -> None:
    data = make([LISTED] * 40, 30)
    drawn = [list(draw(data, seed, epoch, 4)) for seed, epoch in ((0, 0), (0, 0), (1, 0), (0, 1))]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2] and drawn[0] != drawn[3]


def test_what_a_query_gets_does_not_depend_on_how_many_there_are() -> None:
    many = list(draw(make([LISTED] * 600, 30), 0, 0, 4))
    few = list(draw(make([LISTED] * 300, 30), 0, 0, 4))
    assert many[:300] == few


@given(
    st.integers(1, 4),
    st.integers(0, 4),
    st.integers(0, 6),
    st.integers(0, 4),
    st.integers(2, 12),
    st.integers(0, 9),
)
def test_negatives_answer_nothing_and_repeat_only_where_they_must(
    n_answers: int, n_negatives: int, asked: int, n_others: int, n_texts: int, seed: int
) -> None:
    n_documents = n_answers + n_negatives + n_others
    texts = [row % n_texts for row in range(n_documents)]
    labels = [1] * n_answers + [0] * n_negatives
    data = make([(list(range(len(labels))), labels, None)], n_documents, n_texts)
    answers = set(texts[:n_answers])
    own = texts[n_answers : n_answers + n_negatives]
    possible = set(texts) - answers
    if not possible and asked > n_negatives:
        if n_negatives:  # judged to answer nothing, whatever its text
            assert set(numbers(next(draw(data, seed, 0, asked)))[1:]) <= set(own)
        else:
            with pytest.raises(ConfigError, match="every document answers the query 'q0'"):
                list(draw(data, seed, 0, asked))
        return
    (example,) = draw(data, seed, 2, asked)
    assert len(example.documents) == len(example.labels) == asked + 1
    assert numbers(example)[0] in answers and example.labels == (1, *[0] * asked)
    drawn = numbers(example)[1:]
    if asked <= n_negatives:
        assert not Counter(drawn) - Counter(own)
        return
    assert not Counter(own) - Counter(drawn)  # all of its own
    assert set(drawn) - set(own) <= possible
    if len(possible | set(own)) >= asked and len(set(own)) == len(own):
        assert len(set(drawn)) == asked


def test_random_negatives_change_from_epoch_to_epoch() -> None:
    data = make([([0], [1], None)], 1000)
    drawn = {number for epoch in range(5) for one in draw(data, 0, epoch, 4) for number in numbers(one)[1:]}
    assert len(drawn) > 16 and 0 not in drawn


def test_scored_lists_repeat_their_own_negatives() -> None:
    data = make([([4, 0, 1], [1, 0, 0], [9, 5, 4])], 6)
    (example,) = draw(data, 0, 0, 5)
    assert set(zip(numbers(example), example.scores or (), strict=True)) == {(4, 9), (0, 5), (1, 4)}
    assert Counter(numbers(example)[1:]).most_common(1)[0][1] == 3
    unfit = make([([4], [1], [9])], 6)
    assert next(draw(unfit, 0, 0, 0)).scores == (9,)
    with pytest.raises(ConfigError, match="all scored documents of the query 'q0' answer it; mine negatives"):
        list(draw(unfit, 0, 0, 1))


class Counted(Silent):
    def __init__(self) -> None:
        self.total: int | None = None
        self.done = 0

    def start(self, stage: str, total: int | None, unit: str) -> None:
        self.total = total

    def advance(self, amount: int) -> None:
        self.done += amount


def dataset(data: TrainingSet, folder: Path, **changed: Any) -> Any:
    return examples_dataset(data, **({"seed": 0, "epoch": 0, "negatives": 2, "folder": folder} | changed))


def test_a_data_set_has_a_row_for_each_query(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    data = make([LISTED] * 5, 9)
    counted = Counted()
    made = dataset(data, tmp_path, progress=counted)
    assert made.column_names == [
        "query", "document_0", "document_1", "document_2", "labels", "keys", "relevant",
    ]  # fmt: skip
    assert (counted.total, counted.done) == (5, 5) and capfd.readouterr().err == ""
    for row, example in zip(made, draw(data, 0, 0, 2), strict=True):
        assert row["query"] == example.query
        assert tuple(row[f"document_{place}"] for place in range(3)) == example.documents
        assert tuple(row["labels"]) == example.labels
        assert tuple(row["keys"]) == example.keys and tuple(row["relevant"]) == example.relevant


def test_a_data_set_on_disk_is_used_again_and_never_for_other_arguments(tmp_path: Path) -> None:
    data = make([LISTED] * 3, 9)
    files = {}
    for name, changed in {
        "first": {}, "again": {}, "epoch": {"epoch": 1}, "seed": {"seed": 1}, "negatives": {"negatives": 1},
    }.items():  # fmt: skip
        counted = Counted()
        (file,) = dataset(data, tmp_path, progress=counted, **changed).cache_files
        files[name] = file["filename"]
        assert counted.done == (0 if name == "again" else 3)
    (file,) = dataset(data.select([1, 0, 2]), tmp_path).cache_files
    assert files.pop("again") == files["first"] and Path(files["first"]).is_relative_to(tmp_path)
    assert len({*files.values(), file["filename"]}) == 5


def test_scores_are_a_column_where_every_list_has_them(tmp_path: Path) -> None:
    scored = make([([4, 0, 1], [1, 0, 0], [9, 5, 4])] * 2, 6)
    made = dataset(scored, tmp_path)
    assert set(made.column_names) > {"labels", "scores"} and made[0]["scores"][0] == 9
    plain = replace(make([LISTED], 6), name="plain")
    with pytest.raises(ConfigError, match=r"some queries have a teacher's scores.*1 of plain"):
        are_scored([scored, plain])


def test_faults_come_through_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="every document answers the query 'q0'"):
        dataset(make([([0], [1], None)], 1), tmp_path)
    with pytest.raises(ConfigError, match="there is no query to train on"):
        dataset(make([LISTED], 6).select([]), tmp_path)
