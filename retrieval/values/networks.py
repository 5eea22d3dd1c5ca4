"""The small scoring networks that a Hypencoder makes of queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.values.storage import load_arrays, save_arrays, whole
from retrieval.values.vectors import FLOATS


@dataclass(frozen=True, eq=False)
class QueryNetwork:
    """Q networks of one shape, each of which scores a document's vector (Killingback et al. 2025, arXiv:2502.05364).

    A hidden layer turns x into ``relu(W x + b)``. In the paper's form this is normalised to mean 0 and variance 1, and
    added to x except by the last hidden layer. Otherwise it is not normalised, and added to x by every layer, so that
    a network whose hidden weights are zero is an inner product. Nothing is added where a layer's widths differ. The
    last layer is one inner product without bias; a network of it alone is a dense query.

    Attributes:
        weights: (Q, out, in) float32 or float16 of each layer, the last with one output.
        biases: (Q, out) of each layer but the last, of the same precision.
        normalised: whether hidden layers have the paper's form.
    """

    weights: tuple[NDArray[Any], ...]
    biases: tuple[NDArray[Any], ...]
    normalised: bool = True

    def __post_init__(self) -> None:
        if not self.weights or len(self.biases) != len(self.weights) - 1:
            raise ValueError(
                f"a network has a bias for every layer but the last, got {len(self.weights)} weights and "
                f"{len(self.biases)} biases"
            )
        if len({array.dtype for array in self.arrays}) != 1 or self.weights[0].dtype not in FLOATS:
            raise ValueError("the weights and biases of networks are all float32, or all float16")
        width = self.weights[0].shape[-1]
        for layer, weight in enumerate(self.weights):
            outputs = 1 if layer == len(self.biases) else weight.shape[1] if weight.ndim == 3 else 0
            if weight.shape != (len(self), outputs, width):
                raise ValueError(
                    f"layer {layer} has weights of shape {weight.shape}; expected ({len(self)}, "
                    f"{outputs or 'out'}, {width})"
                )
            if layer < len(self.biases) and self.biases[layer].shape != (len(self), outputs):
                raise ValueError(
                    f"layer {layer} has biases of shape {self.biases[layer].shape}; "
                    f"expected ({len(self)}, {outputs})"
                )
            width = outputs

    def __len__(self) -> int:
        return len(self.weights[0])

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """All weights, then all biases."""
        return (*self.weights, *self.biases)

    @property
    def dim(self) -> int:
        """The width D of the documents that are scored."""
        return int(self.weights[0].shape[2])

    @classmethod
    def of(cls, arrays: Sequence[NDArray[Any]], normalised: bool) -> QueryNetwork:
        """Networks of ``arrays`` as the property of that name has them."""
        n_layers = (len(arrays) + 1) // 2
        return cls(tuple(arrays[:n_layers]), tuple(arrays[n_layers:]), normalised)

    def __getitem__(self, rows: slice) -> QueryNetwork:
        return self.of([array[rows] for array in self.arrays], self.normalised)

    def take(self, rows: NDArray[np.integer]) -> QueryNetwork:
        """The chosen networks, copied."""
        return self.of([np.asarray(array[rows]) for array in self.arrays], self.normalised)

    @classmethod
    def concat(cls, parts: Sequence[QueryNetwork]) -> QueryNetwork:
        """One after another; all have the same shape and form."""
        if len({(len(part.weights), part.normalised) for part in parts}) != 1:
            raise ValueError("networks of different forms cannot be joined")
        together = zip(*(part.arrays for part in parts), strict=True)
        return cls.of([np.concatenate(arrays) for arrays in together], parts[0].normalised)

    def save(self, folder: Path) -> None:
        """Write .npy arrays and value.json into an existing folder."""
        named = {f"weight_{layer}": array for layer, array in enumerate(self.weights)}
        named |= {f"bias_{layer}": array for layer, array in enumerate(self.biases)}
        save_arrays(
            folder, "querynetwork", {"layers": len(self.weights), "normalised": self.normalised}, **named
        )

    @classmethod
    def load(cls, folder: Path) -> QueryNetwork:
        """Map what ``save`` wrote (CorruptError when damaged)."""
        with whole(folder):
            facts, arrays = load_arrays(folder, "querynetwork")
            layers = range(int(facts["layers"]))
            return cls(
                tuple(arrays[f"weight_{layer}"] for layer in layers),
                tuple(arrays[f"bias_{layer}"] for layer in layers[:-1]),
                bool(facts["normalised"]),
            )
