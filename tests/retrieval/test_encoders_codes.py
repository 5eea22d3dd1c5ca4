"""Words and codes: equal to their definition in plain numpy, with and without the model for queries."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.encoders import open_encoder
from retrieval.encoders.codes.book import CONFIG, NAMES, TENSORS, CodeBook
from retrieval.encoders.codes.words import ENGLISH, IDF_DOCUMENTS, bucket, document_words, idf_of
from retrieval.encoders.transformer.tokens import Tokenizer
from retrieval.errors import ConfigError, CorruptError, IncompatibleError
from retrieval.values import Document, Sparse

TEXTS = [
    "the cat and the dog saw a cat",
    "river mountain fish",
    "",
    "of the",
    "slow red bird " * 3,
    "query engine xylophone",
]
DOCUMENTS = [Document(str(i), text, "big bird" if i == 1 else "") for i, text in enumerate(TEXTS)]


def codes(folder: Path, **options: Any) -> Any:
    return open_encoder({"family": "codes", "model": str(folder), "options": {"dtype": "float32"} | options})


def rows_of(found: Sparse) -> list[dict[int, float]]:
    return [
        dict(zip(found.indices[low:high].tolist(), found.values[low:high].tolist(), strict=True))
        for low, high in zip(found.indptr[:-1], found.indptr[1:], strict=True)
    ]


def part(row: dict[int, float], low: int, high: int) -> dict[int, float]:
    return {term: value for term, value in row.items() if low <= term < high}


def assert_same(got: dict[int, float], want: dict[int, float]) -> None:
    assert got.keys() == want.keys()
    for term, value in want.items():
        assert got[term] == pytest.approx(value, rel=1e-3, abs=1e-4)


def hidden(tiny_bert: Path, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Word pieces and last hidden states of a text, by sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(tiny_bert), device="cpu")
    states = model.encode([text], output_value="token_embeddings")[0].numpy()
    return Tokenizer(tiny_bert, 32)([text]).ids[0], states


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def strongest(book: CodeBook, states: np.ndarray, keep: int) -> dict[int, float]:
    pooled = unit(states.mean(axis=0))
    z = np.maximum((pooled - book.feature_mean) @ book.features.T + book.feature_bias, 0)
    top = np.argsort(-z, kind="stable")[:keep]
    values = z[top] / np.linalg.norm(z[top])
    return {
        book.first_feature + int(term): float(value)
        for term, value in zip(top, values, strict=True)
        if value > 0
    }


def cosines(book: CodeBook, pieces: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """idf of the pieces that count and their cosines with all codes."""
    counted = book.piece_idf[pieces] > 0
    vectors = unit(unit(states[counted]) @ book.projection.astype(np.float32))
    return book.piece_idf[pieces[counted]].astype(np.float32), vectors @ book.codes.astype(np.float32).T


def test_a_documents_codes_and_features_are_those_of_the_definition(tiny_codes: Path, tiny_bert: Path):
    book, found = CodeBook.load(tiny_codes), rows_of(codes(tiny_codes).encode_documents(DOCUMENTS))
    for document, row in zip(DOCUMENTS, found, strict=True):
        if not document.contents():
            assert row == {}
            continue
        pieces, states = hidden(tiny_bert, document.contents())
        idf, similar = cosines(book, pieces, states)
        best: dict[int, tuple[float, float]] = {}
        for weight, line in zip(idf, similar, strict=True):
            code, cosine = int(line.argmax()), float(line.max())
            if cosine > 0:
                old = best.get(code, (0.0, 0.0))
                best[code] = (max(old[0], cosine), max(old[1], cosine * float(weight)))
        kept = sorted(best, key=lambda code: (-best[code][1], code))[: book.settings.document_codes]
        want = {book.first_code + code: best[code][0] for code in kept}
        assert_same(part(row, book.first_code, book.first_feature), want)
        assert_same(
            part(row, book.first_feature, book.dim),
            strongest(book, states, book.settings.document_features),
        )


def test_a_long_text_is_read_in_windows(tiny_codes: Path):
    words = ("cat dog river mountain fish search old red " * 8).split()
    halves = [" ".join(words[:32]), " ".join(words[32:])]
    ours, book = codes(tiny_codes, window=40), CodeBook.load(tiny_codes)
    alone = codes(tiny_codes, window=0, max_length=60)
    documents = [Document("0", halves[1]), Document("1", " ".join(words)), Document("2", "")]
    short, whole, empty = rows_of(ours.encode_documents(documents))
    assert empty == {} and ours.tally.n_truncated == 0
    apart = rows_of(alone.encode_documents([Document("1", half) for half in halves]))
    assert_same(short, apart[1])
    nearest = {term: max(row.get(term, 0) for row in apart) for row in apart for term in row}
    union = part(nearest, book.first_code, book.first_feature)
    assert 1 < len(union) <= book.settings.document_codes
    assert_same(part(whole, book.first_code, book.first_feature), union)
    assert_same(part(whole, book.first_feature, book.dim), strongest_of(nearest, book, 4))
    (asked,) = rows_of(ours.encode_queries([" ".join(words)]))
    apart = rows_of(alone.encode_queries(halves))
    added = {term: sum(row.get(term, 0) for row in apart) for row in apart for term in row}
    assert_same(part(asked, 0, book.first_feature), part(added, 0, book.first_feature))
    nearest = {term: max(row.get(term, 0) for row in apart) for row in apart for term in row}
    kept = strongest_of(nearest, book, book.settings.query_features)
    assert_same(
        part(asked, book.first_feature, book.dim),
        {term: value * book.settings.feature_weight for term, value in kept.items()},
    )


def strongest_of(row: dict[int, float], book: CodeBook, keep: int) -> dict[int, float]:
    """The strongest features of a row, of unit length."""
    features = part(row, book.first_feature, book.dim)
    kept = sorted(features, key=lambda term: -features[term])[:keep]
    length = np.linalg.norm([features[term] for term in kept])
    return {term: features[term] / float(length) for term in kept}


def test_a_querys_codes_are_added_up_over_its_tokens(tiny_codes: Path, tiny_bert: Path):
    book, found = CodeBook.load(tiny_codes), rows_of(codes(tiny_codes).encode_queries(TEXTS))
    chosen = book.settings
    assert found[2] == {}
    for text, row in zip(TEXTS, found, strict=True):
        if not text:
            continue
        pieces, states = hidden(tiny_bert, text)
        want: dict[int, float] = {}
        for weight, line in zip(*cosines(book, pieces, states), strict=True):
            for code in np.argsort(-line, kind="stable")[: chosen.token_codes]:
                above = max(float(line[code]) - chosen.least_cosine, 0) / (1 - chosen.least_cosine)
                value = above**chosen.sharpness * float(weight) ** chosen.rarity * chosen.code_weight
                if value > 0:
                    want[book.first_code + int(code)] = want.get(book.first_code + int(code), 0) + value
        assert_same(part(row, book.first_code, book.first_feature), want)
        features = strongest(book, states, chosen.query_features)
        assert_same(
            part(row, book.first_feature, book.dim),
            {term: value * chosen.feature_weight for term, value in features.items()},
        )


def test_queries_without_the_model_come_from_tables_by_word_piece(tiny_codes: Path, tiny_bert: Path):
    book = CodeBook.load(tiny_codes)
    found = rows_of(codes(tiny_codes, queries="static").encode_queries(TEXTS))
    chosen = book.settings
    for text, row in zip(TEXTS, found, strict=True):
        sums, vector, total = np.zeros(len(book.codes)), np.zeros(32), 0.0
        for piece in Tokenizer(tiny_bert, 32)([text]).ids[0]:
            weight = float(book.piece_idf[piece]) ** chosen.rarity
            np.add.at(
                sums,
                book.static_codes[piece],
                book.static_code_weights[piece].astype(np.float64) * weight,
            )
            signs = np.unpackbits(book.static_signs[piece]).astype(np.float64) * 2 - 1
            vector += weight * float(book.static_scales[piece]) * signs
            total += weight
        want = {
            book.first_code + code: value * chosen.static_code_weight
            for code, value in enumerate(sums.tolist())
            if value > 0
        }
        if total:
            mean = vector / total @ book.static_matrix.astype(np.float64) + book.static_mean
            features = strongest(book, mean[None], chosen.static_features)
            want |= {term: value * chosen.static_feature_weight for term, value in features.items()}
        assert_same(part(row, book.first_code, book.dim), want)


def test_the_tables_keep_the_heaviest_where_there_are_too_many(tiny_codes: Path, tmp_path: Path):
    book = CodeBook.load(tiny_codes)
    few = replace(book, settings=replace(book.settings, static_codes=2, static_features=3))
    few.save(tmp_path)
    text = ["slow red bird river mountain fish"]
    whole, cut = (
        rows_of(codes(folder, queries="static").encode_queries(text))[0] for folder in (tiny_codes, tmp_path)
    )
    all_codes = part(whole, book.first_code, book.first_feature)
    heaviest = sorted(all_codes, key=lambda term: (-all_codes[term], term))[:2]
    assert sorted(part(cut, book.first_code, book.first_feature)) == sorted(heaviest)
    features = part(cut, book.first_feature, book.dim)
    assert len(features) == 3
    norm = sum(value**2 for value in features.values()) ** 0.5
    assert norm == pytest.approx(book.settings.static_feature_weight, rel=1e-4)


def test_words_are_bm25_without_idf_and_queries_bring_it(tiny_codes: Path):
    book = CodeBook.load(tiny_codes)
    encoder, chosen, n_words = codes(tiny_codes), book.settings, len(book.word_idf)
    analyzer = ENGLISH.analyzer
    for document, row in zip(DOCUMENTS, rows_of(encoder.encode_documents(DOCUMENTS)), strict=True):
        terms = analyzer.terms(document.contents())
        length = chosen.k1 * (1 - chosen.b + chosen.b * len(terms) / chosen.words)
        want = {
            bucket(term, n_words): terms.count(term) / (terms.count(term) + length) for term in set(terms)
        }
        assert_same(part(row, 0, book.first_code), want)
    for text, row in zip(TEXTS, rows_of(encoder.encode_queries(TEXTS)), strict=True):
        terms = analyzer.terms(text)
        want = {
            bucket(term, n_words): terms.count(term) * float(book.word_idf[bucket(term, n_words)])
            for term in set(terms)
        }
        assert_same(part(row, 0, book.first_code), want)


def test_words_of_one_bucket_count_as_one_word():
    found = document_words([Document("1", "cat cat dog")], 1, 0.9, 0.4, 3)
    assert found.rows.tolist() == [0] and found.dims.tolist() == [0]
    assert found.values[0] == pytest.approx(3 / (3 + 0.9))


def test_idf_of_a_corpus_is_averaged_with_that_in_general(tiny_codes: Path, tmp_path: Path):
    book, encoder = CodeBook.load(tiny_codes), codes(tiny_codes)
    assert encoder.needs_fit
    fitted = encoder.fit(DOCUMENTS)
    assert not fitted.needs_fit
    cat = bucket("cat", len(book.word_idf))
    df = 1 / len(DOCUMENTS) * IDF_DOCUMENTS
    own = np.log(1 + (IDF_DOCUMENTS - df + 0.5) / (df + 0.5))
    got = rows_of(fitted.encode_queries(["cat"]))[0][cat]
    assert got == pytest.approx((float(book.word_idf[cat]) + own) / 2, rel=1e-3)
    # documents do not depend on it, queries do, and it survives saving
    assert fitted.fingerprints.documents == encoder.fingerprints.documents
    assert fitted.fingerprints.queries != encoder.fingerprints.queries
    fitted.save_state(tmp_path)
    again = encoder.with_state(tmp_path)
    assert again.fingerprints == fitted.fingerprints
    assert rows_of(again.encode_queries(TEXTS)) == rows_of(fitted.encode_queries(TEXTS))
    nothing = encoder.fit([])
    assert rows_of(nothing.encode_queries(TEXTS)) == rows_of(encoder.encode_queries(TEXTS))
    with pytest.raises(ConfigError, match="nothing to save"):
        encoder.save_state(tmp_path)


def test_idf_falls_with_the_share_of_documents():
    idf = idf_of(np.array([0.0, 0.001, 0.5, 1.0]))
    assert (np.diff(idf) < 0).all() and idf[-1] > 0


def test_a_damaged_state_is_refused(tiny_codes: Path, tmp_path: Path):
    encoder = codes(tiny_codes)
    encoder.fit(DOCUMENTS).save_state(tmp_path)
    n_words = len(CodeBook.load(tiny_codes).word_idf)
    np.save(tmp_path / "idf.npy", np.full(n_words, np.nan, dtype=np.float16))
    with pytest.raises(CorruptError, match="idf"):
        encoder.with_state(tmp_path)
    np.save(tmp_path / "idf.npy", np.zeros(3, dtype=np.float16))
    with pytest.raises(IncompatibleError, match=r"3 words.*has 1024"):
        encoder.with_state(tmp_path)


def test_queries_can_be_made_the_other_way_by_the_same_encoder(tiny_codes: Path):
    fitted, opened = codes(tiny_codes).fit(DOCUMENTS), codes(tiny_codes, queries="static").fit(DOCUMENTS)
    static = fitted.with_queries("static")
    assert static.spec["options"] == {"queries": "static"} and static.fingerprints == opened.fingerprints
    assert rows_of(static.encode_queries(TEXTS)) == rows_of(opened.encode_queries(TEXTS))
    assert rows_of(static.with_queries("model").encode_queries(TEXTS)) == rows_of(
        fitted.encode_queries(TEXTS)
    )


def test_many_queries_without_the_model_are_what_each_is_alone(tiny_codes: Path, monkeypatch):
    monkeypatch.setattr("retrieval.encoders.codes.static_queries._TOGETHER", 4)
    monkeypatch.setattr("retrieval.encoders.codes.static_queries._PIECES", 5)
    encoder = codes(tiny_codes, queries="static")
    alone = [rows_of(encoder.encode_queries([text]))[0] for text in TEXTS]
    for got, want in zip(rows_of(encoder.encode_queries(TEXTS)), alone, strict=True):
        assert_same(got, want)


def test_a_query_keeps_its_heaviest_terms(tiny_codes: Path):
    whole = rows_of(codes(tiny_codes).encode_queries(TEXTS))
    for row, cut in zip(whole, rows_of(codes(tiny_codes, query_terms=3).encode_queries(TEXTS)), strict=True):
        want = sorted(row, key=lambda term: (-row[term], term))[:3]
        assert sorted(cut) == sorted(want)


def test_terms_have_names(tiny_codes: Path):
    book, encoder = CodeBook.load(tiny_codes), codes(tiny_codes)
    names, own = encoder.names_in("cats and dogs"), encoder.tokens_of("cats and dogs").tolist()
    assert {names[term] for term in own} == {"cat", "dog"}
    assert names[book.first_code] == "~ 0" and names[book.dim - 1] == "~ 27"
    row = rows_of(encoder.encode_queries(["cats and dogs"]))[0]
    assert row.keys() <= names.keys() and set(own) <= row.keys()


def test_a_book_is_saved_to_the_same_bytes_and_read_back(tiny_codes: Path, tmp_path: Path):
    CodeBook.load(tiny_codes).save(tmp_path)
    for name in (CONFIG, TENSORS, NAMES):
        assert (tmp_path / name).read_bytes() == (tiny_codes / name).read_bytes()


@pytest.mark.parametrize("name", [CONFIG, TENSORS, NAMES])
def test_a_damaged_book_is_refused(name, tiny_codes: Path, tmp_path: Path):
    shutil.copytree(tiny_codes, tmp_path / "book")
    place = tmp_path / "book" / name
    place.write_bytes(place.read_bytes()[:-40])
    with pytest.raises(CorruptError, match="book of codes"):
        codes(tmp_path / "book").encode_queries(["cat"])


def test_a_book_of_another_version_or_model_is_refused(tiny_codes: Path, tmp_path: Path):
    shutil.copytree(tiny_codes, tmp_path / "book")
    settings = json.loads((tmp_path / "book" / CONFIG).read_text())
    (tmp_path / "book" / CONFIG).write_text(json.dumps(settings | {"format": 2}))
    with pytest.raises(CorruptError, match="version"):
        codes(tmp_path / "book")
    (tmp_path / "book" / CONFIG).write_text(json.dumps(settings | {"model_digest": "0" * 64}))
    with pytest.raises(IncompatibleError, match="another model"):
        codes(tmp_path / "book")
    with pytest.raises(ConfigError, match="no book of codes"):
        codes(Path(settings["model"]))


def test_bad_options_are_refused(tiny_codes: Path):
    with pytest.raises(ConfigError, match=r"queries is 'fast'.*model, static"):
        codes(tiny_codes, queries="fast")
    with pytest.raises(ConfigError, match="window is 67"):
        codes(tiny_codes, window=67)
    with pytest.raises(ConfigError, match="max_length is 67"):
        codes(tiny_codes, window=0, max_length=67)


def test_queries_without_the_model_need_no_torch(tiny_codes: Path):
    script = (
        "import sys; from retrieval.encoders import open_encoder; "
        f"e = open_encoder({{'family': 'codes', 'model': {str(tiny_codes)!r}, 'options': {{'queries': 'static'}}}}); "
        "assert len(e.encode_queries(['cat dog']).indices); "
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
