"""Contenders on a device against the definition: by torch always, by Triton on a GPU or in its interpreter."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval import dense_gpu
from retrieval.bitmap import Bitmap
from retrieval.dense_gpu import _Asked, joined, near_rows, nearest_lists
from retrieval.dense_tiles import Visits, tile_maxima, tile_scores
from retrieval.device_vectors import TILE, DeviceVectors, tiles_of
from retrieval.errors import MissingExtraError

PLAIN = "cpu:0"  # a device as any other, where torch does the work
HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture(params=["torch", "triton"])
def device(request, monkeypatch) -> str:
    """Where vectors go for a kernel to multiply them."""
    if request.param == "torch":
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        return PLAIN
    if importlib.util.find_spec("triton") is None:
        pytest.skip("the kernels need Triton: pip install 'tercet[gpu]'")
    if torch.cuda.is_available():
        return "cuda"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    import triton.language as tl

    if type(tl.max).__name__ != "InterpretedFunction":
        pytest.skip("Triton was imported before its interpreter was asked for: set TRITON_INTERPRET=1")
    return PLAIN


def vectors_of(n: int, dim: int, seed: int, dtype=np.float32, scale: float = 1.0) -> np.ndarray:
    """Clustered vectors of about unit length, the second half copies of the first."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).standard_normal((5, dim))
    values = centres[rng.integers(0, 5, n)] + 0.3 * rng.standard_normal((n, dim))
    values[n // 2 :] = values[: n - n // 2]
    return (scale * values / np.linalg.norm(values, axis=1, keepdims=True)).astype(dtype)


def norm_of(values: np.ndarray) -> float:
    return float(np.linalg.norm(values.astype(np.float64), axis=1).max(initial=0))


def true_scores(queries: np.ndarray, values: np.ndarray) -> np.ndarray:
    return (queries.astype(np.float64) @ values.astype(np.float64).T).astype(np.float32)


def holds_the_best(found, scores: np.ndarray, k: int) -> None:
    """Every row at least as good as the k-th best is among the contenders, none of them twice."""
    for line, rows in enumerate(found.rows.cpu().numpy()):
        rows = rows[rows >= 0]
        assert len(set(rows.tolist())) == len(rows)
        counted = np.sort(scores[line][scores[line] > -np.inf])
        if len(counted):
            kth = counted[-min(k, len(counted))]
            assert set(np.flatnonzero(scores[line] >= kth).tolist()) <= set(rows.tolist())


@pytest.mark.parametrize("dim", [1, 20, 130])
@pytest.mark.parametrize("stored", [np.float16, np.float32])
@pytest.mark.parametrize("dtype", [*HALVES, torch.float32], ids=str)
def test_the_best_rows_are_among_the_contenders(device, dim, stored, dtype, request):
    if dtype is torch.bfloat16 and "triton" in request.node.callspec.id and device != "cuda":
        pytest.skip("Triton's interpreter multiplies the bits of bfloat16 as whole numbers")
    values, queries = vectors_of(300, dim, 2, stored), vectors_of(18, dim, 3)
    there = DeviceVectors.of(values, norm_of(values), device, dtype=dtype)
    scores = true_scores(queries, values)
    for k in (1, 10, 299, 300):
        found = near_rows(there, queries, k)
        assert found.settled.all()
        holds_the_best(found, scores, k)
    allowed = np.random.default_rng(4).random(300) < 0.05
    found = near_rows(there, queries, 10, allowed=there.mask(Bitmap.from_mask(allowed)))
    assert allowed[found.rows.cpu().numpy()[found.rows.cpu().numpy() >= 0]].all()
    holds_the_best(found, np.where(allowed, scores, -np.inf), 10)


def test_contenders_are_few(device):
    values, queries = vectors_of(3000, 64, 5, np.float16), vectors_of(6, 64, 6)
    found = near_rows(DeviceVectors.of(values, norm_of(values), device), queries, 10)
    assert int((found.rows >= 0).sum(1).max()) <= 14  # 10 and the copy of the last, with room for chance


@pytest.mark.parametrize("n_probes", [1, 3, 7])
def test_a_query_sees_the_rows_of_its_lists_alone(device, n_probes):
    rng = np.random.default_rng(7)
    values, queries = vectors_of(900, 24, 8), vectors_of(40, 24, 9)
    sizes = np.array([0, 1, TILE, TILE + 1, 300, 0, 900 - 302 - 2 * TILE])
    rows = rng.permutation(900)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    there = DeviceVectors.of(values, norm_of(values), device, rows=rows, offsets=offsets)
    probes = np.stack([rng.permutation(7)[:n_probes] for _ in queries])
    lists = np.empty(900, dtype=np.int64)
    lists[rows] = np.repeat(np.arange(7), sizes)
    allowed = rng.random(900) < 0.5
    for mask in (None, allowed):
        seen = (lists[None, :, None] == probes[:, None, :]).any(2) & (True if mask is None else mask)
        found = near_rows(
            there,
            queries,
            5,
            probes=torch.from_numpy(probes).to(device),
            allowed=None if mask is None else there.mask(Bitmap.from_mask(mask)),
        )
        holds_the_best(found, np.where(seen, true_scores(queries, values), -np.inf), 5)
        for line, line_rows in enumerate(found.rows.cpu().numpy()):
            assert seen[line, line_rows[line_rows >= 0]].all()


def test_lists_without_rows_have_no_contenders():
    values = vectors_of(10, 8, 10)
    there = DeviceVectors.of(
        values, norm_of(values), PLAIN, rows=np.arange(10), offsets=np.array([0, 0, 10, 10])
    )
    found = near_rows(there, values[:3], 2, probes=torch.tensor([[0], [2], [0]]))
    assert found.rows.shape == (3, 0) and found.settled.all()


@settings(max_examples=40)
@given(
    st.sampled_from([1, 20, 128]),
    st.sampled_from([1e-20, 1e-3, 1.0, 1e20]),
    st.sampled_from([*HALVES, torch.float32]),
    st.integers(0, 10**6),
)
def test_estimates_are_within_the_stated_error(dim, scale, dtype, seed):
    for stored in (np.float16, np.float32) if scale == 1 else (np.float32,):
        values, queries = (
            vectors_of(50, dim, seed, stored, scale),
            vectors_of(6, dim, seed + 1, scale=1 / scale),
        )
        there = DeviceVectors.of(values, norm_of(values), PLAIN, dtype=dtype)
        asked = _Asked.of(queries, there)
        exact = asked.exact.double().numpy() @ (values.astype(np.float64) * there.scale).T
        every = torch.zeros((6, 1), dtype=torch.int64)
        visits = Visits.of(there.first_tile, every)
        coarse = tile_maxima(there, asked.rounded, visits, None).numpy()[:, 0]
        assert (np.abs(coarse - exact.max(1)) <= asked.coarse_slack.numpy() / 2).all()
        fine = tile_scores(there, asked.exact, every, None).numpy()[:, :50]
        assert (np.abs(fine - exact).max(1) <= asked.fine_slack.numpy() / 2).all()
        loose = {torch.float16: 3e-3, torch.bfloat16: 2e-2, torch.float32: 6e-3}[dtype]
        assert (asked.coarse_slack.numpy() <= 2 * loose * there.norm).all()


def test_tile_maxima_are_those_of_the_definition(device):
    values, queries = vectors_of(500, 70, 11, np.float16), vectors_of(33, 70, 12)
    rows, sizes = np.random.default_rng(13).permutation(500), [200, 10, 290]
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    there = DeviceVectors.of(values, 1.001, device, rows=rows, offsets=offsets)
    asked, probes = _Asked.of(queries, there), np.tile([[0, 1], [2, 0], [1, 2]], (11, 1))
    visits = Visits.of(there.first_tile, torch.from_numpy(probes).to(device))
    maxima = tile_maxima(there, asked.rounded, visits, None).cpu().numpy()
    products = asked.rounded.double().cpu().numpy() @ values[rows].astype(np.float64).T
    bounds, first_tile = there.bounds.tolist(), there.first_tile.tolist()
    for line, looked in enumerate(probes.tolist()):
        tiles = [tile for number in looked for tile in range(first_tile[number], first_tile[number + 1])]
        wanted = [products[line, bounds[tile] : bounds[tile + 1]].max() for tile in tiles]
        np.testing.assert_allclose(maxima[line, : len(tiles)], wanted, atol=1e-5)
        assert np.isneginf(maxima[line, len(tiles) :]).all()


def test_too_many_near_ties_are_not_called_settled():
    values = np.repeat(vectors_of(1, 16, 14), 3000, axis=0)
    values[0] *= 0.5
    found = near_rows(DeviceVectors.of(values, 1.001, PLAIN), values[:2], 3)
    assert not found.settled.any()
    assert found.rows.shape[1] <= 4 * 3 + 1024


def test_queries_in_blocks_have_the_same_contenders():
    values, queries = vectors_of(700, 12, 15), vectors_of(50, 12, 16)
    there = DeviceVectors.of(values, norm_of(values), PLAIN)
    whole = near_rows(there, queries, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense_gpu, "_ESTIMATES", 1)
        alone = near_rows(there, queries, 4)
    for one, other in zip(whole.rows.tolist(), alone.rows.tolist(), strict=True):
        assert {row for row in one if row >= 0} == {row for row in other if row >= 0}


def test_parts_of_the_vectors_are_joined():
    values, queries = vectors_of(600, 12, 17), vectors_of(9, 12, 18)
    parts = []
    for start in range(0, 600, 250):
        found = near_rows(DeviceVectors.of(values[start : start + 250], norm_of(values), PLAIN), queries, 7)
        parts.append(found._replace(rows=torch.where(found.rows >= 0, found.rows + start, -1)))
    both = joined(parts, 7)
    holds_the_best(both, true_scores(queries, values), 7)
    assert both.settled.all() and both.rows.shape[1] < 30


def test_the_nearest_lists_have_the_largest_products():
    centroids, queries = vectors_of(40, 10, 19), vectors_of(7, 10, 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense_gpu, "_ESTIMATES", 100)
        probes = nearest_lists(torch.from_numpy(centroids), queries, 6).numpy()
    products = true_scores(queries, centroids)
    np.testing.assert_allclose(
        np.sort(np.take_along_axis(products, probes, 1)), np.sort(products)[:, -6:], rtol=1e-5
    )
    assert nearest_lists(torch.from_numpy(centroids), queries, 99).shape == (7, 40)


@pytest.mark.parametrize("n_queries", [1, 16, 17, 300])
def test_one_list_for_all_needs_no_grouping(n_queries):
    first_tile = torch.tensor([0, 37])
    short = Visits.whole(first_tile, 37, n_queries)
    full = Visits.of(first_tile, torch.zeros((n_queries, 1), dtype=torch.int64))
    for name in ("probes", "ends", "query", "shift", "tile", "first", "last"):
        assert torch.equal(getattr(short, name), getattr(full, name)), name
    assert (short.width, short.together) == (full.width, full.together)


@given(st.lists(st.integers(0, 3 * TILE), min_size=1, max_size=12))
def test_tiles_cover_every_list_and_belong_to_one(sizes):
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    bounds, first_tile = tiles_of(offsets)
    lengths = np.diff(bounds)
    assert ((lengths > 0) & (lengths <= TILE)).all()
    assert bounds[first_tile].tolist() == offsets.tolist()


def test_vectors_are_brought_in_parts_with_what_rounding_took():
    values = vectors_of(100, 6, 21, scale=300.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("retrieval.device_vectors._COPIED", 60)
        there = DeviceVectors.of(values, norm_of(values), PLAIN)
    gone = values.astype(np.float64) * there.scale - there.values.double().numpy()
    assert np.linalg.norm(gone, axis=1).max() <= there.lost <= 2.0**-11 * there.norm
    assert 2.0**13 <= there.norm <= 2.0**14
    assert DeviceVectors.of(values.astype(np.float16), 300.1, PLAIN).lost == 0


def test_a_missing_triton_is_named_with_its_extra(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setitem(sys.modules, "retrieval.dense_triton", None)
    monkeypatch.delattr("retrieval.dense_triton", raising=False)
    values = vectors_of(3, 4, 22)
    with pytest.raises(MissingExtraError, match=r"triton is not installed.*tercet\[gpu\]"):
        near_rows(DeviceVectors.of(values, 1.001, PLAIN), values, 1)
