"""Products with a table of vectors against numpy's."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.maxsim import pack
from retrieval.maxsim_kernels import LANES, ROUNDED
from retrieval.vector_table import VectorTable


@pytest.mark.parametrize("n, dim, n_tokens", [(1, 3, 1), (37, 16, 16), (5000, 128, 33), (8, 1, 2)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_products_are_those_of_numpy(n, dim, n_tokens, dtype):
    rng = np.random.default_rng(n)
    vectors = rng.standard_normal((n, dim)).astype(dtype)
    tokens = rng.standard_normal((n_tokens, dim)).astype(np.float32)
    out = np.full((n, -(-n_tokens // LANES) * LANES), np.nan, dtype=np.float32)
    VectorTable(vectors).products(pack(tokens), out)
    wanted = vectors.astype(np.float64) @ tokens.T.astype(np.float64)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)[:, None] * np.linalg.norm(tokens, axis=1)
    largest = 2.0**-7 if ROUNDED else 2.0**-20
    assert (np.abs(out[:, :n_tokens] - wanted) <= largest * 1.01 * lengths).all()
    assert (out[:, n_tokens:] == 0).all()  # unused lanes


def test_a_table_is_the_same_for_one_vector_and_for_many():
    rng = np.random.default_rng(0)
    vectors, tokens = rng.standard_normal((3000, 64)).astype(np.float16), rng.standard_normal((5, 64))
    lanes = pack(tokens.astype(np.float32))
    whole = np.empty((3000, LANES), dtype=np.float32)
    VectorTable(vectors).products(lanes, whole)
    for row in (0, 7, 2999):
        single = np.empty((1, LANES), dtype=np.float32)
        VectorTable(vectors[row : row + 1]).products(lanes, single)
        np.testing.assert_array_equal(single[0], whole[row])
