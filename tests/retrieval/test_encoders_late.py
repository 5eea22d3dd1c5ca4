"""The late-interaction encoder: equal to sentence-transformers, narrower by a fitted projection, ragged throughout."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from retrieval.encoders import open_encoder
from retrieval.encoders.late import SAMPLE
from retrieval.encoders.token_pooling import TokenPooling
from retrieval.encoders.token_projection import PRIOR, TokenProjection
from retrieval.errors import ConfigError, CorruptError, FormatError
from retrieval.values import Document, MultiVector

TEXTS = ["the cat and the dog", "river, mountain; fish!", "search engine index", "", "red " * 60, "a"]
DOCUMENTS = [Document(str(i), text, "big bird" if i % 2 else "") for i, text in enumerate(TEXTS)]
LONG = "the query of a vector index is in the document and the fish is red in a river old new fast"


def late(folder: Path | str, **options: Any) -> Any:
    return open_encoder({"family": "late", "model": str(folder), "options": {"dtype": "float32"} | options})


def rows(values: MultiVector) -> list[np.ndarray]:
    return [values.values[low:high] for low, high in zip(values.indptr[:-1], values.indptr[1:], strict=True)]


def assert_rows(found: MultiVector, want: list[np.ndarray], atol: float = 1e-3) -> None:
    assert len(found) == len(want)
    for got, expected in zip(rows(found), want, strict=True):
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, atol=atol)


MakeLate = Callable[..., Path]


@pytest.fixture(scope="module")
def make_late(make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> MakeLate:
    """A function that saves a random MultiVectorEncoder of width 16 and returns its folder."""
    made: dict[str, Path] = {}

    def make(
        kind: str = "bert",
        skiplist: tuple[str, ...] = (),
        tasks: tuple[str, ...] = ("document",),
        pooling: dict[str, Any] | None = None,
        prompts: dict[str, str] | None = None,
        masked: bool = True,
        keep_only: list[int] | None = None,
        **transformer: Any,
    ) -> Path:
        key = json.dumps([kind, skiplist, tasks, pooling, prompts, masked, keep_only, transformer])
        if key not in made:
            made[key] = tmp_path_factory.mktemp("late")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import torch
                from sentence_transformers import MultiVectorEncoder
                from sentence_transformers.base.modules import Dense, Transformer
                from sentence_transformers.multi_vector_encoder.modules import (
                    HierarchicalTokenPooling,
                    MultiVectorMask,
                )
                from sentence_transformers.sentence_transformer.modules import Normalize

                torch.manual_seed(3)
                names = {"module_input_name": "token_embeddings"}
                modules = [
                    Transformer(str(make_checkpoint(kind)), **transformer),
                    Dense(32, 16, bias=False, activation_function=torch.nn.Identity(), **names),
                    Normalize(**names),
                ]
                if masked:
                    modules.insert(
                        2,
                        MultiVectorMask(
                            list(skiplist), skiplist_tasks=list(tasks), keep_only_token_ids=keep_only
                        ),
                    )
                if pooling is not None:
                    modules.append(HierarchicalTokenPooling(**pooling))
                MultiVectorEncoder(modules=modules, prompts=prompts, device="cpu").save(str(made[key]))
        return made[key]

    return make


def theirs(folder: Path, trusted: bool = False) -> Any:
    from sentence_transformers import MultiVectorEncoder

    return MultiVectorEncoder(str(folder), device="cpu", local_files_only=True, trust_remote_code=trusted)


def assert_equal_to_theirs(folder: Path, directly: bool) -> None:
    ours, model = late(folder), theirs(folder)
    assert ours.runs_directly is directly and not ours.needs_fit and ours.dim == 16
    queries = [*TEXTS, LONG]
    assert_rows(ours.encode_queries(queries), model.encode_query(queries, convert_to_numpy=True))
    contents = [document.contents() for document in DOCUMENTS]
    assert_rows(ours.encode_documents(DOCUMENTS), model.encode_document(contents, convert_to_numpy=True))
    for text in queries:
        assert len(ours.query_tokens(text)) == len(rows(ours.encode_queries([text]))[0])
    for document in DOCUMENTS:
        assert len(ours.document_tokens(document)) == len(rows(ours.encode_documents([document]))[0])


# --- equality with sentence-transformers -----------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"query_expansion": {"strategy": "fixed", "length": 12}, "document_length": 20},
        {"query_expansion": {"strategy": "fixed", "length": 12, "attend": True}},
        {"query_expansion": {"strategy": "min", "length": 9, "token": "red"}, "query_length": 14},
        {"skiplist": (",", ";", "!", "the", "nowhere"), "tasks": ("query", "document")},
        {"skiplist": (",", "the"), "prompts": {"query": "query : ", "document": "document : "}},
        {"kind": "distilbert", "query_expansion": {"strategy": "fixed", "length": 12}},
        {"kind": "roberta", "query_expansion": {"strategy": "fixed", "length": 12}},
    ],
)
def test_our_own_path_gives_what_sentence_transformers_gives(make_late: MakeLate, settings):
    assert_equal_to_theirs(make_late(**settings), directly=True)


@pytest.mark.parametrize("expansion", [None, {"strategy": "fixed", "length": 12}])
def test_word_pieces_of_queries_are_weighted_as_the_checkpoint_says(make_late: MakeLate, tmp_path, expansion):
    import torch

    from retrieval.encoders.transformer.query_weights import QueryTokenWeights

    settings = {} if expansion is None else {"query_expansion": expansion}
    model = theirs(make_late(**settings))
    weights = QueryTokenWeights(model[0].auto_model.config.vocab_size)
    with torch.no_grad():
        weights.weight.copy_(torch.arange(len(weights.weight)) % 4 - 1.0)
    model.append(weights)
    model.save(str(tmp_path / "weighted"))
    ours, again = late(tmp_path / "weighted"), theirs(tmp_path / "weighted", trusted=True)
    plain = late(make_late(**settings))
    assert ours.runs_directly
    assert_rows(ours.encode_queries(TEXTS), again.encode_query(TEXTS, convert_to_numpy=True))
    assert_rows(ours.encode_documents(DOCUMENTS), rows(plain.encode_documents(DOCUMENTS)))
    ids = again.preprocess([LONG], task="query")["input_ids"][0]
    expected = weights.scales(ids).detach().numpy()
    got, bare = ours.encode_queries([LONG]).values, plain.encode_queries([LONG]).values
    np.testing.assert_allclose(got, bare * expected[:, None], atol=2e-3)
    assert np.ptp(expected) > 0.5


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "electra", "skiplist": (",", "the"), "query_expansion": {"strategy": "fixed", "length": 12}},
        {"keep_only": [2, 5, 6, 9, 20]},
        {"masked": False, "query_expansion": {"strategy": "fixed", "length": 12}},
    ],
)
def test_anything_else_goes_through_sentence_transformers(make_late: MakeLate, settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = make_late(**settings)
    assert_equal_to_theirs(folder, directly=False)


@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_pooling_that_a_checkpoint_has_is_sentence_transformers_pooling_by_first_token(
    make_late: MakeLate, kind
):
    folder = make_late(kind=kind, pooling={"pool_factor": 2})
    ours, want = (
        late(folder),
        theirs(folder).encode_document([d.contents() for d in DOCUMENTS], convert_to_numpy=True),
    )
    found = ours.encode_documents(DOCUMENTS)
    for document, got, expected in zip(DOCUMENTS, rows(found), want, strict=True):
        assert got.shape == expected.shape and len(ours.document_tokens(document)) == len(got)
        best = np.argmax(got.astype(np.float32) @ expected.T, axis=1)
        assert sorted(best) == list(range(len(expected)))  # the same vectors in another order
        np.testing.assert_allclose(got, expected[best], atol=1e-3)
    places = [start for _, start, _ in ours.document_tokens(Document("1", LONG)) if start >= 0]
    assert places == sorted(places)


@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_options_change_what_the_checkpoint_says(make_late: MakeLate, kind):
    folder = make_late(kind=kind, skiplist=("the",), query_expansion={"strategy": "fixed", "length": 12})
    model = theirs(folder)
    ours = late(folder, augment=0, query_max_length=30, max_length=8, skip_punctuation=True)
    model[0].query_expansion = None
    assert_rows(ours.encode_queries([LONG]), model.encode_query([LONG], convert_to_numpy=True))
    assert ours.encode_queries([LONG]).indptr[-1] > 12
    names = [name for name, _, _ in ours.document_tokens(Document("1", "the cat, the dog; the fish"))]
    assert names == ["[CLS]", "the", "cat", "the", "dog", "[SEP]"]
    longer = late(folder, augment=16)
    model[0].query_expansion = {"strategy": "fixed", "length": 16}
    assert_rows(longer.encode_queries([LONG, "a"]), model.encode_query([LONG, "a"], convert_to_numpy=True))


def test_the_old_format_of_pylate_is_read_by_sentence_transformers(make_late: MakeLate, tmp_path: Path):
    folder = shutil.copytree(make_late(), tmp_path / "model")
    settings = json.loads((folder / "config_sentence_transformers.json").read_text())
    settings |= {"model_type": "ColBERT", "query_prefix": "a ", "document_prefix": "the ", "query_length": 10}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    modules = json.loads((folder / "modules.json").read_text())[:2]
    (folder / "modules.json").write_text(json.dumps(modules))
    ours, model = late(folder), theirs(folder)
    assert not ours.runs_directly
    assert_rows(
        ours.encode_queries(["cat", LONG]),
        model.encode_query(["cat", LONG], prompt="", convert_to_numpy=True),
    )
    before = ours.fingerprints
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings | {"query_length": 11}))
    assert late(folder).fingerprints.queries != before.queries


# --- models that were not trained for it -----------------------------------------------------------


@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_a_plain_model_gives_its_last_hidden_states_as_unit_vectors(
    make_checkpoint: Callable[..., Path], kind
):
    from sentence_transformers import SentenceTransformer

    folder = make_checkpoint(kind)
    model = SentenceTransformer(str(folder), device="cpu")
    ours = late(folder, window=0)
    assert ours.runs_directly is (kind == "bert") and not ours.needs_fit and ours.dim == 32
    found = rows(ours.encode_documents(DOCUMENTS))
    for document, got in zip(DOCUMENTS, found, strict=True):
        want = model.encode(document.contents(), output_value="token_embeddings").numpy()
        want = want / np.linalg.norm(want, axis=1, keepdims=True)
        np.testing.assert_allclose(got, want, atol=1e-3)


@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_a_text_without_a_token_has_no_vector(make_checkpoint: Callable[..., Path], kind):
    ours = late(make_checkpoint(kind), skip_punctuation=True)
    documents = [Document("1", ""), Document("2", "a"), Document("3", ".,;"), Document("4", " ")]
    assert ours.encode_documents(documents).indptr.tolist() == [0, 0, 3, 3, 3]
    assert ours.encode_queries(["", "a"]).indptr.tolist() == [0, 0, 3]
    assert ours.encode_documents([]).values.shape == (0, 32)
    assert ours.document_tokens(documents[0]) == [] and ours.query_tokens("") == []


@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_augmented_queries_have_a_vector_for_every_filler(make_checkpoint: Callable[..., Path], kind):
    folder = make_checkpoint(kind)
    plain, filled = late(folder), late(folder, augment=10)
    texts = ["cat", "", LONG]
    counts = np.diff(filled.encode_queries(texts).indptr)
    assert counts.tolist() == [10, 0, len(plain.query_tokens(LONG))]
    assert filled.query_tokens("cat") == ["[CLS]", "cat", "[SEP]", *["[MASK]"] * 7]
    same = rows(filled.encode_queries(["cat"]))[0][:3]  # nobody attends to a filler
    np.testing.assert_allclose(same, rows(plain.encode_queries(["cat"]))[0], atol=1e-3)


def test_without_windows_queries_are_read_as_far_as_the_model_reads(tiny_bert: Path):
    assert len(late(tiny_bert, window=0).query_tokens(" ".join(TEXTS))) == 32
    assert len(late(tiny_bert, window=0, query_max_length=60).query_tokens(" ".join(TEXTS * 2))) == 60
    with pytest.raises(ConfigError, match=r"67; .* reads at most 66"):
        late(tiny_bert, window=0, query_max_length=67)
    with pytest.raises(ConfigError, match=r"augment is 40; .* at most 32"):
        late(tiny_bert, augment=40)


def test_long_texts_are_read_whole_in_windows(tiny_bert: Path):
    words = ("cat dog river mountain fish search " * 15).split()  # a token each
    ours, document = late(tiny_bert), Document("1", " ".join(words))
    thirds = [" ".join(words[start : start + 30]) for start in (0, 30, 60)]
    alone = late(tiny_bert, window=0)
    assert_rows(
        ours.encode_documents([DOCUMENTS[0], document, DOCUMENTS[1]]),
        [
            rows(alone.encode_documents([DOCUMENTS[0]]))[0],
            np.concatenate(rows(alone.encode_documents([Document("1", third) for third in thirds]))),
            rows(alone.encode_documents([DOCUMENTS[1]]))[0],
        ],
    )
    assert ours.tally.n_truncated == 0
    (found,) = rows(ours.encode_queries([document.text]))
    np.testing.assert_allclose(found, np.concatenate(rows(alone.encode_queries(thirds))), atol=1e-3)
    tokens = [name for name, _, _ in ours.document_tokens(document)]
    frame = [f"[CLS] {third} [SEP]" for third in thirds]
    assert " ".join(tokens) == " ".join(ours.query_tokens(document.text)) == " ".join(frame)
    assert [
        document.text[start:stop] for _, start, stop in ours.document_tokens(document) if start >= 0
    ] == words


def test_windows_can_be_chosen(tiny_bert: Path, make_late: MakeLate, make_checkpoint: Callable[..., Path]):
    document = Document("1", "cat dog " * 50)
    assert len(late(tiny_bert, window=60).document_tokens(document)) == 100 + 2 * 2
    assert len(late(tiny_bert, window=60, max_length=70).document_tokens(document)) == 68 + 2 * 2
    assert len(late(tiny_bert, window=60, max_length=50).document_tokens(document)) == 50
    for wrong, why in ((67, r"window is 67; .* at most 66"), (15, "window is 15; it must be at least 16")):
        with pytest.raises(ConfigError, match=why):
            late(tiny_bert, window=wrong)
    for folder in (make_late(), make_checkpoint("electra")):
        assert late(folder).recipe.document.window is None
        with pytest.raises(ConfigError, match=r"window is 20; .* as its own settings say"):
            late(folder, window=20)


def test_queries_that_are_filled_up_have_no_windows(tiny_bert: Path):
    assert len(late(tiny_bert, augment=20).query_tokens("cat " * 100)) == 32


def test_the_first_vectors_of_a_document_can_be_all_there_is(tiny_bert: Path):
    whole, short = late(tiny_bert), late(tiny_bert, first_tokens=4)
    want = [part[:4] for part in rows(whole.encode_documents(DOCUMENTS))]
    assert_rows(short.encode_documents(DOCUMENTS), want)
    assert [len(short.document_tokens(document)) for document in DOCUMENTS] == [len(part) for part in want]
    assert_rows(short.encode_queries(TEXTS), rows(whole.encode_queries(TEXTS)))


def test_cut_texts_are_counted(tiny_bert: Path):
    ours = late(tiny_bert, max_length=10)
    ours.encode_documents(DOCUMENTS)
    lengths = np.diff(late(tiny_bert).encode_documents(DOCUMENTS).indptr)
    assert ours.tally.n_texts == len(TEXTS) and ours.tally.n_truncated == int((lengths > 10).sum())
    assert ours.tally.n_tokens == int(np.minimum(lengths, 10).sum()) + 2 * int((lengths == 0).sum())


def test_tokens_name_the_characters_they_stand_for(tiny_bert: Path):
    ours = late(tiny_bert, document_prompt="query : ")
    document = Document("1", "Red fishes, and a\nRIVER", "the title")
    tokens = ours.document_tokens(document)
    assert len(tokens) == len(rows(ours.encode_documents([document]))[0])
    assert tokens[0] == ("[CLS]", -1, -1) and tokens[-1] == ("[SEP]", -1, -1)
    inside = [(name, start, stop) for name, start, stop in tokens if start >= 0]
    assert all(document.text[start:stop] == name for name, start, stop in inside)
    assert "".join(name for name, _, _ in inside) == "Redfishes,andaRIVER"
    assert tokens[1:4] == [("query", -1, -1), (":", -1, -1), ("the", -1, -1)]


def test_huge_texts_are_not_read_whole(tiny_bert: Path):
    ours = late(tiny_bert, window=0)
    document = Document("1", "   " * 1000 + "cat dog " * 100_000)
    assert len(ours.document_tokens(document)) == len(rows(ours.encode_documents([document]))[0]) == 32
    assert ours.document_tokens(document)[1] == ("cat", 3000, 3003)


def test_numbers_that_are_not_finite_name_the_document(tiny_bert: Path, tmp_path: Path):
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    words = tensors["embeddings.word_embeddings.weight"].copy()
    words[len(words) // 2 :] = np.nan  # digits and parts of words
    save_file(tensors | {"embeddings.word_embeddings.weight": words}, folder / "model.safetensors")
    ours = late(folder)
    with pytest.raises(CorruptError, match=r"the document 'bad' vectors that are not finite"):
        ours.encode_documents([Document("good", "cat"), Document("bad", "zyx 9"), Document("worse", "9")])
    with pytest.raises(CorruptError, match="the document 'bad' vectors"):
        late(folder, dim=8).fit([Document("bad", "9")])
    with pytest.raises(CorruptError, match="the query 'zyx 9' vectors"):
        ours.encode_queries(["zyx 9"])


# --- what is learnt from the corpus ----------------------------------------------------------------


def test_an_encoder_that_needs_fitting_says_so(tiny_bert: Path, tmp_path: Path):
    ours = late(tiny_bert, dim=8)
    assert ours.needs_fit and ours.dim == 8
    for encode in (lambda: ours.encode_queries(["a"]), lambda: ours.encode_documents([])):
        with pytest.raises(ConfigError, match=r"8 dimensions of 32 .*fit it on documents"):
            encode()
    with pytest.raises(ConfigError, match="nothing to save"):
        ours.save_state(tmp_path)


@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_the_projection_is_the_whitened_svd_of_the_vectors(make_checkpoint: Callable[..., Path], kind):
    folder = make_checkpoint(kind)
    whole = late(folder).encode_documents(DOCUMENTS)
    fitted = late(folder, dim=8).fit(DOCUMENTS)
    assert not fitted.needs_fit
    vectors = whole.values.astype(np.float64)
    _, strengths, right = np.linalg.svd(vectors, full_matrices=False)
    want = vectors @ right[:8].T / np.sqrt(strengths[:8] ** 2 + PRIOR)
    want /= np.linalg.norm(want, axis=1, keepdims=True)
    got = fitted.encode_documents(DOCUMENTS)
    assert got.values.dtype == np.float16 and np.array_equal(got.indptr, whole.indptr)
    np.testing.assert_allclose(got.values @ got.values.T.astype(np.float64), want @ want.T, atol=0.01)
    queries = fitted.encode_queries(TEXTS)  # queries of the same texts, up to titles, have the same vectors
    np.testing.assert_allclose(rows(queries)[0], rows(got)[0], atol=1e-3)


def test_vectors_that_were_trained_keep_their_proportions(make_late: MakeLate):
    folder = make_late()
    whole = late(folder).encode_documents(DOCUMENTS).values.astype(np.float64)
    got = late(folder, dim=15).fit(DOCUMENTS).encode_documents(DOCUMENTS).values.astype(np.float64)
    _, _, right = np.linalg.svd(whole, full_matrices=False)
    want = whole @ right[:15].T
    want /= np.linalg.norm(want, axis=1, keepdims=True)
    np.testing.assert_allclose(got @ got.T, want @ want.T, atol=0.01)


def test_fitting_is_deterministic_and_survives_saving(tiny_bert: Path, tmp_path: Path):
    unfitted = late(tiny_bert, dim=8)
    one, two = unfitted.fit(DOCUMENTS), late(tiny_bert, dim=8).fit(DOCUMENTS)
    assert one.fingerprints == two.fingerprints and unfitted.needs_fit
    one.save_state(tmp_path)
    again = late(tiny_bert, dim=8).with_state(tmp_path)
    shutil.rmtree(tmp_path)
    assert again.fingerprints == one.fingerprints and again.spec == one.spec == unfitted.spec
    assert np.array_equal(again.encode_documents(DOCUMENTS).values, one.encode_documents(DOCUMENTS).values)
    other = unfitted.fit(DOCUMENTS[:2])
    for fitted in (one, other):
        for which in ("documents", "queries"):
            assert getattr(fitted.fingerprints, which) != getattr(unfitted.fingerprints, which)
    assert one.fingerprints.documents != other.fingerprints.documents


def test_a_large_corpus_is_sampled(tiny_bert: Path):
    documents = [Document(str(i), TEXTS[i % 3]) for i in range(SAMPLE + 200)]
    encoder = late(tiny_bert, dim=8)
    assert encoder.fit(documents).fingerprints == encoder.fit(documents).fingerprints
    assert encoder.fit(documents).fingerprints != encoder.fit(documents[:SAMPLE]).fingerprints


def test_a_corpus_of_few_tokens_is_enough(tiny_bert: Path):
    for documents in ([], [Document("1", "")], [Document("1", "cat")]):
        fitted = late(tiny_bert, dim=8).fit(documents)
        assert np.isfinite(fitted.encode_queries(TEXTS).values).all()
        norms = np.linalg.norm(fitted.encode_queries(TEXTS).values.astype(np.float32), axis=1)
        np.testing.assert_allclose(norms, 1, atol=1e-3)


def test_damaged_state_is_refused(tiny_bert: Path, tmp_path: Path):
    encoder = late(tiny_bert, dim=8)
    encoder.fit(DOCUMENTS).save_state(tmp_path)
    with pytest.raises(CorruptError, match=r"shape \(32, 8\); the encoder needs \(32, 4\)"):
        late(tiny_bert, dim=4).with_state(tmp_path)
    path = tmp_path / "matrix.npy"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CorruptError, match="not a complete"):
        encoder.with_state(tmp_path)
    path.unlink()
    with pytest.raises(CorruptError, match="missing"):
        encoder.with_state(tmp_path)
    TokenProjection(np.eye(32, 8, dtype=np.float32)).save(tmp_path)
    np.save(path, np.full((32, 8), np.nan, dtype=np.float32))
    with pytest.raises(CorruptError, match="not finite"):
        encoder.with_state(tmp_path)


def test_no_projection_is_wanted_where_the_width_is_the_models(tiny_bert: Path, make_late: MakeLate):
    assert not late(tiny_bert, dim=32).needs_fit and not late(tiny_bert, projection="none").needs_fit
    assert late(tiny_bert, dim=32).fit(DOCUMENTS).fingerprints == late(tiny_bert).fingerprints
    assert late(make_late(), dim=4).needs_fit and not late(make_late()).needs_fit
    for options, message in (
        ({"dim": 33}, "dim is 33; .* have 32"),
        ({"dim": 8, "projection": "none"}, "without a projection"),
        ({"projection": "pca"}, "valid: fitted, none"),
    ):
        with pytest.raises(ConfigError, match=message):
            late(tiny_bert, **options)


# --- the rest of the contract ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"dim": 8}, {"pool_factor": 2}, {"augment": 12, "skip_punctuation": True}]
)
def test_a_text_has_the_same_vectors_in_any_company(tiny_bert: Path, options):
    ours = late(tiny_bert, **options)
    ours = ours.fit(DOCUMENTS) if ours.needs_fit else ours
    many = [replace(DOCUMENTS[i % 6], id=str(i)) for i in range(600)]
    assert_rows(ours.encode_documents(many), rows(ours.encode_documents(DOCUMENTS)) * 100)
    assert_rows(
        ours.encode_queries(TEXTS * 50), [rows(ours.encode_queries([text]))[0] for text in TEXTS] * 50
    )
    for document in DOCUMENTS:
        assert len(ours.document_tokens(document)) == len(rows(ours.encode_documents([document]))[0])


def test_options_that_change_vectors_change_fingerprints(tiny_bert: Path):
    plain = late(tiny_bert).fingerprints
    for options, documents, queries in (
        ({"dim": 8}, True, True),
        ({"max_length": 16}, True, False),
        ({"query_max_length": 16}, False, True),
        ({"augment": 16}, False, True),
        ({"window": 20}, True, True),
        ({"window": 32}, False, False),
        ({"skip_punctuation": True}, True, False),
        ({"first_tokens": 5}, True, False),
        ({"pool_factor": 2}, True, False),
        ({"query_prompt": "query : "}, False, True),
        ({"document_prompt": "document : "}, True, False),
        ({"dtype": "bfloat16"}, False, False),
        ({"dim": 32, "pool_factor": 1}, False, False),
    ):
        changed = late(tiny_bert, **options).fingerprints
        assert (changed.documents != plain.documents, changed.queries != plain.queries) == (
            documents,
            queries,
        )


def test_pooling_clusters_alike_vectors_and_keeps_the_first():
    axes = np.eye(4, dtype=np.float32)
    near = axes[1] + 0.1 * axes[2]
    values = np.stack([axes[0], axes[1], axes[3], near / np.linalg.norm(near), axes[3]])
    pooled = TokenPooling(factor=2)(values)
    mean = (values[1] + values[3]) / 2
    np.testing.assert_allclose(pooled, [axes[0], mean / np.linalg.norm(mean), axes[3]], atol=1e-6)
    assert TokenPooling(factor=2).leaders(values).tolist() == [0, 1, 2, 1, 2]
    for few in (values[:0], values[:1], values[:2]):
        np.testing.assert_allclose(TokenPooling(factor=3)(few), few)


def test_models_without_token_vectors_are_refused(tiny_bert: Path, make_late: MakeLate, tmp_path: Path):
    folder = shutil.copytree(tiny_bert, tmp_path / "sparse")
    (folder / "config_sentence_transformers.json").write_text('{"model_type": "SparseEncoder"}')
    with pytest.raises(ConfigError, match="is a SparseEncoder; the late encoder needs"):
        late(folder)
    folder = shutil.copytree(make_late(), tmp_path / "expansion")
    wrapper = json.loads((folder / "sentence_bert_config.json").read_text())
    (folder / "sentence_bert_config.json").write_text(json.dumps(wrapper | {"query_expansion": "yes"}))
    with pytest.raises(FormatError, match=r"query_expansion is 'yes'"):
        late(folder)


def test_sentence_transformers_is_not_imported_where_it_is_not_needed(tiny_bert: Path):
    program = (
        "import sys\nfrom retrieval.encoders import open_encoder\nfrom retrieval.values import Document\n"
        f"encoder = open_encoder({{'family': 'late', 'model': {str(tiny_bert)!r}, 'options': {{'dim': 8}}}})\n"
        "assert encoder.needs_fit and len(encoder.fingerprints.queries) == 64\n"
        "assert 'torch' not in sys.modules\n"
        "encoder.fit([Document('1', 'cat')]).encode_queries(['a cat'])\n"
        "print([name for name in ('sentence_transformers', 'transformers', 'scipy') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
