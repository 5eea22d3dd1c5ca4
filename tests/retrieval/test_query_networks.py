"""Networks of queries: the value itself, and the scores they give."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval import compute
from retrieval.errors import CorruptError, IncompatibleError
from retrieval.exact import dense_scores, query_network_scores
from retrieval.query_networks import best_rows, network_scores, score_rows
from retrieval.topk import top_k
from retrieval.values import Dense, QueryNetwork

SHAPES = [(20, 1), (20, 20, 1), (20, 20, 20, 20, 1), (20, 33, 33, 7, 1), (3, 5, 1)]


def random_networks(
    n: int, widths: tuple[int, ...], normalised: bool, dtype: Any = np.float32
) -> QueryNetwork:
    rng = np.random.default_rng(len(widths))
    weights = [
        rng.normal(0, before**-0.5, (n, after, before)) for before, after in itertools.pairwise(widths)
    ]
    biases = [rng.normal(0, 0.3, (n, width)) for width in widths[1:-1]]
    return QueryNetwork(
        tuple(part.astype(dtype) for part in weights),
        tuple(part.astype(dtype) for part in biases),
        normalised,
    )


def random_documents(n: int, dim: int = 20, dtype: Any = np.float32) -> Dense:
    return Dense(np.random.default_rng(1).standard_normal((n, dim)).astype(dtype))


# --- scores ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("widths", SHAPES, ids=str)
def test_scores_are_those_of_the_definition(widths, normalised):
    networks = random_networks(3, widths, normalised)
    documents = random_documents(300, widths[0])
    expected = query_network_scores(networks, documents)
    np.testing.assert_allclose(network_scores(networks, documents.values), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("widths", SHAPES, ids=str)
def test_torch_computes_the_same_for_training(widths, normalised):
    import torch

    from retrieval.encoders.transformer.hyper_heads import network_scores as with_torch

    networks, documents = random_networks(3, widths, normalised), random_documents(30, widths[0])
    tensors = tuple(torch.from_numpy(array) for array in networks.arrays)
    scores = with_torch(tensors, torch.from_numpy(documents.values), normalised)
    np.testing.assert_allclose(scores, query_network_scores(networks, documents), rtol=1e-4, atol=1e-5)


def test_a_network_of_one_layer_is_a_dense_query():
    networks, documents = random_networks(4, (20, 1), normalised=True), random_documents(50)
    queries = Dense(networks.weights[0][:, 0])
    expected = dense_scores(queries, documents)
    np.testing.assert_allclose(network_scores(networks, documents.values), expected, rtol=1e-5, atol=1e-6)


def test_hidden_weights_of_zero_leave_the_inner_product_where_nothing_is_normalised():
    zeros = np.zeros((1, 20, 20), dtype=np.float32)
    vector, documents = random_documents(1).values[:, None], random_documents(50)
    networks = QueryNetwork((zeros, zeros, vector), (zeros[:, 0], zeros[:, 0]), normalised=False)
    expected = dense_scores(Dense(vector[:, 0]), documents)
    np.testing.assert_allclose(network_scores(networks, documents.values), expected, rtol=1e-5, atol=1e-6)


def test_a_score_depends_on_network_and_document_alone():
    networks, documents = random_networks(5, (20, 20, 20, 1), normalised=True), random_documents(700)
    whole = network_scores(networks, documents.values)
    alone = [
        network_scores(networks[q : q + 1], documents.values[n : n + 1])[0, 0]
        for q, n in itertools.product(range(5), (0, 3, 699))
    ]
    assert np.array_equal(alone, whole[:, [0, 3, 699]].ravel())
    assert np.array_equal(network_scores(networks, documents.values[130:500]), whole[:, 130:500])
    compute.set_threads(3)
    try:
        assert np.array_equal(network_scores(networks, documents.values), whole)
    finally:
        compute.set_threads(None)


def test_half_precision_is_widened_not_computed_in():
    networks = random_networks(2, (20, 20, 1), normalised=True, dtype=np.float16)
    documents = random_documents(40, dtype=np.float16)
    expected = query_network_scores(networks, documents)
    np.testing.assert_allclose(network_scores(networks, documents.values), expected, rtol=1e-4, atol=1e-5)


def test_chosen_rows_have_the_scores_of_all_rows():
    networks, documents = random_networks(2, (20, 20, 1), normalised=True), random_documents(90)
    rows = np.array([[5, -1, 80], [-1, 0, 5]])
    whole = network_scores(networks, documents.values)
    expected = [[whole[0, 5], -np.inf, whole[0, 80]], [-np.inf, whole[1, 0], whole[1, 5]]]
    assert np.array_equal(score_rows(networks, documents, rows), np.array(expected, dtype=np.float32))


@pytest.mark.parametrize("rows", [None, np.arange(4, 90, 3)])
def test_the_best_rows_are_those_of_the_scores(rows):
    networks, documents = random_networks(3, (20, 20, 1), normalised=True), random_documents(90)
    scores = network_scores(networks, documents.values)
    expected = top_k(scores, 40) if rows is None else top_k(scores[:, rows], 40, rows)
    found = best_rows(networks, documents, rows, 40)
    assert np.array_equal(found.rows, expected.rows)
    assert np.array_equal(found.scores, expected.scores)


def test_unusable_networks_are_refused():
    networks, documents = random_networks(2, (20, 20, 1), normalised=True), random_documents(5)
    with pytest.raises(IncompatibleError, match=r"width 20.*width 3"):
        network_scores(networks, random_documents(5, 3).values)
    networks.biases[0][1, 4] = np.nan
    with pytest.raises(ValueError, match="query 1 holds NaN"):
        network_scores(networks, documents.values)
    networks.biases[0][1, 4] = 0
    networks.weights[1][0] = 3e38
    with pytest.raises(ValueError, match="exceed float32"):
        network_scores(networks, documents.values)


# --- the value -------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(
    n=st.integers(0, 4),
    widths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    normalised=st.booleans(),
    half=st.booleans(),
)
def test_networks_survive_disk_slices_and_joins(tmp_path_factory, n, widths, normalised, half):
    networks = random_networks(n, (*widths, 1), normalised, np.float16 if half else np.float32)
    folder = tmp_path_factory.mktemp("networks")
    networks.save(folder)
    loaded = QueryNetwork.load(folder)
    joined = QueryNetwork.concat([loaded[:1], loaded[1:2], loaded[2:]])
    for other in (loaded, joined, loaded.take(np.arange(n)[::-1])[::-1]):
        assert (len(other), other.dim, other.normalised) == (n, widths[0], normalised)
        for one, two in zip(networks.arrays, other.arrays, strict=True):
            assert one.dtype == two.dtype and np.array_equal(one, two)


def test_what_is_no_network_is_refused():
    weight, last, bias = (
        np.zeros((2, 4, 3), np.float32),
        np.zeros((2, 1, 4), np.float32),
        np.zeros((2, 4), np.float32),
    )
    QueryNetwork((weight, last), (bias,))
    for weights, biases, message in [
        ((), (), "a bias for every layer but the last"),
        ((weight, last), (), "a bias for every layer but the last"),
        ((weight, last), (bias.astype(np.float16),), "all float32, or all float16"),
        ((weight.astype(np.float64),), (), "all float32, or all float16"),
        ((weight,), (), r"layer 0 has weights of shape \(2, 4, 3\); expected \(2, 1, 3\)"),
        ((weight, last[:1]), (bias,), r"layer 1 .* expected \(2, 1, 4\)"),
        ((weight, last[:, :, :3]), (bias,), "layer 1"),
        ((weight[0], last), (bias,), "layer 0"),
        ((weight, last), (bias[:, :3],), "layer 0 has biases"),
    ]:
        with pytest.raises(ValueError, match=message):
            QueryNetwork(weights, biases)


def test_networks_of_different_forms_are_not_joined():
    one, other = random_networks(1, (4, 4, 1), True), random_networks(1, (4, 4, 1), False)
    with pytest.raises(ValueError, match="different forms"):
        QueryNetwork.concat([one, other])


def test_damage_on_disk_is_found(tmp_path):
    random_networks(2, (4, 4, 1), True).save(tmp_path)
    facts = json.loads((tmp_path / "value.json").read_text())
    for change in ({"layers": 3}, {"layers": None}, {"arrays": ["weight_0"]}, {"value": "dense"}):
        (tmp_path / "value.json").write_text(json.dumps(facts | change))
        with pytest.raises(CorruptError, match=r"value\.json"):
            QueryNetwork.load(tmp_path)
    (tmp_path / "value.json").write_text(json.dumps(facts))
    (tmp_path / "bias_0.npy").write_bytes((tmp_path / "bias_0.npy").read_bytes()[:-1])
    with pytest.raises(CorruptError, match=r"bias_0\.npy"):
        QueryNetwork.load(tmp_path)
