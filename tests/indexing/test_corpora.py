from __future__ import annotations

import gzip
import io
import json
import os
import random
import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from indexing.corpora import EXTENSIONS, FORMATS, START, Position, lines, open_corpus, parquet, read_vectors
from indexing.corpora.fields import stable_id
from indexing.parquet_faults import reading_parquet
from retrieval.errors import ConfigError, FormatError
from retrieval.values import Document

DOCUMENTS = [
    Document("1", "first text", "One", {"year": 2001, "tags": ["a", "b"]}),
    Document("2", "zweiter Täxt 😀\nwith a line", "", {"year": 2002, "tags": []}),
    Document("x/3", "", "Three", {"year": None, "tags": ["c"]}),
]


def as_json(document: Document) -> dict:
    return {
        "_id": document.id,
        "title": document.title,
        "text": document.text,
        "metadata": dict(document.metadata),
    }


def write_jsonl(path: Path, records: list) -> Path:
    data = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    if path.suffix == ".gz":
        data = gzip.compress(data)
    if path.suffix == ".zst":
        data = zstandard.compress(data)
    path.write_bytes(data)
    return path


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def documents(path: Path | str, **options) -> list[Document]:
    return [record.document for record in open_corpus(path, **options).read()]


def fields(document: Document) -> tuple:
    return document.id, document.text, document.title, dict(document.metadata)


def assert_same(read: list[Document], expected: list[Document]) -> None:
    assert [fields(document) for document in read] == [fields(document) for document in expected]


def every_format(folder: Path) -> list[Path]:
    """The same small corpus in each file format."""
    flat = [
        {"id": doc.id, "Title": doc.title, "text": doc.text, "year": doc.metadata["year"]}
        for doc in DOCUMENTS
    ]
    cells = [["" if value is None else str(value) for value in row.values()] for row in flat]
    quoted = [
        ",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in [list(flat[0]), *cells]
    ]
    pl.DataFrame(flat).write_parquet(folder / "c.parquet")
    records = [as_json(document) for document in DOCUMENTS]
    (folder / "beir").mkdir()
    (folder / "beir-gz").mkdir()
    (folder / "texts" / "inner").mkdir(parents=True)
    for number in range(3):
        write(folder / "texts" / "inner" / f"{number}.txt", f"text {number}")
    return [
        write_jsonl(folder / "c.jsonl", records),
        write_jsonl(folder / "c.ndjson.gz", records),
        write_jsonl(folder / "c.JSONL.zst", records),
        write_jsonl(folder / "beir" / "corpus.jsonl", records).parent,
        write_jsonl(folder / "beir-gz" / "corpus.jsonl.gz", records).parent,
        write(folder / "c.csv", "\r\n".join(quoted)),
        write(folder / "c.tsv", "\n".join(line.replace('","', '"\t"') for line in quoted) + "\n\n"),
        write(folder / "c.csv.gz", gzip.compress("\n".join(quoted).encode())),
        folder / "c.parquet",
        folder / "texts",
    ]


def test_every_format_gives_the_same_documents(tmp_path: Path) -> None:
    for path in every_format(tmp_path)[:-1]:
        read = documents(path)
        if "tags" in read[0].metadata:
            assert_same(read, DOCUMENTS)
        else:
            flat = [Document(d.id, d.text, d.title, {"year": d.metadata["year"]}) for d in DOCUMENTS]
            assert_same(read, flat)


@pytest.mark.parametrize("small_blocks", [False, True])
def test_every_format_resumes_after_any_record(tmp_path: Path, small_blocks, monkeypatch) -> None:
    if small_blocks:
        monkeypatch.setattr(lines, "PLAIN_BLOCK", 7)
        monkeypatch.setattr(lines, "COMPRESSED_BLOCK", 5)
        monkeypatch.setattr(parquet, "SLICE_ROWS", 2)
    for path in every_format(tmp_path):
        corpus = open_corpus(path)
        assert corpus.resumable
        records = list(corpus.read())
        assert [record.document.id for record in corpus.read(None)] == [r.document.id for r in records]
        for number, record in enumerate(records):
            position = json.loads(json.dumps(record.position))
            rest = list(corpus.read(position))
            assert [(r.place, r.position) for r in rest] == [
                (r.place, r.position) for r in records[number + 1 :]
            ]
            assert_same([r.document for r in rest], [r.document for r in records[number + 1 :]])
        sizes = [record.bytes_read for record in records]
        assert sizes == sorted(sizes)
        assert 0 < sizes[-1] <= corpus.n_bytes


def test_places_are_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path / "c.jsonl", '\n{"_id": 1, "text": "a"}\n\n{"_id": 2, "text": "b"}')
    assert [record.place for record in open_corpus(path).read()] == [f"{path}:2", f"{path}:4"]
    path = write(tmp_path / "c.csv", 'id,text\n1,"two\nlines"\n2,b\n')
    assert [record.place for record in open_corpus(path).read()] == [f"{path}:2", f"{path}:4"]


def test_a_fingerprint_changes_with_the_file_and_the_options(tmp_path: Path) -> None:
    for path in every_format(tmp_path):
        corpus = open_corpus(path)
        before = corpus.fingerprint()
        assert open_corpus(path).fingerprint() == before
        assert open_corpus(path, ignore_fields=["year"]).fingerprint() != before
        touched = path / "corpus.jsonl" if path.name == "beir" else path
        touched = path / "corpus.jsonl.gz" if path.name == "beir-gz" else touched
        touched = path / "inner" / "1.txt" if path.name == "texts" else touched
        os.utime(touched, (1, 1))
        assert open_corpus(path).fingerprint() != before


def test_names_in_the_table_are_classes_and_extensions_name_formats() -> None:
    for target in FORMATS.values():
        module, _, name = target.partition(":")
        assert hasattr(getattr(__import__(module, fromlist=[name]), name), "open")
    assert set(EXTENSIONS.values()) <= set(FORMATS)


# JSON Lines


def test_a_document_without_an_id_gets_a_stable_one(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "c.jsonl", [{"text": "a", "title": "t"}, {"text": "a"}, {"id": 7, "text": "a"}]
    )
    first, second, third = documents(path)
    assert first.id == stable_id("t", "a")
    assert second.id == stable_id("", "a") != first.id
    assert len(first.id) == 24
    assert third.id == "7"
    assert stable_id("", "a") == "fdc643c16111fff50142b57e"


def test_metadata_is_taken_from_both_places_and_flattened(tmp_path: Path) -> None:
    record = {
        "_id": "1",
        "id": "other",
        "text": "a",
        "lang": "en",
        "metadata": {
            "year": 2000,
            "title": "inner",
            "author": {"name": "N", "first": {"letter": "F"}},
            "none": {},
        },
        "flag": True,
        "ratio": 0.5,
    }
    (document,) = documents(write_jsonl(tmp_path / "c.jsonl", [record]))
    assert dict(document.metadata) == {
        "id": "other",
        "lang": "en",
        "year": 2000,
        "title": "inner",
        "author.name": "N",
        "author.first.letter": "F",
        "flag": True,
        "ratio": 0.5,
    }


def test_chosen_fields_win_and_ignored_ones_are_gone(tmp_path: Path) -> None:
    record = {
        "key": "k",
        "head": "h",
        "abstract": "a",
        "text": "t",
        "bad": [1],
        "metadata": {"deep": {"bad": [2], "ok": 1}},
    }
    path = write_jsonl(tmp_path / "c.jsonl", [record])
    options = {"id_field": "key", "text_field": "abstract", "title_field": "head"}
    (document,) = documents(path, **options, ignore_fields=["bad", "deep.bad"])
    assert fields(document) == ("k", "a", "h", {"text": "t", "deep.ok": 1})
    with pytest.raises(FormatError, match=r'"bad" is \[1\], a list.*--ignore-field bad'):
        documents(path, **options)


def test_a_byte_order_mark_and_windows_line_ends_are_no_trouble(tmp_path: Path) -> None:
    assert [
        d.id for d in documents(write(tmp_path / "c.jsonl", b'\xef\xbb\xbf{"_id":"1","text":"a"}\r\n'))
    ] == ["1"]
    assert [d.id for d in documents(write(tmp_path / "c.csv", b"\xef\xbb\xbfid,text\r\n1,a\r\n"))] == ["1"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"_id": "1", "text": "a"', "malformed JSON.*every line is one JSON object"),
        (b'{"_id": "1", "text": "\\ud800"}', "malformed JSON"),
        (b'{"_id": "1", "text": "\xff"}', r"invalid UTF-8: byte 0xff at offset 22 of the line.*convert"),
        (b'{"_id": "1"}', '"text" is missing; every record needs "text"'),
        (b'{"_id": "1", "text": 5}', '"text" is 5, an integer; a text is a string'),
        (b'{"_id": "1", "text": null}', '"text" is null; a text is a string'),
        (b'{"_id": "1", "text": "a", "title": ["t"]}', r"\"title\" is \['t'\], a list; a title is a string"),
        (b'{"_id": "", "text": "a"}', '"_id" is empty; an id is a non-empty string or an integer'),
        (b'{"_id": null, "text": "a"}', '"_id" is null'),
        (b'{"_id": 1.5, "text": "a"}', '"_id" is 1.5, a number'),
        (b'{"_id": true, "text": "a"}', '"_id" is True, a boolean'),
        (b'["a"]', r"\['a'\], a list, is no document"),
        (b'{"_id": "1", "text": "a", "n": [1, "b"]}', '"n" is .* metadata holds strings'),
        (b'{"_id": "1", "text": "a", "a": {"b": [{}]}}', r'"a\.b" is .*--ignore-field a\.b'),
        (
            b'{"_id": "1", "text": "a", "y": 1, "metadata": {"y": 2}}',
            '"y" is given twice',
        ),
        (b'{"_id": "1", "text": "a", "a.b": 1, "a": {"b": 2}}', '"a.b" is given twice'),
        (b'{"_id": "1", "text": "a", "": 1}', "a metadata field has no name; name it or leave it out"),
        (b'{"_id": "1", "text": "a", "metadata": {"": 1}}', "a metadata field has no name"),
        (b'{"_id": "1", "text": "a", "a": {"b": {"": 1}}}', 'a metadata field in "a.b" has no name'),
    ],
)
def test_a_bad_line_is_named_with_field_value_and_remedy(tmp_path: Path, line: bytes, message: str) -> None:
    path = write(tmp_path / "c.jsonl", b'{"_id": "0", "text": "good"}\n' + line + b"\n")
    with pytest.raises(FormatError, match=message) as caught:
        documents(path)
    assert caught.value.line == 2
    assert str(caught.value).startswith(f"{path}:2: ")


def test_numbers_are_what_the_line_says_however_large(tmp_path: Path) -> None:
    digits = "9" * 23
    line = f'{{"_id": {digits}, "text": "t", "n": {digits}, "m": {{"n": -{digits}}}, "f": 1e300, "g": 1.5}}'
    (document,) = documents(write(tmp_path / "c.jsonl", line))
    assert document.id == digits
    assert dict(document.metadata) == {"n": int(digits), "m.n": -int(digits), "f": 1e300, "g": 1.5}
    assert [type(value) for value in document.metadata.values()] == [int, int, float, float]
    with pytest.raises(FormatError, match=r"c\.jsonl:1: malformed JSON|c\.jsonl:1: an integer is too long"):
        documents(write(tmp_path / "c.jsonl", line.replace(digits, "9" * 5000)))


def test_an_ignored_field_may_be_nameless(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "c.jsonl", [{"_id": "1", "text": "a", "": 1}])
    assert dict(documents(path, ignore_fields=[""])[0].metadata) == {}


def test_a_chosen_field_that_is_missing_is_named(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "c.jsonl", [{"_id": "1", "text": "a"}])
    with pytest.raises(FormatError, match='"key" is missing'):
        documents(path, id_field="key")
    with pytest.raises(FormatError, match='"body" is missing'):
        documents(path, text_field="body")


def test_standard_input_is_read_once_from_the_start(monkeypatch) -> None:
    data = b'{"_id": "1", "text": "a"}\n{"_id": "2", "text": "b"}'
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    corpus = open_corpus("-")
    assert (corpus.resumable, corpus.n_bytes) == (False, None)
    assert corpus.fingerprint() != open_corpus("-").fingerprint()
    records = list(corpus.read())
    assert [(record.document.id, record.place) for record in records] == [("1", "-:1"), ("2", "-:2")]
    with pytest.raises(ConfigError, match="cannot be read from a position"):
        next(corpus.read(records[0].position))
    with pytest.raises(ConfigError, match="read as jsonl"):
        open_corpus("-", format="csv")


@given(
    st.lists(
        st.dictionaries(st.text(min_size=1, max_size=3), st.text() | st.integers(-5, 5), max_size=3),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=50, deadline=None)
def test_reading_what_was_written_gives_the_same_documents(tmp_path_factory, extra: list[dict]) -> None:
    keep = [
        {k: v for k, v in e.items() if k not in ("_id", "id", "text", "title", "metadata")} for e in extra
    ]
    expected = [Document(f"d{n}", f"text {n}\u2028\x85", "", {**e}) for n, e in enumerate(keep)]
    records = [{"_id": d.id, "text": d.text, **d.metadata} for d in expected]
    path = write_jsonl(tmp_path_factory.mktemp("j") / "c.jsonl", records)
    assert_same(documents(path), expected)


# Compressed files


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("kept", [10, -1])
def test_a_truncated_compressed_file_is_an_error(tmp_path: Path, suffix: str, kept: int) -> None:
    noise = np.random.default_rng(0).integers(0, 10**9, 3000).tolist()
    path = write_jsonl(
        tmp_path / f"c.jsonl{suffix}", [{"_id": n, "text": str(x)} for n, x in enumerate(noise)]
    )
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(FormatError, match="truncated") as caught:
        documents(path)
    assert caught.value.path == str(path)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_several_frames_are_one_file_and_garbage_is_none(tmp_path: Path, suffix: str) -> None:
    compress = gzip.compress if suffix == ".gz" else zstandard.compress
    halves = [b'{"_id": "1", "text"', b': "a"}\n', b'{"_id": "2", "text": "b"}']
    path = write(tmp_path / f"c.jsonl{suffix}", b"".join(map(compress, halves)) + b"\0" * 10)
    assert [document.id for document in documents(path)] == ["1", "2"]
    with pytest.raises(FormatError, match="not a valid"):
        documents(write(tmp_path / f"bad.jsonl{suffix}", b'{"_id": "1", "text": "a"}\n'))


def test_a_line_without_end_is_refused_before_it_fills_memory(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(lines, "LONGEST_LINE", 1 << 20)
    path = write(tmp_path / "c.jsonl", b"x" * (4 << 20))
    with pytest.raises(FormatError, match="longer than 1 MiB"):
        documents(path)


def test_a_document_of_a_million_words_is_read(tmp_path: Path) -> None:
    text = "word " * 1_000_000
    assert documents(write_jsonl(tmp_path / "c.jsonl", [{"text": text}]))[0].text == text
    assert documents(write(tmp_path / "c.csv", f'text\n"{text}"\n'))[0].text == text


# CSV and TSV


def test_csv_columns_have_one_type_over_the_whole_file(tmp_path: Path) -> None:
    path = write(
        tmp_path / "c.csv",
        "id,text,whole,real,flag,zip,mixed,late,none,big\n"
        "1,a,1,1,true,007,1,3,,9223372036854775807\n"
        "2,,-5,.5,FALSE,10,x,,,9223372036854775808\n"
        "3,c,,1e3,,,true,4.5,,1\n",
    )
    values = [list(document.metadata.values()) for document in documents(path)]
    assert values == [
        [1, 1.0, True, "007", "1", 3.0, None, 9223372036854775807.0],
        [-5, 0.5, False, "10", "x", None, None, 9223372036854775808.0],
        [None, 1000.0, None, None, "true", 4.5, None, 1.0],
    ]
    assert [type(value) for value in values[0]] == [int, float, bool, str, str, float, type(None), float]


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ("id,text\n1,a\n2\n", 3, "the row has 1 cells, the header 2"),
        ("id,text\n1,a,b\n", 2, "the row has 3 cells, the header 2"),
        ('id,text\n1,a\n2,"open\n3,c\n', 3, "close every quote"),
        ('id,text\n1,"a"b\n', 2, "double the quotes inside"),
        ("id,text\n,a\n", 2, '"id" is empty'),
        (b"id,text\n1,\xe9\n", 2, "invalid UTF-8: byte 0xe9 at offset 2"),
        ("id,id,text\n1,2,a\n", 1, 'the column "id" is there twice'),
        (",text\n1,a\n", 1, "column 1 has no name"),
        ("id,words\n1,a\n", None, 'no column is named "text"; there are: id, words;.*--text-field'),
        ("id,text\n", None, "there is a header but no row"),
        ("\n\n", None, "there is no header line"),
    ],
)
def test_a_bad_csv_is_named_with_line_and_remedy(tmp_path: Path, content, line, message: str) -> None:
    path = write(tmp_path / "c.csv", content)
    with pytest.raises(FormatError, match=message) as caught:
        documents(path)
    assert (caught.value.path, caught.value.line) == (str(path), line)


def test_columns_can_be_chosen_and_must_exist(tmp_path: Path) -> None:
    path = write(tmp_path / "c.csv", "key,head,body,text\nk,h,b,t\n")
    (document,) = documents(path, id_field="key", text_field="text", title_field="head")
    assert fields(document) == ("k", "t", "h", {"body": "b"})
    with pytest.raises(FormatError, match='no column "nope" for the text; there are: key, head, body, text'):
        open_corpus(path, text_field="nope")


# Parquet


def test_parquet_keeps_types(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "id": [1, 2],
            "text": ["a", "b"],
            "when": pl.Series([datetime(2024, 1, 1, 12), None]).dt.replace_time_zone("Europe/Berlin"),
            "day": pl.Series([datetime(2024, 1, 2).date(), None]),
            "category": pl.Series(["x", "y"], dtype=pl.Categorical),
            "real": [1.5, float("nan")],
            "nested": [{"inner": 1, "list": ["a"]}, {"inner": None, "list": None}],
        }
    )
    frame.write_parquet(tmp_path / "c.parquet")
    first, second = documents(tmp_path / "c.parquet")
    assert first.id == "1"
    assert dict(first.metadata) == {
        "when": datetime(2024, 1, 1, 11),
        "day": datetime(2024, 1, 2),
        "category": "x",
        "real": 1.5,
        "nested.inner": 1,
        "nested.list": ["a"],
    }
    assert second.metadata["real"] is None


def test_a_parquet_file_that_cannot_be_a_corpus_says_why(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    pl.DataFrame({"id": ["1"], "words": ["a"]}).write_parquet(path)
    with pytest.raises(FormatError, match='no column is named "text"; there are: id, words'):
        open_corpus(path)
    pl.DataFrame({"text": ["a"], "vector": [[0.5]]}).write_parquet(path)
    with pytest.raises(FormatError, match=r'"vector" is of type List\(Float64\).*--ignore-field vector'):
        open_corpus(path)
    assert [d.text for d in documents(path, ignore_fields=["vector"])] == ["a"]
    pl.DataFrame({"text": ["a", None]}).write_parquet(path)
    with pytest.raises(FormatError, match=r'c\.parquet:2: "text" is null'):
        documents(path)
    pl.DataFrame({"text": pl.Series([], dtype=pl.String)}).write_parquet(path)
    with pytest.raises(FormatError, match="there is no row"):
        open_corpus(path)


def test_a_damaged_parquet_file_is_a_format_error(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    pl.DataFrame({"text": [f"text {n}" for n in range(1000)]}).write_parquet(path)
    whole = path.read_bytes()
    for damaged in (
        whole[:-10],
        whole[:100],
        b"no parquet at all",
        b"PAR1" * 3,
        whole[:4] + b"\xff" * 500 + whole[504:],
    ):
        path.write_bytes(damaged)
        with pytest.raises(FormatError, match="not a complete Parquet file"):
            documents(path)


def test_whatever_is_changed_in_a_parquet_file_nothing_but_a_format_error_comes_of_it(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    frame = {
        "_id": [f"d{n}" for n in range(300)],
        "text": [f"some words {n * 7919 % 1000}" for n in range(300)],
    }
    pl.DataFrame({**frame, "year": [n % 50 for n in range(300)]}).write_parquet(path)
    whole, refused = path.read_bytes(), 0
    for seed in (*range(40), 282, 333, 372):  # the last ones let polars 2.1 panic
        chance, damaged = random.Random(seed), bytearray(whole)
        for _ in range(3):
            damaged[chance.randrange(len(whole))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            documents(path)
        except FormatError as error:
            assert error.path == str(path)
            refused += 1
    assert refused > 20


@pytest.mark.parametrize(
    "fault",
    [pl.exceptions.ComputeError("bad page"), pl.exceptions.PanicException("bad page"), OSError("bad page")],
)
def test_every_fault_of_polars_becomes_the_error_that_is_asked_for(fault: BaseException) -> None:
    with (
        pytest.raises(FormatError, match=r"c\.parquet: bad page"),
        reading_parquet(lambda reason: FormatError(reason, "c.parquet")),
    ):
        raise fault


# Folders


def test_a_folder_gives_a_document_a_file_with_path_and_title(tmp_path: Path) -> None:
    (tmp_path / "b" / ".git").mkdir(parents=True)
    write(tmp_path / "b" / ".git" / "x.txt", "hidden")
    write(tmp_path / "b" / "notes.txt", "# no heading in plain text")
    write(tmp_path / "b.md", b"\xef\xbb\xbf```\n# code\n```\r\n\nintro\n\n## The *Title* ##\n\nbody\n# Later")
    write(tmp_path / "a.MD", "no heading")
    write(tmp_path / "empty.txt", "")
    write(tmp_path / "c.pdf", b"\xff")
    os.utime(tmp_path / "b.md", (86400, 86400.5))
    read = documents(tmp_path)
    assert [document.id for document in read] == ["a.MD", "b/notes.txt", "b.md", "empty.txt"]
    assert [document.title for document in read] == ["a", "notes", "The *Title*", "empty"]
    assert dict(read[2].metadata) == {"path": "b.md", "modified": datetime(1970, 1, 2)}
    assert read[2].text.startswith("```\n# code\n```\n\nintro")
    assert read[3].text == ""


def test_a_folder_that_cannot_be_a_corpus_says_why(tmp_path: Path) -> None:
    write(tmp_path / "c.pdf", "x")
    with pytest.raises(FormatError, match=r"no corpus\.jsonl and no file ending in \.txt, \.md"):
        open_corpus(tmp_path)
    bad = write(tmp_path / "bad.txt", b"ok\xff")
    with pytest.raises(FormatError, match="byte 0xff at offset 2 of the file") as caught:
        documents(tmp_path)
    assert (caught.value.path, caught.value.line) == (str(bad), None)
    with pytest.raises(ConfigError, match="files in a folder have no fields"):
        open_corpus(tmp_path, text_field="body")


# Opening


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("c.docx", r"unknown file type '\.docx'; known are \.jsonl, .*--format"),
        ("c", "unknown file type ''"),
        ("c.docx.gz", r"unknown file type '\.docx\.gz'"),
        ("c.gz", r"unknown file type '\.gz'"),
        ("c.parquet.zst", "Parquet is compressed inside"),
    ],
)
def test_an_unknown_type_lists_the_known_ones(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        open_corpus(write(tmp_path / name, "x"))


def test_a_format_can_be_given_where_the_name_does_not_tell(tmp_path: Path) -> None:
    path = write(tmp_path / "dump", '{"_id": "1", "text": "a"}')
    assert [document.id for document in documents(path, format="jsonl")] == ["1"]
    with pytest.raises(ConfigError, match="unknown corpus format 'xml'; valid: csv, jsonl"):
        open_corpus(path, format="xml")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet", ".jsonl.gz"])
def test_an_empty_or_missing_file_is_an_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"c{suffix}"
    with pytest.raises(FormatError, match="no such file"):
        open_corpus(path)
    with pytest.raises(FormatError, match="the file is empty"):
        open_corpus(write(path, b""))


def test_a_file_of_blank_lines_holds_no_document(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="there is no document"):
        documents(write(tmp_path / "c.jsonl", "\n \n"))
    assert START == Position(0, 0)


# Vectors


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_vectors_are_read_from_npy(tmp_path: Path, dtype: str, order: str) -> None:
    values = np.asarray(np.random.default_rng(1).normal(size=(5, 3)), dtype=dtype, order=order)
    np.save(tmp_path / "v.npy", values)
    vectors = read_vectors(tmp_path / "v.npy")
    assert vectors.values.dtype == (np.float16 if dtype == "float16" and order == "C" else np.float32)
    assert np.array_equal(vectors.values, values.astype(np.float32))
    assert isinstance(vectors.values, np.memmap)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(3, dtype=np.float32), r"shape \(3,\); vectors are \(N, D\)"),
        (np.zeros((2, 2), dtype=np.int64), "holds int64"),
        (np.zeros((0, 4), dtype=np.float32), "holds no vector"),
        (np.array([[1, 2], [3, np.nan]], dtype=np.float32), "row 1 holds NaN"),
        (np.array([[np.inf, 2]], dtype=np.float16), "row 0 holds NaN, infinity"),
        (np.array([[1.0], [1e300]]), "row 1 holds NaN, infinity or a number beyond float32"),
    ],
)
def test_vectors_that_are_none_are_refused(tmp_path: Path, values, message: str) -> None:
    np.save(tmp_path / "v.npy", values)
    with pytest.raises(FormatError, match=message):
        read_vectors(tmp_path / "v.npy")


def test_a_damaged_npy_is_a_format_error(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    np.save(path, np.zeros((100, 4), dtype=np.float32))
    whole = path.read_bytes()
    for damaged in (whole[:-4], whole[:20], b"", b"text"):
        with pytest.raises(FormatError):
            read_vectors(write(path, damaged))
    np.save(path, np.array([{}]), allow_pickle=True)
    with pytest.raises(FormatError, match=r"not a complete \.npy"):
        read_vectors(path)
    with pytest.raises(FormatError, match="cannot be read"):
        read_vectors(tmp_path / "missing.npy")
