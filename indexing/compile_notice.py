"""Word for a person who waits while kernels are compiled; importing this imports no numba."""

from __future__ import annotations

from collections.abc import Callable

NOTICE = "compiling search kernels, once for this installation (can take half a minute) ..."

_say: Callable[[str], None] | None = None


def announce_compiling(say: Callable[[str], None] | None) -> None:
    """Choose who is told, once, before the next kernel that is not in the cache is compiled; None: nobody."""
    global _say
    _say = say


def compiling() -> None:
    """Tell that a kernel is about to be compiled; ``indexing.compiled`` calls this."""
    global _say
    say, _say = _say, None
    if say is not None:
        say(NOTICE)
