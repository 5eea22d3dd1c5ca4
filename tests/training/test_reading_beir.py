"""Training sets in BEIR's form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from indexing.progress import Silent
from retrieval.errors import ConfigError, FormatError
from training.examples import beir
from training.examples.reading import read_training_set, read_training_sets
from training.recipe.options import DataOptions


def test_a_set_is_read_with_all_its_splits_or_one(tmp_path: Path, write_set: Callable[..., Path]) -> None:
    folder = write_set(tmp_path / "one", splits=("train", "validation"))
    data = read_training_set(folder)
    assert data.name == "one"
    assert sorted(data.queries["id"]) == sorted(f"q{i}" for i in range(12))
    assert data.documents.row(3) == ("d3", "delta delta gamma old")
    judged = dict(zip(data.queries["id"], data.lists.rows(), strict=True))
    assert judged["q0"][1:] == ([0, 11], [1, 0], None)  # judged 0: a negative
    assert judged["q2"][1:] == ([2], [1], None)
    assert read_training_set(folder, "validation").queries.height == 6
    with pytest.raises(ConfigError, match="no split 'test'; it has: train, validation"):
        read_training_set(folder, "test")


def test_graded_judgements_stay_and_those_below_0_are_negatives(
    tmp_path: Path, write_set: Callable[..., Path]
) -> None:
    folder = write_set(tmp_path / "one")
    with (folder / "qrels" / "train.tsv").open("a") as qrels:
        qrels.write("q1\td5\t3\nq1\td6\t-2\n")
    lists = read_training_set(folder).lists.rows()
    assert lists[1][1:3] == ([1, 5, 6], [1, 3, 0])


def test_batches_make_no_difference(
    tmp_path: Path, write_set: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_set(tmp_path / "one")
    whole = read_training_set(folder).fingerprint
    monkeypatch.setattr(beir, "BATCH_CHARACTERS", 40)
    parts = read_training_set(folder)
    assert parts.documents.n_chunks() > 3 and parts.fingerprint == whole


def test_errors_name_what_is_missing(tmp_path: Path, write_set: Callable[..., Path]) -> None:
    folder = write_set(tmp_path / "one")
    qrels = folder / "qrels" / "train.tsv"
    sound = qrels.read_text()
    qrels.write_text(sound + "q1\tnowhere\t1\n")
    with pytest.raises(FormatError, match=r"1 judged documents .* such as 'nowhere' of query 'q1'"):
        read_training_set(folder)
    qrels.write_text(sound + "nobody\td1\t1\n")
    with pytest.raises(FormatError, match=r"no text for 1 judged queries .*'nobody'"):
        read_training_set(folder)
    qrels.write_text("query-id\tcorpus-id\tscore\nq1\td1\t0\n")
    with pytest.raises(ConfigError, match="none of its 1 queries"):
        read_training_set(folder)
    qrels.unlink()
    with pytest.raises(ConfigError, match="no qrels"):
        read_training_set(folder)


def test_a_repeated_document_is_refused(tmp_path: Path, write_set: Callable[..., Path]) -> None:
    folder = write_set(tmp_path / "one")
    with (folder / "corpus.jsonl").open("a") as corpus:
        corpus.write('{"_id": "d4", "text": "again"}\n')
    with pytest.raises(FormatError, match="the id 'd4' stands there twice"):
        read_training_set(folder)


def test_queries_to_be_generated_need_a_corpus_alone(tmp_path: Path, write_set: Callable[..., Path]) -> None:
    folder = write_set(tmp_path / "one")
    (folder / "qrels" / "train.tsv").unlink()
    (folder / "queries.jsonl").unlink()
    (data,) = read_training_sets([DataOptions("one", generated="crops", limit=3)], tmp_path, 0, Silent())
    assert (data.name, data.documents.height, data.queries.height) == ("one", 12, 0)
    assert data.documents.row(3) == ("d3", "delta delta gamma old")
