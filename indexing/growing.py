"""Arrays and strings that grow on disk: appended in bounded memory, read back as plain .npy."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from retrieval.values import Strings
from retrieval.values.storage import map_array, take_ragged


class GrowingArray:
    """A .npy file written piece by piece; its header is completed on close.

    NumPy pads the header so that the first axis can grow in place, which is what allows rewriting it.
    """

    def __init__(self, path: Path, dtype: DTypeLike, width: tuple[int, ...] = ()) -> None:
        self.path = path
        self.dtype = np.dtype(dtype)
        self.width = width
        self.rows = 0
        self._stream = path.open("wb")
        self._header = self._write_header()

    def _write_header(self) -> int:
        buffer = io.BytesIO()
        facts = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.rows, *self.width),
        }
        np.lib.format.write_array_header_1_0(buffer, facts)
        self._stream.seek(0)
        self._stream.write(buffer.getvalue())
        return len(buffer.getvalue())

    def append(self, values: NDArray[Any]) -> None:
        """Add rows."""
        if values.shape[1:] != self.width:
            raise ValueError(f"{self.path}: rows have shape {self.width}, got {values.shape[1:]}")
        self._stream.write(np.ascontiguousarray(values, dtype=self.dtype).data)
        self.rows += len(values)

    def close(self) -> None:
        """Complete the header."""
        if not self._stream.closed:
            length = self._write_header()
            if length != self._header:
                raise RuntimeError(f"{self.path}: the .npy header grew from {self._header} to {length} bytes")
            self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class GrowingStrings:
    """Strings written piece by piece as NAME_blob.npy and NAME_offsets.npy."""

    def __init__(self, folder: Path, name: str) -> None:
        self._blob = GrowingArray(folder / f"{name}_blob.npy", np.uint8)
        self._offsets = GrowingArray(folder / f"{name}_offsets.npy", np.int64)
        self._offsets.append(np.zeros(1, dtype=np.int64))
        self._end = 0

    def append(self, strings: Strings) -> None:
        """Add strings."""
        self._blob.append(strings.blob)
        self._offsets.append(strings.offsets[1:] + self._end)
        self._end += int(strings.offsets[-1])

    def close(self) -> None:
        """Complete both files."""
        self._blob.close()
        self._offsets.close()


def save_strings(folder: Path, name: str, strings: Strings) -> None:
    """Write strings at once."""
    np.save(folder / f"{name}_blob.npy", strings.blob, allow_pickle=False)
    np.save(folder / f"{name}_offsets.npy", strings.offsets, allow_pickle=False)


def map_strings(folder: Path, name: str) -> Strings:
    """Map strings written here.

    Raises:
        CorruptError: a file is missing or cut short.
    """
    return Strings(map_array(folder / f"{name}_blob.npy"), map_array(folder / f"{name}_offsets.npy"))


def take_strings(strings: Strings, rows: Sequence[int] | NDArray[np.integer]) -> Strings:
    """The chosen strings, packed."""
    offsets, positions = take_ragged(strings.offsets, np.asarray(rows, dtype=np.int64))
    return Strings(np.asarray(strings.blob[positions]), offsets)
