"""Several requests at a time, answers as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def as_completed(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Results in the order they come; no more items are taken than there are workers.

    When an item fails nothing more is begun, what is under way is yielded all the same, and then the failure is raised.
    """
    waiting = iter(items)
    failure: BaseException | None = None
    with ThreadPoolExecutor(workers) as pool:
        running = {pool.submit(work, item) for item in islice(waiting, workers)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                error = future.exception()
                if error is None:
                    yield future.result()
                else:
                    failure = failure or error
            if failure is None:
                running |= {pool.submit(work, item) for item in islice(waiting, len(done))}
    if failure is not None:
        raise failure
