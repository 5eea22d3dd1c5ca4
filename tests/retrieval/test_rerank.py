"""Cross-encoder and Reranked searcher, on a random model and on fakes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.errors import ConfigError, IncompatibleError
from retrieval.protocols import Explanation, SearchRequest, Snapshot
from retrieval.rerank import RERANKERS, CrossEncoderReranker, Reranked, open_reranker
from retrieval.values import Document, Hits

TEXTS = ["the cat", "dog and bird", "", "red river " * 40, "blue mountain", "a fish"]


@dataclass(frozen=True)
class FakeSnapshot:
    """Passages by row."""

    texts: Sequence[str]
    token: str = "s1"

    def documents(self, rows: NDArray[np.integer]) -> list[Document]:
        return [Document(f"d{row}", self.texts[row]) for row in rows]

    def passages(self, rows: NDArray[np.integer]) -> list[Document]:
        return [Document(f"d{row}", self.texts[row], "title" if row % 2 else "") for row in rows]


@dataclass(frozen=True)
class FakeSearcher:
    """Every row of a corpus, worst row number last."""

    n: int

    def search(self, queries: Sequence[str], request: SearchRequest) -> Hits:
        rows = np.tile(np.arange(self.n, dtype=np.int64), (len(queries), 1))
        return Hits(rows, -rows.astype(np.float32), "s1").cut(request.k)

    def explain(self, query: str, rows: NDArray[np.integer], request=None) -> list[Explanation]:
        return [Explanation("first", float(-row)) for row in rows]


@dataclass(frozen=True)
class ByLength:
    """Longer passages first."""

    def rerank(self, queries: Sequence[str], hits: Hits, snapshot: Snapshot) -> Hits:
        from retrieval.rerank import ordered

        scores = np.full(hits.scores.shape, -np.inf, dtype=np.float32)
        for place in zip(*np.nonzero(hits.rows >= 0), strict=True):
            scores[place] = len(snapshot.passages(hits.rows[place][None])[0].text)
        return ordered(hits.rows, scores, hits.snapshot)


def test_reranked_order_is_the_models_own(tiny_cross_encoder: Path):
    snapshot = FakeSnapshot(TEXTS)
    rows = np.array([[0, 3, 5, -1], [4, 1, 2, 0]], dtype=np.int64)
    hits = Hits(rows, np.where(rows < 0, -np.inf, 1).astype(np.float32), "s1")
    reranker = open_reranker(str(tiny_cross_encoder), {"dtype": "float32", "batch": 2})
    got = reranker.rerank(["dog", "old cat"], hits, snapshot)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import CrossEncoder

        model = CrossEncoder(str(tiny_cross_encoder), device="cpu")
    for query, text in enumerate(["dog", "old cat"]):
        kept = rows[query][rows[query] >= 0]
        pairs = [(text, document.contents()) for document in snapshot.passages(kept)]
        want = model.predict(pairs, show_progress_bar=False)
        order = np.argsort(-want, kind="stable")
        assert got.rows[query, : len(kept)].tolist() == kept[order].tolist()
        np.testing.assert_allclose(got.scores[query, : len(kept)], want[order], atol=1e-5)
    assert got.rows[0, 3] == -1 and got.scores[0, 3] == -np.inf and got.snapshot == "s1"


def test_equal_scores_are_ordered_by_row(tiny_cross_encoder: Path):
    snapshot = FakeSnapshot(["same"] * 8)
    rows = np.array([[6, 2, 4, 0]], dtype=np.int64)
    got = open_reranker(f"cross-encoder:{tiny_cross_encoder}", {"dtype": "float32"}).rerank(
        ["dog"], Hits(rows, np.ones((1, 4), dtype=np.float32)), snapshot
    )
    assert got.rows.tolist() == [[0, 2, 4, 6]] and len(set(got.scores[0].tolist())) == 1


def test_nothing_to_rerank_needs_no_model(tiny_cross_encoder: Path):
    reranker = CrossEncoderReranker.open(str(tiny_cross_encoder))
    got = reranker.rerank(["a", "b"], Hits.none(2, 3, "s1"), FakeSnapshot([]))
    assert (got.rows == -1).all() and reranker._loaded is None
    assert len(reranker.rerank([], Hits.none(0, 3, "s1"), FakeSnapshot([]))) == 0


def test_hits_of_another_commit_are_refused(tiny_cross_encoder: Path):
    with pytest.raises(IncompatibleError, match=r"'s0'.*'s1'"):
        open_reranker(str(tiny_cross_encoder)).rerank(["a"], Hits.none(1, 3, "s0"), FakeSnapshot([]))


def test_reranked_reorders_its_depth_and_drops_the_rest():
    searcher = Reranked(FakeSearcher(6), ByLength(), FakeSnapshot(TEXTS), depth=5)
    got = searcher.search(["q"], SearchRequest(k=3))
    assert got.rows.tolist() == [[3, 4, 1]]
    assert searcher.search(["q"], SearchRequest(k=5)).rows.tolist() == [[3, 4, 1, 0, 2]]
    assert searcher.search(["q"], SearchRequest(k=2, depth=2)).rows.tolist() == [[1, 0]]


def test_more_hits_than_the_depth_are_all_reranked_and_the_request_bounds_them():
    searcher = Reranked(FakeSearcher(6), ByLength(), FakeSnapshot(TEXTS), depth=3)
    assert searcher.search(["q"], SearchRequest(k=8)).rows.tolist() == [[3, 4, 1, 0, 5, 2, -1, -1]]
    assert searcher.search(["q"], SearchRequest(k=6, depth=4)).rows.tolist() == [[3, 1, 0, 2, -1, -1]]
    many = Reranked(FakeSearcher(600), ByLength(), FakeSnapshot(["x"] * 600))
    assert (many.search(["q"], SearchRequest(k=500, depth=1000)).rows >= 0).sum() == 500


def test_a_reranker_that_does_not_exist_is_answered_with_the_short_names(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match=r"'no/such-model'.*short names: minilm, bge"):
        open_reranker("no/such-model")


def test_an_explanation_shows_both_stages():
    searcher = Reranked(FakeSearcher(6), ByLength(), FakeSnapshot(TEXTS))
    found = searcher.explain("q", np.array([4, 3]))
    assert [(part.value, part.parts[0].value) for part in found] == [(13, -4), (400, -3)]
    assert searcher.explain("q", np.array([], dtype=np.int64)) == []


def test_a_model_with_several_outputs_is_no_reranker(tiny_bert: Path, tiny_cross_encoder: Path):
    class TwoScores(CrossEncoderReranker):
        def _model(self):
            return self

        def predict(self, pairs, **options):
            return np.zeros((len(pairs), 2))

    with pytest.raises(ConfigError, match="2 scores a pair"):
        TwoScores.open(str(tiny_cross_encoder)).scores([("a", "b")])


@pytest.mark.parametrize("name", RERANKERS)
def test_every_reranker_in_the_table_resolves_and_names_bad_options(name, tiny_cross_encoder: Path):
    assert open_reranker(f"{name}:{tiny_cross_encoder}").family == name
    with pytest.raises(ConfigError, match="depht"):
        open_reranker(f"{name}:{tiny_cross_encoder}", {"depht": 3})


@pytest.mark.parametrize("name", ["cross-encoder", "cross-encoder:", ""])
def test_a_cross_encoder_needs_a_model(name):
    with pytest.raises(ConfigError, match="minilm"):
        open_reranker(name)
