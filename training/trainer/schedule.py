"""Which queries make which batch: decided by the seed alone, so that a run can go on from any step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from training.recipe.options import OptimOptions


@dataclass(frozen=True)
class Schedule:
    """The examples of every step.

    All queries of a step, on all devices, are of one training set, since those of another are told apart too easily to
    be worth comparing. Sets have a share of the steps in proportion to their queries, in random order; each hands out
    its queries in an order that is new in every epoch. All batches are full: one that ends an epoch begins the next.

    Attributes:
        sizes: queries of each training set.
        batch: queries of a step on all devices.
        steps: optimiser steps.
        seed: of every order.
    """

    sizes: tuple[int, ...]
    batch: int
    steps: int
    seed: int

    def __len__(self) -> int:
        return self.steps * self.batch

    def set_of(self, step: int) -> int:
        """The number of the training set of a step."""
        return int(self._sets[step])

    def place(self, example: int) -> tuple[int, int, int]:
        """(training set, epoch, row of its query) of an example; those of step s begin at ``s * batch``."""
        step, offset = divmod(example, self.batch)
        number = self.set_of(step)
        epoch, at = divmod(int(self._before[step]) * self.batch + offset, self.sizes[number])
        return number, epoch, int(_order(self.seed, number, epoch, self.sizes[number])[at])

    @cached_property
    def _sets(self) -> NDArray[np.int64]:
        """(steps,) the set of each, whose shares are exact to a step."""
        shares = np.array(self.sizes) / sum(self.sizes) * self.steps
        quotas = np.floor(shares).astype(np.int64)
        quotas[np.argsort(quotas - shares, kind="stable")[: self.steps - quotas.sum()]] += 1
        return np.random.default_rng(self.seed).permutation(np.repeat(np.arange(len(quotas)), quotas))

    @cached_property
    def _before(self) -> NDArray[np.int64]:
        """(steps,) how many earlier steps are of the same set."""
        before = np.zeros(self.steps, dtype=np.int64)
        for number in range(len(self.sizes)):
            mine = self._sets == number
            before[mine] = np.arange(mine.sum())
        return before


@lru_cache(maxsize=64)
def _order(seed: int, number: int, epoch: int, size: int) -> NDArray[np.int64]:
    """The queries of a set in the order of an epoch."""
    return np.random.default_rng([seed, number, epoch]).permutation(size)


def planned_steps(options: OptimOptions, sizes: Sequence[int], devices: int) -> int:
    """Optimiser steps: as the recipe says, or so many that every query is drawn ``epochs`` times."""
    return options.steps or max(1, math.ceil(options.epochs * sum(sizes) / (options.batch * devices)))
