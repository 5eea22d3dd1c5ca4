"""How the compiled loops of this package are declared.

numba's cache on disk notices a change in the file of the function that was called only, so a compiled function
must not call one of another file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from indexing.compile_notice import compiling
from retrieval.compute import kernel_cache

kernel_cache()

import numba  # noqa: E402
import numba.core.event  # noqa: E402

F = TypeVar("F", bound=Callable[..., Any])


class _Notice(numba.core.event.Listener):  # type: ignore[misc]
    """Passes on that numba compiles, which it does not say of a kernel that it found in the cache."""

    def on_start(self, event: Any) -> None:
        compiling()

    def on_end(self, event: Any) -> None:
        pass


numba.core.event.register("numba:compile", _Notice())

kernel: Callable[[F], F] = numba.njit(cache=True, nogil=True)
"""A loop that other loops call."""

no_nan_kernel: Callable[[F], F] = numba.njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
"""The same over numbers that are never NaN, which is what it takes to vectorise a maximum."""


def entry(*arguments: Any, returns: Any = numba.void) -> Callable[[F], F]:
    """A loop called from Python: compiled, or read from the cache, when its module is imported."""
    return numba.njit(returns(*arguments), cache=True, nogil=True)


def given(dtype: Any) -> Any:
    """The type of an array that is read; maps and arrays in memory share one compiled version."""
    return numba.types.Array(numba.from_dtype(dtype), 1, "C", readonly=True)


def filled(dtype: Any, ndim: int = 1) -> Any:
    """The type of an array that is written."""
    return numba.types.Array(numba.from_dtype(dtype), ndim, "C")


INT = numba.int64
FLOAT = numba.float64
