"""The weights that training changes: kept, put back, and averaged with those it began with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from retrieval.errors import CorruptError

TRAINED = "trained.safetensors"


def trained_weights(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters that have a gradient, by name, on the CPU."""
    return {
        name: value.detach().cpu().clone() for name, value in module.named_parameters() if value.requires_grad
    }


def save_trained(module: nn.Module, folder: Path) -> None:
    """Write them into a folder, which is made."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(trained_weights(module), folder / TRAINED)


def load_trained(module: nn.Module, folder: Path) -> None:
    """Put back what ``save_trained`` wrote.

    Raises:
        CorruptError: the file is damaged or of another model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / TRAINED
    try:
        put_back(module, load_file(path))
    except (SafetensorError, OSError, KeyError, RuntimeError) as error:
        raise CorruptError(
            path, f"not the weights of this run ({error}); remove {folder} or use --fresh"
        ) from error


def put_back(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Set every parameter that has a gradient.

    Raises:
        KeyError: one is missing.
        RuntimeError: one is of another shape.
    """
    with torch.no_grad():
        for name, value in module.named_parameters():
            if value.requires_grad:
                value.copy_(weights[name])


def average(module: nn.Module, first: Mapping[str, Tensor], share: float) -> None:
    """Go back part of the way to the weights that training began with, in place.

    Wortsman et al., "Robust fine-tuning of zero-shot models" (WiSE-FT), CVPR 2022, arXiv:2109.01903. Of a low-rank
    update, which is a product of two matrices and began as zero, one of the two is scaled.

    Args:
        module: trained.
        first: ``trained_weights`` of before.
        share: of the way that is kept; 1 changes nothing.
    """
    trained = trained_weights(module)
    kept = {
        name: value if ".lora_A." in name else torch.lerp(first[name], value, share)
        for name, value in trained.items()
    }
    put_back(module, kept)
