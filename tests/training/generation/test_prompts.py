"""Prompts, examples and what is read out of answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retrieval.errors import FormatError
from retrieval.values import Document
from training.generation.prompts import Example, Prompt, read_examples

EXAMPLES = (Example("Cats sleep.", "do cats sleep"), Example("Fish swim.", "can fish swim"))


def test_a_text_to_continue_ends_where_the_query_begins():
    prompt = Prompt("Write.", EXAMPLES, "Passage", "Question")
    assert prompt.text(prompt.shown(Document("x", "Birds fly.", "Birds"))) == (
        "Write.\n\nPassage: Cats sleep.\nQuestion: do cats sleep\n\n"
        "Passage: Fish swim.\nQuestion: can fish swim\n\nPassage: Birds Birds fly.\nQuestion:"
    )
    assert Prompt("").text("x") == "Document: x\nQuery:"


def test_a_chat_has_a_turn_of_both_sides_for_each_example():
    said = Prompt("Write.", EXAMPLES).messages("Birds fly.")
    assert [one["role"] for one in said] == ["user", "assistant", "user", "assistant", "user"]
    assert said[0]["content"] == "Write.\n\nDocument: Cats sleep."
    assert said[1]["content"] == "do cats sleep"
    assert said[-1]["content"] == "Document: Birds fly."
    assert Prompt("Write.").messages("x") == [{"role": "user", "content": "Write.\n\nDocument: x"}]


def test_long_documents_end_with_a_sentence():
    text = "One two three four. Five six seven. Eight nine ten eleven"
    prompt = Prompt(words=9, examples=(Example(text, "q"),))
    assert prompt.shown(Document("x", text)) == "One two three four. Five six seven."
    assert "seven.\nQuery: q" in prompt.text("x") and "Eight" not in prompt.text("x")


@pytest.mark.parametrize(
    ("answer", "query"),
    [
        ("how do cats sleep", "how do cats sleep"),
        ("\n\n  Query:  “how do cats sleep?” \nBecause ...", "how do cats sleep?"),
        ('QUERY: "cats"', "cats"),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_the_query_is_the_first_line_without_label_and_quotes(answer, query):
    assert Prompt().query_of(answer) == query


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines))
    return path


def test_examples_are_read(tmp_path: Path):
    lines = [{"document": one.document, "query": f" {one.query}\n"} for one in EXAMPLES]
    assert read_examples(write(tmp_path / "e.jsonl", lines[0], "", lines[1])) == EXAMPLES


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"document": "x", "query": "y"}', "{"], r"e\.jsonl:2: malformed JSON"),
        (["[1]"], r"e\.jsonl:1: .*every line is one JSON object"),
        ([{"document": "x"}], r'e\.jsonl:1: "query" is missing'),
        (
            [{"document": "x", "query": "y"}, {"document": " ", "query": "y"}],
            r'e\.jsonl:2: "document" is missing, empty',
        ),
        ([{"document": 7, "query": "y"}], r'e\.jsonl:1: "document"'),
        ([{"document": "x", "query": "y"}] * 9, r"e\.jsonl:9: there are more than 8"),
        ([], r"e\.jsonl: there is no example"),
    ],
)
def test_malformed_examples_say_where(tmp_path: Path, lines, message):
    with pytest.raises(FormatError, match=message):
        read_examples(write(tmp_path / "e.jsonl", *lines))


def test_missing_examples_say_so(tmp_path: Path):
    with pytest.raises(FormatError, match=r"none\.jsonl: cannot be read"):
        read_examples(tmp_path / "none.jsonl")
