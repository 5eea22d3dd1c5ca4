"""What a SparseEncoder folder does with queries and with documents; reads JSON only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from retrieval.encoders.transformer.checkpoint import Checkpoint, read_checkpoint, read_json, read_module
from retrieval.errors import ConfigError, FormatError

Module = tuple[str, Path, Mapping[str, Any]]
"""Type, folder and config, as ``Checkpoint.modules`` has them."""


@dataclass(frozen=True, slots=True)
class Routes:
    """The modules texts go through.

    Attributes:
        query: those of queries.
        document: those of documents; the same object where all texts go one way.
    """

    query: Checkpoint
    document: Checkpoint


def read_routes(folder: Path) -> Routes:
    """Read what a folder's JSON files say about a sparse model.

    A folder without modules.json is a masked language model; as in sentence-transformers it gets SPLADE pooling by
    maximum. A Router with rules of its own, or with modules behind it, stays one route whose first module is
    the Router.

    Raises:
        ConfigError: the folder holds no model, or no SparseEncoder.
        FormatError: a JSON file cannot be parsed, or has other content than it should.
    """
    checkpoint = read_checkpoint(folder)
    if checkpoint.model_type == "":
        checkpoint = _masked_language(checkpoint)
    elif checkpoint.model_type == "SentenceTransformer":
        raise ConfigError(
            f"{folder} is a dense model, no SparseEncoder; use it as the dense model (family 'dense')"
        )
    elif checkpoint.model_type != "SparseEncoder":
        raise ConfigError(f"{folder} is a {checkpoint.model_type}; the sparse encoder needs a SparseEncoder")
    limit = checkpoint.max_active_dims
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        path = folder / "config_sentence_transformers.json"
        raise FormatError(f"max_active_dims is {limit!r}; it must be a positive integer, or null", path)
    return _routes(checkpoint) if checkpoint.types[0] == "Router" else Routes(checkpoint, checkpoint)


def _masked_language(checkpoint: Checkpoint) -> Checkpoint:
    """A plain transformer with SPLADE pooling."""
    folder, kinds = checkpoint.folder, checkpoint.config.get("architectures") or []
    if not any(str(kind).endswith("ForMaskedLM") for kind in kinds):
        raise ConfigError(
            f"{folder} is no SparseEncoder and no masked language model (config.json names {kinds}); "
            "give the folder that SparseEncoder.save made, or use it as the dense model"
        )
    wrapper = {"transformer_task": "fill-mask"}
    modules: tuple[Module, ...] = (("Transformer", folder, wrapper), ("SpladePooling", folder, {}))
    return replace(checkpoint, modules=modules, wrapper=wrapper)


def _routes(checkpoint: Checkpoint) -> Routes:
    """The routes of a Router, by their names alone."""
    _, place, _ = checkpoint.modules[0]
    path = place / "router_config.json"
    config = read_json(path, missing=None)
    if config is None:  # an old Asym module, which sentence-transformers still reads
        return Routes(checkpoint, checkpoint)
    try:
        found = {str(name): read_module(str(kind), place / name) for name, kind in config["types"].items()}
        ways = {way: tuple(found[name] for name in names) for way, names in config["structure"].items()}
        rules: Mapping[str, Any] = config.get("parameters", {}).get("route_mappings") or {}
    except (AttributeError, KeyError, TypeError) as error:
        raise FormatError('not a router\'s "types" and "structure"', path) from error
    if rules or len(checkpoint.modules) > 1 or not (ways.get("query") and ways.get("document")):
        whole = (("Router", place, config), *found.values(), *checkpoint.modules[1:])
        one = replace(checkpoint, modules=whole)
        return Routes(one, one)
    return Routes(_through(checkpoint, ways["query"]), _through(checkpoint, ways["document"]))


def _through(checkpoint: Checkpoint, modules: tuple[Module, ...]) -> Checkpoint:
    _, place, wrapper = modules[0]
    config = read_json(place / "config.json", missing={})
    return replace(checkpoint, modules=modules, config=config, wrapper=wrapper)
