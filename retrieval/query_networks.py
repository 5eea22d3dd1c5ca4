"""Scores of documents by the networks of queries, on a CPU.

A layer is one matrix product for some hundred documents, by the kernel of ``retrieval.maxsim_kernels`` that adds up
each product in one order, so that a score depends on network and document alone: not on batch, segment or threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.compute import apply_threads, parallel
from retrieval.errors import IncompatibleError
from retrieval.maxsim import pack
from retrieval.topk import merge, top_k
from retrieval.values import Dense, Hits, QueryNetwork

_CHUNK = 256  # documents whose activations stay in a core's cache: 0.4 MB at width 384
_BLOCK = 1 << 16  # documents whose scores are kept at a time
_Layer = tuple[NDArray[Any], NDArray[np.float32] | None]


def network_scores(networks: QueryNetwork, documents: NDArray[Any]) -> NDArray[np.float32]:
    """The score of every document by every network.

    Args:
        networks: Q networks.
        documents: (N, D) float32 or float16.

    Returns:
        (Q, N) scores.

    Raises:
        IncompatibleError: the networks score documents of another width.
        ValueError: a network holds NaN or infinity, or a score exceeds float32.
    """
    scores = np.empty((len(networks), len(documents)), dtype=np.float32)
    layers = _layers(checked(networks, documents.shape[1]))

    def share(part: slice) -> None:
        for start in range(part.start, part.stop):
            chunk = slice(start * _CHUNK, (start + 1) * _CHUNK)
            packed = pack(np.asarray(documents[chunk], dtype=np.float32))
            for query, own in enumerate(layers):
                line = scores[query, chunk]
                line[:] = _forward(own, packed, networks.normalised)[: len(line)]

    apply_threads()
    parallel(share, -(-len(documents) // _CHUNK))
    return _finite(scores)


def score_rows(networks: QueryNetwork, documents: Dense, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The scores of each query's own rows.

    Args:
        networks: Q networks.
        documents: N vectors.
        rows: (Q, C), -1 for padding.

    Returns:
        (Q, C) scores, -inf for padding.

    Raises:
        IncompatibleError, ValueError: see ``network_scores``.
    """
    scores = np.full(rows.shape, -np.inf, dtype=np.float32)
    for query in range(len(networks)):
        kept = rows[query] >= 0
        scores[query, kept] = network_scores(
            networks[query : query + 1], documents.values[rows[query, kept]]
        )[0]
    return scores


def best_rows(networks: QueryNetwork, documents: Dense, rows: NDArray[np.int64] | None, k: int) -> Hits:
    """The k best of chosen rows, scored one and all; ties by ascending row.

    Args:
        networks: Q networks.
        documents: N vectors.
        rows: (C,) ascending; None for all.
        k: results wanted; more than there are rows pads.

    Raises:
        IncompatibleError, ValueError: see ``network_scores``.
    """
    checked(networks, documents.dim)
    best = Hits.none(len(networks), k)
    n = len(documents) if rows is None else len(rows)
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        names = np.arange(start, stop) if rows is None else rows[start:stop]
        values = documents.values[start:stop] if rows is None else documents.values[names]
        best = merge([best, top_k(network_scores(networks, values), k, names)], k)
    return best


def checked(networks: QueryNetwork, dim: int) -> QueryNetwork:
    """The networks, if they can score documents of that width.

    Raises:
        IncompatibleError: they are for documents of another width.
        ValueError: one holds NaN or infinity.
    """
    if networks.dim != dim:
        raise IncompatibleError(
            f"the queries' networks score vectors of width {networks.dim}, the index has width {dim}; encode queries "
            "with the encoder the collection was made with"
        )
    for array in networks.arrays:
        finite = np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
        if not finite.all():
            raise ValueError(f"the network of query {int(finite.argmin())} holds NaN or infinity")
    return networks


def _layers(networks: QueryNetwork) -> list[list[_Layer]]:
    """Of each query the weights and bias of every layer, the latter None of the last."""
    from retrieval.kernels import frozen

    def of(query: int) -> list[_Layer]:
        biases = [np.asarray(bias[query], dtype=np.float32) for bias in networks.biases]
        weights = [frozen(weight[query]) for weight in networks.weights]
        return list(zip(weights, [*map(frozen, biases), None], strict=True))

    return [of(query) for query in range(len(networks))]


def _forward(layers: Sequence[_Layer], packed: NDArray[np.float32], normalised: bool) -> NDArray[np.float32]:
    """(G * LANES,) the scores of packed documents (G, D, LANES)."""
    from retrieval.kernels import frozen
    from retrieval.maxsim_kernels import LANES, products
    from retrieval.query_network_kernels import activate

    x, last = packed, len(layers) - 1
    for number, (weight, bias) in enumerate(layers):
        out = np.empty((len(weight), len(x) * LANES), dtype=np.float32)
        products(weight, frozen(x), out)
        if bias is None:
            return out[0]
        after = np.empty((len(x), len(weight), LANES), dtype=np.float32)
        adds = weight.shape[0] == weight.shape[1] and not (normalised and number == last - 1)
        activate(out, bias, frozen(x), adds, normalised, after)
        x = after
    raise AssertionError("the last layer has no bias")


def _finite(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(scores).all():
        raise ValueError("scores of a query's network exceed float32; its weights are too large")
    return scores
