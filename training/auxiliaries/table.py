"""Auxiliary losses by name; a module is imported when a recipe asks for it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retrieval.errors import unknown_name
from training.losses.options import checked_options

if TYPE_CHECKING:
    from torch import nn

AUXILIARIES: dict[str, str] = {
    "word-prediction": "training.auxiliaries.word_prediction:WordPrediction",
    "domain": "training.auxiliaries.domain:DomainAdversary",
}
"""Name -> "module:Class" of ``Class(sizes, *, options)``, an ``nn.Module`` with ``forward(scored) -> Tensor ()``."""


@dataclass(frozen=True)
class Sizes:
    """What an auxiliary loss has to know of the model and its data.

    Attributes:
        width: of a text's vector.
        vocabulary: token ids of the model's tokenizer.
        domains: training sets.
    """

    width: int
    vocabulary: int
    domains: int


def open_auxiliary(name: str, sizes: Sizes, options: Mapping[str, Any] | None = None) -> nn.Module:
    """A new module of the table, with random parameters.

    Args:
        name: in ``AUXILIARIES``.
        sizes: of the model and its data.
        options: keyword arguments of its class; others keep their defaults.

    Raises:
        ConfigError: the name does not exist, or an option does not exist or has an impossible value.
    """
    if name not in AUXILIARIES:
        raise unknown_name("auxiliary loss", name, AUXILIARIES)
    module, _, attribute = AUXILIARIES[name].partition(":")
    made = getattr(importlib.import_module(module), attribute)
    auxiliary: nn.Module = made(sizes, **checked_options(name, made.__init__, options or {}))
    return auxiliary
