"""From a checkpoint and the recipe's wishes to a model that can be trained, and back to a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from retrieval.encoders.transformer.architectures import reading_length
from retrieval.encoders.transformer.checkpoint import read_checkpoint
from retrieval.errors import ConfigError
from training.families.layers import keep_layers, train_last_layers, transformers_of
from training.families.low_rank import add_low_rank, merged
from training.recipe.options import ModelOptions


def load(kind: Callable[..., Any], folder: Path, **settings: Any) -> Any:
    """A model of one of sentence-transformers' classes from a local folder, on the CPU and in float32.

    Raises:
        ConfigError: it cannot be loaded; the reason is in the message.
    """
    import torch

    try:
        return kind(
            str(folder),
            device="cpu",
            local_files_only=True,
            model_kwargs={"dtype": torch.float32},
            **settings,
        )
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, TypeError) as error:
        raise ConfigError(f"sentence-transformers cannot load {folder} for training: {error}") from error


def limit_length(model: Any, folder: Path, options: ModelOptions) -> None:
    """Set how much of a text is read in training, and what ``save_merged`` says of how much is read afterwards.

    Raises:
        ConfigError: the model cannot read so much.
    """
    length = reading_length(read_checkpoint(folder), options.max_length)
    for module in _readers(model):
        module.length_afterwards = length
        module.max_seq_length = options.training_length or length
        module.query_length = options.query_length


def drop_layers(model: Any, options: ModelOptions) -> None:
    """Keep as many layers as the options want, in place.

    Raises:
        ConfigError: the model has not so many layers.
    """
    if options.layers is not None:
        for transformer in transformers_of(model):
            keep_layers(transformer, options.layers)


def restrict(model: Any, options: ModelOptions, is_new: Callable[[str], bool]) -> Any:
    """Choose what is trained: all, the last layers, or low-rank updates; what is new is trained in any case.

    Raises:
        ConfigError: the model has not so many layers.
        MissingExtraError: peft is not installed.
    """
    for transformer in transformers_of(model):
        if options.lora_rank:
            add_low_rank(transformer, options.lora_rank, options.lora_layers)
        elif options.lora_layers is not None:
            train_last_layers(transformer, options.lora_layers)
    if options.lora_rank or options.lora_layers is not None:
        for name, parameter in model.named_parameters():
            if is_new(name):
                parameter.requires_grad_(True)
    return model


def is_low_rank(parameter: str) -> bool:
    """Whether a parameter is part of a low-rank update, by its name."""
    return ".lora_" in parameter


def save_merged(model: Any, folder: Path) -> None:
    """Write the model with low-rank updates merged and texts read as far as they are to be read afterwards."""
    lengths = [(module, module.max_seq_length) for module in _readers(model)]
    try:
        for module, _ in lengths:
            module.max_seq_length = module.length_afterwards
        merged(model).save(str(folder), create_model_card=False)
    finally:
        for module, length in lengths:
            module.max_seq_length = length


def save_even(model: Any, folder: Path) -> None:
    """``save_merged``, with queries read as far as documents: encoders of one vector know one length."""
    lengths = [(module, module.query_length) for module in _readers(model)]
    try:
        for module, _ in lengths:
            module.query_length = None
        save_merged(model, folder)
    finally:
        for module, length in lengths:
            module.query_length = length


def _readers(model: Any) -> list[Any]:
    """The modules that read texts."""
    from sentence_transformers.base.modules import Transformer

    return [module for module in model.modules() if isinstance(module, Transformer)]
