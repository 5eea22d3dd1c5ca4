"""What is kept of the vectors of documents, against sentence-transformers' own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from indexing.progress import Silent
from retrieval.encoders.transformer.checkpoint import read_checkpoint
from training.codes.reader import Reader
from training.codes.vectors import Sampling, see_documents, see_pieces, see_texts


@pytest.fixture
def reader(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    monkeypatch.setattr("training.codes.reader.choose_dtype", lambda device: "float32")
    return Reader.open(read_checkpoint(tiny_bert), 32)


@pytest.fixture
def model(tiny_bert: Path) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_bert), device="cpu")


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def states_of(model: SentenceTransformer, texts: list[str]) -> list[np.ndarray]:
    return [states.numpy() for states in model.encode(texts, output_value="token_embeddings")]


def test_sums_of_unit_token_vectors_and_pooled_vectors_are_the_models(
    reader: Reader, model: SentenceTransformer, texts: list[str]
) -> None:
    ids = reader.tokenizer(texts).ids
    n_pieces = len(reader.bert.words)
    everything = Sampling(tokens=10_000, windows=2)
    seen = see_documents(
        reader, ids, np.ones(n_pieces, dtype=np.bool_), everything, np.random.default_rng(0), Silent()
    )
    states = states_of(model, texts)
    sums = np.zeros((n_pieces, 32))
    for own, vectors in zip(ids, states, strict=True):
        np.add.at(sums, own, unit(vectors))
    np.testing.assert_allclose(seen.sums, sums, atol=1e-4)
    assert seen.counts.sum() == len(seen.tokens) == sum(map(len, ids))
    every = np.concatenate([unit(vectors) for vectors in states])
    np.testing.assert_allclose(seen.tokens.astype(np.float32), every, atol=2e-3)
    pooled = seen.pooled.reshape(len(texts), 3, 32).astype(np.float32)
    want = model.encode(texts)
    np.testing.assert_allclose(pooled[:, 0], want, atol=2e-3)
    np.testing.assert_allclose(see_texts(reader, ids, Silent()).astype(np.float32), want, atol=2e-3)


def test_windows_are_means_over_tokens_that_stand_together(
    reader: Reader, model: SentenceTransformer
) -> None:
    texts = ["river mountain search engine index vector query cat dog bird fish " * 2, "cat"]
    ids = reader.tokenizer(texts).ids
    none = np.zeros(len(reader.bert.words), dtype=np.bool_)
    seen = see_documents(reader, ids, none, Sampling(5, windows=6), np.random.default_rng(0), Silent())
    assert len(seen.tokens) == 0
    windows = seen.pooled.reshape(2, 7, 32)[:, 1:].astype(np.float32)
    long, short = states_of(model, texts)
    spans = [
        unit(long[start : start + length].mean(axis=0))
        for length in range(8, len(long) + 1)
        for start in range(len(long) - length + 1)
    ]
    for window in windows[0]:
        assert np.abs(np.stack(spans) - window).max(axis=1).min() < 2e-3
    np.testing.assert_allclose(windows[1], np.tile(unit(short.mean(axis=0)), (6, 1)), atol=2e-3)


def test_rare_pieces_are_sampled_more_often(reader: Reader) -> None:
    texts = ["cat cat cat cat cat cat cat cat cat cat cat cat cat cat cat dog"] * 40
    ids = reader.tokenizer(texts).ids
    cat, dog = (int(reader.tokenizer([word]).ids[0][1]) for word in ("cat", "dog"))
    telling = np.zeros(len(reader.bert.words), dtype=np.bool_)
    telling[[cat, dog]] = True
    own = np.concatenate(ids)
    vectors = {}
    for rarity in (0.0, 1.0):
        rng = np.random.default_rng(0)
        seen = see_documents(reader, ids, telling, Sampling(60, rarity, windows=1), rng, Silent())
        near = seen.tokens.astype(np.float32) @ unit(seen.sums[[cat, dog]]).T
        vectors[rarity] = int((near.argmax(axis=1) == 1).sum())
    assert (own == dog).sum() == 40
    assert vectors[0.0] < 15 < vectors[1.0]


def test_a_piece_alone_is_a_text_of_its_own(reader: Reader, model: SentenceTransformer) -> None:
    pooled, tokens = see_pieces(reader, len(reader.bert.words))
    for word in ("river", "cat"):
        piece = int(reader.tokenizer([word]).ids[0][1])
        np.testing.assert_allclose(pooled[piece], model.encode([word])[0], atol=1e-5)
        np.testing.assert_allclose(tokens[piece], unit(states_of(model, [word])[0][1]), atol=1e-5)
