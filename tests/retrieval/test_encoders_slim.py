"""The slim encoder against the logits of transformers on random checkpoints."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.encoders import open_encoder
from retrieval.encoders.slim import SlimEncoder
from retrieval.encoders.surrogates import valid_text
from retrieval.encoders.transformer import masked_language
from retrieval.errors import ConfigError, CorruptError
from retrieval.values import Document, MultiSparse

TEXTS = [
    "the cat and the dog",
    "",
    "Alpha, beta; gamma!",
    "search engine index of vectors in a document " * 20,
    "a",
    "Éléphant über naïve 東京 \U0001f600 \ud800",
] + [f"query {i} {'river ' * (i % 9)}dog" for i in range(12)]
DOCUMENTS = [Document(str(i), text, "red fish" if i % 2 else "") for i, text in enumerate(TEXTS)]

KINDS: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {"kind": "roberta", "max_position_embeddings": 40},
    "distilbert": {"kind": "distilbert", "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
}


@pytest.fixture(scope="module")
def make_model(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Any:
    """A function that saves a random masked language model and returns its folder."""
    made: dict[str, Path] = {}

    def make(kind: str = "bert", **changes: Any) -> Path:
        key = json.dumps([kind, changes])
        if key not in made:
            made[key] = save_model(tmp_path_factory.mktemp("masked"), make_checkpoint(), kind, changes)
        return made[key]

    return make


def save_model(folder: Path, dense: Path, kind: str, changes: dict[str, Any]) -> Path:
    import torch
    from transformers import AutoConfig, AutoModelForMaskedLM

    sizes = json.loads((dense / "config.json").read_text())
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    names += ("max_position_embeddings", "initializer_range", "pad_token_id")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(11)
        config = AutoConfig.for_model(kind, **{name: sizes[name] for name in names} | changes)
        model = AutoModelForMaskedLM.from_config(config)
        bias = next(value for _, value in model.named_parameters() if value.shape == (config.vocab_size,))
        torch.nn.init.normal_(bias, -3.0, 2.0)  # many terms get no weight
        model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(dense / name, folder / name)
    return folder


def open_slim(folder: Path, **options: Any) -> SlimEncoder:
    return open_encoder(
        {"family": "slim", "model": str(folder), "options": {"dtype": "float32", "device": "cpu", **options}}
    )


def weights_by_transformers(folder: Path, texts: list[str], max_length: int = 32) -> list[np.ndarray]:
    """(L - 1, V) for each text: log(1 + relu(logit)) of every token but the first."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForMaskedLM

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForMaskedLM.from_pretrained(folder).eval()
    made = []
    with torch.no_grad():
        for text in texts:
            ids = tokenizer.encode(valid_text(text)).ids
            logits = model(input_ids=torch.tensor([ids])).logits[0, 1:]
            made.append(torch.log1p(torch.relu(logits)).numpy())
    return made


def assert_heaviest(found: MultiSparse, want: list[np.ndarray], keep: int) -> None:
    """Each token has its heaviest terms, up to those that differ by rounding."""
    assert len(found) == len(want)
    for row, weights in enumerate(want):
        tokens = found[row : row + 1].tokens
        assert len(tokens) == len(weights)
        for token, line in enumerate(weights):
            mine = tokens[token : token + 1]
            assert (np.diff(mine.indices) > 0).all()
            n = min(keep, int((line > 1e-4).sum()))
            assert n <= len(mine.values) <= keep
            np.testing.assert_allclose(mine.values, line[mine.indices], atol=1e-4)
            np.testing.assert_allclose(np.sort(mine.values)[::-1][:n], np.sort(line)[::-1][:n], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [1, 5, 1000])
def test_vectors_are_the_heaviest_terms_of_transformers(make_model, kind, keep):
    folder = make_model(**KINDS[kind])
    encoder = open_slim(folder, terms_per_token=keep)
    queries = encoder.encode_queries(TEXTS)
    assert queries.tokens.values.dtype == np.float32 and queries.dim == encoder.dim
    assert_heaviest(queries, weights_by_transformers(folder, TEXTS), keep)
    contents = [document.contents() for document in DOCUMENTS]
    assert_heaviest(encoder.encode_documents(DOCUMENTS), weights_by_transformers(folder, contents), keep)


def test_slices_of_tokens_do_not_change_vectors(make_model, monkeypatch):
    folder = make_model()
    whole = open_slim(folder).encode_queries(TEXTS)
    monkeypatch.setattr(masked_language, "SLICE", 7)
    sliced = open_slim(folder).encode_queries(TEXTS)
    assert np.array_equal(whole.tokens.indices, sliced.tokens.indices)
    np.testing.assert_allclose(whole.tokens.values, sliced.tokens.values, atol=1e-5)


def test_of_equal_weights_those_of_lower_id_stay(make_model):
    import torch

    engine = open_slim(make_model())._loaded()
    logits = torch.tensor([[0.0, 3.0, 1.0, 3.0, 3.0, 1.0], [-1.0, -2.0, 0.0, -1.0, -1.0, -1.0]])
    kept = engine._terms(logits, 2)
    assert kept.indices.tolist() == [1, 3] and kept.indptr.tolist() == [0, 2, 2]
    assert kept.values.tolist() == pytest.approx([np.log(4.0)] * 2)
    assert engine._terms(logits, 4).indices.tolist() == [1, 2, 3, 4]
    assert engine._terms(logits, 99).indices.tolist() == [1, 2, 3, 4, 5]


def test_queries_may_keep_fewer_terms_and_have_their_own_fingerprint(make_model):
    folder = make_model()
    usual, fewer = open_slim(folder), open_slim(folder, query_terms_per_token=2)
    assert int(np.diff(usual.encode_queries(TEXTS).tokens.indptr).max()) > 2
    assert int(np.diff(fewer.encode_queries(TEXTS).tokens.indptr).max()) == 2
    assert int(np.diff(fewer.encode_documents(DOCUMENTS).tokens.indptr).max()) > 2
    assert fewer.fingerprints.documents == usual.fingerprints.documents
    assert fewer.fingerprints.queries != usual.fingerprints.queries
    assert fewer.spec["options"] == {"query_terms_per_token": 2} and usual.spec["options"] == {}
    shorter = open_slim(folder, max_length=8)
    assert shorter.fingerprints.documents != usual.fingerprints.documents
    assert int(np.diff(shorter.encode_documents(DOCUMENTS).indptr).max()) == 7


def test_tokens_are_named_one_for_each_vector(make_model):
    encoder = open_slim(make_model())
    assert encoder.query_tokens("The cat dogx") == ["The", "cat", "dog", "x", "[SEP]"]
    document = Document("d", "a slow bird " * 20, "red fish")
    tokens = encoder.document_tokens(document)
    assert len(tokens) == len(encoder.encode_documents([document]).tokens) == 31
    assert tokens[:4] == [("red", -1, -1), ("fish", -1, -1), ("a", 0, 1), ("slow", 2, 6)]
    assert tokens[-1] == ("[SEP]", -1, -1)
    for token, start, end in tokens[2:-1]:
        assert document.text[start:end] == token


def test_terms_have_names(make_model):
    encoder = open_slim(make_model())
    assert len(encoder.vocabulary) == encoder.dim
    assert [encoder.vocabulary[int(term)] for term in encoder.tokens_of("dog cat dog")] == ["cat", "dog"]


def test_texts_are_read_up_to_the_maximum_length_and_counted(make_model):
    encoder = open_slim(make_model())
    encoder.encode_queries(["river " * 100, "dog"])
    assert (encoder.tally.n_texts, encoder.tally.n_tokens, encoder.tally.n_truncated) == (2, 32 + 3, 1)
    with pytest.raises(ConfigError, match="reads at most 66 tokens"):
        open_slim(make_model(), max_length=67)


def test_models_without_a_head_that_runs_here_are_refused(tiny_bert, tmp_path):
    with pytest.raises(ConfigError, match="no default model"):
        open_encoder({"family": "slim"})
    with pytest.raises(ConfigError, match="dense model"):
        open_slim(tiny_bert)
    (tmp_path / "config.json").write_text('{"model_type": "albert", "architectures": ["AlbertForMaskedLM"]}')
    with pytest.raises(ConfigError, match="not one masked language model"):
        open_slim(tmp_path)


@pytest.mark.parametrize("weight", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_damage(make_model, tmp_path, weight):
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(make_model(), folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["cls.predictions.bias"][5] = weight
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CorruptError, match="not finite"):
        open_slim(folder).encode_queries(["dog"])
