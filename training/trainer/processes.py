"""One process of several (``torchrun``): who does what is done once, and how the others wait."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

_PAUSE = 0.5  # seconds between two looks


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this process does what is done once; true where there is only one."""
    return rank() == 0


def n_processes() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def wait_for(path: Path) -> None:
    """Until the first process has written a file, however long it takes: a barrier would time out."""
    while not path.exists():
        time.sleep(_PAUSE)


def average_gradients(module: nn.Module) -> None:
    """Make every gradient the mean of those of all processes, in place.

    Every process must have the same trained parameters; one without a gradient counts as 0.
    """
    if n_processes() == 1:
        return
    import torch

    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    whole = torch.cat([parameter.grad.flatten() for parameter in trained if parameter.grad is not None])
    torch.distributed.all_reduce(whole)
    whole /= n_processes()
    lengths = [parameter.numel() for parameter in trained]
    for parameter, mean in zip(trained, torch.split_with_sizes(whole, lengths), strict=True):
        parameter.grad = mean.view_as(parameter)
