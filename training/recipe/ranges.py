"""Which values the keys of a recipe can have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


class Range(Protocol):
    """A set of values that says in words what is in it."""

    def __contains__(self, value: object) -> bool: ...

    def __str__(self) -> str: ...


@dataclass(frozen=True)
class Numbers:
    """Finite numbers from ``low`` to ``high``, ``low`` itself only where it is not ``open``."""

    low: float
    high: float = math.inf
    open: bool = False

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float) or not math.isfinite(value):
            return False
        return self.low <= value <= self.high and not (self.open and value == self.low)

    def __str__(self) -> str:
        least = f"above {self.low:g}" if self.open else f"at least {self.low:g}"
        return least if math.isinf(self.high) else f"{least} and at most {self.high:g}"


@dataclass(frozen=True)
class Words:
    """A few words."""

    valid: tuple[str, ...]

    def __contains__(self, value: object) -> bool:
        return value in self.valid

    def __str__(self) -> str:
        return "one of " + ", ".join(self.valid)


_COUNT = Numbers(0)
_POSITIVE = Numbers(1)
_RATE = Numbers(0, open=True)
_SHARE = Numbers(0, 1)

RANGES: dict[str, Range] = {
    "seed": Numbers(0, 2**32 - 1),
    "model.max_length": _POSITIVE,
    "model.query_length": _POSITIVE,
    "model.training_length": _POSITIVE,
    "model.lora_rank": _COUNT,
    "model.lora_layers": _COUNT,
    "model.layers": _POSITIVE,
    "model.query_layers": _COUNT,
    "data.limit": _POSITIVE,
    "data.per_document": _POSITIVE,
    "dev.queries": _COUNT,
    "dev.documents": _COUNT,
    "dev.every": _COUNT,
    "dev.patience": _COUNT,
    "negatives.first": _POSITIVE,
    "negatives.last": _POSITIVE,
    "negatives.per_query": _COUNT,
    "negatives.margin": Numbers(0, 1, open=True),
    "negatives.every": _COUNT,
    "teachers.weight": _RATE,
    "ranker.steps": _POSITIVE,
    "ranker.lr": _RATE,
    "ranker.batch": _POSITIVE,
    "ranker.per_query": _POSITIVE,
    "ranker.max_length": _POSITIVE,
    "losses.weight": _COUNT,
    "losses.warmup": _SHARE,
    "losses.matryoshka": _POSITIVE,
    "optim.lr": _RATE,
    "optim.head_lr": _RATE,
    "optim.weight_decay": _COUNT,
    "optim.batch": _POSITIVE,
    "optim.chunk": _COUNT,
    "optim.steps": _COUNT,
    "optim.epochs": _RATE,
    "optim.warmup": _SHARE,
    "optim.clip": _RATE,
    "optim.average": _SHARE,
    "optim.precision": Words(("auto", "bfloat16", "float32")),
    "optim.save_every": _COUNT,
}
"""Key -> the values it can have; keys of a list of tables stand without a number, and a list has each of its values
in the range. Every number of a recipe has a line here."""
