"""The HTTP API beside the same search in process, and sixteen clients beside one.

    python benchmarks/service.py [--quick] [--json]

A server process serves SciFact (from $TERCET_DATA or ../shared/data; --quick: its first 500 documents; without it a
generated corpus). One client: rounds of queries over HTTP and through encode + search in this process take turns. Many
clients: one connection against sixteen, each sending its next query when the last is answered, for a minute (--quick:
ten seconds). Queries are distinct runs of words of the documents, so nothing can be cached.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.corpora import Corpus
from indexing.collection import Collection
from retrieval.compute import threads
from retrieval.protocols import SearchRequest

K = 10
USING = ("bm25", "dense", "hybrid")
CLIENTS = 16
ROUND = 10
LIMITS = {"bm25": "+1.5 ms", "dense": "1.5x", "hybrid": "1.5x"}
"""What docs promise of the end-to-end median over the one in process."""


def corpus_file(folder: Path, quick: bool) -> tuple[str, Path]:
    """A name and a JSONL file of documents."""
    data = Path(os.environ.get("TERCET_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    source = data / "eval" / "scifact" / "corpus.jsonl"
    limit = 500 if quick else None
    name = f"scifact{'-500' if quick else ''}" if source.exists() else f"generated-{limit or 5000}"
    path = folder / f"{name}.jsonl"
    if not path.exists():
        if source.exists():
            lines = source.read_text(encoding="utf-8").splitlines()[:limit]
        else:
            texts = Corpus(seed=0).texts(limit or 5000)
            lines = [json.dumps({"_id": str(n), "text": text}) for n, text in enumerate(texts)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return name, path


def build(corpus: Path, collection: Path) -> None:
    """Index with BM25 and the default dense encoder, once."""
    if not (collection / "collection.json").exists():
        command = [sys.executable, "-m", "service", "index", str(corpus), "-o", str(collection), "-q"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def distinct_queries(corpus: Path) -> Iterator[str]:
    """Runs of six to fourteen words of documents; none twice."""
    rng = random.Random(0)
    texts = [json.loads(line)["text"].split() for line in corpus.read_text(encoding="utf-8").splitlines()]
    texts = [words for words in texts if len(words) >= 20]
    seen: set[str] = set()
    while True:
        words = rng.choice(texts)
        length = rng.randint(6, 14)
        start = rng.randrange(len(words) - length)
        query = " ".join(words[start : start + length])
        if query not in seen:
            seen.add(query)
            yield query


class Server:
    """A server process on a free port of the loopback address."""

    def __init__(self, collection: Path) -> None:
        command = [sys.executable, "-m", "service", "serve", str(collection), "--port", "0"]
        self.log = collection.parent / "server.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stderr=log)
        while (found := re.search(r"http://([\d.]+):(\d+)", self.log.read_text())) is None:
            self._pause()
        self.address = (found[1], int(found[2]))
        client = Client(self.address)
        while client.ask(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")[0] != 200:
            self._pause()

    def _pause(self) -> None:
        time.sleep(0.05)
        if self.process.poll() is not None:
            raise SystemExit(f"the server did not start:\n{self.log.read_text()}")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def request_bytes(query: str, using: str) -> bytes:
    """One HTTP request."""
    body = json.dumps({"query": query, "k": K, "using": using}).encode()
    head = "POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def answer_length(received: bytes) -> int | None:
    """Bytes of the whole answer that `received` begins, or None while its head is incomplete."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    found = re.search(rb"content-length: (\d+)", received[:end], re.IGNORECASE)
    return end + 4 + int(found[1])


class Client:
    """One kept-alive connection with as little of its own work as can be."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> tuple[int, bytes]:
        self.socket.sendall(request)
        received, length = b"", None
        while length is None or len(received) < length:
            part = self.socket.recv(1 << 16)
            if not part:
                raise ConnectionError("the server hung up")
            received += part
            length = answer_length(received)
        return int(received[9:12]), received


class LoadClient(asyncio.Protocol):
    """Sends the next query as soon as the last is answered, until the time is up."""

    def __init__(self, queries: Iterator[str], using: str, until: float) -> None:
        self.queries, self.using, self.until = queries, using, until
        self.times: list[float] = []
        self.errors = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport) -> None:
        self.transport = transport
        self._next()

    def _next(self) -> None:
        self.received = b""
        if time.perf_counter() >= self.until:
            self._end()
            return
        self.sent = time.perf_counter()
        self.transport.write(request_bytes(next(self.queries), self.using))

    def data_received(self, data: bytes) -> None:
        self.received += data
        length = answer_length(self.received)
        if length is None or len(self.received) < length:
            return
        self.times.append(time.perf_counter() - self.sent)
        self.errors += self.received[9:12] != b"200"
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        self.errors += not self.done.done()
        self._end()

    def _end(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
        self.transport.close()


async def load(address: tuple[str, int], queries: Iterator[str], using: str, n: int, seconds: float) -> dict:
    """Queries a second, latencies and errors of n clients."""
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    clients = [
        (await loop.create_connection(lambda: LoadClient(queries, using, started + seconds), *address))[1]
        for _ in range(n)
    ]
    await asyncio.gather(*(client.done for client in clients))
    elapsed = time.perf_counter() - started
    times = [1000 * seconds for client in clients for seconds in client.times]
    return {**spread(times), "qps": round(len(times) / elapsed, 1), "errors": sum(c.errors for c in clients)}


def timed(call, items: list) -> tuple[list, list[float]]:
    """Results and milliseconds of a call on each item."""
    results, times = [], []
    for item in items:
        started = time.perf_counter()
        results.append(call(item))
        times.append(1000 * (time.perf_counter() - started))
    return results, times


def spread(times_ms: list[float]) -> dict:
    """Median and 95th percentile."""
    cuts = statistics.quantiles(times_ms, n=20)
    return {"ms_p50": round(statistics.median(times_ms), 3), "ms_p95": round(cuts[18], 3)}


def beside_in_process(server: Server, snapshot, queries: Iterator[str], rounds: int) -> Iterator[dict]:
    """One client over HTTP and the same search here, in alternating rounds of ROUND queries."""
    client = Client(server.address)
    searchers = {using: snapshot.searcher(using) for using in USING}
    request = SearchRequest(k=K)
    http: dict[str, list[float]] = {using: [] for using in USING}
    here: dict[str, list[float]] = {using: [] for using in USING}
    errors = 0
    for step in range(rounds + 1):
        for using in USING:
            asked = [request_bytes(query, using) for query in itertools.islice(queries, ROUND)]
            statuses, over_http = timed(lambda one: client.ask(one)[0], asked)
            errors += sum(status != 200 for status in statuses)
            search = searchers[using].search
            _, in_process = timed(
                lambda query, search=search: search([query], request), list(itertools.islice(queries, ROUND))
            )
            if step:  # the first round is warm-up
                http[using] += over_http
                here[using] += in_process
    for using in USING:
        yield {"setting": f"{using}, in process", **spread(here[using])}
        over = statistics.median(http[using]) - statistics.median(here[using])
        yield {
            "setting": f"{using}, HTTP, 1 client",
            **spread(http[using]),
            "errors": errors,
            "over_ms": round(over, 3),
            "ratio": round(statistics.median(http[using]) / statistics.median(here[using]), 3),
            "limit": LIMITS[using],
        }


def under_load(server: Server, queries: Iterator[str], seconds: float) -> Iterator[dict]:
    """One client against sixteen."""
    for using in ("dense", "bm25", "hybrid"):
        length = seconds if using == "dense" else max(5.0, seconds / 6)
        asyncio.run(load(server.address, queries, using, CLIENTS, 1.0))
        alone = asyncio.run(load(server.address, queries, using, 1, max(5.0, length / 4)))
        many = asyncio.run(load(server.address, queries, using, CLIENTS, length))
        yield {"setting": f"{using}, load, 1 client", **alone}
        ratio = round(many["qps"] / alone["qps"], 3)
        yield {
            "setting": f"{using}, load, {CLIENTS} clients, {length:.0f} s",
            **many,
            "ratio": ratio,
            "limit": "at least 1.5x" if using == "dense" else None,
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="500 documents, ten seconds of load")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--seconds", type=float, help="of load; 60, or 10 with --quick")
    given = parser.parse_args()
    folder = Path(".bench/service")
    folder.mkdir(parents=True, exist_ok=True)
    name, corpus = corpus_file(folder, given.quick)
    collection = folder / f"{name}-collection"
    build(corpus, collection)
    queries = distinct_queries(corpus)
    server = Server(collection)
    try:
        rows = list(
            beside_in_process(
                server, Collection.open(collection).snapshot(), queries, 10 if given.quick else 50
            )
        )
        rows += under_load(server, queries, given.seconds or (10.0 if given.quick else 60.0))
    finally:
        server.stop()
    for row in rows:
        whole = {"bench": "service", "data": name, "engine": "tercet", "k": K, "threads": threads(), **row}
        print(json.dumps(whole) if given.json else table_line(row), flush=True)


def table_line(row: dict) -> str:
    """A line for people."""
    facts = [f"{row['setting']:<34}{row['ms_p50']:>9.2f} ms (p95 {row['ms_p95']:.2f})"]
    facts += [
        f"{key} {row[key]}"
        for key in ("qps", "errors", "over_ms", "ratio", "limit")
        if row.get(key) is not None
    ]
    return "  ".join(facts)


if __name__ == "__main__":
    main()
