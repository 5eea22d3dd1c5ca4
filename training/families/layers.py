"""Which layers of a transformer there are, which are kept and which are trained."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from retrieval.errors import ConfigError


def transformers_of(model: nn.Module) -> Iterator[Any]:
    """The transformers inside a model of sentence-transformers, each once: one, or one for each tower."""
    from transformers import PreTrainedModel

    inside: set[int] = set()
    for module in model.modules():
        if isinstance(module, PreTrainedModel) and id(module) not in inside:
            inside.update(id(part) for part in module.modules())
            yield module


def layer_stack(transformer: nn.Module) -> tuple[str, nn.ModuleList]:
    """The layers and the name they have in the transformer: its longest list of modules.

    Raises:
        ConfigError: it has none.
    """
    stacks = [
        (name, part)
        for name, part in transformer.named_modules()
        if isinstance(part, nn.ModuleList) and len(part)
    ]
    if not stacks:
        raise ConfigError(f"a {type(transformer).__name__} has no layers that could be dropped or chosen")
    return max(stacks, key=lambda stack: len(stack[1]))


def keep_layers(transformer: Any, n: int) -> None:
    """Keep n layers in place, spread evenly from the first to the last.

    Every other layer, "evenly", is what serves a student best of the ways that Sajjad et al. (arXiv:2004.03844) and
    LayerDrop (Fan et al., arXiv:1909.11556) compare for encoders that are trained afterwards.

    Args:
        transformer: of transformers.
        n: 0 leaves the embeddings alone.

    Raises:
        ConfigError: there are not so many.
    """
    place, stack = layer_stack(transformer)
    if not 0 <= n <= len(stack):
        raise ConfigError(
            f"{n} layers are to be kept of {len(stack)}; lower model.layers or model.query_layers"
        )
    kept = torch.linspace(0, len(stack) - 1, n).round().int().tolist()
    holder, _, attribute = place.rpartition(".")
    setattr(transformer.get_submodule(holder), attribute, nn.ModuleList(stack[layer] for layer in kept))
    transformer.config.num_hidden_layers = n


def train_last_layers(transformer: nn.Module, n: int) -> None:
    """Freeze all but the last n layers.

    Raises:
        ConfigError: there are not so many.
    """
    _, stack = layer_stack(transformer)
    if not 0 <= n <= len(stack):
        raise ConfigError(f"the last {n} layers are to be trained of {len(stack)}; lower model.lora_layers")
    transformer.requires_grad_(False)
    for layer in list(stack)[len(stack) - n :]:
        layer.requires_grad_(True)


def two_towers(model: Any, query_layers: int) -> Any:
    """The same model with an encoder of its own for queries, which keeps ``query_layers`` of its layers.

    Documents keep the deep encoder. Queries start from the same weights, so both sides agree from the start as far as
    the dropped layers allow.
    """
    from sentence_transformers.base.modules import Router

    documents = list(model.children())
    queries = copy.deepcopy(documents)
    for transformer in transformers_of(nn.ModuleList(queries)):
        keep_layers(transformer, query_layers)
    return with_modules(model, [Router.for_query_document(queries, documents, default_route="document")])


def with_modules(model: Any, modules: list[nn.Module]) -> Any:
    """A model of the same kind with the same prompts and similarity made of other modules."""
    return type(model)(
        modules=modules, prompts=model.prompts, similarity_fn_name=model.similarity_fn_name, device="cpu"
    )
