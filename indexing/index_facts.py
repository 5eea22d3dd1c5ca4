"""What indexes keep beside their structures: settings and a small JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrieval.errors import ConfigError, CorruptError, unknown_name
from retrieval.values import Dense, MultiVector


def write_facts(path: Path, facts: Mapping[str, Any]) -> None:
    """Write a JSON object."""
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def read_facts(path: Path, about: Mapping[str, int], *numbers: str) -> dict[str, Any]:
    """Read what ``write_facts`` wrote.

    Args:
        path: which file.
        about: what must stand in it, such as n and dim of the vectors that are to be searched.
        numbers: names of further facts, each a finite number of at least 0.

    Raises:
        CorruptError: missing, no JSON object, without one of these, or about other vectors.
    """
    try:
        facts = dict(json.loads(path.read_text(encoding="utf-8")))
        found = {name: facts[name] for name in about}
        usable = {name: math.isfinite(facts[name]) and facts[name] >= 0 for name in numbers}
    except FileNotFoundError as error:
        raise CorruptError(path, "the file is missing") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        wanted = ", ".join([*about, *numbers])
        raise CorruptError(path, f"no JSON object with {wanted} ({error})") from error
    if found != dict(about):
        raise CorruptError(path, f"is about other vectors: {_shown(found)} instead of {_shown(about)}")
    for name, good in usable.items():
        if not good:
            raise CorruptError(path, f"{name} is {facts[name]}")
    return facts


def read_norm(path: Path, vectors: Dense | MultiVector) -> float:
    """The largest norm that was written about these vectors, with their n and dim.

    Raises:
        CorruptError: see ``read_facts``.
    """
    return float(read_facts(path, {"n": len(vectors), "dim": vectors.dim}, "norm")["norm"])


def _shown(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def with_defaults(kind: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of an index, those not given as they are by default.

    Raises:
        ConfigError: one has another name.
    """
    for name in given:
        if name not in defaults:
            raise unknown_name(f"parameter of index kind {kind!r}", name, defaults)
    return {**defaults, **given}


def no_parameters(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """For a kind without settings.

    Raises:
        ConfigError: one was given.
    """
    if given:
        raise ConfigError(f"index kind {kind!r} takes no parameters, got {', '.join(map(repr, given))}")
    return {}
