"""Queries by a server, against one on the loopback that misbehaves on request."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from indexing.progress import Silent
from retrieval.endpoint import EndpointError
from retrieval.errors import ConfigError
from retrieval.values import Document
from training.generation.endpoint import EndpointGenerator
from training.generation.generator import Answer, GeneratorOptions
from training.generation.in_parallel import as_completed
from training.generation.prompts import Example, Prompt

DOCUMENTS = [Document(f"d{i}", f"number{i} alpha beta gamma delta epsilon") for i in range(6)]
PROMPT = Prompt("Ask.", (Example("Cats sleep.", "do cats sleep"),))


def opened(url: str, **options: Any) -> EndpointGenerator:
    given = {"url": url, "model": "tiny", "timeout": 20, "retries": 0, "prompt": PROMPT, **options}
    return EndpointGenerator.open(GeneratorOptions(**given), (), Silent())


def answers(server: Any, **options: Any) -> dict[str, Answer]:
    return {one.document.id: one for one in opened(server.url, **options).generate(DOCUMENTS)}


def test_a_chat_asks_for_all_queries_of_a_document_at_once(server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SOME_KEY", "secret\n")
    found = answers(server, per_document=3, api_key_env="SOME_KEY", max_tokens=9)
    assert set(found) == {one.id for one in DOCUMENTS}
    assert len(server.requests) == 6
    path, headers, body = server.requests[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret"
    assert (
        body["model"] == "tiny" and body["temperature"] == 0.7 and body["n"] == 3 and body["max_tokens"] == 9
    )
    assert 0 <= body["seed"] < 1 << 31
    assert [one["content"] for one in body["messages"]][:2] == [
        "Ask.\n\nDocument: Cats sleep.",
        "do cats sleep",
    ]
    assert len(found["d0"].queries) == 3
    assert all(query.startswith("what about ") and '"' not in query for query in found["d0"].queries)
    assert (found["d0"].prompt_tokens, found["d0"].completion_tokens) == (6, 15)


def test_completions_send_one_text(server):
    found = answers(server, api="completions")
    path, _, body = server.requests[0]
    assert path == "/v1/completions" and body["stop"] == ["\n"] and "messages" not in body
    assert body["prompt"].startswith(
        "Ask.\n\nDocument: Cats sleep.\nQuery: do cats sleep\n\nDocument: number"
    )
    assert body["prompt"].endswith("\nQuery:")
    assert len(found) == 6 and all(one.queries[0].startswith("what about") for one in found.values())


def test_seeds_belong_to_documents_not_to_the_order(server):
    first = answers(server, concurrency=1)
    again = {one.document.id: one for one in opened(server.url, concurrency=5).generate(DOCUMENTS[::-1])}
    assert first == again
    assert answers(server, seed=1) != first
    assert len({body["seed"] for _, _, body in server.requests[:6]}) == 6


def test_a_server_that_gives_fewer_is_asked_again(server):
    server.choices = 1
    found = answers(server, per_document=3, concurrency=1)
    assert [body["n"] for _, _, body in server.requests[:3]] == [3, 2, 1]
    assert len({body["seed"] for _, _, body in server.requests[:3]}) == 3
    assert len(found["d0"].queries) == 3 and found["d0"].completion_tokens == 15


def test_keys_of_requests_can_be_set_and_taken_out(server):
    answers(server, request={"seed": 5, "max_tokens": None, "top_p": 0.9, "n": 1})
    _, _, body = server.requests[0]
    assert body["seed"] == 5 and body["top_p"] == 0.9 and body["n"] == 1 and "max_tokens" not in body
    assert len(server.requests) == 12


def test_no_content_is_an_empty_query(server):
    empty = {"choices": [{"message": {"role": "assistant", "content": None}}, {"message": {"content": "x"}}]}
    server.script = [(200, {}, empty)]
    answer = next(opened(server.url).generate(DOCUMENTS[:1]))
    assert answer.queries == ("", "x") and answer.prompt_tokens == 0


def test_a_full_server_is_asked_again(server):
    server.script = [(429, {"Retry-After": "0"}, {"error": "slow down"})] * 3
    assert len(answers(server, retries=3)) == 6
    server.script = [(429, {"Retry-After": "0"}, {"error": "slow down"})] * 2
    with pytest.raises(EndpointError, match=r"429 \(slow down\), 2 times"):
        list(opened(server.url, retries=1, concurrency=1).generate(DOCUMENTS))


def test_what_is_under_way_is_not_lost_to_a_failure(server):
    server.refusing = ("number2",)
    got: list[str] = []
    with pytest.raises(EndpointError, match=r"/v1/chat/completions answered 400 \(context too long\)"):
        for one in opened(server.url, concurrency=3).generate(DOCUMENTS):
            got.append(one.document.id)
    assert {"d0", "d1"} <= set(got) and "d2" not in got


def test_failures_are_one_line(server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server.script = [(401, {}, {"error": {"message": "bad key"}})]
    with pytest.raises(EndpointError, match=r"refused the key: 401 \(bad key\).*OPENAI_API_KEY is not set"):
        list(opened(server.url).generate(DOCUMENTS[:1]))
    with pytest.raises(EndpointError, match=r"cannot be reached.*, once; is the server up"):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
            list(opened(url).generate(DOCUMENTS))


NONSENSE = {
    "not JSON": b"<html>",
    "null": b"null",
    "a list": [1],
    "no choices": {"object": "list"},
    "none of them": {"choices": []},
    "the other API": {"choices": [{"text": "x"}]},
    "no text": {"choices": [{"message": {"content": 7}}]},
    "no counts": {"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": "many"}},
}


@pytest.mark.parametrize("what", NONSENSE)
def test_an_answer_without_completions_is_an_error(what, server):
    server.script = [(200, {}, NONSENSE[what])]
    with pytest.raises(EndpointError, match="answer"):
        list(opened(server.url).generate(DOCUMENTS[:1]))


def test_bad_settings_are_refused_before_anything_is_sent():
    for options, message in (
        ({"model": ""}, "needs a model"),
        ({"api": "embeddings"}, r"unknown API of an endpoint 'embeddings'; valid: chat, completions"),
        ({"url": "localhost:8000"}, "http://"),
    ):
        with pytest.raises(ConfigError, match=message):
            opened(**({"url": "http://127.0.0.1:1/v1"} | options))


def test_so_many_run_at_a_time_and_no_more_are_taken():
    together, taken = threading.Barrier(3, timeout=10), []

    def items():
        for number in range(9):
            taken.append(number)
            yield number

    def work(number: int) -> int:
        together.wait()
        return number

    running = as_completed(work, items(), 3)
    next(running)
    assert len(taken) == 3
    assert len(list(running)) == 8
