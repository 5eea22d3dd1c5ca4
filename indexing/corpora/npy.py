"""Dense vectors from a .npy file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import FormatError
from retrieval.values import Dense

_BLOCK_BYTES = 64 << 20


def read_vectors(path: str | Path) -> Dense:
    """Map the (N, D) vectors of a .npy file and check every number.

    float32 and float16 files are mapped as they are; float64, other byte orders and Fortran order are converted,
    to float32, through an unlinked temporary file, so that memory stays bounded.

    Raises:
        FormatError: no complete .npy, another shape or type, no vector, or a row with NaN or infinity.
    """
    path = Path(path)
    array = _mapped(path)
    if array.ndim != 2 or array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise FormatError(
            f"holds {array.dtype} of shape {array.shape}; vectors are (N, D) float32, float16 or float64",
            path,
        )
    if not array.size:
        raise FormatError(f"holds no vector (shape {array.shape})", path)
    rows = max(1, _BLOCK_BYTES // (array.shape[1] * array.dtype.itemsize))
    direct = array.dtype in (np.float32, np.float16) and array.dtype.isnative and array.flags.c_contiguous
    target = array if direct else _scratch(array.shape)
    for start in range(0, len(array), rows):
        block = array[start : start + rows]
        if not direct:
            with np.errstate(over="ignore"):  # too large for float32 becomes infinity, refused below
                target[start : start + rows] = block
            block = target[start : start + rows]
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise FormatError(
                f"row {row} holds NaN, infinity or a number beyond float32; remove or replace the vector",
                path,
            )
    return Dense(target)


def _mapped(path: Path) -> NDArray[Any]:
    try:
        with path.open("rb") as stream:
            empty = stream.read(1) == b""
        if empty:
            raise FormatError("the file is empty; save vectors with numpy.save", path)
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise FormatError(f"cannot be read ({error.strerror or error})", path) from error
    except (ValueError, EOFError) as error:
        raise FormatError(
            f"not a complete .npy file ({error}); save vectors with numpy.save", path
        ) from error


def _scratch(shape: tuple[int, ...]) -> NDArray[np.float32]:
    with tempfile.TemporaryFile(prefix="tercet-vectors-") as stream:
        return np.memmap(stream, dtype=np.float32, mode="w+", shape=shape)
