"""Training sets: how they are read, held out and given negatives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from retrieval.errors import ConfigError, FormatError
from training.triplets import hold_out, read_training_set, read_training_sets


def test_a_set_is_read_with_all_its_splits_and_without_judgements_of_0(
    tmp_path: Path, write_set: Callable[..., Path]
) -> None:
    data = read_training_set(write_set(tmp_path / "one", splits=("train", "validation")))
    assert data.name == "one"
    assert data.qrels == {f"q{i}": {f"d{i}": 1} for i in (*range(0, 12, 2), *range(1, 12, 2))}
    assert data.queries["q3"] == "the delta 3"
    assert data.documents["d3"] == "delta delta gamma old"


def test_negatives_are_near_and_never_relevant(tmp_path: Path, write_set: Callable[..., Path]) -> None:
    data = read_training_set(write_set(tmp_path / "one"))
    triplets = data.triplets(seed=0)
    assert [query for query, _, _ in triplets] == list(data.queries.values())
    for i, (query, positive, negative) in enumerate(triplets):
        assert positive == data.documents[f"d{i}"] != negative
        if i < 11:  # the last word occurs in one document only
            assert query.split()[1] in negative.split()
    assert triplets == data.triplets(seed=0)


def test_held_out_queries_share_nothing_with_training(tmp_path: Path, write_set: Callable[..., Path]) -> None:
    data = read_training_set(write_set(tmp_path / "one"))
    kept, held = hold_out(data, 2, 4, seed=0)
    assert len(held.queries) == 2 and len(held.documents) == 4
    assert not kept.queries.keys() & held.queries.keys()
    relevant = {document for judged in held.qrels.values() for document in judged}
    assert relevant <= held.documents.keys() and not relevant & kept.documents.keys()
    assert len(kept.queries) == 10


def test_errors_name_the_folder_and_what_is_missing(tmp_path: Path, write_set: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="no data set below"):
        read_training_sets(tmp_path)
    folder = write_set(tmp_path / "one")
    with (folder / "qrels" / "train.tsv").open("a") as qrels:
        qrels.write("q1\tnowhere\t1\n")
    with pytest.raises(FormatError, match=r"'nowhere'.*not in"):
        read_training_sets(tmp_path)
    (folder / "qrels" / "train.tsv").unlink()
    with pytest.raises(ConfigError, match="no qrels"):
        read_training_set(folder)
