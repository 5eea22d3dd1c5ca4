"""`tercet serve` as a process over a real collection: what it says, what it answers, how it ends."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from indexing.command_line import run
from service.cli import tercet

N = 40


def line(number, **more):
    text = f"words about topic{number % 5} and number{number}. " * 3
    kind = "odd" if number % 2 else "even"
    return json.dumps({"_id": f"d/{number}", "title": f"Title {number}", "text": text, "kind": kind, **more})


def tercet_run(*arguments):
    assert run(tercet, [str(argument) for argument in arguments]) == 0


@pytest.fixture
def collection(tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(line(number) + "\n" for number in range(N)))
    path = tmp_path / "collection"
    tercet_run("index", corpus, "-o", path, "-m", "hashing:64", "-q")
    return path


class Process:
    def __init__(self, *arguments) -> None:
        command = [sys.executable, "-m", "service", "serve", *(str(argument) for argument in arguments)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.said = self.process.stderr.readline()
        found = re.search(r"http://[\d.]+:\d+", self.said)
        self.url = found[0] if found else None

    def wait_ready(self):
        deadline = time.monotonic() + 60
        while httpx.get(f"{self.url}/readyz").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def search(self, **body):
        answer = httpx.post(f"{self.url}/v1/search", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["results"][0]["hits"]

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        _, rest = self.process.communicate(timeout=30)
        return self.process.returncode, rest


@pytest.fixture
def server(collection):
    process = Process(collection, "--port", "0", "--drain", "5")
    process.wait_ready()
    yield process
    if process.process.poll() is None:
        process.end(signal.SIGKILL)


def test_every_way_of_searching_finds_and_filters(server):
    for using in ("bm25", "dense", "hybrid", "bm25+dense"):
        hits = server.search(query="topic3 number3", using=using, k=5, highlight=True, explain=True)
        assert hits[0]["id"] == "d/3", using
        assert hits[0]["explanation"]["value"] == pytest.approx(hits[0]["score"], rel=1e-4), using
        marked = {hits[0]["text"][start:end] for start, end in hits[0]["highlights"]["text"]}
        assert marked == {"topic3", "number3"}
        odd = server.search(query="words", using=using, filter='kind = "odd"', k=N)
        assert {hit["metadata"]["kind"] for hit in odd} == {"odd"}
    assert server.search(query="the of and", using="bm25") == []
    assert httpx.get(f"{server.url}/v1/documents/d/3").json()["title"] == "Title 3"


def test_what_cannot_be_used_is_named_with_what_can(server):
    def refused(**body):
        answer = httpx.post(f"{server.url}/v1/search", json={"query": "words", **body})
        assert answer.status_code == 422
        return answer.json()["error"]

    unknown = refused(using="late")
    assert unknown["field"] == "using"
    assert all(name in unknown["message"] for name in ("bm25", "dense", "hybrid"))
    unparsed = refused(filter="kind = ")
    assert unparsed["field"] == "filter"
    assert "position" in unparsed["message"]
    assert "kind" in refused(filter="colour = 1")["message"]
    assert refused(rerank="minilm")["field"] == "rerank"


def test_documents_added_and_deleted_by_another_process_are_seen(server, collection, tmp_path):
    more = tmp_path / "more.jsonl"
    more.write_text(line(1000) + "\n")
    tercet_run("add", collection, more, "-q")
    tercet_run("delete", collection, "d/3")
    deadline = time.monotonic() + 20
    while not server.search(query="number1000", using="bm25"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert server.search(query="number1000", using="bm25")[0]["id"] == "d/1000"
    assert server.search(query="number3", using="bm25") == []
    assert httpx.get(f"{server.url}/v1/documents/d/3").status_code == 404
    assert httpx.get(f"{server.url}/v1/info").json()["n_documents"] == N


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_when_told(server, how):
    assert "Ctrl+C" in server.said
    code, rest = server.end(how)
    assert (code, rest) == (0, "")


def test_a_missing_collection_is_one_clear_line(tmp_path):
    process = Process(tmp_path / "nowhere")
    rest = process.process.communicate(timeout=30)[1]
    assert process.process.returncode == 1
    assert "no collection here" in process.said
    assert "Traceback" not in process.said + rest


def test_a_taken_port_is_one_clear_line(collection):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = Process(collection, "--port", port)
        rest = process.process.communicate(timeout=30)[1]
    assert process.process.returncode == 1
    assert f"port {port}" in process.said
    assert "--port" in process.said
    assert "Traceback" not in process.said + rest


def test_what_cannot_be_loaded_ends_the_server_with_its_reason(collection, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    process = Process(collection, "--port", "0", "--rerank", "no/such-model")
    rest = process.process.communicate(timeout=60)[1]
    assert process.process.returncode == 1
    assert process.said.startswith("tercet: --rerank or TERCET_RERANK: reranker 'no/such-model': ")
    assert rest == "", "one line, and no address announced before"


def test_the_address_is_announced_when_searches_are_answered(collection):
    process = Process(collection, "--port", "0")
    try:
        assert httpx.get(f"{process.url}/readyz").status_code == 200
    finally:
        process.end(signal.SIGKILL)
