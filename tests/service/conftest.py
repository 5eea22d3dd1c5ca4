"""A collection in memory, a client that talks to an application without a socket, and a real browser."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import ClassVar

import httpx
import numpy as np
import polars as pl
import pytest
import uvicorn

from retrieval.bitmap import Bitmap
from retrieval.errors import ConfigError
from retrieval.filters import parse_filter
from retrieval.protocols import Explanation, Fingerprints, SearchRequest
from retrieval.topk import top_k
from retrieval.values import Dense, Document, Hits
from service.app import create_app
from service.server import listen
from service.settings import Settings

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver's name of a reference to an element
DOCUMENTS = [
    Document("1", "Cats sleep most of the day.", "Cats", {"kind": "animal", "year": 2001}),
    Document("2", "Dogs run and cats watch.", "Dogs", {"kind": "animal", "year": 2010}),
    Document("a/b c?", "Köln is a city on the Rhine. 🐈", "Köln", {"kind": "city", "year": 2010}),
    Document("4", "The city of Paris never sleeps.", "Paris", {"kind": "city", "year": 1999}),
    Document("5", "<script>alert('x')</script> & friends", "<b>Markup</b>", {"kind": "text"}),
]


class FakeEncoder:
    """Counts letters; can be held, counts its calls, and refuses the word 'poison'."""

    value: ClassVar = Dense
    spec: ClassVar = {"family": "fake", "model": "", "options": {}}
    fingerprints = Fingerprints("d", "q")

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self.open.set()

    def encode_queries(self, texts):
        self.batches.append(len(texts))
        self.entered.release()
        assert self.open.wait(20)
        if any("poison" in text for text in texts):
            raise RuntimeError("secret detail of the poisoned batch")
        vectors = np.zeros((len(texts), 64), dtype=np.float32)
        for row, text in enumerate(texts):
            for letter in text.lower():
                vectors[row, ord(letter) % 64] += 1
        return Dense(vectors / np.maximum(1e-9, np.linalg.norm(vectors, axis=1, keepdims=True)))

    def encode_documents(self, documents):
        return self.encode_queries([document.contents() for document in documents])


@dataclass
class FakeSearcher:
    snapshot: FakeSnapshot
    encoder: FakeEncoder
    vectors: Dense

    def search(self, queries, request: SearchRequest) -> Hits:
        encoded = self.encoder.encode_queries(queries).values
        scores = np.stack(
            [self.vectors.values @ query for query in encoded]
        )  # one by one: batches change no bit
        if request.allowed is not None:
            scores[:, ~request.allowed.mask()] = -np.inf
        hits = top_k(scores, request.k)
        return Hits(hits.rows, hits.scores, self.snapshot.token)

    def explain(self, query, rows, request=None):
        usual = Explanation("dense", 0.5, (Explanation("letters", 0.5, (), {"n": len(query)}),))
        return [self.snapshot.reasons.get(self.snapshot.stored[row].id, usual) for row in rows]


@dataclass
class FakeSnapshot:
    stored: list[Document]
    token: str
    fake_encoder: FakeEncoder
    reasons: dict[str, Explanation] = field(default_factory=dict)
    representations: dict = field(default_factory=lambda: {"dense": None})

    def __post_init__(self) -> None:
        self.n_rows = self.n_documents = len(self.stored)
        self.commit = SimpleNamespace(schema={"kind": "string", "year": "integer"})
        columns = {name: [d.metadata.get(name) for d in self.stored] for name in self.commit.schema}
        self.frame = pl.DataFrame(columns)
        metadata = SimpleNamespace(frame=self.frame.select)
        self.segments = [SimpleNamespace(metadata=metadata, live=None)]

    def encoder(self, name):
        return self.fake_encoder

    def searcher(self, using="", rerank=None, encoders=None, *, query_bank=False):
        if query_bank:
            raise ConfigError("there is no query bank for dense; store one of sample queries")
        if using != "dense":
            raise ConfigError(f"cannot search using {using!r}; this collection has: dense")
        plain = FakeEncoder()
        return FakeSearcher(self, encoders["dense"], plain.encode_documents(self.stored))

    def filter(self, expression):
        return Bitmap.from_mask(parse_filter(expression).evaluate(self.frame))

    def documents(self, rows):
        return [self.stored[row] for row in rows]

    passages = documents

    def spans(self, rows):
        return [(0, len(self.stored[row].text)) for row in rows]

    def document(self, id_):
        return next((document for document in self.stored if document.id == id_), None)


class FakeCollection:
    """Documents that a test may add to; every commit is a new snapshot.

    ``reasons`` are the explanations of documents, by id; the others have one that says little.
    """

    def __init__(self) -> None:
        self.stored = list(DOCUMENTS)
        self.encoder = FakeEncoder()
        self.reasons: dict[str, Explanation] = {}
        self.generation = 1
        self.opened = 0

    def version(self):
        return self.generation

    def snapshot(self):
        self.opened += 1
        return FakeSnapshot(list(self.stored), f"fake:{self.generation}", self.encoder, self.reasons)

    def add(self, document: Document) -> None:
        self.stored.append(document)
        self.generation += 1


class Client:
    """Requests to an application in the same thread, its start-up and shutdown included."""

    def __init__(self, app) -> None:
        self.app = app
        self.runner = asyncio.Runner()
        self.lifespan = app.router.lifespan_context(app)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://test")

    def __enter__(self):
        self.runner.run(self.lifespan.__aenter__())
        return self

    def __exit__(self, *error):
        self.runner.run(self.http.aclose())
        self.runner.run(self.lifespan.__aexit__(None, None, None))
        self.runner.close()

    def run(self, coroutine):
        return self.runner.run(coroutine)

    def wait_ready(self):
        async def poll():
            while (await self.http.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.01)

        self.run(asyncio.wait_for(poll(), 20))
        return self

    def get(self, path, **options) -> httpx.Response:
        return self.run(self.http.get(path, **options))

    def post(self, path, body=None, **options) -> httpx.Response:
        if body is not None:
            options["json"] = body
        return self.run(self.http.post(path, **options))

    def search(self, **body) -> list[dict]:
        response = self.post("/v1/search", body)
        assert response.status_code == 200, response.text
        return response.json()["results"][0]["hits"]


@pytest.fixture
def collection():
    return FakeCollection()


@pytest.fixture
def make_client(collection, tmp_path):
    """Start an application over the fake collection, or another, with the given settings."""
    clients = []

    def make(wait=True, opener=lambda path: collection, **options) -> Client:
        settings = Settings(**{"collection": tmp_path / "fake", "reload": 0.0, **options})
        client = Client(create_app(settings, opener=opener))
        client.__enter__()
        clients.append(client)
        if wait:
            client.wait_ready()
            collection.encoder.batches.clear()
            while collection.encoder.entered.acquire(blocking=False):
                pass
        return client

    yield make
    collection.encoder.open.set()
    for client in clients:
        client.__exit__()


@pytest.fixture
def client(make_client):
    return make_client()


class Server:
    """uvicorn on a thread of this process, on a free port of the loopback address."""

    def __init__(self, app) -> None:
        config = uvicorn.Config(app, log_level="error", server_header=False, timeout_graceful_shutdown=20)
        self.uvicorn = uvicorn.Server(config)
        self.socket = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.thread = threading.Thread(target=self.uvicorn.run, kwargs={"sockets": [self.socket]})
        self.thread.start()

    def wait_ready(self):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/readyz").status_code == 200:
                    return self
            time.sleep(0.02)
        raise AssertionError("the server did not get ready")

    def drain(self) -> None:
        """Begin to shut down, as SIGTERM does."""
        self.uvicorn.should_exit = True

    def stop(self) -> None:
        self.drain()
        self.thread.join(30)
        self.socket.close()


@pytest.fixture
def make_server(collection, tmp_path):
    """Serve the fake collection over a real socket with the given settings."""
    servers = []

    def make(**options) -> Server:
        settings = Settings(**{"collection": tmp_path / "fake", "reload": 0.0, **options})
        server = Server(create_app(settings, opener=lambda path: collection))
        servers.append(server)
        server.wait_ready()
        collection.encoder.batches.clear()
        while collection.encoder.entered.acquire(blocking=False):
            pass
        return server

    yield make
    collection.encoder.open.set()
    for server in servers:
        server.stop()


class Browser:
    """The few WebDriver commands the tests need."""

    def __init__(self, driver_url: str, chromium: str, profile: str) -> None:
        self.http = httpx.Client(base_url=driver_url, timeout=60)
        arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            "--window-size=1280,900",
            f"--user-data-dir={profile}",
        ]
        options = {"binary": chromium, "args": arguments}
        wanted = {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        answer = self.http.post("/session", json={"capabilities": {"alwaysMatch": wanted}}).json()["value"]
        self.session = f"/session/{answer['sessionId']}"

    def command(self, name, body=None):
        answer = self.http.post(f"{self.session}/{name}", json=body or {})
        assert answer.status_code == 200, answer.text
        return answer.json()["value"]

    def open(self, url):
        self.command("url", {"url": url})

    def js(self, script, *arguments):
        return self.command("execute/sync", {"script": script, "args": list(arguments)})

    def press(self, keys):
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.command("actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def click(self, selector):
        found = self.command("element", {"using": "css selector", "value": selector})
        self.command(f"element/{found[ELEMENT]}/click")

    def wait(self, script, *arguments):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if value := self.js(f"return {script}", *arguments):
                return value
            time.sleep(0.05)
        raise AssertionError(
            f"never true: {script}; the page says {self.js('return document.body.innerText')}"
        )

    def titles(self):
        return self.js("return [...document.querySelectorAll('#results h2')].map(title => title.textContent)")

    def log(self, kind):
        return self.command("se/log", {"type": kind})

    def quit(self):
        self.http.delete(self.session)
        self.http.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
    chromedriver = shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("no chromium with chromedriver")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    driver = subprocess.Popen(
        [chromedriver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    for _ in range(200):
        try:
            if httpx.get(f"{url}/status").json()["value"]["ready"]:
                break
        except httpx.TransportError:
            time.sleep(0.05)
    made = Browser(url, chromium, str(tmp_path_factory.mktemp("profile")))
    yield made
    made.quit()
    driver.terminate()
    driver.wait(20)


@pytest.fixture
def page(browser, make_server):
    server = make_server()
    browser.open("about:blank")
    browser.log("performance")  # the new-tab page of the browser itself
    browser.open(server.url)
    browser.wait(
        "document.activeElement === document.getElementById('query') && !!document.querySelector('#using input')"
    )
    yield browser
    errors = [entry["message"] for entry in browser.log("browser") if entry["level"] == "SEVERE"]
    assert [error for error in errors if "422" not in error] == []  # chromium reports every 4xx answer
    events = [json.loads(entry["message"])["message"] for entry in browser.log("performance")]
    requested = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in requested if not url.startswith((server.url, "about:"))] == []
    browser.open("about:blank")  # let go of the server's connections
