"""The analyser against Lucene's documented behaviour and a plain Porter stemmer."""

import itertools
import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.analysis import ENGLISH_STOP_WORDS, Analyzer
from retrieval.analysis.lengths import BYTE_LENGTHS, length_bytes
from retrieval.analysis.stemming import stemmer
from retrieval.analysis.words import cut_words, unicode_word, word_spans, words
from retrieval.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "The quick (brown) fox can't jump 32.3 feet, right?",
            "The quick brown fox can't jump 32.3 feet right",
        ),
        ("a.b.c U.S.A. e-mail O'Neil's", "a.b.c U.S.A e mail O'Neil's"),
        ("3,141.5 1,2,3 1,a a,1 v1.2 2.a", "3,141.5 1,2,3 1 a a 1 v1.2 2 a"),
        ("snake_case _x_ __ 1_000 a_.b", "snake_case _x_ 1_000 a_ b"),
        ("key:value a:1 http://x.org/y", "key:value a 1 http x.org y"),
        ("日本語 ひらがな カタカナ ﾊﾝｶｸ", "日 本 語 ひ ら が な カタカナ ﾊﾝｶｸ"),
        ("한국어 단어 ภาษาไทย ພາສາລາວ", "한국어 단어 ภาษาไทย ພາສາລາວ"),
        ("צה\"ל ג'ורג' שלום.", "צה\"ל ג'ורג' שלום"),
        ("naïve cafe\u0301 can\u2019t soft\u00adhyphen", "naïve cafe\u0301 can\u2019t soft\u00adhyphen"),
        ("👩🏽\u200d🚀👍🏿 ❤\ufe0f 🇩🇪🇫🇷 1\ufe0f\u20e3", "👩🏽\u200d🚀 👍🏿 ❤\ufe0f 🇩🇪 🇫🇷 1\ufe0f\u20e3"),
        ("Ｆｕｌｌ １２．５", "Ｆｕｌｌ １２．５"),
        ("", ""),
        (" \t\n--- ... ''", ""),
    ],
)
def test_words_are_cut_as_by_lucene(text, expected):
    assert [word for word in words(text) if word.strip("_")] == expected.split()  # joiners alone make no term


ALPHABET = st.sampled_from(
    [
        *"ab1_.,:;'\" -",
        "é",
        "א",
        "ב",
        "\u0301",
        "ア",
        "漢",
        "の",
        "ก",
        "👩",
        "🏽",
        "\u200d",
        "🇩",
        "#",
        "\ufe0f",
    ]
)


@given(st.lists(ALPHABET, max_size=40).map("".join))
@settings(max_examples=300)
def test_the_fast_paths_agree_with_the_grammar(text):
    assert [word for word in words(text) if word.strip("_")] == unicode_word().findall(text)


@given(st.text(max_size=60))
@settings(max_examples=300)
def test_spans_are_ascending_and_hold_the_words(text):
    spans = [(start, stop) for start, stop in word_spans(text)]
    assert [text[start:stop] for start, stop in spans] == cut_words(text)
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))


def test_long_words_are_cut_at_255_utf16_units():
    assert [len(word) for word in cut_words("x" * 600)] == [255, 255, 90]
    assert [len(word) for word in cut_words("é" * 300 + " b")] == [255, 45, 1]
    wide = "\U00010400"  # a letter of two UTF-16 units
    assert [len(word) for word in cut_words(wide * 200)] == [127, 73]
    assert [len(term) for term in Analyzer(stemming="none").terms("x" * 256)] == [255, 1]


@pytest.mark.parametrize(
    "text",
    [
        "a'" * 20_000,
        "é" + "_" * 20_000,
        "\u0301" * 50_000,
        'א"' * 20_000,
        "👩" + "\U000e0020" * 5_000,
        "#" * 50_000,
    ],
)
def test_strange_repetitions_take_no_quadratic_time(text):
    Analyzer().terms(text)


def test_a_document_of_a_million_words_is_analysed():
    assert len(Analyzer().terms("wörter words " * 500_000)) == 1_000_000


def test_lone_surrogates_separate_words():
    assert Analyzer().terms("\ud800abc \udfff x") == ["abc", "x"]


def test_the_english_chain():
    terms = Analyzer().terms("The foxes' and the Fox’s DEN, O'NEIL'S; running İstanbul ΣΊΣΥΦΟΣ")
    assert terms == ["fox", "fox", "den", "o'neil", "run", "istanbul", "σίσυφοσ"]


def test_stop_words_are_lucenes_33():
    assert len(ENGLISH_STOP_WORDS) == 33
    assert Analyzer().terms(" ".join(sorted(ENGLISH_STOP_WORDS))) == []


def test_other_languages_use_snowball_without_possessives_or_stop_words():
    german = Analyzer(possessives=False, stop_words=frozenset(), stemming="german")
    assert german.terms("Die Häuser Peter's") == ["die", "haus", stemmer("german")("peter's")]


def test_an_unknown_stemmer_names_the_valid_ones():
    with pytest.raises(ConfigError, match=r"klingon.*porter"):
        stemmer("klingon")


def test_spans_give_terms_for_highlighting():
    text = "The running dogs’ bowls"
    assert [(text[start:stop], term) for start, stop, term in Analyzer().spans(text)] == [
        ("running", "run"),
        ("dogs", "dog"),
        ("bowls", "bowl"),
    ]


def test_an_analyzer_survives_pickling():
    analyzer = Analyzer(stemming="french", possessives=False)
    assert pickle.loads(pickle.dumps(analyzer)) == analyzer


# --- Porter's stemmer, written from the paper and the notes on Porter's own page, for comparison


def _forms(word):
    out = ""
    for position, letter in enumerate(word):
        vowel = letter in "aeiou" or (letter == "y" and position > 0 and out[-1] == "c")
        out += "v" if vowel else "c"
    return out


def _measure(word):
    return len(re.findall("v+c+", _forms(word)))


def _cvc(word):
    return len(word) > 2 and _forms(word)[-3:] == "cvc" and word[-1] not in "wxy"


def _replace(word, rules, least):
    for ending, other in rules:
        if word.endswith(ending):
            stem = word[: len(word) - len(ending)]
            return stem + other if _measure(stem) > least else word
    return word


STEP2 = [
    *(
        ("ational", "ate"),
        ("tional", "tion"),
        ("enci", "ence"),
        ("anci", "ance"),
        ("izer", "ize"),
        ("bli", "ble"),
    ),
    *(("alli", "al"), ("entli", "ent"), ("eli", "e"), ("ousli", "ous"), ("ization", "ize"), ("ation", "ate")),
    *(("ator", "ate"), ("alism", "al"), ("iveness", "ive"), ("fulness", "ful"), ("ousness", "ous")),
    *(("aliti", "al"), ("iviti", "ive"), ("biliti", "ble"), ("logi", "log")),
]
STEP3 = [
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
]
STEP4 = "al ance ence er ic able ible ant ement ment ent sion tion ou ism ate iti ous ive ize".split()


def porter(word):
    if len(word) <= 2:
        return word
    if word.endswith("sses") or word.endswith("ies"):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    if word.endswith("eed"):
        word = word[:-1] if _measure(word[:-3]) > 0 else word
    else:
        ending = next((e for e in ("ed", "ing") if word.endswith(e)), None)
        if ending and "v" in _forms(word[: -len(ending)]):
            word = word[: -len(ending)]
            if word.endswith(("at", "bl", "iz")):
                word += "e"
            elif len(word) > 1 and word[-1] == word[-2] and _forms(word)[-1] == "c":
                word = word if word[-1] in "lsz" else word[:-1]
            elif _measure(word) == 1 and _cvc(word):
                word += "e"
    if word.endswith("y") and "v" in _forms(word[:-1]):
        word = word[:-1] + "i"
    word = _replace(_replace(word, STEP2, 0), STEP3, 0)
    for ending in STEP4:
        if word.endswith(ending):
            kept = 1 if ending in ("sion", "tion") else 0
            stem = word[: len(word) - len(ending) + kept]
            word = stem if _measure(stem) > 1 else word
            break
    if word.endswith("e") and (_measure(word[:-1]) > 1 or (_measure(word[:-1]) == 1 and not _cvc(word[:-1]))):
        word = word[:-1]
    if word.endswith("ll") and _measure(word[:-1]) > 1:
        word = word[:-1]
    return word


@given(
    st.text("abeilosty", max_size=6),
    st.sampled_from(
        "s es ies ed ing eed y bly bli logy logies blies kking ccing vved zzing ational ization fulness ement ion "
        "ll e".split()
    ),
)
@settings(max_examples=2000)
def test_the_stemmer_is_porters_own_program(stem, ending):
    assert stemmer("porter")(stem + ending) == porter(stem + ending)


@pytest.mark.parametrize(
    ("word", "stem"),
    [
        ("assembly", "assembl"),
        ("technology", "technolog"),
        ("trekking", "trek"),
        ("is", "is"),
        ("humbly", "humbl"),
    ],
)
def test_words_where_porters_program_departs_from_his_paper(word, stem):
    assert stemmer("porter")(word) == stem


def test_lengths_are_rounded_as_lucene_does():
    assert list(BYTE_LENGTHS[:41]) == list(range(41))
    assert [int(BYTE_LENGTHS[length_bytes(np.array([n]))[0]]) for n in (41, 43, 100, 1000, 2**31 - 1)] == [
        *(40, 42, 96, 984, 2013265944)
    ]
    assert np.all(np.diff(BYTE_LENGTHS) > 0) and len(BYTE_LENGTHS) == 256
