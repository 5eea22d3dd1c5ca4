"""Training sets in JSONL and Parquet files: every form, and every fault by line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from indexing.corpora.fields import stable_id
from indexing.progress import Silent
from retrieval.errors import ConfigError, FormatError
from training.examples import files
from training.examples.reading import limited, read_training_set, read_training_sets
from training.examples.training_set import TrainingSet
from training.recipe.options import DataOptions

List = tuple[list[str], list[float], list[float] | None]
FORMS: dict[str, tuple[list[dict[str, Any]], dict[str, List]]] = {
    "pairs": (
        [{"query": "q", "document": "a"}, {"query": "r", "document": "b"}, {"query": "q", "document": "c"}],
        {"q": (["a", "c"], [1, 1], None), "r": (["b"], [1], None)},
    ),
    "judged pairs": (
        [{"query": "q", "document": "a", "label": 0}, {"query": "q", "document": "b", "label": 2}],
        {"q": (["b", "a"], [2, 0], None)},
    ),
    "scored pairs": ([{"anchor": "q", "positive": "a", "score": 0.5}], {"q": (["a"], [1], [0.5])}),
    "questions": ([{"question": "q", "answer": "a"}], {"q": (["a"], [1], None)}),
    "triples": (
        [
            {"anchor": "q", "positive": "a", "negative": "b"},
            {"anchor": "q", "positive": "a", "negative": "c"},
        ],
        {"q": (["a", "b", "c"], [1, 0, 0], None)},
    ),
    "several negatives": (
        [{"query": "q", "positive": "a", "negative_10": "c", "negative_2": "b"}],
        {"q": (["a", "b", "c"], [1, 0, 0], None)},
    ),
    "lists of both": (
        [{"query": "q", "pos": ["a", "b"], "neg": ["c"], "pos_scores": [3, 2], "neg_scores": [1]}],
        {"q": (["a", "b", "c"], [1, 1, 0], [3, 2, 1])},
    ),
    "no negatives": ([{"query": "q", "pos": ["a"], "neg": []}], {"q": (["a"], [1], None)}),
    "triples with scores": (
        [{"query": "q", "positive": "a", "negative": "b", "scores": [2, -1]}],
        {"q": (["a", "b"], [1, 0], [2, -1])},
    ),
    "scored lists": (
        [{"query": "q", "documents": ["a", "b", "c"], "scores": [1, 3, 2]}],
        {"q": (["b", "a", "c"], [1, 0, 0], [3, 1, 2])},
    ),
    "judged lists": (
        [{"query": "q", "documents": ["a", "b"], "labels": [0, 2], "scores": [5, 3]}],
        {"q": (["b", "a"], [2, 0], [3, 5])},
    ),
}


def content(data: TrainingSet) -> dict[str, List]:
    texts = data.documents["text"].to_list()
    return {
        query: ([texts[row] for row in documents], labels, scores)
        for query, (_, documents, labels, scores) in zip(data.queries["text"], data.lists.rows(), strict=True)
    }


def write(path: Path, lines: Iterable[dict[str, Any]]) -> Path:
    raw = "".join(json.dumps(line) + "\n" for line in lines).encode()
    match path.suffix:
        case ".gz":
            path.write_bytes(gzip.compress(raw))
        case ".zst":
            path.write_bytes(zstandard.compress(raw))
        case ".parquet":
            pl.DataFrame(list(lines)).write_parquet(path)
        case _:
            path.write_bytes(raw)
    return path


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_from_every_format(tmp_path: Path, form: str, ending: str) -> None:
    lines, expected = FORMS[form]
    data = read_training_set(write(tmp_path / f"my.set.{ending}", lines))
    assert data.name == "my.set"
    assert content(data) == expected


def test_a_text_is_one_document_with_an_id_that_is_made_of_it(tmp_path: Path) -> None:
    lines = [
        {"query": f"q{i % 3}", "positive": f"a{i % 3}", "negative": f"a{(i + 1) % 3}"} for i in range(30)
    ]
    data = read_training_set(write(tmp_path / "set.jsonl", lines))
    assert data.documents["text"].to_list() == ["a0", "a1", "a2"]
    assert data.documents["id"].to_list() == [stable_id("", f"a{i}") for i in range(3)]
    assert content(data)["q2"] == (["a2", "a0"], [1, 0], None)


texts = st.sampled_from("abcdefgh")


@given(st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=30), st.integers(1, 12))
def test_batches_make_no_difference(
    tmp_path_factory: pytest.TempPathFactory, triples: list[tuple[str, str, str]], size: int
) -> None:
    lines = [{"query": q, "positive": p, "negative": n} for q, p, n in triples]
    path = write(tmp_path_factory.mktemp("set") / "set.jsonl", lines)
    naive: dict[str, dict[str, float]] = {}
    for query, positive, negative in triples:
        naive.setdefault(query, {})[positive] = 1
        naive[query].setdefault(negative, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BATCH_CHARACTERS", size)
        data = read_training_set(path)
    assert {
        query: dict(zip(documents, labels, strict=True))
        for query, (documents, labels, _) in content(data).items()
    } == naive
    assert data.fingerprint == read_training_set(path).fingerprint


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('["q", "d"]', "no JSON object"),
        ('{"query": "q", "document": ', "malformed JSON"),
        ('{"document": "d"}', '"query" is missing .*"anchor".*the line has "document"'),
        ('{"query": "q"}', '"positive" is missing'),
        ('{"query": "q", "document": null}', '"positive" is missing'),
        ('{"query": " ", "document": "d"}', '"query" is empty'),
        ('{"query": "q", "document": ""}', '"document" is empty'),
        ('{"query": "q", "pos": [], "neg": ["d"]}', '"pos" is an empty list'),
        ('{"query": "q", "document": 3}', "holds 3, an integer; needed is a string"),
        ('{"query": ["q", "r"], "document": "d"}', "a line has one query"),
        ('{"query": "q", "documents": ["d", "e"]}', 'needs "labels", "scores" or both'),
        (
            '{"query": "q", "documents": ["d", "e"], "scores": [1]}',
            '"scores" holds 1 numbers for 2 documents',
        ),
        ('{"query": "q", "documents": ["d"], "scores": [NaN]}', "malformed JSON"),
        ('{"query": "q", "documents": ["d"], "scores": ["1"]}', "needed are finite numbers"),
        ('{"query": "q", "documents": ["d"], "labels": [true]}', "needed are finite numbers"),
        ('{"query": "q", "document": "d", "neg": ["e"], "neg_scores": [1]}', "stand together"),
    ],
)
def test_a_fault_names_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text('{"query": "q", "document": "d"}\n\n' + line + "\n")
    with pytest.raises(FormatError, match=message) as caught:
        read_training_set(path)
    assert caught.value.path == str(path) and caught.value.line == 3


def test_a_score_that_is_no_number_is_found_in_parquet(tmp_path: Path) -> None:
    lines = [{"query": "q", "documents": ["a", "b"], "scores": [1.0, score]} for score in (2.0, float("nan"))]
    with pytest.raises(FormatError, match=r"set\.parquet:2: .*nan.*finite"):
        read_training_set(write(tmp_path / "set.parquet", lines))


def test_damaged_and_unknown_files_are_named(tmp_path: Path) -> None:
    cut = write(tmp_path / "cut.parquet", FORMS["pairs"][0])
    cut.write_bytes(cut.read_bytes()[:-20])
    with pytest.raises(FormatError, match=r"cut\.parquet: not a complete Parquet file"):
        read_training_set(cut)
    half = write(tmp_path / "half.jsonl.gz", FORMS["pairs"][0])
    half.write_bytes(half.read_bytes()[:-12])
    with pytest.raises(FormatError, match=r"half\.jsonl\.gz: .*truncated"):
        read_training_set(half)
    (tmp_path / "set.csv").write_text("query,document\n")
    with pytest.raises(FormatError, match=r"set\.csv: no training set"):
        read_training_set(tmp_path / "set.csv")
    with pytest.raises(FormatError, match=r"missing\.jsonl: cannot be read"):
        read_training_set(tmp_path / "missing.jsonl")


class Notes(Silent):
    def __init__(self) -> None:
        self.noted: list[str] = []

    def note(self, text: str) -> None:
        self.noted.append(text)


def test_queries_that_nothing_answers_are_left_out_with_a_note(tmp_path: Path) -> None:
    lines = [{"query": "q", "document": "a", "label": 0}, {"query": "r", "document": "b", "label": 1}]
    notes = Notes()
    data = read_training_set(write(tmp_path / "set.jsonl", lines), progress=notes)
    assert content(data) == {"r": (["b"], [1], None)} and data.documents.height == 2
    assert notes.noted == ["set.jsonl: 1 queries without an answer are left out"]


@pytest.mark.parametrize("lines", [[], [{"query": "q", "document": "a", "label": 0}]])
def test_a_set_with_nothing_to_train_on_is_refused(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    with pytest.raises(ConfigError, match="nothing to train on"):
        read_training_set(write(tmp_path / "set.jsonl", lines))


def test_a_saved_set_is_a_source_without_splits(tmp_path: Path) -> None:
    data = read_training_set(write(tmp_path / "set.jsonl", FORMS["triples"][0]))
    data.save(tmp_path / "saved")
    assert read_training_set(tmp_path / "saved").fingerprint == data.fingerprint
    for source in ("saved", "set.jsonl"):
        with pytest.raises(ConfigError, match="has no splits"):
            read_training_set(tmp_path / source, "train")


def test_a_recipe_names_its_sets_and_how_much_of_them(tmp_path: Path) -> None:
    write(tmp_path / "one.jsonl", ({"query": f"q{i}", "document": f"d{i}"} for i in range(20)))
    write(tmp_path / "two.jsonl", FORMS["pairs"][0])
    options = [DataOptions("one.jsonl", limit=5), DataOptions(str(tmp_path / "two.jsonl"))]
    one, two = read_training_sets(options, tmp_path, 0, Silent())
    assert (one.queries.height, one.documents.height, two.queries.height) == (5, 20, 2)
    again, _ = read_training_sets(options, tmp_path, 0, Silent())
    other, _ = read_training_sets(options, tmp_path, 1, Silent())
    assert again.fingerprint == one.fingerprint != other.fingerprint
    assert limited(two, 5, 0) is two
    with pytest.raises(ConfigError, match=r"no file or folder 'ones\.jsonl'.*did you mean 'one\.jsonl'"):
        read_training_sets([DataOptions("ones.jsonl")], tmp_path, 0, Silent())
