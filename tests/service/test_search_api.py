"""POST /v1/search, GET /v1/documents and what goes wrong with them."""

from __future__ import annotations

import json

import pytest

from retrieval.protocols import Explanation
from retrieval.values import Document


def error_of(response, status):
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error"}
    error = body["error"]
    assert {"type", "message", "request_id"} <= set(error) <= {"type", "message", "request_id", "field"}
    assert error["request_id"] == response.headers["x-request-id"]
    return error


def test_one_query_answers_one_result_with_its_hits_best_first(client):
    response = client.post("/v1/search", {"query": "cats sleep", "k": 3})
    assert response.status_code == 200
    body = response.json()
    assert set(body) == {"results", "took_ms"}
    (result,) = body["results"]
    scores = [hit["score"] for hit in result["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert result["hits"][0] == {
        "id": "1",
        "score": scores[0],
        "title": "Cats",
        "text": "Cats sleep most of the day.",
        "passage": [0, 27],
        "metadata": {"kind": "animal", "year": 2001},
    }


def test_many_queries_answer_in_order(client):
    queries = ["cats", "Paris city", "", "Köln"]
    many = client.post("/v1/search", {"queries": queries, "k": 2}).json()["results"]
    assert [result["hits"] for result in many] == [client.search(query=query, k=2) for query in queries]


def test_a_query_bank_that_is_not_there_is_named_as_the_field_at_fault(client):
    error = error_of(client.post("/v1/search", {"query": "cats", "query_bank": True}), 422)
    assert error["field"] == "query_bank" and "no query bank for dense" in error["message"]
    assert client.search(query="cats", query_bank=False) == client.search(query="cats")
    assert (
        error_of(client.post("/v1/search", {"query": "cats", "query_bank": 1}), 422)["field"] == "query_bank"
    )


@pytest.mark.parametrize("query", ["", "   ", "\n\t"])
def test_a_blank_query_finds_nothing(client, query):
    assert client.search(query=query) == []


def test_no_queries_is_no_results(client):
    assert client.post("/v1/search", {"queries": []}).json()["results"] == []


def test_k_may_exceed_the_corpus(client, collection):
    assert len(client.search(query="cats", k=10_000)) == len(collection.stored)


def test_a_filter_restricts_and_one_that_matches_nothing_finds_nothing(client):
    assert {hit["metadata"]["kind"] for hit in client.search(query="cats", filter='kind = "city"')} == {
        "city"
    }
    assert client.search(query="cats", filter='kind = "nowhere"') == []


def test_unicode_queries_and_ids_come_back_as_they_went(client):
    hit = client.search(query="Köln 🐈 am Rhein", k=1)[0]
    assert (hit["id"], hit["title"]) == ("a/b c?", "Köln")


def test_highlights_cover_words_with_the_query_stem_in_code_points(client):
    hits = client.search(query="sleeping cat", highlight=True)
    hit = next(hit for hit in hits if hit["id"] == "1")
    assert [hit["text"][a:b] for a, b in hit["highlights"]["text"]] == ["Cats", "sleep"]
    assert [hit["title"][a:b] for a, b in hit["highlights"]["title"]] == ["Cats"]


def test_explain_gives_a_tree_for_every_hit(client):
    for hit in client.search(query="cats", explain=True):
        assert hit["explanation"] == {
            "label": "dense",
            "value": 0.5,
            "parts": [{"label": "letters", "value": 0.5, "facts": {"n": 4}}],
        }


def test_facts_that_place_tokens_in_the_text_reach_the_answer(client, collection):
    late = Explanation("cat", 0.9, (), {"position": 4, "token": "🐈", "start": 29, "end": 30})
    title = Explanation("city", 0.5, (), {"position": 1, "token": "köln"})
    sparse = Explanation("rhine", 2.0, (), {"term": "expansion", "query weight": 1.5})
    collection.reasons["a/b c?"] = Explanation("sum", 3.4, (late, title, sparse))
    hit = next(hit for hit in client.search(query="city", explain=True) if hit["id"] == "a/b c?")
    placed, *others = hit["explanation"]["parts"]
    assert placed == {"label": "cat", "value": 0.9, "facts": dict(late.facts)}
    assert hit["text"][placed["facts"]["start"] : placed["facts"]["end"]] == "🐈"
    assert [part["facts"] for part in others] == [dict(title.facts), dict(sparse.facts)]


def test_text_may_be_left_out(client):
    assert all("text" not in hit for hit in client.search(query="cats", text="none"))


def test_a_document_is_found_by_an_id_with_slashes(client):
    response = client.get("/v1/documents/a%2Fb%20c%3F")
    assert response.status_code == 200
    assert response.json()["id"] == "a/b c?"
    assert response.json()["metadata"] == {"kind": "city", "year": 2010}


def test_an_unknown_document_is_404(client):
    error = error_of(client.get("/v1/documents/nope"), 404)
    assert (error["type"], error["field"]) == ("unknown_document", "id")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "query"),
        ({"query": "a", "queries": ["b"]}, "query"),
        ({"query": 3}, "query"),
        ({"query": None, "queries": None}, "query"),
        ({"queries": ["a", 4]}, "queries.1"),
        ({"queries": ["a"] * 257}, "queries"),
        ({"query": "x" * 40_000}, "query"),
        ({"query": "a", "k": 0}, "k"),
        ({"query": "a", "k": -1}, "k"),
        ({"query": "a", "k": 10_001}, "k"),
        ({"query": "a", "k": "10"}, "k"),
        ({"query": "a", "k": 1.5}, "k"),
        ({"query": "a", "k": True}, "k"),
        ({"queries": ["a"] * 256, "k": 10_000}, "k"),
        ({"query": "a", "depth": 0}, "depth"),
        ({"query": "a", "explain": True, "k": 1001}, "explain"),
        ({"query": "a", "unknown": 1}, "unknown"),
        ({"query": "a", "text": "all"}, "text"),
        ({"query": "a", "explain": 1}, "explain"),
        ({"query": "a", "explain": "true"}, "explain"),
        ({"query": "a", "highlight": "no"}, "highlight"),
        ({"query": "a", "using": "nothing"}, "using"),
        ({"query": "a", "using": ""}, None),
        ({"query": "a", "rerank": "some/model"}, "rerank"),
        ({"query": "a", "filter": "kind >>> 3"}, "filter"),
    ],
)
def test_bad_input_is_422_and_names_the_field(client, body, field):
    response = client.post("/v1/search", body)
    if field is None:
        assert response.status_code == 200
        return
    error = error_of(response, 422)
    assert error["field"] == field
    assert error["type"] == "invalid_request"
    assert error["message"]


def test_an_unknown_using_lists_the_valid_ones_and_a_filter_error_its_position(client):
    assert "dense" in error_of(client.post("/v1/search", {"query": "a", "using": "x"}), 422)["message"]
    assert "position 1" in error_of(client.post("/v1/search", {"query": "a", "filter": "!"}), 422)["message"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"query": "a", "k": "ten"}, 'k: Input should be a valid integer, got "ten"'),
        ({"query": "a", "k": 20_000}, "got 20000"),
        ({"query": "a", "text": "all"}, 'got "all"'),
        ({"query": "a", "explain": "yes"}, 'got "yes"'),
        (
            {"query": "a", "unkown": [1]},
            "unkown: no such field, got [1]; known: query, queries, k, using, filter",
        ),
        ({"query": "a", "k": "x" * 500}, "x" * 70 + "xxxxxxxx…"),
        ({"queries": [], **{f"field{n}": n for n in range(7)}}, "and 2 more"),
    ],
)
def test_a_refusal_holds_the_value_and_what_is_valid(client, body, said):
    message = error_of(client.post("/v1/search", body), 422)["message"]
    assert said in message
    assert len(message) < 1000


def test_an_unknown_field_of_embeddings_lists_those_of_embeddings(client):
    error = error_of(client.post("/v1/embeddings", {"input": "a", "dimensions": 3}), 422)
    assert error["message"].endswith("known: input, model, encoding_format, input_type, user")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"query": "a",}',
        b"[]",
        b"null",
        b'"cats"',
        b'{"query": "\xff\xfe"}',
        b'{"query": "\\ud800"}',
        b"{" * 5000,
        b'{"query": "a", "k": 1e999}',
        b'{"query": "a", "k": NaN}',
        b'{"query": "a", "query": 1}',
    ],
)
def test_bad_json_is_422(client, content):
    error = error_of(client.post("/v1/search", content=content), 422)
    assert error["message"]


def test_bad_json_names_the_place(client):
    error = error_of(client.post("/v1/search", content=b'{"query": "a" "k": 1}'), 422)
    assert "line 1 column 15" in error["message"]


def test_a_body_needs_no_content_type(client):
    assert client.post("/v1/search", content=json.dumps({"query": "cats"})).status_code == 200


def test_an_oversized_body_is_413_whether_announced_or_streamed(make_client):
    client = make_client(max_body_bytes=1000)
    assert error_of(client.post("/v1/search", {"query": "x" * 2000}), 413)["type"] == "body_too_large"

    async def chunks():
        for _ in range(50):
            yield b"x" * 100

    assert error_of(client.post("/v1/search", content=chunks()), 413)["type"] == "body_too_large"
    assert client.post("/v1/search", {"query": "cats"}).status_code == 200


def test_an_unknown_error_is_500_without_internals(client, caplog):
    error = error_of(client.post("/v1/search", {"query": "poison"}), 500)
    assert error["type"] == "internal"
    assert "secret" not in json.dumps(error)
    assert "secret" in caplog.text
    assert error["request_id"] in caplog.text


def test_a_request_id_is_echoed_when_it_is_sane_and_made_when_not(client):
    assert client.get("/healthz", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = client.get("/healthz", headers={"X-Request-ID": "a b\t<"}).headers["x-request-id"]
    assert len(made) == 16


def test_unknown_paths_and_methods_have_the_same_shape(client):
    assert error_of(client.get("/nope"), 404)["type"] == "not_found"
    assert error_of(client.get("/v1/search"), 405)["type"] == "method_not_allowed"


def test_a_search_sees_a_new_commit_while_documents_stay_findable(client, collection):
    assert client.get("/v1/documents/new").status_code == 404
    collection.add(Document("new", "Zebras graze.", "Zebras", {"kind": "animal"}))
    assert client.get("/v1/documents/new").status_code == 200
    assert client.search(query="Zebras graze.", k=1)[0]["id"] == "new"
    opened = collection.opened
    client.search(query="cats")
    assert collection.opened == opened  # only a new version is opened


def test_between_looks_the_commit_at_hand_is_kept(make_client, collection):
    client = make_client(reload=3600)
    client.search(query="cats")
    collection.add(Document("new", "Zebras", "", {"kind": "animal"}))
    assert client.get("/v1/documents/new").status_code == 404


def test_text_that_is_not_valid_unicode_is_still_answered(client, collection):
    collection.add(Document("odd", "half \ud83d of a pair", "odd", {"kind": "x", "n": 2**70}))
    hits = client.search(query="half of a pair odd", k=10)
    assert next(hit for hit in hits if hit["id"] == "odd")["text"] == "half \ud83d of a pair"
