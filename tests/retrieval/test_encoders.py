"""The contract every encoder family keeps, and the hashing family's own promises."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from retrieval.encoders import FAMILIES, family_class, open_encoder, query_value
from retrieval.encoders.hashing import HashingEncoder
from retrieval.errors import ConfigError
from retrieval.values import Dense, Document, MultiSparse, MultiVector, QueryNetwork, Sparse, Terms

TEXTS = ["the cat and the dog", "", "Alpha beta, gamma!", "über 東京 \ud800 \x00", "river " * 300, "dog"]
DOCUMENTS = [Document(str(i), text, "a title" if i % 2 else "") for i, text in enumerate(TEXTS)]

MODELS = ("codes", "dense", "hypencoder", "late", "multivariate", "slim", "sparse")
"""Families of models that read texts up to a length."""

Opener = Callable[[str], Any]


@pytest.fixture(scope="session")
def tiny_splade(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random BERT with a random head for its terms, as a SparseEncoder folder."""
    folder = tmp_path_factory.mktemp("splade") / "model"
    shutil.copytree(tiny_bert, folder)
    tensors = load_file(folder / "model.safetensors")
    width, rng = len(tensors["embeddings.LayerNorm.weight"]), np.random.default_rng(12)
    n_terms = len(tensors["embeddings.word_embeddings.weight"])
    transform = "cls.predictions.transform"
    head = {
        f"{transform}.dense.weight": rng.normal(0, 0.4, (width, width)),
        f"{transform}.dense.bias": np.zeros(width),
        f"{transform}.LayerNorm.weight": np.ones(width),
        f"{transform}.LayerNorm.bias": np.zeros(width),
        "cls.predictions.bias": rng.normal(-5, 2, n_terms),
    }
    tensors |= {name: values.astype(np.float32) for name, values in head.items()}
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text()) | {"architectures": ["BertForMaskedLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modules.json").unlink()  # a plain masked language model gets SPLADE pooling
    (folder / "config_sentence_transformers.json").unlink()
    return folder


@pytest.fixture
def open_family(
    tiny_bert: Path,
    tiny_splade: Path,
    tiny_codes: Path,
    tiny_multivariate: Path,
    tiny_hypencoder: Path,
    embeddings_server: Callable[..., ThreadingHTTPServer],
) -> Iterator[Opener]:
    """A function that opens a small encoder of a family."""
    specs: dict[str, dict[str, Any]] = {
        "codes": {"model": str(tiny_codes), "options": {"dtype": "float32"}},
        "dense": {"model": str(tiny_bert), "options": {"dtype": "float32"}},
        "endpoint": {"model": "tiny"},
        "hashing": {"options": {"dim": 64}},
        "hypencoder": {"model": str(tiny_hypencoder), "options": {"dtype": "float32"}},
        "late": {"model": str(tiny_bert), "options": {"dtype": "float32"}},
        "multivariate": {"model": str(tiny_multivariate), "options": {"dtype": "float32"}},
        "slim": {"model": str(tiny_splade), "options": {"dtype": "float32"}},
        "sparse": {"model": str(tiny_splade), "options": {"dtype": "float32"}},
        "terms": {},
    }

    def opener(family: str) -> Any:
        spec = specs.get(family)
        if spec is None:
            pytest.skip(f"no small example of the family {family}")
        if family == "endpoint":
            spec["options"] = {"base_url": embeddings_server().base_url}
        return open_encoder({"family": family, **spec})

    yield opener


def rows_equal(left: Any, right: Any) -> bool:
    """Equal values, whatever the order of a Terms vocabulary."""
    if isinstance(left, Dense):
        return left.values.shape == right.values.shape and np.allclose(left.values, right.values, atol=1e-5)
    if isinstance(left, QueryNetwork):
        return all(
            one.shape == other.shape and np.allclose(one, other, atol=1e-4)
            for one, other in zip(left.arrays, right.arrays, strict=True)
        )
    if isinstance(left, Sparse):
        return left.dim == right.dim and weights_equal(left, right)
    if isinstance(left, MultiVector):
        alike = np.array_equal(left.indptr, right.indptr) and left.dim == right.dim
        return alike and np.allclose(left.values, right.values, atol=1e-3)
    if isinstance(left, MultiSparse):
        return np.array_equal(left.indptr, right.indptr) and rows_equal(left.tokens, right.tokens)
    assert isinstance(left, Terms)
    return counts(left) == counts(right) and np.array_equal(left.lengths, right.lengths)


def weights_equal(left: Sparse, right: Sparse) -> bool:
    """Equal weights; a term may be missing where its weight is about 0."""
    both = np.zeros((2, len(left), left.dim), dtype=np.float32)
    for weights, rows in zip(both, (left, right), strict=True):
        weights[np.repeat(np.arange(len(rows)), np.diff(rows.indptr)), rows.indices] = rows.values
    return np.allclose(both[0], both[1], atol=1e-4)


def counts(terms: Terms) -> list[dict[tuple[int, str], int]]:
    names = list(zip(terms.term_fields.tolist(), terms.vocabulary, strict=True))
    return [
        {
            names[terms.indices[i]]: int(terms.frequencies[i])
            for i in range(terms.indptr[row], terms.indptr[row + 1])
        }
        for row in range(len(terms))
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_name_in_the_table_resolves(family):
    found = family_class(family)
    assert found.family == family and isinstance(found.value, type)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_row_a_text_in_the_order_of_the_texts(family, open_family: Opener):
    encoder = open_family(family)
    for encode, items in ((encoder.encode_queries, TEXTS), (encoder.encode_documents, DOCUMENTS)):
        whole = encode(items)
        made = encoder.value if items is DOCUMENTS else query_value(encoder)
        assert isinstance(whole, made) and len(whole) == len(items)
        order = [4, 2, 0, 5, 3, 1]
        shuffled = encode([items[i] for i in order])
        for place, row in enumerate(order):
            assert rows_equal(shuffled[place : place + 1], whole[row : row + 1])
        assert len(encode([])) == 0
    if query_value(encoder) is Dense:
        assert encoder.encode_queries(TEXTS).values.dtype == np.float32
        assert np.isfinite(encoder.encode_queries(TEXTS).values).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_spec_survives_json_and_opens_an_equal_encoder(family, open_family: Opener):
    encoder = open_family(family)
    again = open_encoder(json.loads(json.dumps(encoder.spec)))
    assert again.spec == encoder.spec and again.fingerprints == encoder.fingerprints
    if family in MODELS:  # their specs leave the dtype out
        again = open_encoder(again.spec | {"options": again.spec["options"] | {"dtype": "float32"}})
    assert rows_equal(again.encode_documents(DOCUMENTS), encoder.encode_documents(DOCUMENTS))
    for digest in (encoder.fingerprints.documents, encoder.fingerprints.queries):
        assert len(digest) == 64 and int(digest, 16) >= 0


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_are_tallied(family, open_family: Opener):
    encoder = open_family(family)
    before = encoder.tally.snapshot()
    encoder.encode_documents(DOCUMENTS)
    read = encoder.tally.snapshot() - before
    assert read.n_texts == len(DOCUMENTS) and read.n_tokens > 0
    cut = family in MODELS and family not in ("late", "codes")  # these read long texts whole, in windows
    assert read.n_truncated == (1 if cut else 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_eight_threads_give_what_one_gives(family, open_family: Opener):
    encoder = open_family(family)
    want = encoder.encode_documents(DOCUMENTS)
    agreed: list[bool] = []

    def work() -> None:
        agreed.extend(rows_equal(encoder.encode_documents(DOCUMENTS), want) for _ in range(3))

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert agreed == [True] * 24


@pytest.mark.parametrize("family", FAMILIES)
def test_an_unknown_option_is_an_error_that_lists_the_known(family):
    with pytest.raises(ConfigError, match=r"nonsense.*valid: "):
        open_encoder({"family": family, "model": "", "options": {"nonsense": 1}})


def test_a_spec_that_is_none_is_refused():
    for spec in ({}, {"model": "x"}, {"family": "dense", "option": {}}, {"family": "dense", "options": [1]}):
        with pytest.raises(ConfigError, match="not an encoder"):
            open_encoder(spec)
    with pytest.raises(ConfigError, match=r"unknown encoder family 'tense'.*dense"):
        open_encoder({"family": "tense"})


# --- hashing ---------------------------------------------------------------------------------------


def naive(text: str, dim: int, ngrams: int, seed: int) -> np.ndarray:
    """The hashing encoder in plain Python."""
    mask = (1 << 64) - 1

    def mixed(h: int) -> int:
        h ^= h >> 33
        h = h * 0xFF51AFD7ED558CCD & mask
        h ^= h >> 33
        h = h * 0xC4CEB9FE1A85EC53 & mask
        return h ^ (h >> 33)

    words: list[int] = []
    current: int | None = None
    for byte in text.lower().encode("utf-8", "surrogatepass") + b" ":
        if byte >= 128 or chr(byte).isalnum():
            current = 0xCBF29CE484222325 ^ seed if current is None else current
            current = (current ^ byte) * 0x100000001B3 & mask
        elif current is not None:
            words.append(current)
            current = None
    vector = np.zeros(dim)
    for end in range(len(words)):
        joined = 0
        for i in range(min(ngrams, end + 1)):
            joined = (joined * 0x100000001B3 + words[end - i]) & mask
            h = mixed((joined + i) & mask)
            vector[(h & (mask >> 1)) % dim] += 1 if h >> 63 else -1
    norm = np.linalg.norm(vector)
    return (vector / norm if norm else vector).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(max_size=60), max_size=6),
    dim=st.integers(1, 70),
    ngrams=st.integers(1, 4),
    seed=st.integers(0, 2**64 - 1),
)
def test_hashing_equals_its_definition(texts, dim, ngrams, seed):
    got = HashingEncoder(dim, ngrams, seed).encode_queries(texts).values
    assert got.shape == (len(texts), dim)
    for row, text in zip(got, texts, strict=True):
        np.testing.assert_allclose(row, naive(text, dim, ngrams, seed), atol=1e-6)


def test_hashing_gives_the_same_bytes_in_another_process():
    code = "from retrieval.encoders.hashing import HashingEncoder as H; import sys;"
    code += "sys.stdout.write(H(32, 2, 5).encode_queries(['the cat and the dog']).values.tobytes().hex())"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    here = HashingEncoder(32, 2, 5).encode_queries(["the cat and the dog"]).values.tobytes().hex()
    assert other.stdout == here
    assert here == naive("the cat and the dog", 32, 2, 5).tobytes().hex()


def test_texts_that_share_words_are_nearer():
    vectors = HashingEncoder(512).encode_queries(["red river mountain", "red river boat", "blue cat"]).values
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near > 0.5 > abs(far)


def test_hashing_refuses_impossible_options():
    for options in ({"dim": 0}, {"ngrams": 9}, {"seed": -1}, {"dim": 2.5}, {"seed": 2**64}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            open_encoder({"family": "hashing", "options": options})
    with pytest.raises(ConfigError, match="no models"):
        open_encoder({"family": "hashing", "model": "x"})
