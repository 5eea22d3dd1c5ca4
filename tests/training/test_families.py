"""Every family: what it opens, what it trains, that the loss falls and that the saved model is the same elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from indexing.progress import Silent
from retrieval.encoders import open_encoder
from retrieval.errors import ConfigError
from retrieval.rerank import CrossEncoderReranker
from retrieval.values import Dense, Document, MultiVector, Sparse
from training.auxiliaries.table import Sizes
from training.examples.drawing import text_key
from training.families.family import Sample, Task
from training.families.low_rank import merged
from training.families.table import FAMILIES, family
from training.recipe.options import LossOptions, ModelOptions
from training.trainer.batches import Reader
from training.trainer.objective import Objective, open_terms
from training.trainer.reach import freeze_unreached

QUERIES = ("river", "the cat", "fast red fish", "old index")
DOCUMENTS = (
    "river mountain search engine",
    "the cat and the dog in the river of a mountain",
    "fast red fish, slow green bird",
    "index of an old engine",
)
SAMPLE = Sample(QUERIES, DOCUMENTS)
SPARSE = {"threshold": 1.0}

CASES: list[tuple[str, dict[str, Any]]] = [
    ("dense", {}),
    ("dense", {"lora_rank": 2}),
    ("dense", {"lora_rank": 2, "lora_layers": 1}),
    ("dense", {"lora_layers": 1}),
    ("dense", {"layers": 1}),
    ("dense", {"query_layers": 1}),
    ("dense", {"options": {"head": "linear"}}),
    ("dense", {"options": {"head": "linear"}, "lora_rank": 2, "query_layers": 1}),
    ("sparse", {"options": SPARSE}),
    ("sparse", {"options": SPARSE, "lora_rank": 2}),
    ("sparse", {"options": SPARSE | {"queries": "static"}}),
    ("sparse", {"options": SPARSE | {"queries": "static", "table": "fixed", "activation": "log1p_relu"}}),
    ("sparse", {"options": SPARSE, "query_layers": 1, "layers": 2}),
    ("late", {"options": {"dim": 16}}),
    ("late", {"options": {"dim": 16}, "lora_rank": 2, "query_length": 8}),
    ("reranker", {}),
    ("reranker", {"lora_rank": 2, "layers": 1}),
]


def opened(name: str, base: Path, **options: Any) -> Any:
    chosen = ModelOptions(base=str(base), max_length=16, **options)
    return family(name).open(chosen, 0, SAMPLE, Silent())


def batch(name: str, model: Any) -> dict[str, Any]:
    negatives = DOCUMENTS[1:] + DOCUMENTS[:1]
    return Reader(family(name), model)(
        {
            "query": QUERIES,
            "document_0": DOCUMENTS,
            "document_1": negatives,
            "labels": [[1.0, 0.0]] * 4,
            "keys": [[text_key(text) for text in pair] for pair in zip(DOCUMENTS, negatives, strict=True)],
            "relevant": [[text_key(text)] for text in DOCUMENTS],
            "domain": [0] * 4,
        }
    )


def fall(name: str, model: Any, steps: int = 12) -> tuple[float, float]:
    """The first and the last loss of some steps on one batch."""
    options = {"temperature": 0.1 if name == "dense" else 1.0}
    loss = LossOptions("listwise" if name == "reranker" else "ranking", options=options)
    objective = Objective(model.train(), family(name), open_terms([loss], Sizes(32, 112, 1)))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=5e-4 if name == "sparse" else 5e-3)
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        value, _ = objective(batch(name, model))
        value.backward()
        optimiser.step()
        losses.append(float(value))
    model.eval()
    return losses[0], losses[-1]


def vectors(name: str, model: Any, task: Task) -> np.ndarray:
    texts = QUERIES if task == "query" else DOCUMENTS
    with torch.no_grad():
        found = family(name).represent(model, family(name).features(model, texts, task), task)
    return (found[0][found[1]] if len(found) == 2 else found[0]).numpy()


def plain(value: Any) -> np.ndarray:
    if isinstance(value, Dense | MultiVector):
        return value.values.astype(np.float32)
    assert isinstance(value, Sparse)
    whole = np.zeros((len(value), value.dim), dtype=np.float32)
    whole[np.repeat(np.arange(len(value)), np.diff(value.indptr)), value.indices] = value.values
    return whole


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_loss_falls_and_the_saved_model_is_the_same_elsewhere(
    name: str, options: dict[str, Any], still: Path, tmp_path: Path
) -> None:
    model = opened(name, still, **options)
    first, last = fall(name, model)
    assert last < 0.9 * first
    if name == "reranker":
        pairs = list(zip(QUERIES, DOCUMENTS, strict=True))
        with torch.no_grad():
            expected = family(name).represent(
                model, family(name).features(model, pairs, "document"), "document"
            )[0]
        family(name).save(model, tmp_path / "model")
        reranker = CrossEncoderReranker.open(str(tmp_path / "model"), {"dtype": "float32"})
        assert reranker.scores(pairs) == pytest.approx(expected.numpy(), abs=1e-5)  # no sigmoid
        return
    family(name).finish(model, ModelOptions(options=options.get("options", {})), SAMPLE, Silent())
    expected = {task: vectors(name, model, task) for task in ("query", "document")}
    before = {key: value.clone() for key, value in model.state_dict().items()}
    family(name).save(model, tmp_path / "model")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    encoder = open_encoder(
        {"family": name, "model": str(tmp_path / "model"), "options": {"dtype": "float32"}}
    )
    found = {
        "query": encoder.encode_queries(QUERIES),
        "document": encoder.encode_documents(
            [Document(str(row), text) for row, text in enumerate(DOCUMENTS)]
        ),
    }
    for task, value in found.items():
        np.testing.assert_allclose(
            plain(value), expected[task], atol=2e-3 if name == "late" else 1e-5, err_msg=task
        )


@pytest.mark.parametrize("name", ["dense", "sparse", "late", "reranker"])
def test_search_ranks_as_the_scores_do(name: str, still: Path) -> None:
    options = {"sparse": SPARSE, "late": {"dim": 16}}.get(name, {})
    model = opened(name, still, options=options)
    model.train()
    hits, _ = family(name).search(model, QUERIES, DOCUMENTS, 4, Silent())
    assert model.training
    model.eval()
    with torch.no_grad():
        if name == "reranker":
            pairs = [(query, document) for query in QUERIES for document in DOCUMENTS]
            features = family(name).features(model, pairs, "document")
            scores = family(name).represent(model, features, "document")[0].view(4, 4)
        else:
            sides = [
                family(name).represent(model, family(name).features(model, texts, task), task)
                for texts, task in ((QUERIES, "query"), (DOCUMENTS, "document"))
            ]
            scores = family(name).score(*sides)
    for line, (rows, found) in enumerate(zip(hits.rows, hits.scores, strict=True)):
        known = rows[rows >= 0]
        assert len(known) >= 1
        spread = float(scores[line].max() - scores[line].min())
        expected = scores[line].numpy()[known]
        assert (np.diff(expected) <= 0.02 * spread + 1e-3).all(), (expected, found)


def test_only_the_last_layers_are_trained(still: Path) -> None:
    model = opened("dense", still, lora_layers=1)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(".layer.1." in name for name in trained)


def test_without_layers_only_what_is_new_is_trained(still: Path) -> None:
    model = opened("late", still, lora_layers=0)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained
    assert all(family("late").is_new(name) for name in trained)
    with pytest.raises(ConfigError, match="nothing of the model is trained"):
        freeze_unreached(opened("dense", still, lora_layers=0), family("dense"))


def test_updates_begin_as_nothing_and_are_all_that_is_trained(still: Path) -> None:
    plain_, low = opened("dense", still).eval(), opened("dense", still, lora_rank=2).eval()
    np.testing.assert_array_equal(vectors("dense", low, "query"), vectors("dense", plain_, "query"))
    trained = [name for name, parameter in low.named_parameters() if parameter.requires_grad]
    assert trained
    assert all(family("dense").is_new(name) for name in trained)
    fall("dense", low)
    whole = merged(low)
    assert not any("lora" in name for name, _ in whole.named_parameters())
    np.testing.assert_allclose(vectors("dense", whole, "query"), vectors("dense", low, "query"), atol=1e-6)
    assert merged(plain_) is plain_


def test_all_of_a_new_classifier_learns_at_the_rate_of_what_is_new(
    make_checkpoint: Callable[..., Path],
) -> None:
    sizes = {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4}
    model = opened("reranker", make_checkpoint("distilbert", **sizes), lora_layers=1)
    new = [name for name, _ in model.named_parameters() if family("reranker").is_new(name)]
    assert {name.split(".")[-2] for name in new} == {"pre_classifier", "classifier"}
    assert all(model.get_parameter(name).requires_grad for name in new)


def test_kept_layers_are_spread(make_checkpoint: Callable[..., Path]) -> None:
    base = make_checkpoint(num_hidden_layers=6)
    whole, half = opened("dense", base), opened("dense", base, layers=3)
    kept = half[0].auto_model.encoder.layer
    assert len(kept) == half[0].auto_model.config.num_hidden_layers == 3
    for mine, place in zip(kept, (0, 2, 5), strict=True):
        theirs = whole[0].auto_model.encoder.layer[place]
        assert torch.equal(mine.output.dense.weight, theirs.output.dense.weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 3}, "3 layers are to be kept of 2"),
        ({"lora_layers": 3}, "last 3 layers"),
        ({"lora_rank": 1, "lora_layers": 3}, "lora_layers is 3"),
        ({"options": {"dim": 3}}, "dim"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str, still: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        opened("dense", still, **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sparse", {"queries": "none"}, "valid: model, static"),
        ("late", {"dim": 64}, "dim is 64; the model's vectors have 32"),
        ("reranker", {"labels": 3}, "labels"),
    ],
)
def test_impossible_options_of_a_family_are_refused(
    name: str, options: dict[str, Any], message: str, still: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        opened(name, still, options=options)


@pytest.mark.parametrize("name", ["late", "reranker"])
def test_towers_are_refused_where_no_encoder_would_open_them(name: str, still: Path) -> None:
    with pytest.raises(ConfigError, match="query_layers"):
        opened(name, still, query_layers=1)


def test_a_trained_sparse_model_is_trained_on(still: Path, tmp_path: Path) -> None:
    first = opened("sparse", still, options=SPARSE | {"queries": "static"}).eval()
    family("sparse").save(first, tmp_path / "first")
    second = opened("sparse", tmp_path / "first").eval()
    for task in ("query", "document"):
        np.testing.assert_allclose(vectors("sparse", second, task), vectors("sparse", first, task), atol=1e-6)
    with pytest.raises(ConfigError, match="leave the option queries out"):
        opened("sparse", tmp_path / "first", options={"queries": "model"})


def test_pruning_leaves_so_many_terms_of_a_document(still: Path) -> None:
    options = ModelOptions(base=str(still), max_length=16, options=SPARSE | {"document_terms": 3})
    model = family("sparse").open(options, 0, SAMPLE, Silent())
    _, before = family("sparse").search(model, QUERIES, DOCUMENTS, 2, Silent())
    family("sparse").finish(model, options, SAMPLE, Silent())
    _, after = family("sparse").search(model, QUERIES, DOCUMENTS, 2, Silent())
    assert before["document_terms"] > 3
    assert after["document_terms"] == pytest.approx(3, abs=0.5)


def test_a_late_model_begins_as_the_untrained_encoder(still: Path) -> None:
    model = opened("late", still, options={"dim": 16}).eval()
    documents = [Document(str(row), text) for row, text in enumerate(DOCUMENTS)]
    encoder = open_encoder(
        {"family": "late", "model": str(still), "options": {"dim": 16, "max_length": 16, "dtype": "float32"}}
    ).fit(documents)
    expected = encoder.encode_documents(documents)
    np.testing.assert_allclose(vectors("late", model, "document"), plain(expected), atol=2e-3)


def test_weights_of_query_tokens_scale_queries_alone(still: Path, tmp_path: Path) -> None:
    from sentence_transformers import MultiVectorEncoder

    model = opened("late", still, options={"dim": 16, "query_weights": True}).eval()
    before = {task: vectors("late", model, task) for task in ("query", "document")}
    with torch.no_grad():
        model[-1].weight.fill_(2.0)
    np.testing.assert_allclose(vectors("late", model, "query"), 2 * before["query"], rtol=1e-5)
    np.testing.assert_array_equal(vectors("late", model, "document"), before["document"])
    first, last = fall("late", model)
    assert last < first
    family("late").save(model, tmp_path / "model")
    loaded = MultiVectorEncoder(str(tmp_path / "model"), device="cpu", trust_remote_code=True)
    expected = model.encode_query(list(QUERIES), convert_to_numpy=True)
    for mine, theirs in zip(expected, loaded.encode_query(list(QUERIES), convert_to_numpy=True), strict=True):
        np.testing.assert_allclose(theirs, mine, atol=1e-6)
    again = opened("late", tmp_path / "model", options={"query_weights": True})
    assert torch.equal(again[-1].weight, model[-1].weight)


@pytest.mark.parametrize("name", ["dense", "sparse", "late", "reranker"])
@pytest.mark.parametrize("rank", [0, 2])
def test_a_model_may_read_less_while_it_is_trained(name: str, rank: int, still: Path, tmp_path: Path) -> None:
    model = opened(name, still, training_length=8, lora_rank=rank)
    long = "cat dog river mountain fish search " * 5
    given = [(long, long)] if name == "reranker" else [long]

    def tokens(model: Any) -> int:
        return int(family(name).features(model, given, "document")["input_ids"].shape[-1])

    assert tokens(model) == 8
    family(name).save(model, tmp_path / "model")
    assert tokens(model) == 8, "saving leaves it as it was"
    assert tokens(family(name).open(ModelOptions(str(tmp_path / "model"), 64), 0, SAMPLE, Silent())) > 16
    settings = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    assert settings["model_max_length"] == 16


def test_every_name_leads_to_a_family() -> None:
    for name in FAMILIES:
        assert family(name).joint in (True, False)
    with pytest.raises(ConfigError, match="unknown family 'colbert'"):
        family("colbert")
