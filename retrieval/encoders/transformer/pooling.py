"""From token vectors to one vector a text, as sentence-transformers' modules do it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from retrieval.encoders.transformer.architectures import PROJECTION_ACTIVATIONS
from retrieval.encoders.transformer.attention import TokenRun
from retrieval.encoders.transformer.checkpoint import Projection
from retrieval.errors import CorruptError


def pool(hidden: Tensor, runs: Sequence[TokenRun], modes: Sequence[str]) -> Tensor:
    """One float32 vector a text.

    Args:
        hidden: (T, D) token vectors of a batch.
        runs: the texts they form.
        modes: names in ``POOLINGS``; several are concatenated.

    Returns:
        (B, D * len(modes)), in the order of the runs.
    """
    rows = [torch.cat([POOLINGS[mode](run.of(hidden), run.mask()) for mode in modes], dim=1) for run in runs]
    return torch.cat(rows)


def _cls(x: Tensor, mask: Tensor | None) -> Tensor:
    return x[:, 0].float()


def _mean(x: Tensor, mask: Tensor | None, power: float = 1.0) -> Tensor:
    if mask is None:
        return x.sum(1, dtype=torch.float32) / x.shape[1] ** power
    kept = x * mask[:, :, None]
    return kept.sum(1, dtype=torch.float32) / mask.sum(1, keepdim=True).float() ** power


def _max(x: Tensor, mask: Tensor | None) -> Tensor:
    if mask is not None:
        x = x.masked_fill(~mask[:, :, None], float("-inf"))
    return x.amax(1).float()


def _weighted_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    weights = torch.arange(1, x.shape[1] + 1, device=x.device, dtype=torch.float32).expand(len(x), -1)
    if mask is not None:
        weights = weights * mask
    return (x.float() * weights[:, :, None]).sum(1) / weights.sum(1, keepdim=True)


def _last(x: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return x[:, -1].float()
    return x[torch.arange(len(x), device=x.device), mask.sum(1) - 1].float()


POOLINGS: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "cls": _cls,
    "lasttoken": _last,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": lambda x, mask: _mean(x, mask, 0.5),
    "weightedmean": _weighted_mean,
}
"""Pooling modes by sentence-transformers' names: ((n, L, D), (n, L) mask or None) -> (n, D) float32."""


@dataclass(frozen=True, slots=True)
class Head:
    """What follows pooling: projections, a Matryoshka cut, unit length; all in float32."""

    projections: tuple[Callable[[Tensor], Tensor], ...]
    dim: int | None
    normalize: bool

    def __call__(self, x: Tensor) -> Tensor:
        """(B, D) pooled vectors to (B, dim) final ones."""
        for project in self.projections:
            x = project(x)
        if self.dim is not None:
            x = x[:, : self.dim]
        return F.normalize(x, dim=1) if self.normalize else x.contiguous()


def load_projection(projection: Projection, device: str) -> Callable[[Tensor], Tensor]:
    """A Dense module of the checkpoint as a function on (B, in) float32.

    Raises:
        CorruptError: its weights are missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path: Path = projection.folder / "model.safetensors"
    try:
        tensors = load_file(path)
        weight = tensors["linear.weight"].to(device=device, dtype=torch.float32)
        bias = tensors["linear.bias"].to(device=device, dtype=torch.float32) if projection.bias else None
    except (SafetensorError, OSError, KeyError) as error:
        raise CorruptError(path, f"not the weights of a Dense module ({error})") from error
    act = _ACTIVATIONS[PROJECTION_ACTIVATIONS[projection.activation]]
    return lambda x: act(F.linear(x, weight, bias))


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "identity": lambda x: x,
    "relu": F.relu,
    "gelu": F.gelu,
}
