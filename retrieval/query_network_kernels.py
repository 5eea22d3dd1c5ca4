"""What a hidden layer of a query's network does behind its matrix product, compiled.

Sums run over the outputs of one document in their order, in float64, so that a result depends on the document alone:
not on its lane, on those beside it, or on the number of threads. Import this module inside functions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from retrieval.compute import kernel_cache

kernel_cache()

from numba import njit  # noqa: E402

EPSILON = 1e-5
"""Added to the variance, as torch's layer normalisation does."""


@njit(cache=True, nogil=True)
def activate(products: Any, bias: Any, before: Any, adds: bool, normalises: bool, after: Any) -> None:
    """``relu(products + bias)`` of each document, perhaps normalised, perhaps added to the layer's input.

    Args:
        products: (out, G * LANES) float32, of the layer's weights with documents.
        bias: (out,) float32.
        before: (G, in, LANES) float32, the documents as the layer saw them; in is out where ``adds``.
        adds: whether the input is added.
        normalises: whether the outputs of a document are brought to mean 0 and variance 1 before that.
        after: (G, out, LANES) float32, written.
    """
    n_groups, n_outputs, lanes = after.shape
    mean, scale = np.empty(lanes, dtype=np.float64), np.empty(lanes, dtype=np.float64)
    for group in range(n_groups):
        mean[:] = 0.0
        scale[:] = 1.0
        for output in range(n_outputs):
            for lane in range(lanes):
                found = max(products[output, group * lanes + lane] + bias[output], np.float32(0.0))
                after[group, output, lane] = found
                mean[lane] += np.float64(found)
        if normalises:
            scale[:] = 0.0
            for lane in range(lanes):
                mean[lane] /= n_outputs
            for output in range(n_outputs):
                for lane in range(lanes):
                    scale[lane] += (np.float64(after[group, output, lane]) - mean[lane]) ** 2
            for lane in range(lanes):
                scale[lane] = 1.0 / np.sqrt(scale[lane] / n_outputs + EPSILON)
        else:
            mean[:] = 0.0
        for output in range(n_outputs):
            for lane in range(lanes):
                found = (np.float64(after[group, output, lane]) - mean[lane]) * scale[lane]
                if adds:
                    found += np.float64(before[group, output, lane])
                after[group, output, lane] = np.float32(found)
