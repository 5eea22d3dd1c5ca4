"""MaxSim on a device against the definition: by torch always, by the Triton kernel on a GPU or in its interpreter."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from indexing.maxsim import MaxSimIndex
from indexing.residual.documents import CompressedDocuments
from indexing.residual.training import train_codec
from retrieval import maxsim
from retrieval.bitmap import Bitmap
from retrieval.errors import ConfigError, IncompatibleError, MissingExtraError
from retrieval.exact import maxsim_scores
from retrieval.late_rerank import LateReranker
from retrieval.maxsim_gpu import DeviceDocuments, best_rows, largest_error, score_rows
from retrieval.maxsim_gpu import maxsim_scores as device_scores
from retrieval.protocols import SearchRequest
from retrieval.rerank import open_reranker
from retrieval.values import MultiVector

RAGGED = [70, 0, 1, 33, 32, 64, 5]
ASKED = [5, 0, 32, 33, 80]
KERNELS = ["torch", "triton"]
TOLERANCE = {torch.float32: 1e-4, torch.float16: 3e-3, torch.bfloat16: 3e-2}  # for 80 query tokens
PLAIN = "cpu:0"  # a device as any other, where torch does the work; "cpu" means the CPU's own kernels


def triton_imported() -> str:
    """Import Triton, for its interpreter where there is no GPU; returns why that cannot be, if it cannot."""
    if importlib.util.find_spec("triton") is None:
        return "the kernels need Triton: pip install 'tercet[gpu]'"
    if torch.cuda.is_available():
        return ""
    if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
        return "Triton was imported before its interpreter was asked for: set TRITON_INTERPRET=1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        importlib.import_module("triton")
    return ""


WITHOUT_TRITON = triton_imported()  # before anything else imports it


def texts(lengths, dim, seed, dtype=np.float32) -> MultiVector:
    """Unit vectors."""
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    values = np.random.default_rng(seed).standard_normal((indptr[-1], dim))
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)
    return MultiVector(indptr, values.astype(dtype))


def definition(queries: MultiVector, documents: MultiVector) -> np.ndarray:
    """The oracle's scores, with 0 for texts without tokens."""
    return np.where(np.diff(documents.indptr) > 0, maxsim_scores(queries, documents), 0)


def compress(documents: MultiVector, bits: int) -> tuple[CompressedDocuments, DeviceDocuments]:
    """Documents as the residual codec keeps them, on the host and on a device."""
    codec = train_codec(documents, bits=bits, centroids=8, memory_bytes=10**8, progress=lambda steps: None)
    codes, buckets = codec.encode(documents.values, codec.nearest())
    kept = CompressedDocuments(codec, documents.indptr, codes, buckets)
    parts = (documents.indptr, codes, buckets, codec.centroids, codec.weights)
    return kept, DeviceDocuments.compressed(*parts, device=kernel_device())


def kernel_device() -> str:
    return "cuda" if torch.cuda.is_available() else PLAIN


@pytest.fixture(params=KERNELS)
def device(request, monkeypatch) -> str:
    """Where documents go for a kernel to score them."""
    if request.param == "torch":
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        return PLAIN
    if WITHOUT_TRITON:
        pytest.skip(WITHOUT_TRITON)
    if not torch.cuda.is_available():
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    return kernel_device()


@pytest.mark.parametrize("dim", [1, 20, 128, 300])
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_scores_are_those_of_the_definition(device, dim, dtype, request):
    if dtype is torch.bfloat16 and "triton" in request.node.callspec.id and device != "cuda":
        pytest.skip("Triton's interpreter multiplies the bits of bfloat16 as whole numbers")
    queries, documents = texts(ASKED, dim, 1), texts(RAGGED, dim, 2, np.float16)
    rows = np.arange(len(RAGGED))[None, :]
    scores = device_scores(DeviceDocuments.stored(documents, device), queries, rows, dtype)
    np.testing.assert_allclose(
        scores.cpu().numpy(), definition(queries, documents), atol=TOLERANCE[dtype], rtol=0
    )


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("dim", [20, 64])
def test_compressed_documents_score_as_the_codec_decodes_them(device, bits, dim):
    queries, documents = texts(ASKED, dim, 3), texts(RAGGED, dim, 4)
    kept, there = compress(documents, bits)
    wanted = definition(queries, kept.decode(np.arange(len(RAGGED))))
    rows = np.arange(len(RAGGED))[None, :]
    for dtype in (torch.float32, torch.float16):
        scores = device_scores(there, queries, rows, dtype).cpu().numpy()
        np.testing.assert_allclose(scores, wanted, atol=TOLERANCE[dtype], rtol=0)


def test_each_query_may_have_rows_of_its_own(device):
    queries, documents = texts(ASKED, 16, 5), texts(RAGGED, 16, 6)
    rows = np.array([[3, -1, 0], [1, 2, 3], [-1, -1, -1], [6, 5, 4], [1, 0, -1]])
    scores = score_rows(documents, queries, rows, device)
    np.testing.assert_allclose(
        scores, maxsim.score_rows(documents, queries, rows), atol=TOLERANCE[torch.float32]
    )
    assert np.isneginf(scores[rows < 0]).all()
    assert scores[4, 0] == 0 and (scores[1] == 0).all()  # no document tokens, no query tokens


def test_where_every_product_is_negative_the_best_counts_and_no_padding(device):
    tokens = -np.ones((33, 3), dtype=np.float32)
    tokens[32] = [-0.5, 0, 0]
    documents = MultiVector(np.array([0, 32, 33]), tokens)
    queries = MultiVector(np.array([0, 1]), np.array([[1.0, 0, 0]], dtype=np.float32))
    assert score_rows(documents, queries, np.array([[0, 1]]), device).tolist() == [[-1, -0.5]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_hits_are_the_cpus_to_the_last_bit(device, dtype):
    queries = texts([7, 32, 0, 40], 24, 7)
    documents = texts(np.random.default_rng(8).integers(0, 9, 90), 24, 9, dtype)
    index, rows = MaxSimIndex(documents, 1.001), np.arange(90)
    there = replace(index, device=device)
    for k in (1, 10, 200):
        got, wanted = there.search(queries, SearchRequest(k)), index.search(queries, SearchRequest(k))
        assert np.array_equal(got.rows, wanted.rows)
        assert np.array_equal(got.scores, wanted.scores)
    allowed = Bitmap.from_rows(rows[::3], 90)
    got, wanted = (
        one.search(queries, SearchRequest(5, allowed=allowed)).rows.tolist() for one in (there, index)
    )
    assert got == wanted


@settings(max_examples=30)
@given(st.sampled_from([1, 20, 128]), st.sampled_from([1e-4, 1.0, 300.0]), st.integers(0, 10**6))
def test_estimates_are_within_the_stated_error(dim, scale, seed):
    for dtype in (np.float16, np.float32):
        queries, documents = texts([9, 40], dim, seed), texts([1, 5, 30, 12], dim, seed + 1)
        documents = MultiVector(documents.indptr, (scale * documents.values).astype(dtype))
        norm = float(np.linalg.norm(documents.values.astype(np.float64), axis=1).max())
        copy = DeviceDocuments.stored(documents, PLAIN, torch.float16)
        scores = device_scores(copy, queries, np.arange(4)[None, :], torch.float16).numpy()
        off = np.abs(scores - maxsim_scores(queries, documents)).max(axis=1)
        for line in range(2):
            error = largest_error(queries[line : line + 1].values, norm, exact_documents=dtype is np.float16)
            assert off[line] <= error < 0.05 * 40 * scale


def test_numbers_that_half_precision_cannot_hold_are_left_to_the_cpu():
    queries, documents = texts([3], 8, 10), texts([4] * 30, 8, 11)
    large = MultiVector(documents.indptr, 1e6 * documents.values)
    index = MaxSimIndex(large, 1.001e6)
    got = replace(index, device=PLAIN).search(queries, SearchRequest(4))
    wanted = index.search(queries, SearchRequest(4))
    assert np.array_equal(got.rows, wanted.rows) and np.array_equal(got.scores, wanted.scores)


def test_vectors_are_brought_to_a_device_once():
    index = replace(MaxSimIndex(texts([3, 4], 8, 12), 1.001), device=PLAIN)
    copies = {id(replace(index)._copies.on(PLAIN, index.vectors)) for _ in range(3)}
    assert copies == {id(index._copies.on(PLAIN, index.vectors))}


def test_rerankers_score_on_a_device_too(device):
    queries, documents = texts([4, 9], 12, 13), texts(RAGGED, 12, 14)
    rows = np.array([[0, 1, 6, -1], [5, 3, 2, 4]])
    here, there = (LateReranker(device=name)._scores(documents, queries, rows) for name in ("cpu", device))
    np.testing.assert_allclose(there, here, atol=TOLERANCE[torch.float32])


def test_what_cannot_be_scored_is_refused():
    documents, rows = texts([3, 2], 8, 15), np.array([[0, 1]])
    copy = DeviceDocuments.stored(documents, PLAIN)
    with pytest.raises(IncompatibleError, match="width 9, the index 8"):
        device_scores(copy, texts([2], 9, 16), rows)
    with pytest.raises(ValueError, match="query 0 holds NaN"):
        device_scores(copy, MultiVector(np.array([0, 1]), np.full((1, 8), np.nan, np.float32)), rows)
    with pytest.raises(ConfigError, match=r"width 1025 are too wide.*device cpu"):
        device_scores(DeviceDocuments.stored(texts([1], 1025, 17), PLAIN), texts([1], 1025, 18), rows[:, :1])
    huge = MultiVector(documents.indptr, 1e30 * documents.values)
    with pytest.raises(ValueError, match="exceed float32"):
        score_rows(huge, MultiVector(np.array([0, 2]), huge.values[:2]), rows, PLAIN)
    assert best_rows(documents, 1.001, copy, texts([], 8, 19), rows[0], 3).rows.shape == (0, 3)


def test_a_gpu_that_is_missing_is_named(monkeypatch):
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="'cuda' is not available"):
            open_reranker("late", {"device": "cuda"})
    monkeypatch.delenv("TERCET_DEVICE", raising=False)
    assert open_reranker("late") == LateReranker(
        "late", "cpu"
    )  # wherever there is a GPU, it has to be asked for
    monkeypatch.setenv("TERCET_DEVICE", "tpu")
    with pytest.raises(ConfigError, match="unknown device 'tpu'"):
        open_reranker("late")


def test_a_missing_triton_is_named_with_its_extra(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setitem(sys.modules, "retrieval.maxsim_triton", None)
    with pytest.raises(MissingExtraError, match=r"triton is not installed.*tercet\[gpu\]"):
        score_rows(texts([2], 8, 20), texts([2], 8, 21), np.array([[0]]), PLAIN)


@pytest.mark.slow
def test_the_check_of_a_card_runs_without_one():
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu_check.py"
    done = subprocess.run(
        [sys.executable, script, "--small", "--json"], stdout=subprocess.PIPE, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    late, dense = {"ceilings", "dense", "residual", "search", "encode"}, {"flat", "index", "lists", "faiss"}
    assert {line["section"] for line in lines} == late | dense
    assert all(line.get("correct", True) for line in lines)
    assert sum("correct" in line for line in lines) >= 10
