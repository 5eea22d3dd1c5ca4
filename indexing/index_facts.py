"""What every index over dense or token vectors keeps beside its structure: a small JSON, settings, explanations."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.dense_scan import checked, score_rows
from retrieval.errors import ConfigError, CorruptError
from retrieval.protocols import Explanation
from retrieval.values import Dense, MultiVector


def write_facts(path: Path, facts: Mapping[str, Any]) -> None:
    """Write a JSON object."""
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def read_facts(path: Path, vectors: Dense | MultiVector) -> dict[str, Any]:
    """Read what ``write_facts`` wrote about these vectors: at least n, dim and norm.

    Raises:
        CorruptError: missing, no such JSON object, or about other vectors.
    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        found = (int(facts["n"]), int(facts["dim"]))
        norm = float(facts["norm"])
    except FileNotFoundError as error:
        raise CorruptError(path, "the file is missing") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CorruptError(path, f"no JSON object with n, dim and norm ({error})") from error
    if found != (len(vectors), vectors.dim):
        raise CorruptError(
            path, f"is about {found[0]} x {found[1]} vectors, not {len(vectors)} x {vectors.dim}"
        )
    if not (math.isfinite(norm) and norm >= 0):
        raise CorruptError(path, f"norm is {norm}")
    return dict(facts)


def no_parameters(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """For a kind without settings.

    Raises:
        ConfigError: one was given.
    """
    if given:
        raise ConfigError(f"index kind {kind!r} takes no parameters, got {', '.join(map(repr, given))}")
    return {}


def explain_inner_products(vectors: Dense, queries: Dense, rows: NDArray[np.integer]) -> list[Explanation]:
    """The inner product of the first query with each row: what the dense part of a score is made of."""
    query = checked(queries, vectors.dim)[:1]
    chosen = np.asarray(rows, dtype=np.int64)
    scores = score_rows(vectors, query, chosen[None, :])[0]
    length = float(np.linalg.norm(query[0].astype(np.float64)))
    lengths = np.linalg.norm(vectors.values[chosen].astype(np.float64), axis=1)
    return [
        Explanation(
            "inner product of query and document vector",
            float(score),
            facts={
                "dim": vectors.dim,
                "cosine": float(score / (length * norm)) if length * norm else 0.0,
                "query norm": length,
                "document norm": float(norm),
            },
        )
        for score, norm in zip(scores, lengths, strict=True)
    ]
