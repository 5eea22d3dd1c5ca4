"""Texts of many token vectors as one vector each, whose inner products approximate MaxSim.

Dhulipala et al., "MUVERA: Multi-Vector Retrieval via Fixed Dimensional Encodings", NeurIPS 2024, arXiv:2405.19504.
A repetition cuts space into 2^bits blocks by random hyperplanes (SimHash) and projects every token vector to ``width``
dimensions. A query's encoding holds, for each block, the sum of its projected tokens in it; a document's holds their
mean, and in a block without tokens the token whose block differs in the fewest bits. So the inner product of two blocks
adds up, for every query token there, a product with document tokens near it, which stands for the largest one.

Conventions:

* Bit b of a block's number is set where the product with the repetition's hyperplane b is positive. Numbers are used as
  they are, where MUVERA's code uses Gray code: distances between blocks are the same, only their order in the encoding
  differs. Of several tokens equally near an empty block the first fills it; a text without tokens is all zeros.
* Projections keep inner products in expectation, and encodings of queries are divided by the number of repetitions.
  With ``power`` 1 the inner product is therefore the paper's estimate of MaxSim itself, not a multiple of it.

Deviations, each measured on SciFact's training queries with token vectors of width 128, as the share of the exact top
10 among the first 100 candidates, means over two seeds. At 2,560 dimensions (20 repetitions, 4 bits, width 8): random
signs and independent hyperplanes, as published, 0.832; orthogonal hyperplanes 0.838; ``orthogonal`` projections besides
0.897; sums divided by the number of tokens to the power 0.7 rather than by the number 0.907. At 2,048 dimensions, where
the projections of all repetitions see each direction equally often: (16, 4, 8) 0.912 and (32, 4, 4), which over ten
seeds has 0.916, 0.918, both with the power 0.8.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.fde.files import map_shaped
from indexing.fde.projections import PROJECTIONS, Matrix, hyperplanes
from indexing.fde.recipe import Recipe
from retrieval.compute import parallel
from retrieval.kernels import frozen
from retrieval.maxsim import pack
from retrieval.values import MultiVector

_TOKENS = 2048  # tokens encoded at a time: their products with 256 columns take 2 MB
_NUMBERS = 1 << 22  # and numbers of encodings before the final projection
_GRAIN = 32  # texts worth a thread: about 10 ms


@dataclass(frozen=True, eq=False)
class Encodings:
    """A recipe with the random numbers drawn for vectors of one width.

    Attributes:
        recipe: how to encode, settled.
        planes: (repetitions * bits, D) normals of hyperplanes.
        projection: (repetitions * width, D); None with the projection "identity".
        places: (F,) where each dimension goes in a final projection by counts, else None.
        signs: int8 +-1, (F,) of those dimensions, or (final_dims, F) of a dense final projection; or None.
    """

    recipe: Recipe
    planes: Matrix
    projection: Matrix | None = None
    places: NDArray[np.int64] | None = None
    signs: NDArray[np.int8] | None = None

    @classmethod
    def draw(cls, recipe: Recipe, dim: int) -> Encodings:
        """The encodings of vectors of a width; the same seed draws the same numbers."""
        recipe = recipe.settled(dim)
        rng = np.random.default_rng(recipe.seed)
        planes = hyperplanes(dim, recipe.repetitions, recipe.bits, rng)
        projection = None
        if recipe.projection != "identity":
            projection = PROJECTIONS[recipe.projection](dim, recipe.repetitions, recipe.width, rng)
        places = signs = None
        full = recipe.full_dims(dim)
        if recipe.final == "counts":
            places = rng.integers(0, recipe.final_dims, full)
            signs = rng.integers(0, 2, full, dtype=np.int8) * np.int8(2) - np.int8(1)
        elif recipe.final == "signs":
            signs = rng.integers(0, 2, (recipe.final_dims, full), dtype=np.int8) * np.int8(2) - np.int8(1)
        return cls(recipe, planes, projection, places, signs)

    def save(self, folder: Path) -> None:
        """Write what was drawn, one .npy each, into an existing folder.

        Another version of NumPy may draw other numbers from the same seed, so they are kept.
        """
        for name, array in self._arrays().items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)

    @classmethod
    def load(cls, recipe: Recipe, dim: int, folder: Path) -> Encodings:
        """Read what ``save`` wrote.

        Args:
            recipe: the one it was drawn for.
            dim: the width of token vectors.
            folder: where it lies.

        Raises:
            CorruptError: a file is missing, cut short or of another recipe.
        """
        recipe = recipe.settled(dim)
        shapes: dict[str, tuple[tuple[int, ...], type]] = {
            "planes": ((recipe.repetitions * recipe.bits, dim), np.float32)
        }
        if recipe.projection != "identity":
            shapes["projection"] = ((recipe.repetitions * recipe.width, dim), np.float32)
        full = recipe.full_dims(dim)
        if recipe.final == "counts":
            shapes |= {"places": ((full,), np.int64), "signs": ((full,), np.int8)}
        elif recipe.final == "signs":
            shapes["signs"] = ((recipe.final_dims, full), np.int8)
        arrays = {
            name: np.array(map_shaped(folder / f"{name}.npy", shape, dtype))
            for name, (shape, dtype) in shapes.items()
        }
        return cls(recipe, **arrays)

    def _arrays(self) -> dict[str, NDArray[Any]]:
        names = ("planes", "projection", "places", "signs")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @property
    def dim(self) -> int:
        """The width of an encoding."""
        return self.recipe.final_dims or self.recipe.full_dims(self.planes.shape[1])

    def queries(self, texts: MultiVector) -> NDArray[np.float32]:
        """(N, dim) float32, the encodings of queries."""
        return self._encode(texts, document=False)

    def documents(self, texts: MultiVector) -> NDArray[np.float32]:
        """(N, dim) float32, the encodings of documents."""
        return self._encode(texts, document=True)

    def _encode(self, texts: MultiVector, document: bool) -> NDArray[np.float32]:
        out = np.empty((len(texts), self.dim), dtype=np.float32)
        most = max(1, _NUMBERS // self.recipe.full_dims(texts.dim))

        def share(part: slice) -> None:
            for rows in _chunks(texts.indptr, part, most):
                out[rows] = self._finally(self._blocks(texts[rows], document))

        parallel(share, len(texts), grain=_GRAIN)
        return out

    def _blocks(self, texts: MultiVector, document: bool) -> NDArray[np.float32]:
        """(N, full_dims) before the final projection."""
        from indexing.fde.kernels import add_up, average, blocks_of

        recipe, values = self.recipe, frozen(texts.values)
        blocks = np.zeros((len(values), recipe.repetitions), dtype=np.int32)
        if recipe.bits:
            blocks_of(_products(values, self._packed_planes), recipe.bits, blocks)
        if self._packed_projection is None:
            projected, width, stride = texts.values.astype(np.float32), texts.dim, 0
        else:
            projected, width = _products(values, self._packed_projection), recipe.width
            stride = width
        indptr, projected = frozen(texts.indptr), frozen(projected)
        out = np.zeros((len(texts), recipe.full_dims(texts.dim)), dtype=np.float32)
        add_up(indptr, blocks, projected, stride, recipe.bits, width, out)
        if document:
            average(
                indptr, blocks, projected, stride, recipe.bits, width, recipe.power, recipe.fill, out
            )  # fmt: skip
        else:
            out /= np.float32(recipe.repetitions)
        return out

    def _finally(self, encoded: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, dim) after the final projection."""
        if self._packed_final is not None:
            return _products(frozen(encoded), self._packed_final)[:, : self.dim] / np.float32(
                np.sqrt(self.dim)
            )
        if self.places is None:
            return encoded
        from indexing.fde.kernels import fold

        out = np.zeros((len(encoded), self.dim), dtype=np.float32)
        fold(encoded, self.places, self.signs, out)
        return out

    @cached_property
    def _packed_planes(self) -> Matrix:
        return pack(self.planes)

    @cached_property
    def _packed_projection(self) -> Matrix | None:
        return None if self.projection is None else pack(self.projection)

    @cached_property
    def _packed_final(self) -> Matrix | None:
        if self.signs is None or self.places is not None:
            return None
        return pack(self.signs.astype(np.float32))


def _products(values: NDArray[Any], packed: Matrix) -> NDArray[np.float32]:
    """(T, G * LANES) products of token vectors with packed columns."""
    from retrieval.maxsim_kernels import products

    out = np.empty((len(values), packed.shape[0] * packed.shape[2]), dtype=np.float32)
    products(values, frozen(packed), out)
    return out


def _chunks(indptr: NDArray[np.int64], part: slice, most: int) -> Iterator[slice]:
    """Slices of at most ``_TOKENS`` tokens and ``most`` texts, or one text."""
    start = part.start
    while start < part.stop:
        stop = int(np.searchsorted(indptr, indptr[start] + _TOKENS, side="right")) - 1
        stop = min(max(stop, start + 1), start + most, part.stop)
        yield slice(start, stop)
        start = stop
