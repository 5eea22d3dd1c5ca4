"""Concurrent queries share batches; what one does never harms another."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
import pytest

from retrieval.encoders.terms import TermsEncoder
from retrieval.protocols import Fingerprints
from retrieval.values import Dense
from service.batching import BatchingEncoder

WAIT_S = 20


class GatedEncoder:
    """A row is the length of its text; each batch announces itself and waits for the gate."""

    value: ClassVar = Dense
    spec: ClassVar = {"family": "gated", "model": "", "options": {}}
    fingerprints = Fingerprints("d", "q")

    def __init__(self):
        self.batches = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)

    def encode_queries(self, texts):
        self.batches.append(list(texts))
        self.entered.release()
        assert self.gate.acquire(timeout=WAIT_S)
        if "poison" in texts:
            raise ValueError("poison")
        return Dense(np.array([[len(text)] for text in texts], dtype=np.float32).reshape(len(texts), 1))

    def encode_documents(self, documents):
        return Dense(np.zeros((len(documents), 1), dtype=np.float32))


@pytest.fixture
def encoder():
    return GatedEncoder()


@pytest.fixture
def threads():
    with ThreadPoolExecutor(64) as pool:
        yield pool


def start_all(batching, threads, calls):
    """Start the first call, wait until it encodes, then queue the others one after another."""
    futures = [threads.submit(batching.encode_queries, calls[0])]
    assert batching.encoder.entered.acquire(timeout=WAIT_S)
    for number, call in enumerate(calls[1:], 1):
        futures.append(threads.submit(batching.encode_queries, call))
        wait_until(lambda number=number: len(batching._waiting) == number)
    return futures


def wait_until(condition):
    for _ in range(WAIT_S * 1000):
        if condition():
            return
        threading.Event().wait(0.001)
    raise AssertionError("never happened")


def lengths(future):
    return future.result(WAIT_S).values[:, 0].tolist()


def test_an_idle_encoder_runs_a_call_at_once_and_alone(encoder):
    encoder.gate.release()
    assert BatchingEncoder(encoder).encode_queries(["ab", "c"]).values[:, 0].tolist() == [2, 1]
    assert encoder.batches == [["ab", "c"]]


def test_calls_that_arrive_meanwhile_run_as_one_batch_and_get_their_own_rows(encoder, threads):
    batching = BatchingEncoder(encoder)
    calls = [["first"], ["a"], ["bb", "ccc"], [], ["dddd"]]
    calls.remove([])
    futures = start_all(batching, threads, calls)
    encoder.gate.release(2)
    assert [lengths(future) for future in futures] == [[5], [1], [2, 3], [4]]
    assert encoder.batches == [["first"], ["a", "bb", "ccc", "dddd"]]


def test_a_batch_holds_at_most_max_batch_texts_in_order_of_arrival(encoder, threads):
    batching = BatchingEncoder(encoder, max_batch=4)
    calls = [["x"], ["a"] * 3, ["b"] * 2, ["c"] * 9, ["d"]]
    futures = start_all(batching, threads, calls)
    encoder.gate.release(10)
    assert [len(future.result(WAIT_S)) for future in futures] == [1, 3, 2, 9, 1]
    assert [len(batch) for batch in encoder.batches] == [1, 3, 2, 9, 1]


def test_an_error_reaches_only_the_caller_who_caused_it(encoder, threads):
    batching = BatchingEncoder(encoder)
    futures = start_all(batching, threads, [["x"], ["good"], ["poison"], ["fine!"]])
    encoder.gate.release(10)
    assert lengths(futures[0]) == [1]
    assert lengths(futures[1]) == [4]
    with pytest.raises(ValueError, match="poison"):
        futures[2].result(WAIT_S)
    assert lengths(futures[3]) == [5]
    encoder.gate.release()
    assert len(batching.encode_queries(["still works"])) == 1


def test_an_error_of_a_lone_call_is_its_own_and_hands_the_lead_on(encoder, threads):
    batching = BatchingEncoder(encoder)
    futures = start_all(batching, threads, [["poison"], ["ab"]])
    encoder.gate.release(2)
    with pytest.raises(ValueError, match="poison"):
        futures[0].result(WAIT_S)
    assert lengths(futures[1]) == [2]


def test_many_threads_get_what_a_serial_caller_gets():
    inner = TermsEncoder()
    sizes = []
    batching = BatchingEncoder(inner, max_batch=8, observe=sizes.append)
    texts = [f"the {word} number {number}" for number in range(300) for word in ("cat", "dog")]
    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(lambda text: batching.encode_queries([text]), texts))
    for text, value in zip(texts, values, strict=True):
        expected = inner.encode_queries([text])
        assert len(value) == 1
        words = [value.vocabulary[int(index)] for index in value.indices]
        assert sorted(words) == sorted(expected.vocabulary[int(index)] for index in expected.indices)
    assert sum(sizes) == len(texts)
    assert max(sizes) <= 8


def test_it_passes_for_the_encoder_it_wraps(encoder):
    batching = BatchingEncoder(encoder)
    assert (batching.spec, batching.fingerprints, batching.value) == (
        encoder.spec,
        encoder.fingerprints,
        Dense,
    )
    assert len(batching.encode_documents([None, None])) == 2
