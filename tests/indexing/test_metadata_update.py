"""Fields of stored documents changed by JSON Lines, by the rules of the corpus readers."""

from __future__ import annotations

import gzip
import io
import json
import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
import zstandard

from indexing.builder import add_documents, build_collection
from indexing.collection import Collection
from indexing.corpora import open_corpus
from indexing.corpora.fields import FieldNames
from indexing.metadata_update import update_metadata
from indexing.options import BuildOptions, WriteOptions, representation_options
from retrieval.errors import FormatError


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Two segments; every type of field, times among them."""
    rows = {
        "_id": [1, 2, 3],
        "text": ["one", "two", "three"],
        "when": [datetime(2024, 1, day) for day in (1, 2, 3)],
        "year": [2001, 2002, 2003],
        "tags": [["a"], ["b"], []],
        "title": ["t", "t", "t"],
        "author": [{"name": "Ada"}, {"name": "Bo"}, {"name": None}],
    }
    frame = pl.DataFrame(rows)
    frame[:2].write_parquet(tmp_path / "first.parquet")
    frame[2:].write_parquet(tmp_path / "second.parquet")
    path = tmp_path / "c"
    build_collection(
        open_corpus(tmp_path / "first.parquet"), path, BuildOptions((representation_options("bm25"),))
    )
    add_documents(open_corpus(tmp_path / "second.parquet"), path, WriteOptions())
    return path


def write(path: Path, *lines: dict | bytes) -> Path:
    data = b"".join(
        (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines
    )
    path.write_bytes(
        gzip.compress(data)
        if path.suffix == ".gz"
        else zstandard.compress(data)
        if path.suffix == ".zst"
        else data
    )
    return path


def metadata(collection: Path, id_: str) -> dict:
    return dict(Collection.open(collection).snapshot().document(id_).metadata)


@pytest.mark.parametrize("name", ["u.jsonl", "u.jsonl.gz", "u.zst"])
def test_updates_follow_the_rules_of_a_corpus(collection, tmp_path, name):
    updates = write(
        tmp_path / name,
        b"\xef\xbb\xbf" + json.dumps({"_id": 1, "author": {"name": "Eve", "age": 40}}).encode(),
        b"",
        {"id": "3", "metadata": {"year": None, "tags": ["x", "y"]}, "when": "2024-06-01T12:00:00+02:00"},
        {"_id": 2, "when": "2025-01-31", "metadata": {"title": "field"}},
    )
    assert update_metadata(collection, updates) == 3
    assert metadata(collection, "1") == {
        "when": datetime(2024, 1, 1), "year": 2001, "tags": ["a"], "author.name": "Eve", "author.age": 40,
    }  # fmt: skip
    assert metadata(collection, "3") == {"when": datetime(2024, 6, 1, 10), "tags": ["x", "y"]}
    assert metadata(collection, "2")["when"] == datetime(2025, 1, 31)
    assert metadata(collection, "2")["title"] == "field"
    snapshot = Collection.open(collection).snapshot()
    assert snapshot.filter('when >= "2024-06-01"').rows().tolist() == [1, 2]
    assert snapshot.filter("author.age = 40").rows().tolist() == [0]


def test_the_id_field_can_be_chosen_fields_left_out_and_standard_input_read(
    collection, tmp_path, monkeypatch
):
    stream = io.BytesIO(b'{"key": "1", "year": 5, "note": [{}]}\n')
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stream))
    assert update_metadata(collection, "-", FieldNames(id="key", ignore=("note",))) == 1
    assert metadata(collection, "1")["year"] == 5


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "malformed JSON"),
        (b"[1]", "is no document"),
        (b'{"_id": "1", "a": "\xff"}', "invalid UTF-8"),
        ({"year": 1}, '"_id" is missing; every line names the document to change'),
        ({"_id": None, "year": 1}, '"_id" is null'),
        ({"_id": "", "year": 1}, '"_id" is empty'),
        ({"_id": "9", "year": 1}, "has no document '9'"),
        ({"_id": "1", "text": "new"}, '"text" cannot change without encoding again'),
        ({"_id": "1", "contents": "new"}, '"contents" cannot change without encoding again'),
        ({"_id": "1", "title": "new"}, '"title" cannot change without encoding again'),
        ({"_id": "1", "year": 18446744073709551615}, '"year" is 18446744073709551615; integers have 64 bits'),
        (b'{"_id": "1", "year": 99999999999999999999999}', '"year" is 9{23}; integers have 64 bits'),
        ({"_id": "1", "year": "old"}, r'"year" is \'old\' \(string\) here and integer before'),
        ({"_id": "1", "year": 1, "metadata": {"year": 2}}, '"year" is given twice'),
        ({"_id": "1", "tags": [1]}, r'"tags" is \[1\], a list; metadata holds'),
        ({"_id": "1", "author": {"": 1}}, 'a metadata field in "author" has no name'),
        ({"_id": "1", "": 1}, "a metadata field has no name"),
        ({"_id": "1", "when": "soon"}, "\"when\" is 'soon', a string; it holds times"),
        ({"_id": "1", "when": "0001-01-01T00:00+05:00"}, "a string; it holds times"),
        ({"_id": "1", "when": 5}, r'"when" is 5 \(integer\) here and datetime before'),
    ],
)
def test_a_wrong_update_names_its_line_and_changes_nothing(collection, tmp_path, line, message):
    before = Collection.open(collection).commit()
    updates = write(tmp_path / "u.jsonl", {"_id": "2", "year": 7}, line)
    with pytest.raises(FormatError, match=message) as caught:
        update_metadata(collection, updates)
    assert (caught.value.path, caught.value.line) == (str(updates), 2)
    assert Collection.open(collection).commit() == before


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty"), (b"\n \n", "no document"), (None, "no such file")]
)
def test_no_updates_are_an_error(collection, tmp_path, content, message):
    path = tmp_path / "u.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FormatError, match=message):
        update_metadata(collection, path)


def test_a_field_that_is_called_like_a_text_is_a_field_where_the_collection_has_it(tmp_path):
    corpus = write(tmp_path / "c.jsonl", {"_id": "1", "text": "t", "body": "strong"})
    build_collection(open_corpus(corpus), tmp_path / "c", BuildOptions((representation_options("bm25"),)))
    update_metadata(tmp_path / "c", write(tmp_path / "u.jsonl", {"_id": "1", "body": "weak"}))
    assert metadata(tmp_path / "c", "1") == {"body": "weak"}
