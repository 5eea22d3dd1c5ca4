"""Generators without a language model, against their definitions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import pytest

from indexing.progress import Silent
from retrieval.analysis import Analyzer
from retrieval.errors import ConfigError
from retrieval.values import Document
from training.generation.generator import GeneratorOptions
from training.generation.table import GENERATORS, open_generator

DOCUMENTS = [
    Document(
        "a", "The old engine was slow. The new engine is quick, and 1999 of them were made! Who did?", "Boats"
    ),
    Document("b", " ".join(f"word{i} river" for i in range(200)) + " mountain mountain"),
    Document("c", "One sentence without an end"),
    Document("d", "", "Only a title"),
    Document("e", "日本語の文章です。検索の質問。", "題"),
    Document("f", "... !!"),
]
RULES = ("keywords", "crops", "titles")


def queries(name: str, documents: Sequence[Document], **options: int) -> dict[str, tuple[str, ...]]:
    generator = open_generator(name, GeneratorOptions(**options), DOCUMENTS, Silent())
    return {answer.document.id: answer.queries for answer in generator.generate(documents)}


@pytest.mark.parametrize("name", RULES)
def test_what_a_document_gets_depends_on_the_seed_and_itself(name):
    whole = queries(name, DOCUMENTS, per_document=4)
    assert whole == queries(name, DOCUMENTS[::-1], per_document=4)
    for document in DOCUMENTS:
        assert queries(name, [document], per_document=4)[document.id] == whole[document.id]
        assert queries(name, [document], per_document=2)[document.id] == whole[document.id][:2]
    if name != "titles":
        assert queries(name, DOCUMENTS, per_document=4, seed=1) != whole


def test_crops_are_sentences_or_runs_of_words():
    document = DOCUMENTS[0]
    found = queries("crops", [document], per_document=60)["a"]
    sentences = {
        "The old engine was slow.",
        "The new engine is quick, and 1999 of them were made!",
        "Who did?",
    }
    assert sentences < set(found)
    for text in set(found) - sentences:
        assert text in document.contents() and 3 <= len(text.split()) <= 12
    assert len(set(found)) > 20
    assert set(queries("crops", [DOCUMENTS[2]])["c"]) <= {
        " ".join(DOCUMENTS[2].text.split()[i:j]) for i in range(5) for j in range(6)
    }


def test_keywords_are_the_terms_of_greatest_weight_in_their_order():
    """A document shorter than a stretch is read whole, so a brute-force ranking says what is chosen."""
    analyzer = Analyzer()
    held = [set(analyzer.terms(one.contents())) for one in DOCUMENTS]
    words = [word.strip(",.!?") for word in DOCUMENTS[0].contents().split()]
    terms = [analyzer.term(word) for word in words]
    counts = Counter(term for term in terms if term.isalpha())

    def weight(term: str) -> float:
        n = sum(term in one for one in held)
        return counts[term] * math.log1p((len(DOCUMENTS) - n + 0.5) / (n + 0.5))

    ranked = sorted(counts, key=lambda term: (-weight(term), terms.index(term)))
    for query in queries("keywords", DOCUMENTS[:1], per_document=20)["a"]:
        chosen = [analyzer.term(word) for word in query.split()]
        assert 3 <= len(chosen) <= 6
        assert set(chosen) == set(ranked[: len(chosen)])
        assert chosen == sorted(chosen, key=terms.index)
    assert ranked[0] == "engin"


def test_keywords_of_a_long_document_differ():
    found = queries("keywords", DOCUMENTS[1:2], per_document=20)["b"]
    assert len(set(found)) > 10
    assert all("river" in query for query in found)


def test_keywords_know_no_numbers_and_survive_texts_without_words():
    found = queries("keywords", DOCUMENTS, per_document=8)
    assert not any("1999" in query for query in found["a"])
    assert set(found["f"]) == {""}
    assert any(found["e"])


def test_titles_are_taken_as_they_are():
    assert queries("titles", DOCUMENTS)["a"] == ("Boats",)
    assert queries("titles", DOCUMENTS)["c"] == ()


def test_every_name_in_the_table_says_what_is_wrong_with_its_options():
    with pytest.raises(ConfigError, match=r"unknown generator 'nonsense'; valid: crops"):
        open_generator("nonsense", GeneratorOptions(), [], Silent())
    for name in GENERATORS:
        with pytest.raises(ConfigError, match="queries of a document: 0"):
            open_generator(name, GeneratorOptions(per_document=0), [], Silent())
