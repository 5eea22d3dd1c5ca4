"""What encoders made, stored by row: one component a representation, joined and selected in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.durable import open_manifest, write_manifest
from indexing.growing import GrowingArray, take_strings
from retrieval.errors import CorruptError, FormatError
from retrieval.values import Dense, MultiSparse, MultiVector, Sparse, Terms
from retrieval.values.storage import load_facts, write_facts

Vectors = Dense | Sparse | MultiVector | MultiSparse | Terms

VALUES: dict[str, Any] = {
    "dense": Dense,
    "sparse": Sparse,
    "multivector": MultiVector,
    "multisparse": MultiSparse,
    "terms": Terms,
}
"""Name in value.json -> type."""


def value_name(value: type | Vectors) -> str:
    """The name a type has on disk."""
    wanted = value if isinstance(value, type) else type(value)
    return next(name for name, candidate in VALUES.items() if candidate is wanted)


def check_finite(vectors: Vectors, what: str) -> None:
    """Refuse NaN and infinities before they are stored.

    Raises:
        FormatError: names the first row that has one.
    """
    if isinstance(vectors, Terms):
        return
    values = vectors.tokens.values if isinstance(vectors, MultiSparse) else vectors.values
    if np.isfinite(values).all():
        return
    at = int(np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))[0])
    raise FormatError(f"{what}: row {_row_of(vectors, at)} holds NaN or infinity; nothing was stored")


def _row_of(vectors: Dense | Sparse | MultiVector | MultiSparse, at: int) -> int:
    """The row that entry ``at`` of the values belongs to."""
    if isinstance(vectors, Dense):
        return at
    if isinstance(vectors, MultiSparse):
        at = int(np.searchsorted(vectors.tokens.indptr, at, side="right")) - 1
    return int(np.searchsorted(vectors.indptr, at, side="right")) - 1


def save_vectors(folder: Path, vectors: Vectors) -> None:
    """Write and seal a vectors component."""
    folder.mkdir(parents=True, exist_ok=True)
    vectors.save(folder)
    write_manifest(folder, {"component": "vectors", "n_rows": len(vectors)})


def load_vectors(folder: Path) -> Vectors:
    """Map a vectors component.

    Raises:
        CorruptError: a file is missing, cut short or changed.
    """
    manifest = open_manifest(folder)
    vectors = VALUES[load_facts(folder)["value"]].load(folder)
    if len(vectors) != manifest["n_rows"]:
        raise CorruptError(folder, f"holds {len(vectors)} rows, {manifest['n_rows']} were written")
    return vectors


def join_vectors(parts: Sequence[Path], folder: Path) -> int:
    """Concatenate components of one type into a new, sealed one, reading one part at a time.

    Returns:
        The number of rows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kind = load_facts(parts[0])["value"]
    if kind == "terms":
        from indexing.bm25.inversion import unify_terms

        unify_terms(parts, folder)
        n_rows = len(Terms.load(folder))
    elif kind == "dense":
        n_rows = _join_dense(parts, folder)
    else:
        n_rows = _join_ragged(kind, parts, folder)
    write_manifest(folder, {"component": "vectors", "n_rows": n_rows})
    return n_rows


def _join_dense(parts: Sequence[Path], folder: Path) -> int:
    first = Dense.load(parts[0]).values
    with GrowingArray(folder / "values.npy", first.dtype, (first.shape[1],)) as target:
        for part in parts:
            target.append(Dense.load(part).values)
    write_facts(folder, "dense", {}, ["values"])
    return target.rows


def _join_ragged(kind: str, parts: Sequence[Path], folder: Path) -> int:
    first = VALUES[kind].load(parts[0])
    offsets = {name: GrowingArray(folder / f"{name}.npy", np.int64) for name in _offsets_of(first)}
    entries = {
        name: GrowingArray(folder / f"{name}.npy", array.dtype, array.shape[1:])
        for name, array in _entries_of(first).items()
    }
    ends = dict.fromkeys(offsets, 0)
    for indptr in offsets.values():
        indptr.append(np.zeros(1, dtype=np.int64))
    for path in parts:
        part = VALUES[kind].load(path)
        for name, array in _offsets_of(part).items():
            offsets[name].append(array[1:] + ends[name])
            ends[name] += int(array[-1])
        for name, array in _entries_of(part).items():
            entries[name].append(array)
    for target in (*offsets.values(), *entries.values()):
        target.close()
    facts = {} if kind == "multivector" else {"dim": first.dim}
    write_facts(folder, kind, facts, [*offsets, *entries])
    return offsets["indptr"].rows - 1


def _offsets_of(part: Sparse | MultiVector | MultiSparse) -> dict[str, NDArray[np.int64]]:
    """By its name on disk, each array of a ragged value that says where something starts."""
    if isinstance(part, MultiSparse):
        return {"indptr": part.indptr, "token_indptr": part.tokens.indptr}
    return {"indptr": part.indptr}


def _entries_of(part: Sparse | MultiVector | MultiSparse) -> dict[str, NDArray[Any]]:
    """By its name on disk, each array of a ragged value that holds what the offsets point into."""
    if isinstance(part, MultiVector):
        return {"values": part.values}
    rows = part.tokens if isinstance(part, MultiSparse) else part
    return {"indices": rows.indices, "values": rows.values}


def select_rows(vectors: Vectors, rows: NDArray[np.int64]) -> Vectors:
    """The chosen rows; a Terms batch keeps only the vocabulary those rows use."""
    taken = vectors.take(rows)
    if not isinstance(taken, Terms):
        return taken
    used, indices = np.unique(taken.indices, return_inverse=True)
    return Terms(
        taken.indptr,
        indices.astype(np.int32),
        taken.frequencies,
        taken.lengths,
        take_strings(taken.vocabulary, used),
        taken.term_fields[used],
        taken.fields,
    )
