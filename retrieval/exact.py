"""Scores by definition, in float64 and without cleverness: the oracle every index is tested against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrieval.values import Dense, MultiSparse, MultiVector, QueryNetwork, Sparse

_LARGEST = float(np.finfo(np.float32).max)


def dense_scores(queries: Dense, documents: Dense) -> NDArray[np.float32]:
    """The inner product of every query with every document.

    Args:
        queries: Q vectors.
        documents: N vectors of the same width; normalise both for cosines.

    Returns:
        (Q, N) scores; a product beyond the range of float32 is its largest number.

    Raises:
        ValueError: the widths differ.
    """
    _same_width(queries.dim, documents.dim)
    return _rounded(queries.values.astype(np.float64) @ documents.values.astype(np.float64).T)


def sparse_scores(queries: Sparse, documents: Sparse) -> NDArray[np.float32]:
    """The inner product over the vocabulary of every query with every document.

    Args:
        queries: Q vectors.
        documents: N vectors over the same vocabulary.

    Returns:
        (Q, N) scores; no term in common scores 0.

    Raises:
        ValueError: the vocabularies differ in size.
    """
    _same_width(queries.dim, documents.dim)
    scores = np.zeros((len(queries), len(documents)), dtype=np.float64)
    weights = np.zeros(queries.dim, dtype=np.float64)
    for q in range(len(queries)):
        low, high = queries.indptr[q], queries.indptr[q + 1]
        weights[:] = 0.0
        weights[queries.indices[low:high]] = queries.values[low:high]
        for n in range(len(documents)):
            low, high = documents.indptr[n], documents.indptr[n + 1]
            scores[q, n] = np.sum(weights[documents.indices[low:high]] * documents.values[low:high])
    return _rounded(scores)


def maxsim_scores(queries: MultiVector, documents: MultiVector) -> NDArray[np.float32]:
    """Late interaction: every query token takes its best document token, and the maxima are summed.

    Khattab & Zaharia, "ColBERT", SIGIR 2020. Rows are ragged, so padding never enters: where all
    similarities are negative the best of them counts, not a zero from padding.

    Args:
        queries: Q texts of token vectors; one without tokens scores 0 against everything that has some.
        documents: N texts of token vectors; one without tokens scores -inf, so it is never returned.

    Returns:
        (Q, N) scores.

    Raises:
        ValueError: the widths differ.
    """
    _same_width(queries.dim, documents.dim)
    scores = np.full((len(queries), len(documents)), -np.inf, dtype=np.float64)
    for q in range(len(queries)):
        query = queries.values[queries.indptr[q] : queries.indptr[q + 1]].astype(np.float64)
        for n in range(len(documents)):
            document = documents.values[documents.indptr[n] : documents.indptr[n + 1]].astype(np.float64)
            if len(document):
                scores[q, n] = (query @ document.T).max(axis=1).sum()  # (Lq, Ld) -> (Lq,) -> ()
    return _rounded(scores)


def sparse_maxsim_scores(queries: MultiSparse, documents: MultiSparse) -> NDArray[np.float32]:
    """Late interaction between sparse token vectors: every query token takes its best document token.

    Li, Lin, Ma & Lin, "SLIM", SIGIR 2023 (arXiv:2302.06587), equation 4, without its approximations.

    Args:
        queries: Q texts of token vectors; one without tokens scores 0 against everything.
        documents: N texts of token vectors over the same vocabulary; one without tokens scores 0.

    Returns:
        (Q, N) scores.

    Raises:
        ValueError: the vocabularies differ in size.
    """
    _same_width(queries.dim, documents.dim)
    scores = np.zeros((len(queries), len(documents)), dtype=np.float64)
    for q in range(len(queries)):
        query = _token_matrix(queries, q)
        for n in range(len(documents)):
            document = _token_matrix(documents, n)
            if len(query) and len(document):
                scores[q, n] = (query @ document.T).max(axis=1).sum()  # (Lq, Ld) -> (Lq,) -> ()
    return _rounded(scores)


def query_network_scores(queries: QueryNetwork, documents: Dense) -> NDArray[np.float32]:
    """The output of every query's network for every document's vector.

    Killingback, Zeng & Zamani, "Hypencoder", SIGIR 2025 (arXiv:2502.05364), section 3.

    Args:
        queries: Q networks.
        documents: N vectors of the width that the networks take.

    Returns:
        (Q, N) scores.

    Raises:
        ValueError: the widths differ.
    """
    _same_width(queries.dim, documents.dim)
    scores = np.zeros((len(queries), len(documents)), dtype=np.float64)
    for q in range(len(queries)):
        for n in range(len(documents)):
            x = documents.values[n].astype(np.float64)
            for layer in range(len(queries.biases)):
                weight, bias = queries.weights[layer][q].astype(np.float64), queries.biases[layer][q]
                y = np.maximum(weight @ x + bias, 0.0)
                if queries.normalised:
                    y = (y - y.mean()) / np.sqrt(y.var() + 1e-5)
                last = layer == len(queries.biases) - 1
                adds = len(y) == len(x) and not (queries.normalised and last)
                x = x + y if adds else y
            scores[q, n] = queries.weights[-1][q, 0].astype(np.float64) @ x
    return _rounded(scores)


def _token_matrix(vectors: MultiSparse, row: int) -> NDArray[np.float64]:
    """(L, V), the token vectors of a row with every zero written out."""
    tokens = vectors[row : row + 1].tokens
    matrix = np.zeros((len(tokens), tokens.dim), dtype=np.float64)
    matrix[np.repeat(np.arange(len(tokens)), np.diff(tokens.indptr)), tokens.indices] = tokens.values
    return matrix


def _same_width(queries: int, documents: int) -> None:
    if queries != documents:
        raise ValueError(f"queries have width {queries}, documents {documents}; encode both with one model")


def _rounded(scores: NDArray[np.float64]) -> NDArray[np.float32]:
    """Float32, where a finite score stays finite."""
    return np.where(np.isneginf(scores), scores, np.clip(scores, -_LARGEST, _LARGEST)).astype(np.float32)
