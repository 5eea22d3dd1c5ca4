"""Low-rank updates of linear layers (LoRA, Hu et al., arXiv:2106.09685), by peft."""

from __future__ import annotations

import copy
from importlib.util import find_spec
from typing import Any

from torch import nn

from retrieval.errors import ConfigError, MissingExtraError
from training.families.layers import layer_stack, transformers_of

_SCALE = 2  # alpha over rank, as is usual


def add_low_rank(transformer: nn.Module, rank: int, n_layers: int | None) -> None:
    """Freeze the transformer and put an update of that rank beside each linear layer of its last layers.

    The updates begin as zero.

    Args:
        transformer: changed in place.
        rank: of an update.
        n_layers: the last so many layers get them; None is all of them.

    Raises:
        ConfigError: there are not so many layers.
        MissingExtraError: peft is not installed.
    """
    if find_spec("peft") is None:
        raise MissingExtraError("peft", "train")
    from peft import LoraConfig, inject_adapter_in_model

    place, stack = layer_stack(transformer)
    n = len(stack) if n_layers is None else n_layers
    if not 1 <= n <= len(stack):
        raise ConfigError(f"model.lora_layers is {n_layers}; the model has {len(stack)} layers")
    targets = [
        f"{place}.{number}.{name}"
        for number in range(len(stack) - n, len(stack))
        for name, part in stack[number].named_modules()
        if isinstance(part, nn.Linear)
    ]
    config = LoraConfig(r=rank, lora_alpha=_SCALE * rank, target_modules=targets, lora_dropout=0.0)
    inject_adapter_in_model(config, transformer)


def merged(model: Any) -> Any:
    """A copy in which updates have become part of the weights they update; the model itself where it has none."""
    if not any(True for _ in _updated(model)):
        return model
    copied = copy.deepcopy(model)
    for name, part in list(_updated(copied)):
        part.merge()
        holder, _, attribute = name.rpartition(".")
        setattr(copied.get_submodule(holder), attribute, part.get_base_layer())
    for transformer in transformers_of(copied):
        transformer._hf_peft_config_loaded = False
        if hasattr(transformer, "peft_config"):
            del transformer.peft_config
    return copied


def _updated(model: nn.Module) -> Any:
    """(name, layer) of the layers that have an update."""
    if find_spec("peft") is None:
        return
    from peft.tuners.lora import LoraLayer

    for name, part in model.named_modules():
        if isinstance(part, LoraLayer):
            yield name, part
