"""What a sparse MaxSim score is made of: for each query token its best document token and the terms they share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrieval.protocols import Explanation
from retrieval.values import Sparse


def explain_sparse_maxsim(query: Sparse, document: Sparse) -> Explanation:
    """The score of a document for a query, token by token.

    A part stands for a query token: its label is the token's number, for someone who has the texts to replace, its
    value the best inner product, and its fact ``position`` the document token that has it (the first of equals;
    left out where no document token shares a term). Its own parts are the shared terms by number, heaviest first.

    Args:
        query: the tokens of the query.
        document: the tokens of the document.
    """
    terms = np.unique(query.indices)
    asked, held = _columns(query, terms), _columns(document, terms)
    products = asked @ held.T
    parts = []
    for token in range(len(query)):
        position = int(products[token].argmax()) if len(document) else 0
        if len(document) and products[token, position] > 0:
            shared = _shared(terms, asked[token], held[position])
            value = float(products[token, position])
            parts.append(Explanation(f"token {token}", value, shared, {"position": position}))
        else:
            parts.append(Explanation(f"token {token}", 0.0))
    return Explanation("sparse MaxSim", sum(part.value for part in parts), tuple(parts))


def _columns(tokens: Sparse, terms: NDArray[np.int32]) -> NDArray[np.float64]:
    """(L, len(terms)): the weights of some terms, ascending, in each token."""
    matrix = np.zeros((len(tokens), len(terms)), dtype=np.float64)
    if len(terms):
        places = np.minimum(np.searchsorted(terms, tokens.indices), len(terms) - 1)
        found = terms[places] == tokens.indices
        owners = np.repeat(np.arange(len(tokens)), np.diff(tokens.indptr))
        matrix[owners[found], places[found]] = tokens.values[found]
    return matrix


def _shared(
    terms: NDArray[np.int32], asked: NDArray[np.float64], held: NDArray[np.float64]
) -> tuple[Explanation, ...]:
    parts = [
        Explanation(
            str(int(terms[place])),
            float(asked[place] * held[place]),
            facts={"query weight": float(asked[place]), "document weight": float(held[place])},
        )
        for place in np.flatnonzero(asked * held > 0)
    ]
    return tuple(sorted(parts, key=lambda part: -part.value))
