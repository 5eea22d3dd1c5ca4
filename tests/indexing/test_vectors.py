"""Stored vectors of every type: joined and selected without loss, and refused by row where they are not finite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexing.vectors import (
    VALUES,
    check_finite,
    join_vectors,
    load_vectors,
    save_vectors,
    select_rows,
    value_name,
)
from retrieval.errors import FormatError
from retrieval.values import Dense, MultiSparse, MultiVector, Sparse
from retrieval.values.storage import load_facts


def sparse(n: int, seed: int) -> Sparse:
    rng = np.random.default_rng(seed)
    rows = [np.sort(rng.choice(20, rng.integers(0, 5), replace=False)) for _ in range(n)]
    indptr = np.cumsum([0] + [len(row) for row in rows]).astype(np.int64)
    indices = np.concatenate([np.zeros(0), *rows]).astype(np.int32)
    return Sparse(indptr, indices, rng.random(len(indices), dtype=np.float32), 20)


def indptr(n: int, seed: int) -> np.ndarray:
    return np.cumsum([0, *np.random.default_rng(seed).integers(0, 4, n)]).astype(np.int64)


def multisparse(n: int, seed: int) -> MultiSparse:
    starts = indptr(n, seed)
    return MultiSparse(starts, sparse(int(starts[-1]), seed))


def multivector(n: int, seed: int) -> MultiVector:
    starts = indptr(n, seed)
    values = np.random.default_rng(seed).standard_normal((int(starts[-1]), 3))
    return MultiVector(starts, values.astype(np.float16))


def dense(n: int, seed: int) -> Dense:
    return Dense(np.random.default_rng(seed).standard_normal((n, 3)).astype(np.float32))


MAKERS: dict[str, Callable[[int, int], Any]] = {
    "dense": dense,
    "sparse": sparse,
    "multivector": multivector,
    "multisparse": multisparse,
}


def arrays(value: Any) -> list[Any]:
    """Everything a value holds, comparable with ==."""
    if isinstance(value, np.ndarray):
        return [value.dtype.str, value.tolist()]
    return [arrays(part) for part in vars(value).values()] if hasattr(value, "__dict__") else [value]


def test_every_type_but_terms_is_tried_here():
    assert {*MAKERS, "terms"} == set(VALUES)


@pytest.mark.parametrize("name", MAKERS)
def test_joined_components_are_the_parts_one_after_another(tmp_path: Path, name):
    parts = [MAKERS[name](n, seed) for seed, n in enumerate((5, 0, 1, 9))]
    folders = [tmp_path / str(number) for number in range(len(parts))]
    for folder, part in zip(folders, parts, strict=True):
        save_vectors(folder, part)
    assert join_vectors(folders, tmp_path / "joined") == 15
    joined = load_vectors(tmp_path / "joined")
    assert value_name(joined) == value_name(type(joined)) == name
    whole = type(parts[0]).concat(parts)
    assert arrays(joined) == arrays(whole)
    (tmp_path / "plain").mkdir()
    whole.save(tmp_path / "plain")
    assert load_facts(tmp_path / "joined") == load_facts(tmp_path / "plain")
    rows = np.array([14, 2, 2, 6])
    assert arrays(select_rows(joined, rows)) == arrays(whole.take(rows))


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_by_its_row(name, wrong):
    good = MAKERS[name](12, 3)
    check_finite(good, "the encoder")
    bad = MAKERS[name](12, 3)
    before = MAKERS[name](12, 3)[:7]
    place = len((before.tokens if name == "multisparse" else before).values)
    (bad.tokens if name == "multisparse" else bad).values[place] = wrong
    row = next(row for row in range(12) if arrays(bad[row : row + 1]) != arrays(good[row : row + 1]))
    assert row >= 7
    with pytest.raises(FormatError, match=f"the encoder: row {row} holds NaN or infinity"):
        check_finite(bad, "the encoder")
