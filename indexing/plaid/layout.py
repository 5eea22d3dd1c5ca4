"""The stored arrays of a PLAID index."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from indexing.residual.codec import ResidualCodec
from retrieval.errors import CorruptError
from retrieval.values.storage import map_array


class PlaidFiles(NamedTuple):
    """What is stored, one .npy each.

    Attributes:
        codes: (T,) uint16 or uint32, the centroid of each token, by document.
        buckets: (T, P) uint8, its packed residual.
        starts: (C + 1,) int64 into gaps, by centroid.
        gaps: uint8, the documents that have a token at each centroid, ascending: each as its distance to the one
            before, the first to -1, in 7 bits a byte, the lowest first, the eighth set where more follow.
    """

    codes: NDArray[Any]
    buckets: NDArray[np.uint8]
    starts: NDArray[np.int64]
    gaps: NDArray[np.uint8]

    @classmethod
    def map(cls, folder: Path, n_tokens: int, codec: ResidualCodec) -> Self:
        """Map the files of an index over so many tokens.

        Raises:
            CorruptError: a file is missing or cut short, or belongs to other tokens or another codec.
        """
        files = cls(*(np.asarray(map_array(folder / f"{name}.npy")) for name in cls._fields))
        expected = {
            "codes": (codec.code_type, (n_tokens,)),
            "buckets": (np.dtype(np.uint8), (n_tokens, codec.width)),
            "starts": (np.dtype(np.int64), (len(codec.centroids) + 1,)),
        }
        for name, (dtype, shape) in expected.items():
            array = getattr(files, name)
            if array.dtype != dtype or array.shape != shape:
                raise CorruptError(
                    folder / f"{name}.npy", f"holds {array.dtype} {array.shape}, expected {dtype} {shape}"
                )
        if files.gaps.dtype != np.uint8 or files.gaps.shape != (int(files.starts[-1]),):
            raise CorruptError(
                folder / "gaps.npy", f"holds {files.gaps.shape} bytes, expected {files.starts[-1]}"
            )
        return files
