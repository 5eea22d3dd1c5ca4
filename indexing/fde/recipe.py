"""The settings of fixed dimensional encodings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from indexing.fde.projections import PROJECTIONS
from retrieval.errors import ConfigError, unknown_name

FINAL = ("none", "counts", "signs")
_REPETITIONS = 64  # with fewer, nDCG on NFCorpus falls by more than 0.003 unless more candidates are rescored
_LARGEST = 1 << 20
"""Dimensions an encoding may have before its final projection."""


@dataclass(frozen=True)
class Recipe:
    """How token vectors become one vector; see ``indexing.fde.encodings``.

    Attributes:
        repetitions: independent partitions, one beside the other; 0 leaves the number to ``settled``.
        bits: hyperplanes of a partition, which has 2^bits blocks.
        projection: a name in ``PROJECTIONS``, or "identity".
        width: dimensions a token vector is projected to; without meaning for "identity".
        power: a document's block is its sum over the number of its tokens to this power; 1 is MUVERA's mean.
        fill: whether a document's empty blocks get the nearest token.
        final: "counts" (a count sketch) or "signs" (dense +-1) to bring the whole to ``final_dims``; or "none".
        final_dims: width after the final projection, 0 without one.
        seed: of all random numbers.
    """

    repetitions: int = 0
    bits: int = 4
    projection: str = "orthogonal"
    width: int = 4
    power: float = 0.8
    fill: bool = True
    final: str = "none"
    final_dims: int = 0
    seed: int = 1

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            _check_integer(name, getattr(self, name), low, high)
        names = [*PROJECTIONS, "identity"]
        if self.projection not in names:
            raise unknown_name("projection of index kind 'fde'", str(self.projection), names)
        if self.final not in FINAL:
            raise unknown_name("final projection of index kind 'fde'", str(self.final), FINAL)
        if (self.final == "none") != (self.final_dims == 0):
            raise ConfigError(
                f"fde parameters final={self.final!r} and final_dims={self.final_dims} do not fit together; give both "
                "or neither"
            )
        power = self.power
        if not isinstance(power, int | float) or isinstance(power, bool) or not 0.0 <= power <= 1.0:
            raise ConfigError(
                f"fde parameter power is {power!r}; it must be a number from 0 (sums) to 1 (means)"
            )
        if not isinstance(self.fill, bool):
            raise ConfigError(f"fde parameter fill is {self.fill!r}; it must be true or false")

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Recipe:
        """The recipe among the parameters of an index."""
        return cls(**{name: parameters[name] for name in cls.__dataclass_fields__})

    def settled(self, dim: int) -> Recipe:
        """The recipe with a number of repetitions, for token vectors of a width.

        It is the smallest number, 64 at least, with which "orthogonal" projections see every direction equally often:
        64 where vectors have 128 dimensions, 96 where they have 384 (0.945 of the exact top 10 among the first 100
        candidates, and 0.840 with 32). "identity", which sees every direction anyway, gets 4.
        """
        if self.repetitions:
            return self
        if self.projection == "identity":
            return replace(self, repetitions=4)
        once = -(-dim // self.width)
        return replace(self, repetitions=once * -(-_REPETITIONS // once))

    def full_dims(self, dim: int) -> int:
        """Dimensions before the final projection, of token vectors of a width.

        Raises:
            ConfigError: more than there may be.
        """
        width = dim if self.projection == "identity" else self.width
        full = (self.repetitions << self.bits) * width
        if full > _LARGEST:
            raise ConfigError(
                f"fde encodings of {self.repetitions} x 2^{self.bits} x {width} = {full:,} dimensions are too large; "
                f"{_LARGEST:,} at most"
            )
        return full


_RANGES = {
    "repetitions": (0, 10_000),
    "bits": (0, 16),
    "width": (1, 4096),
    "final_dims": (0, 1 << 16),
    "seed": (0, 2**32 - 1),
}


def _check_integer(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(f"fde parameter {name} is {value!r}; it must be an integer from {low} to {high}")
