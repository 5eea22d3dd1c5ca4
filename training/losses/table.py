"""Losses by name; a loss's module is imported when a recipe asks for it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retrieval.errors import ConfigError, unknown_name
from training.auxiliaries.table import AUXILIARIES
from training.losses.options import checked_options

if TYPE_CHECKING:
    from torch import Tensor

    from training.scored import Scored

LOSSES: dict[str, str] = {
    "ranking": "training.losses.ranking:ranking",
    "listwise": "training.losses.listwise:listwise",
    "pointwise": "training.losses.pointwise:pointwise",
    "triplet": "training.losses.triplet:triplet",
    "margin-mse": "training.losses.margin_mse:margin_mse",
    "distillation": "training.losses.distillation:distillation",
    "tct": "training.losses.tct:tct",
    "diff-kendall": "training.losses.diff_kendall:diff_kendall",
    "rank-distillation": "training.losses.rank_distillation:rank_distillation",
    "adversarial": "training.losses.adversarial:adversarial",
    "flops": "training.losses.flops:flops",
    "idf-flops": "training.losses.flops:idf_flops",
    "df-flops": "training.losses.flops:df_flops",
    "l1": "training.losses.l1:l1",
    "spread-out": "training.losses.spread_out:spread_out",
}
"""Name -> "module:function" of ``(scored: Scored, *, options) -> Tensor ()``. Losses with parameters of their own
stand in ``training.auxiliaries.table``; the two tables share no name, so that a recipe's ``[[losses]]`` can say
either."""


@dataclass(frozen=True)
class Loss:
    """A loss with its options; calling it takes the loss of a batch, in float32 at least whatever autocast says.

    Raises:
        ConfigError: (when called) the batch lacks what the loss needs.
    """

    name: str
    function: Callable[..., Tensor]
    options: Mapping[str, Any]

    def __call__(self, scored: Scored) -> Tensor:
        """The loss, a scalar."""
        import torch

        try:
            with torch.autocast(scored.scores.device.type, enabled=False):
                return self.function(scored.widened(), **self.options)
        except ConfigError as error:
            raise ConfigError(f"{self.name}: {error}") from None


def open_loss(name: str, options: Mapping[str, Any] | None = None) -> Loss:
    """A loss by name.

    Args:
        name: in ``LOSSES``.
        options: keyword arguments of its function; others keep their defaults.

    Raises:
        ConfigError: the name is in neither table, or an option does not exist or has an impossible value.
    """
    if name not in LOSSES:
        raise unknown_name("loss", name, [*LOSSES, *AUXILIARIES])
    module, _, attribute = LOSSES[name].partition(":")
    function = getattr(importlib.import_module(module), attribute)
    return Loss(name, function, checked_options(name, function, options or {}))
