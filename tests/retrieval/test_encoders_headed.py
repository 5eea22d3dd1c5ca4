"""Encoders with heads behind a dense model: multivariate ones and hypencoders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.encoders import open_encoder
from retrieval.encoders.hypencoder import HypencoderEncoder
from retrieval.encoders.multivariate import FORMS, MultivariateEncoder
from retrieval.errors import ConfigError, CorruptError, FormatError
from retrieval.exact import dense_scores
from retrieval.query_networks import network_scores
from retrieval.values import Document

TEXTS = [
    "the cat and the dog",
    "river mountain",
    "Alpha beta, gamma! " * 20,
    "search engine index vector query",
    "",
]
DOCUMENTS = [Document(str(number), text) for number, text in enumerate(TEXTS)]
EXACT = {"dtype": "float32"}


def sentence_transformer(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", trust_remote_code=True, local_files_only=True)


def gaussians(n: int, k: int, seed: int = 0) -> tuple[Any, Any]:
    import torch

    rng = np.random.default_rng(seed)
    return (
        torch.from_numpy(rng.normal(0, 1, (n, k)).astype(np.float32)),
        torch.from_numpy(rng.gamma(4, 0.25, (n, k)).astype(np.float32)),
    )


def divergence(query: tuple[Any, Any], document: tuple[Any, Any]) -> float:
    """KL(query || document) of diagonal normal distributions, dimension by dimension."""
    total = 0.0
    for mean, variance, to_mean, to_variance in zip(*query, *document, strict=True):
        ratio = float(variance) / float(to_variance)
        total += 0.5 * (ratio - 1 - np.log(ratio) + (float(mean) - float(to_mean)) ** 2 / float(to_variance))
    return total


# --- multivariate ----------------------------------------------------------------------------------


def test_the_exact_fold_is_the_divergence_from_a_standard_normal_minus_that_from_the_document():
    import torch

    from retrieval.encoders.transformer.gaussian_heads import exact_document, exact_query

    (means, variances), documents = gaussians(6, 9), gaussians(11, 9, seed=1)
    scores = (exact_query(means, variances) @ exact_document(*documents).T).numpy()
    assert exact_query(means, variances).shape == (6, 2 * 9 + 1)
    standard = (torch.zeros(9), torch.ones(9))
    for q in range(6):
        query = (means[q], variances[q])
        for d in range(11):
            expected = 2 * divergence(query, standard) - 2 * divergence(
                query, (documents[0][d], documents[1][d])
            )
            assert scores[q, d] == pytest.approx(expected, rel=1e-4, abs=1e-3)


def test_the_papers_fold_has_the_product_of_ratios_where_the_divergence_has_their_sum():
    from retrieval.encoders.transformer.gaussian_heads import paper_document, paper_query

    (means, variances), (to_means, to_variances) = gaussians(5, 4), gaussians(7, 4, seed=1)
    scores = (paper_query(means, variances) @ paper_document(to_means, to_variances).T).numpy()
    assert paper_query(means, variances).shape == (5, 2 * 4 + 2)
    for q in range(5):
        for d in range(7):
            expected = -float((variances[q] / to_variances[d]).prod())
            expected -= float(
                to_variances[d].log().sum() + ((means[q] - to_means[d]) ** 2 / to_variances[d]).sum()
            )
            assert scores[q, d] == pytest.approx(expected, rel=1e-4, abs=1e-3)


def test_the_papers_fold_stays_finite_where_products_of_variances_do_not():
    import torch

    from retrieval.encoders.transformer.gaussian_heads import paper_document, paper_query

    mean = torch.zeros(2, 400)
    variance = torch.stack([torch.full((400,), 0.01), torch.full((400,), 100.0)])
    assert torch.isfinite(paper_query(mean, variance)).all()
    assert torch.isfinite(paper_document(mean, variance)).all()


def test_new_heads_rank_by_distance_from_the_pooled_vector():
    import torch

    from retrieval.encoders.transformer.gaussian_heads import GaussianHeads

    heads, rng = GaussianHeads(12, 8, 8), np.random.default_rng(0)
    pooled = torch.nn.functional.normalize(
        torch.from_numpy(rng.normal(size=(9, 8)).astype(np.float32)), dim=1
    )
    first = torch.from_numpy(rng.normal(size=(9, 12)).astype(np.float32))
    with torch.no_grad():
        mean, variance = heads.distribution(pooled, first)
        scores = heads.folded(mean, variance, "query") @ heads.folded(mean, variance, "document").T
    assert torch.allclose(mean, pooled) and torch.allclose(variance, torch.ones_like(variance))
    expected = 2 * pooled @ pooled.T - 1  # what is left of |q|^2 - |q - d|^2
    assert torch.allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_another_reference_changes_no_ranking_and_makes_vectors_short(form):
    from retrieval.encoders.transformer.gaussian_heads import GaussianHeads

    heads, (means, variances), documents = (
        GaussianHeads(9, 9, 9, form),
        gaussians(6, 9),
        gaussians(40, 9, seed=1),
    )
    queries, documents = (0.1 * means, 0.01 * variances), (0.1 * documents[0], 0.01 * documents[1])

    def scores() -> tuple[Any, float]:
        vectors = heads.folded(*documents, "document")
        return heads.folded(*queries, "query") @ vectors.T, float(vectors.norm(dim=1).mean())

    before, length = scores()
    heads.refer_to(documents[1])
    after, shorter = scores()
    moved = after - before  # by the same for all documents of a query
    assert moved.numpy() == pytest.approx(np.broadcast_to(moved[:, :1], moved.shape), rel=1e-3, abs=2e-2)
    assert shorter < 0.5 * length if form == "exact" else shorter == length


@pytest.mark.parametrize("form", FORMS)
def test_multivariate_vectors_are_those_of_sentence_transformers(form, with_heads: Callable[..., Path]):
    from retrieval.encoders.transformer.gaussian_heads import GaussianHeads

    folder = with_heads(GaussianHeads, dim=7, form=form, beta=2.0)
    encoder, model = MultivariateEncoder.open(str(folder), EXACT), sentence_transformer(folder)
    assert encoder.form == form and encoder.dim == (15 if form == "exact" else 16)
    settings = {"show_progress_bar": False, "convert_to_numpy": True}
    np.testing.assert_allclose(
        encoder.encode_queries(TEXTS).values, model.encode_query(TEXTS, **settings), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(
        encoder.encode_documents(DOCUMENTS).values,
        model.encode_document(TEXTS, **settings),
        rtol=1e-4,
        atol=1e-4,
    )


def test_the_form_is_an_option_and_part_of_the_identity(tiny_multivariate: Path):
    exact, paper = (
        MultivariateEncoder.open(str(tiny_multivariate), EXACT | {"form": form}) for form in FORMS
    )
    usual = MultivariateEncoder.open(str(tiny_multivariate), EXACT)
    assert usual.fingerprints == exact.fingerprints
    assert exact.fingerprints.documents != paper.fingerprints.documents
    assert exact.fingerprints.queries != paper.fingerprints.queries
    assert paper.spec["options"] == {"form": "paper"}
    assert (exact.dim, paper.dim) == (15, 16)
    with pytest.raises(ConfigError, match="valid: exact, paper"):
        MultivariateEncoder.open(str(tiny_multivariate), {"form": "folded"})


def test_lengths_and_prompts_are_part_of_the_identity(tiny_multivariate: Path):
    usual = MultivariateEncoder.open(str(tiny_multivariate)).fingerprints
    shorter = MultivariateEncoder.open(str(tiny_multivariate), {"max_length": 16}).fingerprints
    prompted = MultivariateEncoder.open(str(tiny_multivariate), {"query_prompt": "query: "}).fingerprints
    assert shorter.documents != usual.documents
    assert (prompted.documents, prompted.queries == usual.queries) == (usual.documents, False)


# --- hypencoders -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [{"layers": 2}, {"layers": 1, "normalised": False, "mip": True}, {"layers": 0}]
)
def test_networks_are_those_of_sentence_transformers(arguments, with_heads: Callable[..., Path]):
    import torch

    from retrieval.encoders.transformer.hyper_heads import HyperHeads
    from retrieval.encoders.transformer.hyper_heads import network_scores as with_torch

    folder = with_heads(HyperHeads, **arguments)
    encoder, model = HypencoderEncoder.open(str(folder), EXACT), sentence_transformer(folder)
    networks, documents = encoder.encode_queries(TEXTS), encoder.encode_documents(DOCUMENTS)
    assert len(networks.weights) == arguments["layers"] + 1
    with torch.no_grad():
        made = model(model.preprocess(TEXTS, task="query"), task="query")
        vectors = model(model.preprocess(TEXTS, task="document"), task="document")["sentence_embedding"]
        scores = with_torch(made["networks"], vectors, networks.normalised)
    np.testing.assert_allclose(documents.values, vectors, atol=1e-5)
    for one, other in zip(networks.arrays, made["networks"], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(network_scores(networks, documents.values), scores, rtol=1e-2, atol=1e-2)


def test_documents_of_a_hypencoder_are_those_of_the_dense_model(tiny_bert: Path, tiny_hypencoder: Path):
    dense = open_encoder({"family": "dense", "model": str(tiny_bert), "options": EXACT})
    hypencoder = HypencoderEncoder.open(str(tiny_hypencoder), EXACT)
    np.testing.assert_allclose(
        hypencoder.encode_documents(DOCUMENTS).values, dense.encode_documents(DOCUMENTS).values, atol=1e-6
    )


def test_networks_that_are_not_normalised_begin_as_inner_products(tiny_bert: Path, tmp_path: Path):
    import torch
    from sentence_transformers import SentenceTransformer

    from retrieval.encoders.transformer.hyper_heads import HyperHeads

    torch.manual_seed(0)
    modules = [
        *SentenceTransformer(str(tiny_bert), device="cpu").children(),
        HyperHeads(32, 32, 2, normalised=False),
    ]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path), create_model_card=False)
    dense = open_encoder({"family": "dense", "model": str(tiny_bert), "options": EXACT})
    encoder = HypencoderEncoder.open(str(tmp_path), EXACT)
    scores = network_scores(encoder.encode_queries(TEXTS), encoder.encode_documents(DOCUMENTS).values)
    expected = dense_scores(dense.encode_queries(TEXTS), dense.encode_documents(DOCUMENTS))
    assert np.abs(scores - expected).max() < 0.2
    assert np.corrcoef(scores.ravel(), expected.ravel())[0, 1] > 0.99


def test_the_magnitude_of_token_vectors_is_taken_away_where_that_is_asked_for():
    import torch

    from retrieval.encoders.transformer.hyper_heads import HyperHeads

    tokens, pooled = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1)), torch.zeros(2, 8)
    for mip in (True, False):
        torch.manual_seed(0)
        heads = HyperHeads(12, 8, mip=mip)
        with torch.no_grad():
            for head in heads.heads:
                head.project.weight.normal_(std=0.3)
            small, large = heads.networks(tokens, None, pooled), heads.networks(30 * tokens, None, pooled)
        changed = max(float((one - other).abs().max()) for one, other in zip(small, large, strict=True))
        assert changed < 1e-4 if mip else changed > 0.1


def test_padding_does_not_enter_a_network():
    import torch

    from retrieval.encoders.transformer.hyper_heads import HyperHeads

    heads, tokens, pooled = HyperHeads(12, 8), torch.randn(1, 5, 12), torch.zeros(1, 8)
    padded = torch.cat([tokens, torch.full((1, 3, 12), 7.0)], dim=1)
    mask = torch.arange(8)[None] < 5
    with torch.no_grad():
        alone, beside = heads.networks(tokens, None, pooled), heads.networks(padded, mask, pooled)
    for one, other in zip(alone, beside, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_impossible_heads_are_refused():
    from retrieval.encoders.transformer.gaussian_heads import GaussianHeads
    from retrieval.encoders.transformer.hyper_heads import HyperHeads

    for arguments in ({"layers": -1}, {"hidden": 0}, {"hidden": 9, "normalised": False}):
        with pytest.raises(ValueError, match="layers"):
            HyperHeads(12, 8, **arguments)
    for arguments in ({"dim": 9}, {"dim": 0}, {"dim": 3, "form": "x"}, {"dim": 3, "beta": 0.0}):
        with pytest.raises(ValueError, match="form"):
            GaussianHeads(12, 8, **arguments)


# --- both ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["multivariate", "hypencoder"])
def test_a_model_of_another_family_is_refused(
    family, tiny_bert: Path, tiny_multivariate: Path, tiny_hypencoder: Path
):
    other = tiny_hypencoder if family == "multivariate" else tiny_multivariate
    for folder in (tiny_bert, other):
        with pytest.raises(ConfigError, match=f"is no {family} model"):
            open_encoder({"family": family, "model": str(folder)})
    with pytest.raises(ConfigError, match="no default model"):
        open_encoder({"family": family})
    with pytest.raises(ConfigError, match="no_such_option"):
        open_encoder({"family": family, "model": str(tiny_bert), "options": {"no_such_option": 1}})


def test_damaged_heads_are_found(tiny_hypencoder: Path, tmp_path: Path):
    shutil.copytree(tiny_hypencoder, tmp_path / "model")
    (heads,) = (tmp_path / "model").glob("*_HyperHeads")
    whole = (heads / "model.safetensors").read_bytes()
    (heads / "model.safetensors").write_bytes(whole[:-9])
    with pytest.raises(CorruptError, match=r"HyperHeads/model\.safetensors"):
        HypencoderEncoder.open(str(tmp_path / "model")).encode_queries(["cat"])
    (heads / "model.safetensors").write_bytes(whole)
    config = json.loads((heads / "config.json").read_text())
    (heads / "config.json").write_text(json.dumps(config | {"layers": 1}))
    with pytest.raises(CorruptError, match="not the weights of a HyperHeads"):
        HypencoderEncoder.open(str(tmp_path / "model")).encode_queries(["cat"])
    (heads / "config.json").write_text(json.dumps(config | {"unheard_of": 1}))
    with pytest.raises(FormatError, match="unheard_of"):
        HypencoderEncoder.open(str(tmp_path / "model")).encode_queries(["cat"])
