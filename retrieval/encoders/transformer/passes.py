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
        self._sharing = 0
        self._known: OrderedDict[Hashable, Any] = OrderedDict()
        self._n_bytes = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Keep hidden states until the last of those that share them is done."""
        with self._lock:
            self._sharing += 1
        try:
            yield
        finally:
            with self._lock:
                self._sharing -= 1
                if not self._sharing:
                    self._known.clear()
                    self._n_bytes = 0

    def recall(self, key: Callable[[], Hashable], compute: Callable[[], Any]) -> Any:
        """What ``compute`` returns, or returned before for this key; nobody may write to it.

        Args:
            key: what the result depends on; asked for only while results are shared.
            compute: gives a tensor.
        """
        if not self._sharing:
            return compute()
        known = key()
        with self._lock:
            found = self._known.get(known)
        if found is None:
            found = compute()
            self._keep(known, found)
        return found

    def _keep(self, key: Hashable, found: Any) -> None:
        """The oldest go where there are too many."""
        with self._lock:
            if not self._sharing or key in self._known:
                return
            self._known[key] = found
            self._n_bytes += found.nbytes
            while self._n_bytes > _MOST_BYTES:
                self._n_bytes -= self._known.popitem(last=False)[1].nbytes


PASSES = Passes()
"""Of this process."""
