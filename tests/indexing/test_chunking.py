from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexing.chunking import _WORD, Chunking, sentence_spans
from retrieval.errors import ConfigError


def chunks(text: str, given: str) -> list[str]:
    return [text[start:stop] for start, stop in Chunking.parse(given).spans(text)]


def words(text: str) -> int:
    return len(_WORD.findall(text))


@pytest.mark.parametrize("text", ["", " ", "one", "one two three", "\n\n a \n"])
@pytest.mark.parametrize("given", ["none", "3/1"])
def test_a_text_that_fits_is_one_whole_chunk(text: str, given: str) -> None:
    assert Chunking.parse(given).spans(text) == [(0, len(text))]


def test_chunks_end_with_the_last_sentence_in_their_last_third() -> None:
    text = "One two. Three four five. Six seven eight nine ten eleven twelve."
    assert chunks(text, "7/0") == ["One two. Three four five.", "Six seven eight nine ten eleven twelve."]
    # no sentence ends in the last third of nine words: a full chunk
    assert chunks(text, "9/0")[0] == "One two. Three four five. Six seven eight nine"


def test_neighbours_share_whole_sentences_where_they_can() -> None:
    text = "A b c d. E f g h. I j k l. M n o p. Q r s t."
    assert chunks(text, "8/4") == [
        "A b c d. E f g h.",
        "E f g h. I j k l.",
        "I j k l. M n o p.",
        "M n o p. Q r s t.",
    ]
    assert chunks("a b c d e f g h", "4/2") == ["a b c d", "c d e f", "e f g h"]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("x x x Dr. Who is in. More words follow here", "x x x Dr. Who is in."),
        ("x x x x x e.g. This one. More follows here", "x x x x x e.g. This one."),
        ("x x x x x J. Smith came. More words follow", "x x x x x J. Smith came."),
        ('x x x x x "Really?" More words. than fit here now', 'x x x x x "Really?"'),
        ("x x x x x x. lower case goes on and on", "x x x x x x. lower case"),
        ("x x x x x x x\n\nA new paragraph is a boundary", "x x x x x x x"),
        ("x x x x x Version 3. More words follow here", "x x x x x Version 3."),
    ],
)
def test_abbreviations_and_initials_end_no_sentence_but_paragraphs_do(text: str, first: str) -> None:
    assert chunks(text, "8/0")[0] == first


def test_text_without_spaces_is_cut_as_well() -> None:
    assert chunks("漢字仮名。漢字仮名。", "5/0") == ["漢字仮名。", "漢字仮名。"]
    assert chunks("x" * 100, "1/0") == ["x" * 40, "x" * 40, "x" * 20]


def test_a_million_words_are_chunked_in_one_pass() -> None:
    spans = Chunking.default().spans("Seven words are in this sentence here. " * 150_000)
    assert len(spans) > 7000
    assert spans[-1][1] == 39 * 150_000 - 1


@pytest.mark.parametrize("text", ["none", "150/30", "1/0", "10/5"])
def test_text_and_chunking_convert_both_ways(text: str) -> None:
    assert str(Chunking.parse(text)) == text


def test_short_forms_are_understood() -> None:
    assert Chunking.parse(" NONE ") == Chunking.none()
    assert Chunking.parse("200") == Chunking(200, 0)
    assert Chunking.parse("default") == Chunking.default()


@pytest.mark.parametrize("text", ["", "0/0", "ten", "10/", "-5/1", "10/6", "1e3", "10/5/2", "٣/١"])
def test_what_is_no_chunking_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"150/30|at most half"):
        Chunking.parse(text)


settings_of_chunks = st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n // 2)))
pieces = st.lists(
    st.sampled_from(["word", "End.", "a", "Dr.", "\n\n", " ", "漢字", "。", "B?", "x" * 90, '"Q."', "\u2029"])
)


@given(pieces.map(" ".join) | st.text(max_size=80), settings_of_chunks)
@settings(max_examples=300, deadline=None)
def test_chunks_cover_every_word_in_order_within_the_limits(text: str, limits: tuple[int, int]) -> None:
    chunking = Chunking(*limits)
    spans = chunking.spans(text)
    assert spans == chunking.spans(text)
    assert spans
    found = [match.span() for match in _WORD.finditer(text)]
    covered = [{n for n, (a, b) in enumerate(found) if start <= a and b <= stop} for start, stop in spans]
    assert set().union(*covered) == set(range(len(found)))
    for start, stop in spans:
        assert words(text[start:stop]) <= chunking.words
        assert 0 <= start <= stop <= len(text)
    for before, after in itertools.pairwise(covered):
        assert before
        assert min(before) < min(after)
        assert max(before) < max(after)
        assert len(before & after) <= chunking.overlap


@given(
    st.lists(st.sampled_from(["One two three.", "Four five.", "Six."]), min_size=1, max_size=30).map(" ".join)
)
@settings(deadline=None)
def test_where_sentences_are_short_every_chunk_ends_with_one(text: str) -> None:
    for start, stop in Chunking(12, 4).spans(text):
        assert text[start:stop].endswith(".")


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        (" \n ", []),
        ("no end", ["no end"]),
        ("Dr. Who is here! He waits.  Yes", ["Dr. Who is here!", "He waits.", "Yes"]),
        ("a heading\n\nIts text.", ["a heading", "Its text."]),
    ],
)
def test_sentences_leave_out_only_what_is_between_them(text: str, sentences: list[str]) -> None:
    assert [text[start:end] for start, end in sentence_spans(text)] == sentences
