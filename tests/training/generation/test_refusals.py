"""Which queries are refused, and under which reason."""

from __future__ import annotations

import pytest

from retrieval.values import Document
from training.generation.generator import Answer
from training.generation.refusals import Refusals, normalised, scripts

DOCUMENT = Document("d", "Red fish swim.", "Fish")


def judged(
    *queries: str, document: Document = DOCUMENT, longest: int = 5
) -> tuple[list[str], dict[str, int]]:
    refusals = Refusals(longest)
    return [one.text for one in refusals.kept(Answer(document, queries))], dict(refusals.counts)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "empty"),
        ("?! --", "empty"),
        ("red FISH swim", "the document itself"),
        ("fish: red fish swim", "the document itself"),
        ("one two three four five six", "too long"),
        ("красная рыба", "other script"),
        ("赤い魚", "other script"),
    ],
)
def test_what_is_refused(query, reason):
    assert judged(query) == ([], {reason: 1})


def test_what_is_kept():
    assert judged("one two three four five", " do  red\nfish swim", "42", "Fish", "fish in рыба water") == (
        ["one two three four five", "do red fish swim", "42", "Fish", "fish in рыба water"],
        {},
    )
    japanese = Document("j", "日本語の文章です。カタカナ")
    assert judged("カタカナ", "文章の", document=japanese) == (["カタカナ", "文章の"], {})


def test_equal_queries_of_a_document_are_one():
    assert judged("Who swims?", "who swims", "WHO, swims", "fish") == (
        ["Who swims?", "fish"],
        {"duplicate": 2},
    )


def test_numbers_tell_kept_queries_apart():
    refusals = Refusals()
    assert [one.number for one in refusals.kept(Answer(DOCUMENT, ("", "fish", "swim")))] == [1, 2]
    assert refusals.described() == "1 empty"


def test_normalised_and_scripts():
    assert normalised("Ｆｉｓｈ,  don't  STOP!") == "fish don't stop"
    assert scripts("aé9 жü 日の") == {"LATIN", "CYRILLIC", "CJK", "HIRAGANA"}
