"""The sparse encoder against SparseEncoder of sentence-transformers on random checkpoints."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.compute import set_threads
from retrieval.encoders import open_encoder
from retrieval.encoders.sparse import SparseEncoder
from retrieval.encoders.sparse_rows import heaviest, sparse_rows
from retrieval.errors import ConfigError, CorruptError, FormatError
from retrieval.values import Document, Sparse

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
DOCUMENTS = [Document(str(i), text) for i, text in enumerate(TEXTS)]

KINDS: dict[str, dict[str, Any]] = {
    "bert-max": {},
    "bert-sum": {"pooling": "sum"},
    "bert-two-logarithms": {"activation": "log1p_relu"},
    "bert-sum-two-logarithms": {"pooling": "sum", "activation": "log1p_relu"},
    "bert-relu": {"hidden_act": "relu"},
    "bert-untied": {"tie_word_embeddings": False},
    "bert-plain": {"layout": "plain"},
    "bert-old-module": {"layout": "old"},
    "roberta": {"kind": "roberta", "max_position_embeddings": 40},
    "xlm-roberta": {"kind": "xlm-roberta", "pad_token_id": 0, "pooling": "sum"},
    "distilbert": {"kind": "distilbert", "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    "router": {"layout": "router"},
    "router-of-two-models": {"layout": "towers"},
    "router-over-the-root": {"layout": "root"},
}
OTHERS: dict[str, dict[str, Any]] = {
    "albert": {"kind": "albert", "embedding_size": 16},
    "csr": {"layout": "csr"},
    "router-with-rules": {"layout": "rules"},
    "router-to-albert": {"layout": "router", "kind": "albert", "embedding_size": 16},
    "router-of-two-alberts": {"layout": "towers", "kind": "albert", "embedding_size": 16},
}


@pytest.fixture(scope="module")
def make_sparse(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Any:
    """A function that saves a random SparseEncoder and returns its folder."""
    made: dict[str, Path] = {}

    def make(kind: str = "bert", layout: str = "splade", **options: Any) -> Path:
        key = json.dumps([kind, layout, options])
        if key not in made:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made[key] = save_sparse(tmp_path_factory, make_checkpoint(), kind, layout, **options)
        return made[key]

    return make


def save_sparse(
    folders: pytest.TempPathFactory,
    dense: Path,
    kind: str,
    layout: str,
    pooling: str = "max",
    activation: str = "relu",
    prompts: dict[str, str] | None = None,
    max_active_dims: int | None = None,
    **changes: Any,
) -> Path:
    import torch
    from sentence_transformers import SparseEncoder as Reference
    from sentence_transformers.sentence_transformer.modules import Pooling
    from sentence_transformers.sparse_encoder.modules import (
        Router,
        SparseAutoEncoder,
        SparseStaticEmbedding,
        SpladePooling,
        Transformer,
    )
    from transformers import AutoConfig, AutoModelForMaskedLM

    plain, folder = folders.mktemp("masked"), folders.mktemp("sparse")
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    names += ("max_position_embeddings", "initializer_range", "pad_token_id")
    sizes = json.loads((dense / "config.json").read_text())
    config = {name: sizes[name] for name in names} | changes
    copy_tokenizer(dense, plain, config["vocab_size"])
    torch.manual_seed(11)
    model = AutoModelForMaskedLM.from_config(AutoConfig.for_model(kind, **config))
    bias = next(value for name, value in model.named_parameters() if value.shape == (config["vocab_size"],))
    torch.nn.init.normal_(bias, -5.0, 2.0)  # most terms get no weight
    model.save_pretrained(plain)
    if layout == "plain":
        return plain
    task = "feature-extraction" if layout == "csr" else "fill-mask"
    transformer = Transformer(str(plain), transformer_task=task)
    modules = [transformer, SpladePooling(pooling, activation_function=activation)]
    if layout == "csr":
        modules = [transformer, Pooling(32, "mean"), SparseAutoEncoder(32, 64, k=8)]
        torch.nn.init.normal_(modules[-1].latent_bias)
    if layout == "towers":
        queries = [Transformer(str(plain), transformer_task=task), SpladePooling("sum")]
        modules = [Router.for_query_document(queries, modules)]
    if layout in ("router", "rules", "root"):
        weight = torch.rand(config["vocab_size"])
        weight[7] = 0
        table = SparseStaticEmbedding(transformer.tokenizer, weight=weight)
        router = Router.for_query_document([table], modules)
        if layout == "rules":
            router.route_mappings = {("query", "text"): "document", ("document", "text"): "document"}
        modules = [router]
    reference = Reference(modules=modules, prompts=prompts, max_active_dims=max_active_dims, device="cpu")
    reference.save(str(folder))
    if layout == "root":  # as models of OpenSearch are stored
        for path in (folder / "document_0_Transformer").iterdir():
            path.rename(folder / path.name)
        router_config = folder / "router_config.json"
        router_config.write_text(router_config.read_text().replace("document_0_Transformer", ""))
    if layout == "old":
        listed = json.loads((folder / "modules.json").read_text())
        listed[0]["type"] = "sentence_transformers.sparse_encoder.models.MLMTransformer"
        (folder / "modules.json").write_text(json.dumps(listed))
        (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 32, "do_lower_case": false}')
    return folder


def copy_tokenizer(source: Path, target: Path, n_terms: int) -> None:
    """With a token for every id: a static embedding has as many weights as there are tokens."""
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    for missing in set(range(n_terms)) - set(vocabulary.values()):
        vocabulary[f"[unused{missing}]"] = missing
    (target / "tokenizer.json").write_text(json.dumps(tokenizer))
    shutil.copy(source / "tokenizer_config.json", target)


def reference(folder: Path, task: str, texts: list[str], **options: Any) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SparseEncoder as Reference

        model = Reference(str(folder), device="cpu", local_files_only=True)
        clean = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts]
        encode = model.encode_query if task == "query" else model.encode_document
        return encode(clean, convert_to_sparse_tensor=False, show_progress_bar=False, **options).numpy()


def opened(folder: Path, **options: Any) -> SparseEncoder:
    return SparseEncoder.open(str(folder), {"dtype": "float32", "device": "cpu", **options})


def dense(rows: Sparse) -> np.ndarray:
    out = np.zeros((len(rows), rows.dim), dtype=np.float32)
    out[np.repeat(np.arange(len(rows)), np.diff(rows.indptr)), rows.indices] = rows.values
    return out


def assert_well_formed(rows: Sparse) -> None:
    assert (rows.indptr.dtype, rows.indices.dtype, rows.values.dtype) == (np.int64, np.int32, np.float32)
    assert (rows.values > 0).all() and np.isfinite(rows.values).all()
    for start, stop in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        assert (np.diff(rows.indices[start:stop]) > 0).all()
    assert not len(rows.indices) or (rows.indices.min() >= 0 and rows.indices.max() < rows.dim)


def assert_equal(rows: Sparse, want: np.ndarray) -> None:
    """The same weights within 1e-3, and the same terms but for weights about 0."""
    assert_well_formed(rows)
    got = dense(rows)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, atol=1e-3, rtol=1e-3)
    differ = (got > 0) != (want > 0)
    assert (np.maximum(got, want)[differ] < 1e-3).all()
    assert 0 < (want > 0).mean() < 0.9  # else the comparison would say little


@pytest.mark.parametrize("kind", [*KINDS, *OTHERS])
def test_weights_equal_those_of_sentence_transformers(kind, make_sparse):
    folder = make_sparse(**(KINDS | OTHERS)[kind])
    encoder = opened(folder)
    assert encoder.runs_directly == (kind in KINDS)
    assert_equal(encoder.encode_queries(TEXTS), reference(folder, "query", TEXTS))
    assert_equal(encoder.encode_documents(DOCUMENTS), reference(folder, "document", TEXTS))
    assert encoder.dim == encoder.encode_queries(TEXTS[:1]).dim
    routes = {encoder.routes.query.types, encoder.routes.document.types}
    assert len(encoder._engines) == (1 if len(routes) == 1 and kind != "router-of-two-models" else 2)


@pytest.mark.parametrize("kind", ["bert-max", "bert-sum", "csr"])
def test_bfloat16_stays_close(kind, make_sparse):
    folder = make_sparse(**(KINDS | OTHERS)[kind])
    got = dense(opened(folder, dtype="bfloat16").encode_documents(DOCUMENTS))
    want = reference(folder, "document", TEXTS)
    cosines = (got * want).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(want, axis=1)
    assert np.median(cosines) > 0.99 and cosines.min() > 0.8  # random weights amplify every rounding


def test_prompts_and_titles_stand_before_texts(make_sparse):
    for layout in ("splade", "router"):
        folder = make_sparse(layout=layout, prompts={"query": "search: ", "document": "document: "})
        encoder = opened(folder)
        assert_equal(encoder.encode_queries(TEXTS), reference(folder, "query", TEXTS))
        documents = [Document("1", "dog", "cat"), Document("2", "bird")]
        want = reference(folder, "document", ["cat dog", "bird"])
        assert_equal(encoder.encode_documents(documents), want)


def test_the_checkpoints_limit_of_terms_holds_unless_another_is_given(make_sparse):
    folder = make_sparse(max_active_dims=5)
    encoder = opened(folder)
    assert encoder.max_active_dims == 5
    got = encoder.encode_documents(DOCUMENTS)
    np.testing.assert_allclose(dense(got), reference(folder, "document", TEXTS), atol=1e-3)
    assert np.diff(got.indptr).max() == 5
    wider = opened(folder, max_active_dims=9).encode_queries(TEXTS)
    want = reference(folder, "query", TEXTS, max_active_dims=9)
    np.testing.assert_allclose(dense(wider), want, atol=1e-3)


@pytest.mark.parametrize("kind", ["bert-max", "router", "csr"])
def test_terms_of_queries_and_documents_are_limited_apart(kind, make_sparse):
    folder = make_sparse(**(KINDS | OTHERS)[kind])
    whole, few = opened(folder), opened(folder, query_terms=2, document_terms=4)
    pairs = [
        (whole.encode_queries(TEXTS), few.encode_queries(TEXTS), 2),
        (whole.encode_documents(DOCUMENTS), few.encode_documents(DOCUMENTS), 4),
    ]
    for everything, kept, k in pairs:
        assert_well_formed(kept)
        want = heaviest(everything, k)
        assert kept.indptr.tolist() == want.indptr.tolist()
        assert kept.indices.tolist() == want.indices.tolist()
        np.testing.assert_allclose(kept.values, want.values, rtol=1e-5)


@given(st.data())
def test_the_heaviest_terms_are_those_that_sorting_finds(data):
    n, dim, keep = data.draw(st.integers(0, 6)), data.draw(st.integers(1, 8)), data.draw(st.integers(1, 9))
    weights = np.array(
        data.draw(st.lists(st.lists(st.integers(-1, 3), min_size=dim, max_size=dim), min_size=n, max_size=n)),
        dtype=np.float32,
    ).reshape(n, dim)
    rows = sparse_rows(weights, keep, Path("model"))
    assert_well_formed(rows)
    for row in range(n):
        order = sorted((-weight, term) for term, weight in enumerate(weights[row]) if weight > 0)[:keep]
        want = sorted((term, -negative) for negative, term in order)
        start, stop = rows.indptr[row], rows.indptr[row + 1]
        assert list(zip(rows.indices[start:stop], rows.values[start:stop], strict=True)) == want


def test_a_vector_does_not_depend_on_its_neighbours(make_sparse):
    encoder = opened(make_sparse())
    together = dense(encoder.encode_queries(TEXTS))
    order = np.random.default_rng(0).permutation(len(TEXTS))
    shuffled = encoder.encode_queries([TEXTS[i] for i in order])
    alone = Sparse.concat([encoder.encode_queries([text]) for text in TEXTS])
    np.testing.assert_allclose(dense(shuffled), together[order], atol=1e-4)
    np.testing.assert_allclose(dense(alone), together, atol=1e-4)


def test_batches_on_several_cores_keep_the_order(make_sparse):
    encoder = opened(make_sparse())
    want = dense(encoder.encode_documents(DOCUMENTS))
    set_threads(2)
    try:
        got = dense(encoder.encode_documents(DOCUMENTS))
    finally:
        set_threads(None)
    np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize("pooling", ["max", "sum"])
def test_padding_and_slices_change_nothing_and_slices_bound_the_logits(pooling, make_sparse, monkeypatch):
    from retrieval.encoders.transformer import direct, masked_language

    engine = opened(make_sparse(pooling=pooling))._loaded("document")
    shapes: list[tuple[int, ...]] = []

    def recording(hidden: Any) -> Any:
        logits = engine.head.decoder(hidden)
        shapes.append(tuple(logits.shape))
        return logits

    def encoded(slice_tokens: int) -> np.ndarray:
        head = replace(engine.head, decoder=recording, slice_tokens=slice_tokens)
        ids = sorted(engine.tokenizer(TEXTS).ids, key=len, reverse=True)
        return dense(replace(engine, head=head)._forward(ids, None))

    whole = encoded(100_000)
    assert len(shapes) == 1 and shapes[0][0] > 400
    for slice_tokens in (1, 7, 40):
        shapes.clear()
        np.testing.assert_allclose(encoded(slice_tokens), whole, atol=1e-4)
        assert max(rows for rows, _ in shapes) <= slice_tokens
    assert engine.head.slice_tokens == masked_language.SLICE == 256
    monkeypatch.setattr(masked_language, "lay_out", direct._padded)
    np.testing.assert_allclose(encoded(40), whole, atol=1e-4)


def test_slices_are_of_one_size_and_together_make_up_the_texts():
    from retrieval.encoders.transformer.masked_language import cut_pieces

    rng = np.random.default_rng(5)
    for _ in range(50):
        lengths = rng.integers(1, 80, rng.integers(0, 30)).tolist()
        slices = cut_pieces(lengths, 32)
        assert all(sum(pieces) == 32 for pieces, _ in slices[:-1])
        found, begun = [], 0
        for pieces, complete in slices:
            assert complete in (len(pieces), len(pieces) - 1) and min(pieces) > 0
            for number, piece in enumerate(pieces):
                begun += piece
                if number < complete:
                    found.append(begun)
                    begun = 0
        assert found == lengths and not begun
    assert cut_pieces([300, 2, 2, 300], 256) == [([256], 0), ([44, 2, 2, 208], 3), ([92], 1)]


@pytest.mark.parametrize("layout", ["splade", "router", "csr"])
def test_no_texts_give_no_vectors_of_the_right_width(layout, make_sparse):
    encoder = opened(make_sparse(layout=layout))
    width = 64 if layout == "csr" else 113
    for rows in (encoder.encode_queries([]), encoder.encode_documents([])):
        assert len(rows) == 0 and rows.dim == width
    assert encoder.dim == width and encoder.tally.n_texts == 0 and not encoder._engines


@pytest.mark.parametrize("layout", ["splade", "router"])
def test_threads_can_share_an_encoder(layout, make_sparse):
    encoder = opened(make_sparse(layout=layout))
    want = dense(encoder.encode_queries(TEXTS))
    wrong: list[str] = []

    def work(first: int) -> None:
        for i in range(first, first + 20):
            rows = [(i + j) % len(TEXTS) for j in range(i % 5 + 1)]
            got = dense(encoder.encode_queries([TEXTS[row] for row in rows]))
            if not np.allclose(got, want[rows], atol=1e-4):
                wrong.append(f"{rows}")

    workers = [threading.Thread(target=work, args=(7 * i,)) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.parametrize("kind", ["bert-max", "router", "csr"])
def test_a_maximum_length_is_respected_and_counted(kind, make_sparse):
    folder = make_sparse(**(KINDS | OTHERS)[kind])
    encoder = opened(folder, max_length=8)
    texts = ["cat dog bird", "cat dog bird fish red green blue old new", "cat dog bird fish red green"]
    cut = ["cat dog bird", "cat dog bird fish red green", "cat dog bird fish red green"]
    got = encoder.encode_documents([Document(str(i), text) for i, text in enumerate(texts)])
    np.testing.assert_allclose(dense(got), reference(folder, "document", cut), atol=1e-3)
    reading = encoder.tally.snapshot()
    assert (reading.n_texts, reading.n_tokens, reading.n_truncated) == (3, 5 + 8 + 8, 1)


def test_a_document_of_a_million_words_is_cut(make_sparse):
    encoder = opened(make_sparse())
    document = Document("1", "river mountain " * 500_000)
    got = encoder.encode_documents([document, Document("2", "dog")])
    assert_equal(got, reference(make_sparse(), "document", ["river mountain " * 50, "dog"]))
    assert encoder.tally.n_truncated == 1


# --- queries without a model -----------------------------------------------------------------------


def test_queries_of_a_router_import_no_torch(make_sparse):
    folder = make_sparse(layout="router")
    code = f"""
import sys
from retrieval.encoders import open_encoder
encoder = open_encoder({{"family": "sparse", "model": {str(folder)!r}}})
encoder.fingerprints, encoder.dim, encoder.vocabulary, encoder.tokens_of("dog")
rows = encoder.encode_queries(["the cat and the dog", "", "river"])
print(rows.indices.tolist(), rows.indptr.tolist())
assert "torch" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=120, capture_output=True, text=True
    )
    want = opened(folder).encode_queries(["the cat and the dog", "", "river"])
    assert done.stdout.strip() == f"{want.indices.tolist()} {want.indptr.tolist()}"


def test_masked_language_models_import_no_transformers(make_sparse):
    code = f"""
import sys
from retrieval.encoders import open_encoder
encoder = open_encoder({{"family": "sparse", "model": {str(make_sparse())!r}}})
encoder.fingerprints
assert "torch" not in sys.modules
encoder.encode_queries(["dog"])
assert not {{"transformers", "sentence_transformers"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_words_of_an_inference_free_query_count_once(make_sparse):
    encoder = opened(make_sparse(layout="router"))
    once, twice = encoder.encode_queries(["dog river"]), encoder.encode_queries(["river dog river"])
    assert once.indices.tolist() == twice.indices.tolist() and once.values.tolist() == twice.values.tolist()
    assert not len(encoder.encode_queries([""]).indices)  # no special tokens
    assert encoder.tally.n_tokens == 2 + 3


def test_weights_in_half_precision_are_read_without_torch(make_sparse, tmp_path: Path):
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "half"
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        shutil.copytree(make_sparse(layout="router"), folder, dirs_exist_ok=True)
        path = folder / "query_0_SparseStaticEmbedding" / "model.safetensors"
        weight = load_file(path)["weight"].to(dtype)
        save_file({"weight": weight}, path)
        got = opened(folder).encode_queries(TEXTS)
        assert_equal(got, reference(folder, "query", TEXTS))
    save_file({"weight": torch.arange(113)}, path)
    with pytest.raises(CorruptError, match="I64"):
        opened(folder).encode_queries(TEXTS)


def test_negative_weights_of_a_table_count_as_none(make_sparse, tmp_path: Path):
    import torch
    from safetensors.torch import save_file

    folder = tmp_path / "negative"
    shutil.copytree(make_sparse(layout="router"), folder)
    path = folder / "query_0_SparseStaticEmbedding" / "model.safetensors"
    save_file({"weight": torch.linspace(-1, 1, 113)}, path)
    got = opened(folder).encode_queries(TEXTS)
    assert_equal(got, np.maximum(reference(folder, "query", TEXTS), 0))


@pytest.mark.parametrize("layout", ["splade", "router"])
def test_idf_free_queries_are_their_own_terms(layout, make_sparse):
    folder = make_sparse(layout=layout)
    encoder = opened(folder, idf_free=True)
    got = encoder.encode_queries(["dog the cat dog", "", "[CLS] river 東"])
    assert_well_formed(got)
    terms = [
        [encoder.vocabulary[int(term)] for term in got.indices[start:stop]]
        for start, stop in zip(got.indptr[:-1], got.indptr[1:], strict=True)
    ]
    assert [set(row) for row in terms] == [{"dog", "the", "cat"}, set(), {"river"}]
    assert set(got.values.tolist()) == {1.0}
    assert_equal(encoder.encode_documents(DOCUMENTS), reference(folder, "document", TEXTS))


# --- terms -----------------------------------------------------------------------------------------


def test_the_vocabulary_names_every_dimension(make_sparse):
    encoder = opened(make_sparse())
    assert len(encoder.vocabulary) == encoder.dim == 113
    tokenizer = json.loads((make_sparse() / "tokenizer.json").read_text())
    assert list(encoder.vocabulary) == sorted(
        tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get
    )
    own = encoder.tokens_of("dogs river dog")
    assert own.dtype == np.int32 and (np.diff(own) > 0).all()
    assert {encoder.vocabulary[int(term)] for term in own} == {"dog", "##s", "river"}
    assert not len(encoder.tokens_of(""))
    features = opened(make_sparse(layout="csr"))
    assert features.vocabulary[63] == "feature 63" and len(features.vocabulary) == 64
    assert not len(features.tokens_of("dog"))


def test_an_id_without_a_token_gets_its_number(make_checkpoint, make_sparse, tmp_path: Path):
    folder = tmp_path / "gap"
    shutil.copytree(make_sparse(), folder)
    shutil.copy(make_checkpoint() / "tokenizer.json", folder)
    names = list(opened(folder).vocabulary)
    numbered = [i for i, name in enumerate(names) if name == f"[{i}]"]
    assert len(names) == 113 and len(numbered) == 1


# --- identity --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["splade", "router"])
def test_options_change_the_fingerprints_they_should(layout, make_sparse, tmp_path: Path):
    folder = make_sparse(layout=layout)
    before = opened(folder).fingerprints

    def changed(**options: Any) -> tuple[bool, bool]:
        now = opened(folder, **options).fingerprints
        return now.documents != before.documents, now.queries != before.queries

    assert changed(dtype="bfloat16") == (False, False)
    assert changed(query_terms=3) == changed(idf_free=True) == (False, True)
    assert changed(document_terms=3) == (True, False)
    assert changed(max_length=9) == changed(max_active_dims=3) == (True, True)
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    assert opened(moved).fingerprints == before
    pooling = next(moved.rglob("*SpladePooling/config.json"))
    pooling.write_text(pooling.read_text().replace('"max"', '"sum"'))
    assert opened(moved).fingerprints.documents != before.documents


def test_a_spec_opens_an_equal_encoder(make_sparse):
    encoder = opened(make_sparse(), query_terms=3, idf_free=True)
    assert encoder.spec["options"] == {"query_terms": 3, "idf_free": True}
    again = open_encoder(json.loads(json.dumps(encoder.spec)))
    assert again.spec == encoder.spec and again.fingerprints == encoder.fingerprints


# --- errors ----------------------------------------------------------------------------------------


def test_models_that_are_no_sparse_encoders_are_named(make_checkpoint, make_sparse, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"dense model.*family 'dense'"):
        opened(make_checkpoint())
    with pytest.raises(ConfigError, match="holds no model"):
        opened(tmp_path)
    with pytest.raises(ConfigError, match="no default model"):
        open_encoder({"family": "sparse"})
    folder = tmp_path / "other"
    shutil.copytree(make_sparse(), folder)
    (folder / "config_sentence_transformers.json").write_text('{"model_type": "CrossEncoder"}')
    with pytest.raises(ConfigError, match="is a CrossEncoder"):
        opened(folder)
    shutil.copytree(make_sparse(layout="plain"), tmp_path / "plain")
    config = json.loads((tmp_path / "plain" / "config.json").read_text()) | {"architectures": ["BertModel"]}
    (tmp_path / "plain" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="no masked language model"):
        opened(tmp_path / "plain")


def test_bad_options_are_named(make_sparse):
    with pytest.raises(ConfigError, match=r"query_term'.*query_terms"):
        opened(make_sparse(), query_term=3)
    with pytest.raises(ConfigError, match="at least 1"):
        opened(make_sparse(), document_terms=0)
    with pytest.raises(ConfigError, match="reads at most 66"):
        opened(make_sparse(), max_length=1000)
    with pytest.raises(ConfigError, match="idf_free"):
        opened(make_sparse(layout="csr"), idf_free=True)


def test_damaged_files_are_named(make_sparse, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "splade"
    shutil.copytree(make_sparse(), folder)
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    save_file({n: t for n, t in tensors.items() if "transform" not in n}, weights)
    with pytest.raises(CorruptError, match=r"cls\.predictions\.transform\.dense\.weight"):
        opened(folder).encode_queries(["dog"])
    os.truncate(weights, 1000)
    with pytest.raises(CorruptError, match=r"model\.safetensors"):
        opened(folder).encode_queries(["dog"])
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(CorruptError, match=r"tokenizer\.json"):
        opened(folder).tokens_of("dog")
    settings = folder / "config_sentence_transformers.json"
    settings.write_text('{"model_type": "SparseEncoder", "max_active_dims": "many"}')
    with pytest.raises(FormatError, match="max_active_dims is 'many'"):
        opened(folder)
    shutil.copytree(make_sparse(layout="router"), tmp_path / "router")
    table = tmp_path / "router" / "query_0_SparseStaticEmbedding" / "model.safetensors"
    os.truncate(table, 100)
    with pytest.raises(CorruptError, match=r"query_0.*model\.safetensors"):
        opened(tmp_path / "router").encode_queries(["dog"])
    (tmp_path / "router" / "router_config.json").write_text('{"types": []}')
    with pytest.raises(FormatError, match=r"router_config\.json"):
        opened(tmp_path / "router")


@pytest.mark.parametrize("name", ["2_SparseAutoEncoder/model.safetensors", "tokenizer.json"])
def test_damaged_files_are_named_for_sentence_transformers_too(name, make_sparse, tmp_path: Path):
    folder = tmp_path / "csr"
    shutil.copytree(make_sparse(layout="csr"), folder)
    os.truncate(folder / name, 50)
    with pytest.raises(CorruptError, match="csr"):
        opened(folder).encode_queries(["dog"])


def test_a_table_of_another_size_is_refused(make_sparse, tmp_path: Path):
    import torch
    from safetensors.torch import save_file

    shutil.copytree(make_sparse(layout="router"), tmp_path / "router")
    path = tmp_path / "router" / "query_0_SparseStaticEmbedding" / "model.safetensors"
    save_file({"weight": torch.ones(50)}, path)
    with pytest.raises(ConfigError, match="weights for 50 terms, documents for 113"):
        opened(tmp_path / "router").encode_queries(["dog"])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value, make_sparse, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "broken"
    shutil.copytree(make_sparse(), folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["cls.predictions.bias"][17] = value
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CorruptError, match=r"broken.*not finite"):
        opened(folder).encode_documents(DOCUMENTS[:3])
    shutil.copytree(make_sparse(layout="router"), tmp_path / "router")
    path = tmp_path / "router" / "query_0_SparseStaticEmbedding" / "model.safetensors"
    table = load_file(path)
    table["weight"][17] = value
    save_file(table, path)
    with pytest.raises(CorruptError, match="not finite"):
        opened(tmp_path / "router").encode_queries(["dog"])


def test_a_model_that_sentence_transformers_cannot_run_is_named(make_sparse):
    folder = make_sparse(layout="csr")
    with pytest.raises(ConfigError, match="cannot run"):
        opened(folder, max_active_dims=1000).encode_queries(["dog"])
