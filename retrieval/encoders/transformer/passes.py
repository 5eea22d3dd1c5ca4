"""One pass through a model for several encoders of the same texts. Imports no torch."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

_MOST_BYTES = 1 << 28


class Passes:
    """Last hidden states of what models read, kept while somebody shares them; safe to share between threads.

    A dense, a sparse and a late encoder of one checkpoint read the same token ids; whoever encodes with all of them
    opens ``shared`` around it, and the first one's hidden states serve the others.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._issued = 0
        self._open: set[int] = set()  # tickets of those who share now
        self._known: OrderedDict[Hashable, tuple[int, Any]] = (
            OrderedDict()
        )  # by age, with the last ticket issued then
        self._n_bytes = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Keep hidden states until all who shared when they were made are done."""
        with self._lock:
            self._issued += 1
            ticket = self._issued
            self._open.add(ticket)
        try:
            yield
        finally:
            with self._lock:
                self._open.remove(ticket)
                oldest = min(self._open, default=self._issued + 1)
                while self._known and next(iter(self._known.values()))[0] < oldest:
                    self._forget_oldest()

    def recall(self, key: Callable[[], Hashable], compute: Callable[[], Any]) -> Any:
        """What ``compute`` returns, or returned before for this key; nobody may write to it.

        Args:
            key: what the result depends on; asked for only while results are shared.
            compute: gives a tensor.
        """
        if not self._open:
            return compute()
        known = key()
        with self._lock:
            found = self._known.get(known)
        if found is not None:
            return found[1]
        made = compute()
        self._keep(known, made)
        return made

    def _keep(self, key: Hashable, made: Any) -> None:
        """The oldest go where there are too many."""
        with self._lock:
            if not self._open or key in self._known:
                return
            self._known[key] = self._issued, made
            self._n_bytes += made.nbytes
            while self._n_bytes > _MOST_BYTES:
                self._forget_oldest()

    def _forget_oldest(self) -> None:
        self._n_bytes -= self._known.popitem(last=False)[1][1].nbytes


PASSES = Passes()
"""Of this process."""
