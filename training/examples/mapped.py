"""Tables in Arrow IPC files that are mapped into memory, so that the system pages them in and out."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from retrieval.errors import CorruptError, MissingExtraError


def map_frame(path: Path) -> pl.DataFrame:
    """The table that ``DataFrame.write_ipc`` wrote, without reading it.

    polars copies such a file into memory; pyarrow, which is there wherever ``datasets`` is, maps it.

    Raises:
        CorruptError: the file is no complete Arrow IPC file.
    """
    try:
        import pyarrow  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError("pyarrow", "train") from error
    try:
        with pyarrow.memory_map(str(path)) as source:
            table = pyarrow.ipc.open_file(source).read_all()
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise CorruptError(path, f"no complete Arrow IPC file ({error})") from error
    frame = pl.from_arrow(table, rechunk=False)
    assert isinstance(frame, pl.DataFrame)  # a table is never a series
    return frame
