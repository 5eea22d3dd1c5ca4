"""Texts and data sets that the tests of training share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from training.run.quiet import quietly


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quietly():
        yield


@pytest.fixture
def texts() -> list[str]:
    """Texts of words that the tiny checkpoints know."""
    return [
        "river mountain search engine",
        "the cat and the dog in the river of a mountain",
        "fast red fish, slow green bird",
        "index",
        "alpha beta gamma delta old new vector query document",
    ]


@pytest.fixture
def still(make_checkpoint: Callable[..., Path]) -> Path:
    """A random dense model without dropout, with a dimension for each term of its tokenizer ("a" has two numbers)."""
    return make_checkpoint(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, vocab_size=112)


@pytest.fixture
def write_set() -> Callable[..., Path]:
    """A function that writes a data set into a new folder, which it returns."""
    return _write_set


def _write_set(folder: Path, n: int = 12, splits: tuple[str, ...] = ("train",)) -> Path:
    """n documents, the i-th with one query of its own, shared out over the splits."""
    words = "alpha beta gamma delta river mountain search engine index vector cat dog bird fish".split()
    (folder / "qrels").mkdir(parents=True)
    documents = [
        {"_id": f"d{i}", "title": words[i], "text": f"{words[i]} {words[i - 1]} old"} for i in range(n)
    ]
    queries = [{"_id": f"q{i}", "text": f"the {words[i]} {i}"} for i in range(n)]
    for name, lines in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    for place, split in enumerate(splits):
        rows = [f"q{i}\td{i}\t1" for i in range(place, n, len(splits))] + [f"q{place}\td{n - 1 - place}\t0"]
        (folder / "qrels" / f"{split}.tsv").write_text(
            "query-id\tcorpus-id\tscore\n" + "\n".join(rows) + "\n"
        )
    return folder
