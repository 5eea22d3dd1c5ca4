"""The families whose models have heads of ours: what is trained, saved and opened again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexing.progress import Silent
from retrieval.encoders import open_encoder
from retrieval.errors import ConfigError
from retrieval.exact import dense_scores, query_network_scores
from retrieval.topk import top_k
from retrieval.values import Document
from training.families.family import Sample
from training.families.table import family
from training.recipe.options import ModelOptions

QUERIES = ("river mountain", "the cat", "fast red fish", "old")
DOCUMENTS = ("search engine index", "river in the mountain", "the dog and the cat", "slow green bird", "")
SAMPLE = Sample(QUERIES, DOCUMENTS[:4])
OPTIONS = {
    "multivariate": {"dim": 16, "beta": 2.0},
    "hypencoder": {"layers": 2, "mip": True, "normalised": True, "hidden": 8},
}
NAMES = list(OPTIONS)


def opened(name: str, base: Path, seed: int = 0, **options: Any) -> Any:
    wanted = ModelOptions(str(base), **({"max_length": 32, "options": OPTIONS[name]} | options))
    return family(name).open(wanted, seed, SAMPLE, Silent())


def scores_of(name: str, model: Any) -> Any:
    kind = family(name)
    queries = kind.represent(model, kind.features(model, QUERIES, "query"), "query")
    documents = kind.represent(model, kind.features(model, DOCUMENTS, "document"), "document")
    assert all(len(part) == len(QUERIES) for part in queries)
    assert all(len(part) == len(DOCUMENTS) for part in documents)
    return kind.score(queries, documents)


def train_a_little(name: str, model: Any) -> None:
    import torch

    optimiser = torch.optim.SGD([part for part in model.parameters() if part.requires_grad], lr=0.005)
    for _ in range(2):
        loss = torch.nn.functional.cross_entropy(scores_of(name, model), torch.arange(len(QUERIES)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@pytest.mark.parametrize("name", NAMES)
def test_the_saved_model_gives_the_scores_of_the_trained_one(name, still: Path, tmp_path: Path):
    import torch

    kind, model = family(name), opened(name, still)
    train_a_little(name, model)
    with torch.no_grad():
        trained = scores_of(name, model.eval())
    kind.save(model, tmp_path / "saved")
    encoder = open_encoder(
        {"family": name, "model": str(tmp_path / "saved"), "options": {"dtype": "float32"}}
    )
    queries = encoder.encode_queries(QUERIES)
    documents = encoder.encode_documents([Document(str(row), text) for row, text in enumerate(DOCUMENTS)])
    oracle = query_network_scores if name == "hypencoder" else dense_scores
    np.testing.assert_allclose(oracle(queries, documents), trained, rtol=1e-3, atol=1e-3)
    hits, _ = kind.search(model, QUERIES, DOCUMENTS, 3, Silent())
    expected = top_k(trained.numpy(), 3)  # the search may compute in half precision
    np.testing.assert_allclose(hits.scores, expected.scores, rtol=0.1, atol=0.2)


@pytest.mark.parametrize("name", NAMES)
def test_every_part_of_the_heads_and_the_encoder_learns(name, still: Path):
    import torch

    model = opened(name, still)
    train_a_little(name, model)
    model.zero_grad()
    torch.nn.functional.cross_entropy(scores_of(name, model), torch.arange(len(QUERIES))).backward()
    idle = {key for key, part in model.named_parameters() if part.grad is None or not part.grad.any()}
    assert all("pooler" in key for key in idle), idle


@pytest.mark.parametrize("name", NAMES)
def test_chunks_have_the_gradients_of_the_whole_batch(name, still: Path):
    import torch

    from training.trainer.gradcache import cached_loss

    kind, model = family(name), opened(name, still)
    train_a_little(name, model)
    sides = {"query": QUERIES, "document": DOCUMENTS}
    features = {task: kind.features(model, texts, task) for task, texts in sides.items()}

    def calculate(found: Any) -> tuple[Any, dict[str, Any]]:
        scores = kind.score(found["query"], found["document"])
        return torch.nn.functional.cross_entropy(scores, torch.arange(len(QUERIES))), {}

    def at_once() -> Any:
        return calculate({task: kind.represent(model, part, task) for task, part in features.items()})[0]

    def gradients(loss: Any) -> dict[str, Any]:
        model.zero_grad()
        loss().backward()
        return {key: part.grad.clone() for key, part in model.named_parameters() if part.grad is not None}

    whole = gradients(at_once)
    cached = gradients(lambda: cached_loss(model, kind, features, 2, calculate)[0])
    assert whole.keys() == cached.keys()
    for key, gradient in whole.items():
        torch.testing.assert_close(cached[key], gradient, rtol=1e-3, atol=1e-4, msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_the_heads(name, still: Path):
    import torch

    first, again, other = (opened(name, still, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    differ = any(not torch.equal(first[key], other[key]) for key in first)
    assert differ == (name == "hypencoder")  # the others begin without chance


@pytest.mark.parametrize("name", NAMES)
def test_heads_are_new_and_learn_beside_low_rank_updates(name, still: Path, tmp_path: Path):
    pytest.importorskip("peft")
    model = opened(name, still, lora_rank=2)
    trained = {key for key, value in model.named_parameters() if value.requires_grad}
    kind = family(name)
    assert trained == {key for key, _ in model.named_parameters() if kind.is_new(key)}
    assert any(".heads." in key for key in trained) and any(".lora_" in key for key in trained)
    train_a_little(name, model)
    kind.save(model, tmp_path / "saved")
    assert open_encoder({"family": name, "model": str(tmp_path / "saved")}).encode_queries(["cat"])


@pytest.mark.parametrize("name", NAMES)
def test_a_trained_model_can_be_trained_on(name, still: Path, tmp_path: Path):
    import torch

    model = opened(name, still)
    train_a_little(name, model)
    family(name).save(model, tmp_path / "saved")
    again = opened(name, tmp_path / "saved", options={})
    with torch.no_grad():
        assert torch.allclose(scores_of(name, again.eval()), scores_of(name, model.eval()), atol=1e-4)
    with pytest.raises(ConfigError, match="has heads of its own; leave"):
        opened(name, tmp_path / "saved")


@pytest.mark.parametrize("name", NAMES)
def test_what_does_not_suit_is_refused(name, still: Path):
    with pytest.raises(ConfigError, match="no_such_option"):
        opened(name, still, options={"no_such_option": 1})
    with pytest.raises(ConfigError, match="query_layers"):
        opened(name, still, query_layers=1)
    wrong = {"dim": 1000} if name == "multivariate" else {"normalised": False, "hidden": 3}
    with pytest.raises(ConfigError, match=r"model\.options"):
        opened(name, still, options=wrong)


def test_finishing_a_multivariate_model_keeps_its_rankings(still: Path, tmp_path: Path):
    import torch

    kind, model = family("multivariate"), opened("multivariate", still)
    train_a_little("multivariate", model)
    with torch.no_grad():
        before = scores_of("multivariate", model.eval())
        kind.finish(model, ModelOptions(str(still)), SAMPLE, Silent())
        after = scores_of("multivariate", model)
    moved = after - before
    assert torch.allclose(moved, moved[:, :1].expand_as(moved), atol=1e-3)
    documents = kind.represent(model, kind.features(model, SAMPLE.documents, "document"), "document")[0]
    assert documents[:, 1:17].mean(0).abs().max() < 0.05  # 1 - reference / variance, in half precision
    kind.save(model, tmp_path / "saved")
    encoder = open_encoder(
        {"family": "multivariate", "model": str(tmp_path / "saved"), "options": {"dtype": "float32"}}
    )
    made = encoder.encode_documents([Document(text, text) for text in SAMPLE.documents])
    np.testing.assert_allclose(made.values, documents.detach(), rtol=1e-3, atol=1e-3)


def test_an_untrained_hypencoder_ranks_as_its_base_does(still: Path):
    import torch

    plain = family("dense").open(ModelOptions(str(still), max_length=32), 0, SAMPLE, Silent())
    with torch.no_grad():
        expected = scores_of("dense", plain.eval())
        found = scores_of("hypencoder", opened("hypencoder", still, options={}).eval())
    assert torch.corrcoef(torch.stack([expected.ravel(), found.ravel()]))[0, 1] > 0.99


def test_an_untrained_multivariate_model_ranks_as_its_base_does(still: Path):
    import torch

    plain = family("dense").open(ModelOptions(str(still), max_length=32), 0, SAMPLE, Silent())
    with torch.no_grad():
        expected = scores_of("dense", plain.eval())
        found = scores_of("multivariate", opened("multivariate", still, options={}).eval())
    assert torch.allclose(found, 2 * expected - 1, atol=1e-4)
