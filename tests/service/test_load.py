"""Many clients at once: full queues, cancelled and vanished clients, draining, equality with one client."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from service.errors import ClientGoneError, QueueFullError
from service.pool import SearchPool


def search(server, query, **body):
    return httpx.post(f"{server.url}/v1/search", json={"query": query, **body}, timeout=30)


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def metric(server, name):
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return float(next(line.rsplit(" ", 1)[1] for line in lines if line.startswith(name)))


def test_concurrent_clients_get_what_one_client_gets(make_server):
    server = make_server()
    queries = [f"query {number} about cats" for number in range(60)]
    with ThreadPoolExecutor(16) as clients, httpx.Client(timeout=30) as http:

        def ask(query):
            return http.post(f"{server.url}/v1/search", json={"query": query})

        serial = [ask(query).json()["results"] for query in queries]
        answers = list(clients.map(ask, queries))
    assert [answer.status_code for answer in answers] == [200] * len(queries)
    assert [answer.json()["results"] for answer in answers] == serial


def test_a_full_queue_is_503_with_retry_after_and_the_others_are_answered(make_server, collection):
    server = make_server(workers=1, max_queue=1)
    collection.encoder.open.clear()
    with ThreadPoolExecutor(3) as clients:
        running = clients.submit(search, server, "running")
        assert collection.encoder.entered.acquire(timeout=20)
        waiting = clients.submit(search, server, "waiting")
        wait_for(lambda: metric(server, "tercet_queue_depth") == 1)
        refused = search(server, "one too many")
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["type"] == "overloaded"
        assert httpx.get(f"{server.url}/healthz").status_code == 200  # the event loop is free
        collection.encoder.open.set()
        assert running.result(20).status_code == waiting.result(20).status_code == 200


def test_queries_that_wait_for_the_encoder_share_a_batch(make_server, collection):
    server = make_server(workers=8)
    collection.encoder.open.clear()
    with ThreadPoolExecutor(8) as clients:
        first = clients.submit(search, server, "first")
        assert collection.encoder.entered.acquire(timeout=20)
        others = [clients.submit(search, server, f"other {number}", k=number + 1) for number in range(5)]
        wait_for(lambda: metric(server, "tercet_searches_running") == 6)
        time.sleep(0.1)  # from running to waiting for the encoder
        collection.encoder.open.set()
        assert {future.result(20).status_code for future in (first, *others)} == {200}
    assert sum(collection.encoder.batches) == 6
    assert len(collection.encoder.batches) < 6


def test_a_client_that_hangs_up_while_waiting_costs_no_search(make_server, collection):
    server = make_server(workers=1)
    collection.encoder.open.clear()
    with ThreadPoolExecutor(1) as clients:
        running = clients.submit(search, server, "running")
        assert collection.encoder.entered.acquire(timeout=20)
        body = b'{"query": "gone"}'
        head = f"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with socket.create_connection(server.socket.getsockname()) as gone:
            gone.sendall(head + body)
            wait_for(lambda: metric(server, "tercet_queue_depth") == 1)
        wait_for(lambda: metric(server, "tercet_queue_depth") == 0)
        collection.encoder.open.set()
        assert running.result(20).status_code == 200
    assert search(server, "next").status_code == 200
    assert len(collection.encoder.batches) == 2


def test_a_draining_server_finishes_what_runs_and_takes_nothing_new(make_server, collection):
    server = make_server()
    collection.encoder.open.clear()
    with ThreadPoolExecutor(1) as clients:
        running = clients.submit(search, server, "running")
        assert collection.encoder.entered.acquire(timeout=20)
        server.drain()

        def refused():
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"{server.url}/healthz", timeout=1)
                return False
            return True

        wait_for(refused)
        collection.encoder.open.set()
        assert running.result(20).status_code == 200
    server.thread.join(20)
    assert not server.thread.is_alive()


def test_metrics_count_requests_by_route_and_status(make_server):
    server = make_server()
    search(server, "cats")
    search(server, "cats", k=0)
    httpx.get(f"{server.url}/v1/documents/1")
    httpx.get(f"{server.url}/some/path/nobody/knows")
    text = httpx.get(f"{server.url}/metrics").text
    assert 'tercet_requests_total{method="POST",route="/v1/search",status="200"} 1.0' in text
    assert 'tercet_requests_total{method="POST",route="/v1/search",status="422"} 1.0' in text
    assert 'route="/v1/documents/{id:path}"' in text
    assert 'route="unmatched",status="404"' in text
    assert 'tercet_encode_batch_queries_count{encoder="dense"}' in text


def pool_test(coroutine, workers=1, max_queue=8):
    pool = SearchPool(workers, max_queue, max_batch=8)
    try:
        asyncio.run(asyncio.wait_for(coroutine(pool), 20))
    finally:
        pool.shutdown()


def test_cancelling_a_waiting_call_frees_its_place_and_spoils_no_other():
    async def scenario(pool):
        gate = threading.Event()
        done = []
        running = asyncio.create_task(pool.run(lambda: gate.wait(20)))
        await asyncio.sleep(0)
        calls = [asyncio.create_task(pool.run(lambda n=n: done.append(n) or n)) for n in range(3)]
        await asyncio.sleep(0)
        assert (pool.running, pool.waiting) == (1, 3)
        calls[1].cancel()
        await asyncio.sleep(0)
        assert pool.waiting == 2
        gate.set()
        assert await running is True
        assert await calls[0] == 0
        assert await calls[2] == 2
        assert done == [0, 2]
        assert (pool.running, pool.waiting) == (0, 0)

    pool_test(scenario)


def test_cancelling_a_running_call_keeps_its_worker_until_the_thread_ends():
    async def scenario(pool):
        gate, started = threading.Event(), threading.Event()
        running = asyncio.create_task(pool.run(lambda: started.set() or gate.wait(20)))
        await asyncio.to_thread(started.wait, 20)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert pool.running == 1
        gate.set()
        assert await pool.run(lambda: "next") == "next"
        assert pool.running == 0

    pool_test(scenario)


def test_errors_pass_through_and_free_the_worker():
    async def scenario(pool):
        with pytest.raises(ZeroDivisionError):
            await pool.run(lambda: 1 / 0)
        assert await pool.run(lambda: 1) == 1
        assert pool.running == 0

    pool_test(scenario)


def test_no_queue_means_refusal_while_every_worker_is_busy():
    async def scenario(pool):
        gate = threading.Event()
        running = asyncio.create_task(pool.run(lambda: gate.wait(20)))
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await pool.run(lambda: 1)
        gate.set()
        await running

    pool_test(scenario, max_queue=0)


def test_who_is_gone_is_asked_only_while_waiting():
    async def scenario(pool):
        async def gone():
            return True

        assert await pool.run(lambda: 1, gone) == 1
        gate = threading.Event()
        running = asyncio.create_task(pool.run(lambda: gate.wait(20), gone))
        await asyncio.sleep(0)
        with pytest.raises(ClientGoneError):
            await pool.run(lambda: 2, gone)
        gate.set()
        assert await running is True
        assert await pool.run(lambda: 3, gone) == 3
        assert (pool.running, pool.waiting) == (0, 0)

    pool_test(scenario)


def test_waiting_calls_of_one_key_run_as_one_batch_and_get_their_own_results():
    async def scenario(pool):
        gate, batches = threading.Event(), []

        def work(items):
            batches.append(list(items))
            assert gate.wait(20)
            return [item * 10 for item in items]

        calls = [
            asyncio.create_task(pool.join(work, item, key, size))
            for item, key, size in [
                (0, "a", 1),
                (1, "a", 1),
                (2, "b", 1),
                (3, "a", 2),
                (4, "a", 9),
                (5, "b", 1),
            ]
        ]
        await asyncio.sleep(0)
        gate.set()
        assert await asyncio.gather(*calls) == [0, 10, 20, 30, 40, 50]
        assert batches == [[0], [1, 3], [2, 5], [4]]

    pool_test(scenario)


def test_a_joined_batch_that_fails_spoils_only_the_call_that_fails_alone():
    async def scenario(pool):
        gate = threading.Event()

        def work(items):
            assert gate.wait(20)
            return [1 / item for item in items]

        calls = [asyncio.create_task(pool.join(work, item, "key")) for item in (8, 4, 0, 2)]
        await asyncio.sleep(0)
        gate.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [results[at] for at in (0, 1, 3)] == [1 / 8, 1 / 4, 1 / 2]
        assert isinstance(results[2], ZeroDivisionError)
        assert (pool.running, pool.waiting) == (0, 0)

    pool_test(scenario)


def test_cancelling_one_of_a_running_batch_leaves_the_others():
    async def scenario(pool):
        gate, entered = threading.Semaphore(0), threading.Semaphore(0)

        def work(items):
            entered.release()
            assert gate.acquire(timeout=20)
            return list(items)

        calls = [asyncio.create_task(pool.join(work, item, "key")) for item in range(4)]
        await asyncio.to_thread(entered.acquire)
        gate.release()
        await asyncio.to_thread(entered.acquire)  # the other three, together
        calls[2].cancel()
        gate.release()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert results[:2] + results[3:] == [0, 1, 3]
        assert isinstance(results[2], asyncio.CancelledError)

    pool_test(scenario)


def test_a_client_that_hangs_up_while_it_sends_is_499_and_one_debug_line(make_server, caplog):
    caplog.set_level("DEBUG", logger="service.errors")
    server = make_server()
    with socket.create_connection(("127.0.0.1", server.socket.getsockname()[1])) as sending:
        sending.sendall(b'POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"query": ')
        time.sleep(0.1)
    gone = 'tercet_requests_total{method="POST",route="/v1/search",status="499"}'
    wait_for(lambda: gone in httpx.get(f"{server.url}/metrics").text)
    (record,) = (record for record in caplog.records if record.name.startswith("service"))
    assert (record.levelname, record.exc_info) == ("DEBUG", None)
