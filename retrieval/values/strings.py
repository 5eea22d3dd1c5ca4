"""Many strings as one UTF-8 blob with offsets: compact, memory-mappable, no object per string."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Strings:
    """N strings.

    Attributes:
        blob: (bytes,) uint8, the UTF-8 of all strings one after another.
        offsets: (N+1,) int64 into blob.
    """

    blob: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, strings: Iterable[str]) -> Strings:
        """Pack strings; a lone surrogate is kept (``surrogatepass``)."""
        encoded = [string.encode("utf-8", "surrogatepass") for string in strings]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(part) for part in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Strings: ...
    def __getitem__(self, index: int | slice) -> str | Strings:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise ValueError("slices of strings have step 1")
            stop = max(start, stop)
            offsets = self.offsets[start : stop + 1]
            base = int(offsets[0]) if len(offsets) else 0
            blob = self.blob[base : int(offsets[-1]) if len(offsets) else 0]
            return Strings(blob, np.asarray(offsets - base, dtype=np.int64))
        if index < 0:
            index += len(self)
            if index < 0:
                raise IndexError(f"string {index - len(self)} of {len(self)}")
        start, stop = int(self.offsets[index]), int(self.offsets[index + 1])
        return self.blob[start:stop].tobytes().decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        data = self.blob.tobytes()
        bounds = self.offsets.tolist()
        for start, stop in itertools.pairwise(bounds):
            yield data[start:stop].decode("utf-8", "surrogatepass")

    def take(self, rows: Iterable[int]) -> list[str]:
        """The strings at the given rows, in that order."""
        return [self[int(row)] for row in rows]

    @classmethod
    def concat(cls, parts: Iterable[Strings]) -> Strings:
        """One after another."""
        items = list(parts)
        offsets = [np.zeros(1, dtype=np.int64)]
        base = 0
        for part in items:
            offsets.append(part.offsets[1:] + base)
            base += int(part.offsets[-1])
        blobs = [part.blob for part in items] or [np.zeros(0, dtype=np.uint8)]
        return cls(np.concatenate(blobs), np.concatenate(offsets))
