"""The endpoint encoder against a loopback server that misbehaves on request."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from retrieval.encoders import open_encoder
from retrieval.encoders.endpoint import EndpointEncoder
from retrieval.endpoint import EndpointError, _retry_after
from retrieval.errors import ConfigError
from retrieval.values import Document


def opened(server: Any, **options: Any) -> EndpointEncoder:
    return EndpointEncoder.open("tiny", {"base_url": server.base_url, "timeout": 20, **options})


def unit(rows: list[list[float]]) -> np.ndarray:
    values = np.array(rows)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_answers_are_put_in_order_over_many_batches(embeddings_server: Callable[..., Any]):
    server = embeddings_server()
    encoder = opened(server, batch=7)
    texts = [f"text {i}" for i in range(50)]
    got = encoder.encode_queries(texts).values
    np.testing.assert_allclose(got, unit([server.vector(text, 16) for text in texts]), atol=1e-6)
    assert sorted(len(body["input"]) for _, body in server.requests) == [1, *[7] * 7]
    assert encoder.tally.snapshot().n_tokens == 150
    encoder.close()


def test_prompts_key_and_dimensions_are_sent(embeddings_server, monkeypatch: pytest.MonkeyPatch):
    server = embeddings_server()
    monkeypatch.setenv("SOME_KEY", "secret")
    encoder = opened(
        server,
        api_key_env="SOME_KEY",
        dimensions=5,
        query_prompt="q: ",
        document_prompt="d: ",
        normalize=False,
    )
    assert encoder.encode_queries(["cat"]).values.shape == (1, 5)
    vectors = encoder.encode_documents([Document("1", "text", "title"), Document("2", "")]).values
    np.testing.assert_allclose(vectors[0], server.vector("d: title text", 5), rtol=1e-6)
    headers, body = server.requests[0]
    assert headers["Authorization"] == "Bearer secret"
    assert body == {"model": "tiny", "input": ["q: cat"], "dimensions": 5}
    assert "secret" not in str(encoder.spec)
    assert encoder.encode_queries([]).values.shape == (0, 5)


def test_an_empty_text_is_sent_as_a_space(embeddings_server):
    server = embeddings_server()
    opened(server).encode_queries([""])
    assert server.requests[0][1]["input"] == [" "]


def test_passing_failures_are_tried_again(embeddings_server):
    server = embeddings_server()
    server.script = [
        (429, {"Retry-After": "0"}, {"error": {"message": "slow down"}}),
        (503, {"Retry-After": "0"}, {}),
    ]
    assert len(opened(server).encode_queries(["a", "b"])) == 2
    assert len(server.requests) == 3


def test_a_limit_that_never_lifts_is_reported(embeddings_server):
    server = embeddings_server()
    server.script = [(429, {"Retry-After": "0"}, {"error": {"message": "slow down"}})] * 3
    with pytest.raises(EndpointError, match=r"429 \(slow down\), 3 times"):
        opened(server, retries=2).encode_queries(["a"])


def test_a_refused_key_names_the_variable(embeddings_server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    server = embeddings_server()
    server.script = [(401, {}, {"error": {"message": "bad key"}})]
    with pytest.raises(EndpointError, match=r"bad key.*SOME_KEY is not set"):
        opened(server, api_key_env="SOME_KEY").encode_queries(["a"])
    assert len(server.requests) == 1


def test_nobody_listening_says_where():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    encoder = EndpointEncoder.open("tiny", {"base_url": url, "retries": 0})
    with pytest.raises(EndpointError, match=rf"{url}/embeddings: cannot be reached"):
        encoder.encode_queries(["a"])


def test_a_server_that_does_not_answer_in_time_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        encoder = EndpointEncoder.open("tiny", {"base_url": url, "retries": 0, "timeout": 0.2})
        with pytest.raises(EndpointError, match=r"no answer within 0\.2 s"):
            encoder.encode_queries(["a"])


NONSENSE = {
    "not JSON": b"<html>",
    "a number": b"7",
    "no data": {"object": "list"},
    "too few": {"data": [{"index": 0, "embedding": [1.0]}]},
    "twice the same index": {"data": [{"index": 0, "embedding": [1.0]}] * 2},
    "uneven": {"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0, 2.0]}]},
    "no numbers": {"data": [{"index": 0, "embedding": ["x"]}, {"index": 1, "embedding": ["y"]}]},
    "empty": {"data": [{"index": 0, "embedding": []}, {"index": 1, "embedding": []}]},
    "not finite": b'{"data": [{"index": 0, "embedding": [NaN]}, {"index": 1, "embedding": [1.0]}]}',
}


@pytest.mark.parametrize("what", NONSENSE)
def test_an_answer_that_is_no_vectors_is_an_error(what, embeddings_server):
    server = embeddings_server()
    server.script = [(200, {}, NONSENSE[what])]
    with pytest.raises(EndpointError, match="answer"):
        opened(server).encode_queries(["a", "b"])


def test_a_wrong_width_and_a_wrong_address_are_errors(embeddings_server):
    server = embeddings_server()
    server.script = [(200, {}, {"data": [{"index": 0, "embedding": [1.0, 2.0]}]})]
    with pytest.raises(EndpointError, match="width 2, expected 9"):
        opened(server, dimensions=9).encode_queries(["a"])
    with pytest.raises(EndpointError, match=r"404.*check the address"):
        opened(server, base_url=server.base_url + "/v2").encode_queries(["a"])
    server.script = [(400, {}, {"error": "input too long"})]
    with pytest.raises(EndpointError, match=r"400.*input too long"):
        opened(server).encode_queries(["a"])


def test_retry_after_is_seconds_or_a_date():
    import httpx

    def wait(value: str) -> float | None:
        return _retry_after(httpx.Response(429, headers={"Retry-After": value}))

    assert wait("2") == 2 and wait("-1") == 0
    assert wait("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert wait("Wed, 21 Oct 2015 07:28:00 -0000") == 0
    assert wait("soon") is None and wait("inf") is None and _retry_after(httpx.Response(429)) is None


def test_bad_settings_are_refused_before_anything_is_sent():
    with pytest.raises(ConfigError, match="name of the server's model"):
        open_encoder({"family": "endpoint"})
    with pytest.raises(ConfigError, match="http://"):
        open_encoder({"family": "endpoint", "model": "m", "options": {"base_url": "localhost:8000"}})
    with pytest.raises(ConfigError, match="at least 1"):
        open_encoder({"family": "endpoint", "model": "m", "options": {"batch": 0}})


def test_the_fingerprint_knows_the_model_but_not_the_address():
    def of(**options: Any) -> str:
        return EndpointEncoder.open("m", options).fingerprints.documents

    assert of(base_url="http://127.0.0.1:1/v1", batch=3) == of(base_url="http://127.0.0.1:2/v1")
    assert of(dimensions=8) != of() != of(document_prompt="x")
