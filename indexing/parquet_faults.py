"""Every way polars fails on a damaged Parquet file, as one error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def reading_parquet(refusal: Callable[[str], Exception]) -> Iterator[None]:
    """Raise ``refusal(reason)`` where polars cannot read a file.

    A panic of its reader is no ``Exception`` and would pass every handler up to the interpreter.
    """
    import polars as pl

    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise refusal(reason) from error
