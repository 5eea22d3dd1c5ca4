"""Encoders of one model share its passes over the same texts, and nothing else changes."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retrieval.encoders import open_encoder
from retrieval.encoders.transformer.attention import TokenRun
from retrieval.encoders.transformer.bert import Bert, load_bert
from retrieval.encoders.transformer.checkpoint import read_checkpoint
from retrieval.encoders.transformer.passes import PASSES, Passes
from retrieval.fusion import Fused
from retrieval.protocols import SearchRequest
from retrieval.values import Document, Hits

DOCUMENTS = [
    Document(str(i), f"{word} dog river the cat") for i, word in enumerate("old new red blue".split())
]
FLOAT = {"dtype": "float32"}


@pytest.fixture
def encoders(tiny_bert: Path, tiny_codes: Path) -> list[Any]:
    specs = (("dense", tiny_bert), ("late", tiny_bert), ("codes", tiny_codes))
    return [
        open_encoder({"family": family, "model": str(model), "options": FLOAT}) for family, model in specs
    ]


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of each pass through a model."""
    made: list[int] = []
    forward = Bert._forward

    def counted(self: Bert, ids: torch.Tensor, runs: list[TokenRun]) -> torch.Tensor:
        made.append(len(ids))
        return forward(self, ids, runs)

    monkeypatch.setattr(Bert, "_forward", counted)
    return made


def arrays(value: Any) -> list[np.ndarray]:
    return [getattr(value, name) for name in ("indptr", "indices", "values") if hasattr(value, name)]


def test_three_encoders_of_one_model_read_documents_once(encoders: list[Any], forwards: list[int]):
    apart = [encoder.encode_documents(DOCUMENTS) for encoder in encoders]
    alone = len(forwards)
    forwards.clear()
    with PASSES.shared():
        together = [encoder.encode_documents(DOCUMENTS) for encoder in encoders]
    assert alone == 3 * len(forwards)
    for one, other in zip(apart, together, strict=True):
        assert all(map(np.array_equal, arrays(one), arrays(other)))
    forwards.clear()
    encoders[0].encode_documents(DOCUMENTS)
    assert forwards, "nothing is kept afterwards"


def test_the_same_tokens_in_other_texts_are_another_pass(tiny_bert: Path, forwards: list[int]):
    checkpoint = read_checkpoint(tiny_bert)
    model = load_bert(checkpoint.transformer, checkpoint.config, "cpu", "float32")
    ids = torch.arange(5, 13)
    with torch.inference_mode(), PASSES.shared():
        whole = model(ids, [TokenRun(0, 1, 8)])
        halves = model(ids, [TokenRun(0, 2, 4)])
        again = model(ids, [TokenRun(0, 1, 8)])
        padded = model(ids, [TokenRun(0, 2, 4, torch.tensor([4, 3]))])
    assert len(forwards) == 3 and again is whole
    assert not torch.allclose(whole, halves) and not torch.allclose(halves, padded)


def test_weights_are_loaded_once_while_somebody_uses_them(tiny_bert: Path):
    checkpoint = read_checkpoint(tiny_bert)
    place, config = checkpoint.transformer, checkpoint.config
    first = load_bert(place, config, "cpu", "float32")
    assert load_bert(place, config, "cpu", "float32") is first
    assert load_bert(place, config, "cpu", "bfloat16") is not first
    number = first.number
    del first
    assert load_bert(place, config, "cpu", "float32").number != number


def test_what_is_kept_is_bounded_and_goes_with_the_last_who_shares(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("retrieval.encoders.transformer.passes._MOST_BYTES", 100)
    passes, computed = Passes(), []

    def value(number: int) -> np.ndarray:
        def compute() -> np.ndarray:
            computed.append(number)
            return np.full(10, number, dtype=np.float32)

        return passes.recall(lambda: number, compute)

    with passes.shared():
        with passes.shared():
            assert value(1)[0] == 1 and value(1)[0] == 1 and computed == [1]
        assert value(1)[0] == 1 and computed == [1], "somebody still shares"
        assert value(2)[0] == 2 and value(3)[0] == 3 and value(1)[0] == 1
        assert computed == [1, 2, 3, 1], "the oldest had to go"
    value(1)
    assert computed == [1, 2, 3, 1, 1]


def test_what_nobody_needs_any_more_goes_although_others_share() -> None:
    passes, computed = Passes(), []

    def value(name: str) -> None:
        passes.recall(lambda: name, lambda: computed.append(name) or np.zeros(4, dtype=np.float32))

    first, second, third = passes.shared(), passes.shared(), passes.shared()
    first.__enter__()
    value("of the first")
    second.__enter__()
    value("of the second")
    first.__exit__(None, None, None)
    third.__enter__()
    value("of the second")
    assert computed == ["of the first", "of the second"]
    value("of the first")
    assert computed[2:] == ["of the first"], "whoever had it is done"
    second.__exit__(None, None, None)
    third.__exit__(None, None, None)
    assert not passes._known and not passes._n_bytes


def test_threads_may_share(encoders: list[Any]):
    wanted = [arrays(encoder.encode_documents(DOCUMENTS)) for encoder in encoders]
    agreed: list[bool] = []

    def work() -> None:
        for _ in range(5):
            with PASSES.shared():
                for encoder, want in zip(encoders, wanted, strict=True):
                    found = arrays(encoder.encode_documents(DOCUMENTS))
                    agreed.append(all(map(np.array_equal, found, want)))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert agreed == [True] * 60


def test_a_fused_search_reads_the_query_once(encoders: list[Any], forwards: list[int]):
    class Searcher:
        def __init__(self, encoder: Any) -> None:
            self.encoder = encoder

        def search(self, queries: list[str], request: SearchRequest) -> Hits:
            self.encoder.encode_queries(queries)
            return Hits.none(len(queries), request.k, "token")

    fused = Fused(tuple((str(n), Searcher(encoder), 1.0) for n, encoder in enumerate(encoders)))
    fused.search(["old dog"], SearchRequest(k=2))
    assert len(forwards) == 1
