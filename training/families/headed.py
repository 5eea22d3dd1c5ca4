"""Dense models that get heads of ours behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from retrieval.encoders.options import Option, read_options
from retrieval.encoders.transformer.head_module import HeadModule, type_name
from retrieval.encoders.transformer.location import locate
from retrieval.errors import ConfigError
from training.families.encoding import read
from training.families.family import Task
from training.families.layers import with_modules
from training.families.opening import drop_layers, is_low_rank, limit_length, load, restrict
from training.recipe.options import ModelOptions


def open_headed(
    family: str,
    options: ModelOptions,
    seed: int,
    table: Mapping[str, Option],
    kind: type[HeadModule],
    make: Callable[[int, int, dict[str, Any]], HeadModule],
) -> Any:
    """A dense model with heads behind it, new ones unless it is a checkpoint that has them.

    Args:
        family: its name.
        options: of the model.
        seed: of new heads.
        table: options of the family.
        kind: of the heads.
        make: new heads by width of tokens, width of pooled vectors, and the family's options; raises ValueError where
            these do not suit.

    Raises:
        ConfigError: an option that the family does not know, or that does not suit the checkpoint.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize

    chosen = read_options(family, options.options, table)
    if options.query_layers is not None:
        raise ConfigError(f"model.query_layers: queries and documents of a {family} model share one encoder")
    torch.manual_seed(seed)
    folder = locate(options.base)
    model = load(
        SentenceTransformer._load_with_module_classes, folder, module_classes={type_name(kind): kind}
    )
    modules = list(model.children())
    if isinstance(modules[-1], kind) and options.options:
        raise ConfigError(
            f"{folder} has heads of its own; leave {', '.join(options.options)} out of model.options"
        )
    if not isinstance(modules[-1], kind):
        if model.similarity_fn_name == "cosine" and not isinstance(modules[-1], Normalize):
            modules.append(Normalize())
        try:
            heads = make(modules[0].get_embedding_dimension(), model.get_embedding_dimension(), chosen)
        except ValueError as error:
            raise ConfigError(f"model.options: {error}") from error
        model.similarity_fn_name = "dot"
        model = with_modules(model, [*modules, heads])
    limit_length(model, folder, options)
    drop_layers(model, options)
    return restrict(model, options, is_new)


def run_headed(model: Any, texts: Sequence[str], task: Task) -> dict[str, Any]:
    """All features of texts behind the heads."""
    features = {
        name: value.to(model.device) if isinstance(value, Tensor) else value
        for name, value in read(model, texts, task).items()
    }
    made: dict[str, Any] = model(features, task=task)
    return made


def is_new(parameter: str) -> bool:
    """Whether a parameter is of heads, or of a low-rank update, by its name in the model."""
    return ".heads." in parameter or is_low_rank(parameter)
