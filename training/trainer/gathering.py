"""Batches that are spread over several devices, seen as one, with gradients.

Each device takes its loss of what all devices hold and DistributedDataParallel averages the gradients. With the
functions here that average is the gradient of the mean of the devices' losses, with no factor to add: gathering sends
every device's gradient back to where a tensor came from. On one device they return what they are given. All of them
are collective: every device has to call them, in the same order, with batches of one size.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from training.scored import Representation


def gather(tensor: Tensor) -> Tensor:
    """(N, ...) of each of W devices as (W * N, ...), device by device."""
    if not _several():
        return tensor
    from sentence_transformers.util.distributed import all_gather_with_grad

    with _without_deprecation():
        return all_gather_with_grad(tensor)


def gather_documents(documents: Representation) -> Representation:
    """The documents of all devices, device by device, in the order of the columns of ``Scored.scores``.

    Args:
        documents: of this device. Where the first tensor is (M, L, D), token vectors, a mask (M, L) follows; their L
            may differ from device to device and the longest decides.
    """
    if not _several():
        return documents
    if documents[0].ndim < 3:
        return tuple(gather(part) for part in documents)
    from sentence_transformers.util.distributed import all_gather_padded

    vectors, mask = documents
    with _without_deprecation():
        vectors, gathered_mask = all_gather_padded(vectors, mask.to(torch.uint8), with_grad=True)
    return vectors, gathered_mask.to(mask.dtype)


def mean_over_devices(tensor: Tensor) -> Tensor:
    """The mean of a tensor over devices, for a mean over texts that goes through something that is not linear."""
    return gather(tensor[None]).mean(0) if _several() else tensor


def queries_before(queries: int) -> int:
    """How many queries the devices before this one hold, where each holds as many: ``Scored.offset``."""
    return torch.distributed.get_rank() * queries if _several() else 0


def _several() -> bool:
    return (
        torch.distributed.is_available()
        and torch.distributed.is_initialized()
        and torch.distributed.get_world_size() > 1
    )


def _without_deprecation() -> warnings.catch_warnings[None]:
    """Silence about the collectives that sentence-transformers calls, which torch intends to rename."""
    return warnings.catch_warnings(action="ignore", category=FutureWarning)
