"""Arrays of known shape, read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import CorruptError
from retrieval.values.storage import map_array


def map_shaped(path: Path, shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
    """Memory-map an array.

    Raises:
        CorruptError: it is missing, cut short, or not the array it should be.
    """
    array = map_array(path)
    if array.shape != shape or array.dtype != dtype:
        raise CorruptError(path, f"holds {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}")
    return array
