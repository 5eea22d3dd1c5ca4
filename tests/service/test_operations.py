"""/healthz, /readyz, /metrics, /v1/info, /v1/embeddings, the static files and the settings."""

from __future__ import annotations

import asyncio
import base64
import re

import numpy as np
import pytest
from pydantic import ValidationError

from retrieval.errors import CorruptError
from service.app import create_app
from service.settings import Settings


def test_it_lives_before_it_is_ready_and_searches_are_503_until_then(make_client, collection):
    collection.encoder.open.clear()
    client = make_client(wait=False)
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").status_code == 503
    early = client.post("/v1/search", {"query": "cats"})
    assert (early.status_code, early.json()["error"]["type"]) == (503, "not_ready")
    assert early.headers["retry-after"] == "1"
    assert client.get("/").status_code == 200
    collection.encoder.open.set()
    client.wait_ready()
    assert client.search(query="cats")


def test_a_collection_that_cannot_be_opened_is_reported_to_the_server(tmp_path, caplog):
    def broken(path):
        raise CorruptError(path, "flipped")

    failures = []
    app = create_app(Settings(collection=tmp_path), opener=broken, on_loaded=failures.append)

    async def live():
        async with app.router.lifespan_context(app):
            while not failures:
                await asyncio.sleep(0.01)
        assert not app.state.service.live.ready

    asyncio.run(asyncio.wait_for(live(), 20))
    assert isinstance(failures[0], CorruptError)
    assert not caplog.records, "whoever is told decides what to say"


def test_info_lists_what_can_be_searched_and_the_values_of_fields(client):
    info = client.get("/v1/info").json()
    assert info["n_documents"] == 5
    assert info["using"] == ["dense"]
    assert info["default_using"] == "dense"
    kind, year = info["fields"]
    assert kind == {
        "name": "kind",
        "type": "string",
        "values": [["animal", 2], ["city", 2], ["text", 1]],
        "n_values": 3,
    }
    assert (year["min"], year["max"], year["values"][0]) == (1999, 2010, [2010, 2])


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings_have_the_openai_shape(client, encoding):
    body = {"model": "any", "input": ["cats", "dogs"], "encoding_format": encoding}
    answer = client.post("/v1/embeddings", body).json()
    assert answer["object"] == "list"
    assert [row["index"] for row in answer["data"]] == [0, 1]
    shown = answer["data"][0]["embedding"]
    vector = np.frombuffer(base64.b64decode(shown), "<f4") if encoding == "base64" else np.array(shown)
    assert vector.shape == (64,)
    assert np.linalg.norm(vector) == pytest.approx(1)


@pytest.mark.parametrize("given", [[], 3, ["a"] * 257, None])
def test_bad_embedding_input_names_the_field(client, given):
    response = client.post("/v1/embeddings", {"input": given})
    assert response.status_code == 422
    assert response.json()["error"]["field"].startswith("input")


def test_the_page_allows_no_foreign_source_and_no_inline_script(client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/page/app.js", "/healthz", "/readyz", "/metrics", "/v1/info", "/nope"]
)
def test_head_is_answered_as_get_is_without_the_body(client, path):
    head, get = client.run(client.http.head(path)), client.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    names = ("content-type", "etag") if path == "/metrics" else ("content-type", "etag", "content-length")
    assert [head.headers.get(name) for name in names] == [get.headers.get(name) for name in names]
    assert "x-request-id" in head.headers


def test_head_of_a_search_is_405(client):
    assert client.run(client.http.head("/v1/search")).status_code == 405


def test_clients_cannot_multiply_the_series_of_metrics(client):
    for method in ("BREW", "PROPFIND", "HEAD"):
        client.run(client.http.request(method, "/healthz"))
    client.search(query="cats", using="dense")
    client.search(query="cats", using=None)
    text = client.get("/metrics").text
    assert 'method="other",route="/healthz",status="405"} 2.0' in text
    assert 'method="HEAD",route="/healthz",status="200"} 1.0' in text
    assert "BREW" not in text and "PROPFIND" not in text
    assert set(re.findall(r'tercet_queries_total\{using="([^"]*)"', text)) == {"dense"}


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_name_only_files_that_this_server_has(client, path):
    page = client.get(path).text
    names = re.findall(r'(?:src|href)="([^"#]+)"', page)
    assert len(names) >= 4
    for name in names:
        assert name.startswith("/")
        assert client.get(name).status_code == 200


def test_static_files_are_not_sent_again_when_unchanged(client):
    tag = client.get("/page/app.js").headers["etag"]
    again = client.get("/page/app.js", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")


def test_openapi_describes_the_search_body_and_answer(client):
    schema = client.get("/openapi.json").json()
    search = schema["paths"]["/v1/search"]["post"]
    body = search["requestBody"]["content"]["application/json"]["schema"]
    assert {"query", "queries", "k", "using", "filter", "rerank", "explain"} <= set(body["properties"])
    assert "SearchAnswer" in str(search["responses"]["200"])


def test_settings_come_from_the_environment_and_unknown_ones_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("TERCET_COLLECTION", str(tmp_path))
    monkeypatch.setenv("TERCET_PORT", "9001")
    settings = Settings()
    assert (settings.collection, settings.port, settings.host) == (tmp_path, 9001, "127.0.0.1")
    with pytest.raises(ValidationError):
        Settings(collection=tmp_path, unknown=1)
    with pytest.raises(ValidationError):
        Settings(collection=tmp_path, port=70_000)
