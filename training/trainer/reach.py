"""Which parameters a loss can reach at all."""

from __future__ import annotations

from typing import Any

import torch

from retrieval.errors import ConfigError
from training.families.family import Family, Task


def freeze_unreached(model: Any, family: Family) -> int:
    """Freeze what no representation depends on, such as BERT's pooler under mean pooling.

    It would never change, but take memory in the optimiser and in checkpoints.

    Returns:
        The width of a document's vector, or of a token's.

    Raises:
        ConfigError: nothing is left that could be trained.
    """
    text = "a"
    sides: tuple[Task, ...] = ("document",) if family.joint else ("query", "document")
    with torch.random.fork_rng(), torch.enable_grad():
        width, total = 1, torch.zeros(())
        for side in sides:
            features = family.features(model, [(text, text)] if family.joint else [text], side)
            found = family.represent(model, features, side)
            total = total + sum(part.float().sum() for part in found if part.is_floating_point())
            width = found[0].shape[-1]
        if total.requires_grad:
            total.backward()  # type: ignore[no-untyped-call]
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.requires_grad_(False)
        parameter.grad = None
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(
            "nothing of the model is trained: it has no new parts, and model.lora_layers = 0 freezes the encoder"
        )
    return int(width)
