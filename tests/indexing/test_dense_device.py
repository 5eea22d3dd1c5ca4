"""Dense search on a device: the CPU's hits to the last bit, and what happens where there is no room."""

from __future__ import annotations

import importlib
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from indexing.dense import device_search as dense_device
from indexing.dense.candidate_search import search_candidates
from indexing.dense.device_copies import DeviceCopies, device_of_index, segment_device
from indexing.dense.device_search import InvertedLists, lists_nearest
from indexing.dense.flat import FlatIndex
from indexing.dense.scan import largest_norm, rank_rows
from retrieval.bitmap import Bitmap
from retrieval.device_vectors import DeviceVectors
from retrieval.errors import ConfigError, IncompatibleError
from retrieval.exact import dense_scores
from retrieval.protocols import SearchRequest
from retrieval.topk import top_k
from retrieval.values import Dense, Hits

DEVICE = "cuda" if torch.cuda.is_available() else "cpu:0"  # "cpu" would be the CPU's own kernels


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in ("TRITON_INTERPRET", "TERCET_DEVICE", "TERCET_STRICT_DEVICE"):
        monkeypatch.delenv(name, raising=False)


def vectors_of(n: int, dim: int, seed: int, dtype=np.float32) -> Dense:
    return Dense(np.random.default_rng(seed).standard_normal((n, dim)).astype(dtype))


def flat(vectors: Dense, device: str = DEVICE) -> FlatIndex:
    return FlatIndex(vectors, largest_norm(vectors), device)


def same(found: Hits, wanted: Hits) -> None:
    assert np.array_equal(found.rows, wanted.rows)
    assert np.array_equal(found.scores, wanted.scores)


def expected(vectors: Dense, queries: Dense, k: int, allowed: Bitmap | None = None) -> Hits:
    scores = dense_scores(queries, vectors)
    return top_k(scores if allowed is None else np.where(allowed.mask(), scores, -np.inf), k)


class NoRoom:
    """A device that is full."""

    asked = 0

    def of(self, *args, **kwargs):
        self.asked += 1
        raise torch.cuda.OutOfMemoryError("tried to allocate 14.31 GiB")

    bytes_needed = staticmethod(DeviceVectors.bytes_needed)


# --- exact search


@settings(max_examples=40)
@given(
    n=st.integers(1, 400),
    dim=st.integers(1, 20),
    n_queries=st.sampled_from([1, 2, 40]),
    k=st.integers(1, 40),
    share=st.sampled_from([None, 0.0, 0.05, 0.9, 1.0]),
    half=st.booleans(),
    steps=st.sampled_from([1, 4, 1000]),
    streamed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_hits_are_the_oracles_to_the_last_bit(n, dim, n_queries, k, share, half, steps, streamed, seed):
    rng = np.random.default_rng(seed)
    # few distinct values make many exact ties, many make near ties
    vectors = Dense(
        (rng.integers(-steps, steps + 1, (n, dim)) / steps).astype(np.float16 if half else np.float32)
    )
    queries = Dense((rng.integers(-steps, steps + 1, (n_queries, dim)) / steps).astype(np.float32))
    allowed = None if share is None else Bitmap.from_mask(rng.random(n) < share)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TRITON_INTERPRET", raising=False)
        if streamed:
            patch.setattr(dense_device, "_free_bytes", lambda device: 0)
            patch.setattr(dense_device, "_WORTH_STREAMING", 2)
            patch.setattr(dense_device, "_STREAMED", 1)
        found = flat(vectors).search(queries, SearchRequest(k, allowed=allowed))
    same(found, expected(vectors, queries, k, allowed))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_cpu_scores_no_more_than_what_is_in_question(dtype, monkeypatch):
    vectors, queries = vectors_of(3000, 32, 40, dtype), vectors_of(20, 32, 41)
    truth, scored = expected(vectors, queries, 10), []

    def counted(vectors, asked, rows, k):
        scored.append(rows.shape)
        return rank_rows(vectors, asked, rows, k)

    monkeypatch.setattr("indexing.dense.candidate_search.scan", None)  # would fail if it were called
    monkeypatch.setattr("indexing.dense.candidate_search.rank_rows", counted)
    same(flat(vectors).search(queries, SearchRequest(10)), truth)
    assert len(scored) == 1 and scored[0][1] <= 13


@pytest.mark.parametrize("spread", [0.0, 1e-7, 1e-4])
def test_more_near_ties_than_there_is_room_for_are_scored_exactly(spread):
    rng = np.random.default_rng(0)
    base = rng.standard_normal((1, 24))
    vectors = Dense((base + spread * rng.standard_normal((5000, 24))).astype(np.float32))
    queries = Dense(np.repeat(base, 3, axis=0).astype(np.float32))
    same(flat(vectors).search(queries, SearchRequest(10)), expected(vectors, queries, 10))


@pytest.mark.parametrize("size", [1e30, 1e-20, 1e-30, 1e-39, 1e-42, 3e38])
def test_vectors_near_the_ends_of_float32_are_scored_too(size):
    rng = np.random.default_rng(1)
    vectors = Dense((size * rng.uniform(-1, 1, (300, 8))).astype(np.float32))
    asked = np.vstack([rng.uniform(-1, 1, (2, 8)), 1e12 * rng.uniform(-1, 1, (2, 8)), np.zeros((1, 8))])
    queries = Dense(asked.astype(np.float32))
    same(flat(vectors).search(queries, SearchRequest(15)), expected(vectors, queries, 15))


def test_rows_of_very_different_length_are_ordered():
    rng = np.random.default_rng(2)
    vectors = Dense(
        (rng.standard_normal((500, 8)) * 10.0 ** rng.uniform(-12, 4, (500, 1))).astype(np.float32)
    )
    allowed = Bitmap.from_mask(np.linalg.norm(vectors.values, axis=1) < 1e-6)
    queries = vectors_of(5, 8, 3)
    found = flat(vectors).search(queries, SearchRequest(10, allowed=allowed))
    same(found, expected(vectors, queries, 10, allowed))


def test_few_queries_of_what_does_not_fit_stay_on_the_cpu(monkeypatch, caplog):
    vectors, queries = vectors_of(50, 4, 4), vectors_of(3, 4, 5)
    passed: list[int] = []

    def streamed(*given):
        passed.append(len(given[3]))
        return stream(*given)

    stream = dense_device._streamed
    monkeypatch.setattr(dense_device, "_free_bytes", lambda device: 0)
    monkeypatch.setattr(dense_device, "_streamed", streamed)
    index = flat(vectors)
    for _ in range(2):
        same(index.search(queries, SearchRequest(5)), expected(vectors, queries, 5))
    assert passed == []
    assert [record.message for record in caplog.records] == [
        f"{DEVICE} has no room for 50 x 4 vectors: they pass through it in blocks for 64 queries and more, "
        "and fewer are searched on the CPU"
    ]
    monkeypatch.setenv("TERCET_STRICT_DEVICE", "1")
    same(index.search(queries, SearchRequest(5)), expected(vectors, queries, 5))
    assert passed == [3]


def test_views_share_what_was_brought_to_a_device():
    index = flat(vectors_of(40, 4, 6))
    replace(index).search(vectors_of(1, 4, 7), SearchRequest(3))
    assert index._copies.has(DEVICE)
    kept = index._copies.on(DEVICE, lambda: pytest.fail("is there already"))
    assert kept is replace(index)._copies.on(DEVICE, lambda: pytest.fail("is there already"))


def test_unusable_questions_are_refused_on_a_device_as_on_the_cpu():
    index = flat(vectors_of(40, 4, 8))
    with pytest.raises(IncompatibleError, match="width 3, the index 4"):
        index.search(vectors_of(1, 3, 9), SearchRequest())
    with pytest.raises(ValueError, match="bitmap is for 3 rows"):
        index.search(vectors_of(1, 4, 9), SearchRequest(allowed=Bitmap.full(3)))
    with pytest.raises(ValueError, match="query vector 0 "):
        index.search(Dense(np.full((1, 4), np.nan, np.float32)), SearchRequest())
    assert index.search(vectors_of(0, 4, 9), SearchRequest(3)).rows.shape == (0, 3)
    assert (flat(vectors_of(0, 4, 8)).search(vectors_of(2, 4, 9), SearchRequest(3)).rows == -1).all()


# --- no room


def test_without_room_there_is_one_warning_and_the_cpus_answer(monkeypatch, caplog):
    full = NoRoom()
    monkeypatch.setattr("retrieval.device_vectors.DeviceVectors", full)
    vectors, queries = vectors_of(60, 4, 10), vectors_of(3, 4, 11)
    index = flat(vectors)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            same(index.search(queries, SearchRequest(5)), expected(vectors, queries, 5))
    assert [record.message for record in caplog.records] == [
        f"{DEVICE} has no memory left: the CPU does its work from now on"
    ]
    assert full.asked == 1


def test_without_room_it_is_an_error_if_asked_for(monkeypatch):
    monkeypatch.setattr("retrieval.device_vectors.DeviceVectors", NoRoom())
    index, queries = flat(vectors_of(60, 4, 12)), vectors_of(1, 4, 13)
    monkeypatch.setenv("TERCET_STRICT_DEVICE", "1")
    for _ in range(2):
        with pytest.raises(ConfigError, match=rf"{DEVICE} has no memory left.*TERCET_DEVICE=cpu"):
            index.search(queries, SearchRequest())
    monkeypatch.setenv("TERCET_STRICT_DEVICE", "yes")
    with pytest.raises(ConfigError, match="TERCET_STRICT_DEVICE is 'yes'"):
        index.search(queries, SearchRequest())


# --- which device


def test_segments_are_spread_over_all_gpus():
    assert [segment_device("cuda", number, 3) for number in range(1, 6)] == [
        "cuda:1", "cuda:2", "cuda:0", "cuda:1", "cuda:2",
    ]  # fmt: skip
    assert segment_device("cuda", 5, 1) == "cuda"
    assert segment_device("cuda:1", 5, 3) == "cuda:1"
    assert segment_device("cpu", 5, 3) == "cpu"


def test_an_index_knows_its_gpu_by_its_folder(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    folder = Path("c/segments/00000007/indexes/dense-flat-1")
    assert device_of_index("cuda", folder) == "cuda:3"
    assert device_of_index("auto", folder) == "cpu"  # wherever there is a GPU, it has to be asked for
    monkeypatch.setenv("TERCET_DEVICE", "cuda")
    assert device_of_index("auto", folder) == "cuda:3"
    assert device_of_index("auto", Path("elsewhere/x")) == "cuda:0"
    assert device_of_index("cpu", folder) == "cpu"


def test_the_device_is_a_parameter_that_auto_does_not_write_down(tmp_path):
    assert FlatIndex.parameters({}) == FlatIndex.parameters({"device": "auto"}) == {}
    assert FlatIndex.parameters({"device": "cuda:1"}) == {"device": "cuda:1"}
    for wrong in ("gpu", "cuda:", 3, "mps"):
        with pytest.raises(ConfigError, match="device is"):
            FlatIndex.parameters({"device": wrong})
    vectors = vectors_of(5, 4, 14)
    FlatIndex.build(vectors, tmp_path, {}, memory_bytes=10**6, progress=lambda rows: None)
    assert FlatIndex.load(tmp_path, vectors, {}).device == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="'cuda' is not available"):
            FlatIndex.load(tmp_path, vectors, {"device": "cuda"})


# --- inverted lists


def lists_of(vectors: Dense, count: int, seed: int) -> tuple[InvertedLists, np.ndarray]:
    """Rows by the nearest of some random vectors, and the list of each row; the last list but one is empty."""
    owner = (vectors.values.astype(np.float32) @ vectors_of(count, vectors.dim, seed).values.T).argmax(1)
    owner[owner == count - 2] = count - 1
    rows = np.argsort(owner, kind="stable")
    return InvertedLists(np.searchsorted(owner[rows], np.arange(count + 1)), rows.astype(np.int32)), owner


def by_lists(copies, vectors, lists, queries, probes, request) -> Hits:
    """What an index makes of the candidates."""
    norm = largest_norm(vectors)

    def nearest(asked, allowed):
        return lists_nearest(copies, DEVICE, vectors, norm, lists, asked, probes, request.k, allowed)

    return search_candidates(vectors, norm, queries, request, nearest)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("where", ["host", "device"])
def test_lists_are_searched_exactly(dtype, where, monkeypatch):
    vectors, queries = vectors_of(1500, 16, 15, dtype), vectors_of(30, 16, 16)
    lists, owner = lists_of(vectors, 12, 17)
    rng = np.random.default_rng(18)
    probes = np.stack([rng.permutation(12)[:6] for _ in range(30)])
    probes[::7, 3:] = -1
    probed = (owner[None, :, None] == probes[:, None, :]).any(2)
    looked = probes if where == "host" else torch.from_numpy(probes).to(DEVICE)
    copies: DeviceCopies[DeviceVectors] = DeviceCopies()
    monkeypatch.setattr("indexing.dense.candidate_search.scan", None)  # would fail if it were called
    for allowed in (None, Bitmap.from_mask(rng.random(1500) < 0.5)):
        seen = probed if allowed is None else probed & allowed.mask()
        truth = top_k(np.where(seen, dense_scores(queries, vectors), -np.inf), 10)
        assert (truth.rows >= 0).all()
        same(by_lists(copies, vectors, lists, queries, looked, SearchRequest(10, allowed=allowed)), truth)


def test_lists_with_too_few_rows_are_made_up_for_by_a_scan():
    vectors, queries = vectors_of(400, 8, 19), vectors_of(20, 8, 20)
    lists, _ = lists_of(vectors, 10, 21)
    probes = np.full((20, 2), 8)
    probes[:, 1] = -1  # an empty list, and none
    same(
        by_lists(DeviceCopies(), vectors, lists, queries, probes, SearchRequest(5)),
        expected(vectors, queries, 5),
    )
    every = np.tile(np.arange(10), (20, 1))
    for allowed in (None, Bitmap.from_rows([3, 77, 200], 400)):
        found = by_lists(DeviceCopies(), vectors, lists, queries, every, SearchRequest(400, allowed=allowed))
        same(found, expected(vectors, queries, 400, allowed))


def test_queries_without_normal_products_are_left_to_a_scan():
    vectors = vectors_of(300, 8, 22)
    queries = Dense(vectors_of(3, 8, 23).values * np.array([[1], [0], [1e38]], dtype=np.float32))
    lists, _ = lists_of(vectors, 4, 24)
    probes = np.tile(np.arange(4), (3, 1))
    rows = lists_nearest(DeviceCopies(), DEVICE, vectors, 10.0, lists, queries.values, probes, 5)
    assert rows is not None and (rows[0] >= 0).any() and (rows[1:] == -1).all()
    nothing = lists_nearest(DeviceCopies(), DEVICE, vectors, 10.0, lists, queries.values[1:2], probes[:1], 5)
    assert nothing is not None and nothing.shape == (1, 0)


def test_lists_without_room_are_left_to_the_caller(monkeypatch):
    monkeypatch.setattr("retrieval.device_vectors.DeviceVectors", NoRoom())
    vectors, queries = vectors_of(60, 4, 22), vectors_of(1, 4, 23)
    lists, _ = lists_of(vectors, 3, 24)
    copies: DeviceCopies[DeviceVectors] = DeviceCopies()
    for _ in range(2):
        assert lists_nearest(copies, DEVICE, vectors, 9.0, lists, queries.values, np.array([[0]]), 5) is None


# --- the check of a card


def test_the_check_of_a_card_runs_without_one(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2]))
    cards = importlib.import_module("benchmarks.gpu_card")
    sections = importlib.import_module("benchmarks.gpu_check_dense").SECTIONS
    peak = cards.Peak.measured(cards.DRY)
    lines = [line for section in sections.values() for line in section(cards.DRY, peak)]
    assert {line["section"] for line in lines} == {"flat", "index", "lists", "faiss"} == set(sections)
    assert all(line.get("correct", True) for line in lines)
    assert sum("correct" in line for line in lines) >= 10
    assert all("skipped" in line or "s" in line or line["qps"] > 0 for line in lines)
