"""A collection in memory, and a client that talks to an application without a socket."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from types import SimpleNamespace

import httpx
import numpy as np
import polars as pl
import pytest

from retrieval.bitmap import Bitmap
from retrieval.errors import ConfigError
from retrieval.protocols import Explanation, Fingerprints, SearchRequest
from retrieval.topk import top_k
from retrieval.values import Dense, Document, Hits
from service.app import create_app
from service.settings import Settings

DOCUMENTS = [
    Document("1", "Cats sleep most of the day.", "Cats", {"kind": "animal", "year": 2001}),
    Document("2", "Dogs run and cats watch.", "Dogs", {"kind": "animal", "year": 2010}),
    Document("a/b c?", "Köln is a city on the Rhine. 🐈", "Köln", {"kind": "city", "year": 2010}),
    Document("4", "The city of Paris never sleeps.", "Paris", {"kind": "city", "year": 1999}),
    Document("5", "<script>alert('x')</script> & friends", "<b>Markup</b>", {"kind": "text"}),
]


class FakeEncoder:
    """Counts letters; can be held, counts its calls, and refuses the word 'poison'."""

    value = Dense
    spec = {"family": "fake", "model": "", "options": {}}
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
        scores = self.encoder.encode_queries(queries).values @ self.vectors.values.T
        if request.allowed is not None:
            scores[:, ~request.allowed.mask()] = -np.inf
        hits = top_k(scores, request.k)
        return Hits(hits.rows, hits.scores, self.snapshot.token)

    def explain(self, query, rows):
        return [
            Explanation("dense", 0.5, (Explanation("letters", 0.5, (), {"n": len(query)}),)) for _ in rows
        ]


@dataclass
class FakeSnapshot:
    stored: list[Document]
    token: str
    fake_encoder: FakeEncoder
    representations: dict = field(default_factory=lambda: {"dense": None})

    def __post_init__(self) -> None:
        self.n_rows = self.n_documents = len(self.stored)
        self.commit = SimpleNamespace(schema={"kind": "string", "year": "integer"})
        frame = pl.DataFrame(
            {name: [d.metadata.get(name) for d in self.stored] for name in self.commit.schema}
        )
        metadata = SimpleNamespace(frame=lambda names: frame.select(names))
        self.segments = [SimpleNamespace(metadata=metadata, live=None)]

    def encoder(self, name):
        return self.fake_encoder

    def searcher(self, using="", rerank=None, encoders=None):
        if using != "dense":
            raise ConfigError(f"cannot search using {using!r}; this collection has: dense")
        plain = FakeEncoder()
        return FakeSearcher(self, encoders["dense"], plain.encode_documents(self.stored))

    def filter(self, expression):
        if not expression.startswith("kind = "):
            raise ConfigError("filter: at position 0: expected a condition")
        kind = expression.removeprefix("kind = ")
        return Bitmap.from_mask(np.array([d.metadata["kind"] == kind for d in self.stored]))

    def documents(self, rows):
        return [self.stored[row] for row in rows]

    passages = documents

    def spans(self, rows):
        return [(0, len(self.stored[row].text)) for row in rows]

    def document(self, id_):
        return next((document for document in self.stored if document.id == id_), None)


class FakeCollection:
    """Documents that a test may add to; every commit is a new snapshot."""

    def __init__(self) -> None:
        self.stored = list(DOCUMENTS)
        self.encoder = FakeEncoder()
        self.generation = 1
        self.opened = 0

    def version(self):
        return self.generation

    def snapshot(self):
        self.opened += 1
        return FakeSnapshot(list(self.stored), f"fake:{self.generation}", self.encoder)

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
    """Start an application over the fake collection with the given settings."""
    clients = []

    def make(wait=True, **options) -> Client:
        settings = Settings(**{"collection": tmp_path / "fake", "reload_s": 0.0, **options})
        client = Client(create_app(settings, opener=lambda path: collection))
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
