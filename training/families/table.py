"""The kinds of models that can be trained."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from retrieval.errors import unknown_name
from training.families.family import Family

FAMILIES: dict[str, str] = {
    "dense": "training.families.dense:DENSE",
    "sparse": "training.families.sparse:SPARSE",
    "late": "training.families.late:LATE",
    "reranker": "training.families.reranker:RERANKER",
    "hypencoder": "training.families.hypencoder:HYPENCODER",
    "multivariate": "training.families.multivariate:MULTIVARIATE",
}
"""Name -> "module:NAME" of a ``Family``."""

FITTED: dict[str, str] = {"codes": "training.codes.fitting:CODES"}
"""Kinds that are fitted to texts as a whole, without losses; their runs are those of ``training.codes.running``."""


def family(name: str) -> Family:
    """The family of that name.

    Raises:
        ConfigError: there is none; lists the valid ones.
    """
    if name not in FAMILIES:
        raise unknown_name("family", name, FAMILIES)
    module, value = FAMILIES[name].split(":")
    return cast(Family, getattr(import_module(module), value))
