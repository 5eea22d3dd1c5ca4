"""From a corpus to a training set, with everything that may happen between."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.beir import BeirDataset
from indexing.corpora import open_corpus
from indexing.progress import Silent
from retrieval.endpoint import EndpointError
from retrieval.errors import ConfigError, FormatError, IncompatibleError
from retrieval.values import Hits
from training.examples.reading import read_training_set
from training.examples.training_set import TrainingSet
from training.generation.generated_set import generated_set
from training.generation.generating import JOURNAL, Generation, generate
from training.generation.generator import GeneratorOptions
from training.generation.round_trip import round_trip
from training.generation.selection import select

ROOT = Path(__file__).parents[3]


def made(corpus: Path, folder: Path, *, fresh: bool = False, **wanted: Any) -> dict[str, Any]:
    return generate(open_corpus(corpus), folder, Generation(**wanted), fresh=fresh, progress=Silent())


def pairs(folder: Path) -> set[tuple[str, str]]:
    """(text, document id) of a folder in BEIR's form."""
    dataset = BeirDataset("made", folder, "train")
    texts = {query.id: query.text for query in dataset.queries()}
    return {(texts[query], document) for query, judged in dataset.qrels().items() for document in judged}


def asking(server: Any, **options: Any) -> dict[str, Any]:
    given = {"url": server.url, "model": "tiny", "retries": 0, "concurrency": 2, **options}
    return {"generator": "endpoint", "options": GeneratorOptions(**given)}


def test_a_folder_that_training_reads(corpus: Path, tmp_path: Path):
    facts = made(corpus, tmp_path / "made")
    data = read_training_set(tmp_path / "made", "train")
    assert data.documents["id"].to_list() == [f"d{i}" for i in range(6)]
    assert data.queries.height == facts["queries"] == facts["pairs"] == 12 - facts["refused"]["duplicate"]
    assert data.lists["labels"].explode().unique().to_list() == [1.0]
    assert facts == json.loads((tmp_path / "made" / "generation.json").read_text())
    assert facts["documents"] == facts["chosen"] == facts["asked"] == 6
    assert (tmp_path / "made" / "corpus.jsonl").samefile(corpus)
    assert {path.name for path in (tmp_path / "made").iterdir()} == {
        *("corpus.jsonl", "queries.jsonl", "qrels", "generation.json", JOURNAL)
    }


def test_two_runs_make_the_same_files(corpus: Path, tmp_path: Path):
    for name in ("one", "two"):
        made(corpus, tmp_path / name, generator="crops")
    for name in ("queries.jsonl", "qrels/train.tsv", JOURNAL):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_titles_are_taken_off_the_documents(corpus: Path, tmp_path: Path):
    made(corpus, tmp_path / "made", generator="titles")
    assert pairs(tmp_path / "made") == {
        (title, f"d{i}")
        for i, title in enumerate(("River", "Engine", "Search", "Animals", "Leaves", "Vectors"))
    }
    for record in open_corpus(tmp_path / "made").read():
        assert record.document.title == "" and record.document.text


def test_a_query_of_several_documents_is_answered_by_all(tmp_path: Path):
    lines = [
        {"_id": f"d{i}", "title": f"Same  {'title' if i else 'TITLE!'}", "text": f"text {i}"}
        for i in range(3)
    ]
    source = tmp_path / "c.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    facts = made(source, tmp_path / "made", generator="titles")
    assert pairs(tmp_path / "made") == {("Same TITLE!", f"d{i}") for i in range(3)}
    assert facts["queries"] == 1 and facts["pairs"] == 3


def test_other_formats_are_written_anew(tmp_path: Path):
    source = tmp_path / "c.csv"
    source.write_text(
        "key,heading,content\n1,Birds,A bird waits on the bank of a river\n2,,\n"
        "3,Cats,Cats sleep a lot today. Dogs sleep less and follow people. They bark.\n"
    )
    corpus = open_corpus(source, id_field="key", title_field="heading", text_field="content")
    facts = generate(corpus, tmp_path / "made", Generation("crops"), progress=Silent())
    assert facts["documents"] == 3 and facts["chosen"] == 2
    documents = [record.document for record in open_corpus(tmp_path / "made").read()]
    assert [(one.id, one.title, one.text[:4]) for one in documents] == [
        *(("1", "Birds", "A bi"), ("2", "", ""), ("3", "Cats", "Cats"))
    ]
    assert {document for _, document in pairs(tmp_path / "made")} == {"1", "3"}


def test_a_compressed_corpus_stays_so(corpus: Path, tmp_path: Path):
    import gzip

    packed = tmp_path / "c.jsonl.gz"
    packed.write_bytes(gzip.compress(corpus.read_bytes()))
    made(packed, tmp_path / "made")
    assert (tmp_path / "made" / "corpus.jsonl.gz").samefile(packed)
    assert len(pairs(tmp_path / "made")) == 11
    made(corpus, tmp_path / "made")
    assert not (tmp_path / "made" / "corpus.jsonl.gz").exists()


def test_a_disk_without_hard_links_gets_a_copy(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    made(corpus, tmp_path / "made")
    copy = tmp_path / "made" / "corpus.jsonl"
    assert copy.read_bytes() == corpus.read_bytes() and not copy.samefile(corpus)


def test_a_greater_limit_takes_the_same_documents_and_more(corpus: Path, tmp_path: Path):
    chosen = [
        {one.id for one in select(open_corpus(corpus), limit, 0, Silent())} for limit in (1, 2, 4, 6, 9, None)
    ]
    assert [len(one) for one in chosen] == [1, 2, 4, 6, 6, 6]
    assert all(few <= many for few, many in itertools.pairwise(chosen))
    assert {one.id for one in select(open_corpus(corpus), 2, 1, Silent())} != chosen[1]
    assert made(corpus, tmp_path / "made", limit=2)["asked"] == 2
    facts = made(corpus, tmp_path / "made", limit=4)
    assert facts["asked"] == 2 and {document for _, document in pairs(tmp_path / "made")} == chosen[2]
    assert len(list(open_corpus(tmp_path / "made").read())) == 6


def test_a_finished_run_asks_nothing_and_can_be_filtered_anew(corpus: Path, tmp_path: Path, server):
    first = made(corpus, tmp_path / "made", **asking(server))
    assert first["asked"] == 6 and first["tokens"]["completion"] == 60 and first["tokens"]["prompt"] > 60
    before, n_requests = pairs(tmp_path / "made"), len(server.requests)
    again = made(corpus, tmp_path / "made", **asking(server), round_trip="bm25", top=1)
    assert len(server.requests) == n_requests and again["asked"] == 0
    assert again["tokens"] == first["tokens"]
    assert pairs(tmp_path / "made") <= before and again["queries"] == first["queries"] - again["lost"]
    with pytest.raises(ConfigError, match="no query is left; 12 too long"):
        made(corpus, tmp_path / "made", **asking(server), longest=3)
    fresh = made(corpus, tmp_path / "made", fresh=True, **asking(server))
    assert fresh["asked"] == 6 and pairs(tmp_path / "made") == before


def test_documents_that_are_new_or_changed_are_asked_for(corpus: Path, tmp_path: Path, server):
    made(corpus, tmp_path / "made", **asking(server))
    server.requests.clear()
    lines = corpus.read_text().splitlines()
    changed = json.loads(lines[2]) | {"text": "Changed text about birds and rivers."}
    new = {"_id": "d9", "text": "New words about leaves and light."}
    corpus.unlink()
    corpus.write_text("\n".join([*lines[:2], json.dumps(changed), *lines[3:], json.dumps(new)]))
    assert made(corpus, tmp_path / "made", **asking(server))["asked"] == 2
    assert sorted(server.asked()) == ["New", "Search"]


def test_a_failure_loses_nothing(corpus: Path, tmp_path: Path, server):
    server.refusing = ("Cats",)
    with pytest.raises(
        EndpointError, match=r"400 \(context too long\).*; \d answers are kept, the same command goes on"
    ):
        made(corpus, tmp_path / "made", **asking(server))
    answered = set(server.asked()) - {"Animals"}
    with pytest.raises(ConfigError, match="no qrels"):
        read_training_set(tmp_path / "made")
    server.refusing = ()
    server.requests.clear()
    made(corpus, tmp_path / "made", **asking(server))
    assert set(server.asked()) == {"River", "Engine", "Search", "Animals", "Leaves", "Vectors"} - answered
    assert len(server.asked()) == 6 - len(answered)
    assert {document for _, document in pairs(tmp_path / "made")} == {f"d{i}" for i in range(6)}


def test_a_killed_run_goes_on_where_it_was(corpus: Path, tmp_path: Path, server):
    server.blocked = 4
    command = [
        sys.executable,
        "-m",
        "service.cli",
        "generate",
        str(corpus),
        "-o",
        str(tmp_path / "made"),
        "-q",
    ]
    command += [
        "--with",
        "endpoint",
        "--url",
        server.url,
        "--model",
        "tiny",
        "--concurrency",
        "1",
        "--retries",
        "0",
    ]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as running:
        assert server.held.wait(60)
        running.send_signal(signal.SIGKILL)
        running.communicate()
    server.release.set()
    server.blocked = None
    assert len((tmp_path / "made" / JOURNAL).read_text().splitlines()) == 5
    server.requests.clear()
    options = asking(server, concurrency=1)
    assert made(corpus, tmp_path / "made", **options)["asked"] == 2
    assert sorted(server.asked()) == ["Leaves", "Vectors"]
    made(corpus, tmp_path / "whole", **options)
    for name in ("queries.jsonl", "qrels/train.tsv"):
        assert (tmp_path / "made" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_other_settings_need_another_folder(corpus: Path, tmp_path: Path, server):
    made(corpus, tmp_path / "made", **asking(server))
    with pytest.raises(IncompatibleError, match=r"temperature \(0\.7 there, 1\.0 now\)"):
        made(corpus, tmp_path / "made", **asking(server, temperature=1.0))
    with pytest.raises(IncompatibleError, match=r'generator \("endpoint" there, "crops" now\)'):
        made(corpus, tmp_path / "made", generator="crops")
    assert made(corpus, tmp_path / "made", **asking(server, concurrency=1, timeout=9.0))["asked"] == 0


def test_what_would_harm_or_cannot_work_is_refused(corpus: Path, tmp_path: Path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    for source, folder, wanted, message in (
        (corpus, tmp_path / "other", {}, "holds something else"),
        (corpus, tmp_path / "other" / "notes.txt", {}, "is a file"),
        (corpus, corpus.parent, {}, "name another"),
        (corpus, tmp_path / "made", {"limit": 0}, "--limit is 0"),
        (corpus, tmp_path / "made", {"round_trip": "nonsense"}, "unknown searcher 'nonsense'"),
        (corpus, tmp_path / "made", {"longest": 1, "generator": "crops"}, "no query is left; 12 too long"),
    ):
        with pytest.raises(ConfigError, match=message):
            made(source, folder, fresh=True, **wanted)
    assert corpus.exists()
    with pytest.raises(ConfigError, match="stream"):
        generate(open_corpus("-"), tmp_path / "made", Generation(), progress=Silent())


@pytest.mark.parametrize(
    ("id_", "message"),
    [("d0", r"corpus\.jsonl:7: the id 'd0' stands there already"), ("a\tb", "tab or line end")],
)
def test_ids_that_cannot_be_judged_are_refused(corpus: Path, tmp_path: Path, id_, message):
    with corpus.open("a") as stream:
        stream.write(json.dumps({"_id": id_, "text": "x"}) + "\n")
    with pytest.raises(FormatError, match=message):
        made(corpus, tmp_path / "made")


def test_a_round_trip_keeps_pairs_whose_document_is_found(corpus: Path, tmp_path: Path):
    for text in ("River", "River", "Engine"):
        with corpus.open("a") as stream:
            stream.write(
                json.dumps({"_id": f"e{stream.tell()}", "title": text, "text": f"about {stream.tell()}"})
                + "\n"
            )
    made(corpus, tmp_path / "made", generator="titles")
    data = read_training_set(tmp_path / "made", "train")
    ranked = {"River": [7, 0, 6], "Engine": [5, 2, 1], "Search": [2, 1, 0]}
    asked: list[tuple[Sequence[str], int]] = []

    def search(texts: Sequence[str], k: int) -> Hits:
        asked.append((texts, k))
        rows = np.array([ranked.get(text, [0, 1, 2]) for text in texts], dtype=np.int64)[:, :k]
        return Hits(rows, np.zeros(rows.shape, dtype=np.float32), "")

    def found(kept: TrainingSet) -> dict[str, list[int]]:
        return dict(zip(kept.queries["text"], kept.lists["documents"].to_list(), strict=True))

    assert found(round_trip(data, search, 1)) == {"River": [7], "Search": [2]}
    assert found(round_trip(data, search, 2)) == {"River": [0, 7], "Search": [2]}
    assert found(round_trip(data, search, 3)) == {"River": [0, 6, 7], "Engine": [1], "Search": [2]}
    assert asked[0] == (data.queries["text"].to_list(), 1)


@pytest.mark.parametrize("searcher", ["bm25", "dense"])
def test_a_round_trip_by_a_real_searcher(corpus: Path, tmp_path: Path, tiny_bert: Path, searcher):
    shutil.copy(corpus, tmp_path / "twice.jsonl")
    with (tmp_path / "twice.jsonl").open("a") as stream:  # a copy of d0 can never be first
        stream.write(json.dumps(json.loads(corpus.read_text().splitlines()[0]) | {"_id": "copy"}) + "\n")
    name = searcher if searcher == "bm25" else f"dense:{tiny_bert}"
    facts = made(tmp_path / "twice.jsonl", tmp_path / "made", generator="crops", round_trip=name)
    documents = {document for _, document in pairs(tmp_path / "made")}
    assert "copy" not in documents and facts["queries"] == len(pairs(tmp_path / "made")) <= 12
    if searcher == "bm25":
        assert documents == {f"d{i}" for i in range(6)}
    assert not list((tmp_path / "made").glob("unfinished-*"))


def test_a_set_in_memory(corpus: Path, tmp_path: Path):
    made(corpus, tmp_path / "made")
    data = read_training_set(tmp_path / "made", "train")
    one = generated_set(data, "crops", 3, 0, Silent())
    assert one.fingerprint == generated_set(data, "crops", 3, 0, Silent()).fingerprint
    assert one.fingerprint != generated_set(data, "crops", 3, 1, Silent()).fingerprint
    assert one.documents.equals(data.documents) and one.name == data.name
    assert 12 < one.queries.height <= 18
    for text, rows in zip(one.queries["text"], one.lists["documents"], strict=True):
        assert all(text in data.documents["text"][row] for row in rows)
    with pytest.raises(ConfigError, match=r"'titles' is none of keywords, crops.*tercet generate"):
        generated_set(data, "titles", 2, 0, Silent())
    with pytest.raises(ConfigError, match="unknown generator 'nonsense'"):
        generated_set(data, "nonsense", 2, 0, Silent())
