"""The analyser as an encoder."""

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.encoders.terms import TermsEncoder
from retrieval.errors import ConfigError
from retrieval.values import Document


def rows_of(terms):
    """Per row, {(field, term): frequency}."""
    vocabulary = list(zip(terms.term_fields.tolist(), terms.vocabulary, strict=True))
    out = []
    for row in range(len(terms)):
        part = slice(terms.indptr[row], terms.indptr[row + 1])
        assert np.all(np.diff(terms.indices[part]) > 0)
        out.append(
            {vocabulary[i]: int(f) for i, f in zip(terms.indices[part], terms.frequencies[part], strict=True)}
        )
    return out


TEXTS = st.lists(st.sampled_from("cat cats dog’s the Dog _ ... é 3.5".split()), max_size=12).map(" ".join)


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=6))
def test_counting_agrees_with_a_counter(pairs):
    encoder = TermsEncoder.open("", {"fields": ["title", "text"]})
    documents = [Document(str(i), text, title) for i, (title, text) in enumerate(pairs)]
    terms = encoder.encode_documents(documents)
    analyse = encoder.analyzer.terms
    expected = [
        Counter([(0, t) for t in analyse(title)] + [(1, t) for t in analyse(text)]) for title, text in pairs
    ]
    assert rows_of(terms) == [dict(counter) for counter in expected]
    assert terms.lengths.tolist() == [[len(analyse(title)), len(analyse(text))] for title, text in pairs]
    assert encoder.tally.n_texts == len(pairs)


@given(st.lists(TEXTS, max_size=5))
def test_query_terms_stand_for_every_field(texts):
    encoder = TermsEncoder.open("", {"fields": ["title", "text"]})
    rows = rows_of(encoder.encode_queries(texts))
    for text, row in zip(texts, rows, strict=True):
        counts = Counter(encoder.analyzer.terms(text))
        assert row == {(field, term): n for term, n in counts.items() for field in (0, 1)}


def test_no_documents_and_no_queries_are_ordinary():
    assert len(TermsEncoder().encode_documents([])) == 0
    assert len(TermsEncoder().encode_queries([])) == 0
    assert TermsEncoder().encode_queries(["the", ""]).indptr.tolist() == [0, 0, 0]


def test_spec_reopens_an_equal_encoder_with_equal_fingerprints():
    encoder = TermsEncoder.open(
        "", {"language": "german", "fields": ["title", "text"], "stopwords": ["der", "die"]}
    )
    again = TermsEncoder.open(encoder.spec["model"], encoder.spec["options"])
    assert again == encoder and again.fingerprints == encoder.fingerprints
    assert encoder.fingerprints != TermsEncoder().fingerprints


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("", {"colour": 1}, "colour.*valid: fields, language"),
        ("bert", {}, "no models"),
        ("", {"fields": ["body"]}, "body"),
        ("", {"fields": "text"}, "list of distinct names"),
        ("", {"language": "klingon"}, "klingon"),
        ("", {"stopwords": "the"}, "list of words"),
    ],
)
def test_bad_options_are_named(model, options, message):
    with pytest.raises(ConfigError, match=message):
        TermsEncoder.open(model, options)


def test_importing_and_encoding_loads_nothing_heavy():
    code = (
        "import sys; from retrieval.encoders.terms import TermsEncoder; TermsEncoder().encode_queries(['Fox']);"
        "print([name for name in ('torch', 'numba', 'polars') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
