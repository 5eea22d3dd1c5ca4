"""Values on disk: one .npy an array and a value.json beside them; never pickle."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import CorruptError


def save_arrays(folder: Path, kind: str, facts: dict[str, Any], **arrays: NDArray[Any]) -> None:
    """Write arrays and value.json into an existing folder."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    write_facts(folder, kind, facts, list(arrays))


def write_facts(folder: Path, kind: str, facts: dict[str, Any], arrays: list[str]) -> None:
    """Write value.json beside arrays that were written by other means."""
    described = {"value": kind, **facts, "arrays": sorted(arrays)}
    (folder / "value.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


def map_array(path: Path) -> NDArray[Any]:
    """Memory-map one .npy read-only (an empty array is read, since nothing can be mapped).

    Raises:
        CorruptError: the file is missing, truncated or no .npy.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise CorruptError(path, "the file is missing") from error
    except (ValueError, OSError, EOFError) as error:
        try:  # numpy refuses to map an array without elements
            array = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError):
            raise CorruptError(path, f"not a complete .npy file ({error})") from error
        if array.size:
            raise CorruptError(path, f"not a complete .npy file ({error})") from error
        return array


def load_facts(folder: Path) -> dict[str, Any]:
    """Read value.json.

    Raises:
        CorruptError: it is missing or no JSON object.
    """
    path = folder / "value.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CorruptError(path, "the file is missing") from error
    except (ValueError, OSError) as error:
        raise CorruptError(path, f"not valid JSON ({error})") from error
    if not isinstance(facts, dict) or "value" not in facts:
        raise CorruptError(path, 'no JSON object with a "value"')
    return facts


def load_arrays(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Map what ``save_arrays`` wrote.

    Raises:
        CorruptError: a file is missing, truncated or holds another type of value.
    """
    facts = load_facts(folder)
    if facts["value"] != kind:
        raise CorruptError(folder / "value.json", f"holds {facts['value']!r}, expected {kind!r}")
    return facts, {name: map_array(folder / f"{name}.npy") for name in facts["arrays"]}


@contextmanager
def whole(folder: Path) -> Iterator[None]:
    """Report what a value's constructor cannot be given as damage to the folder it was read from.

    Raises:
        CorruptError: the body lacked an array or a fact, or found them inconsistent.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptError(folder / "value.json", f"does not describe a whole value ({error!r})") from error


def take_ragged(
    indptr: NDArray[np.int64], rows: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The indptr of the chosen rows, and the positions of their entries."""
    starts, counts = indptr[rows], indptr[rows + 1] - indptr[rows]
    taken = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(counts, out=taken[1:])
    return taken, np.arange(taken[-1]) + np.repeat(starts - taken[:-1], counts)


def ragged_rows(indptr: NDArray[np.int64], start: int, stop: int) -> tuple[NDArray[np.int64], int, int]:
    """The indptr of rows start .. stop-1 moved to begin at 0, and the range they span."""
    stop = max(start, stop)
    part = indptr[start : stop + 1]
    low, high = int(part[0]), int(part[-1])
    return np.asarray(part - low, dtype=np.int64), low, high


def release_pages(*arrays: NDArray[Any]) -> None:
    """Let go of the pages a mapped array has brought into memory; they are read again when needed."""
    for array in arrays:
        owner: Any = array
        while isinstance(owner, np.ndarray):
            owner = owner.base
        if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            owner.madvise(mmap.MADV_DONTNEED)
