"""What a folder in the sentence-transformers format says about a model; reads JSON only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.errors import ConfigError, FormatError

_LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
BOOK = "codes.json"
"""Stands in the folder of a book of codes, which is no checkpoint (``retrieval.encoders.codes``)."""

_QUERY_PROMPTS = ("query",)
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")


@dataclass(frozen=True, slots=True)
class Projection:
    """A Dense module: a linear layer behind pooling."""

    folder: Path
    bias: bool
    activation: str


@dataclass(frozen=True)
class Checkpoint:
    """A model folder.

    Attributes:
        folder: where it lies.
        modules: (type, folder, config) of each module, in order; types are class names without their package.
        config: config.json of the transformer.
        wrapper: sentence_bert_config.json of the transformer.
        prompts: prompt name -> text put before what is encoded.
        similarity: the similarity the model was trained for ("cosine", "dot", ...); "" where it does not say.
        model_type: the sentence-transformers class that saved it; "" for a plain transformer.
        max_active_dims: the most terms a sparse vector keeps; None for all.
    """

    folder: Path
    modules: tuple[tuple[str, Path, Mapping[str, Any]], ...]
    config: Mapping[str, Any]
    wrapper: Mapping[str, Any]
    prompts: Mapping[str, str]
    similarity: str
    model_type: str = ""
    max_active_dims: int | None = None

    @property
    def transformer(self) -> Path:
        """The folder of the transformer's weights and tokenizer."""
        return self.modules[0][1]

    @property
    def types(self) -> tuple[str, ...]:
        """The modules' class names."""
        return tuple(kind for kind, _, _ in self.modules)

    @property
    def pooling(self) -> tuple[str, ...]:
        """Names of the pooling modes, in the order their outputs are joined."""
        config = next((config for kind, _, config in self.modules if kind == "Pooling"), {})
        given = config.get("pooling_mode")
        if given is None:
            given = [mode for key, mode in _LEGACY_POOLING.items() if config.get(key)] or ["mean"]
        return (given,) if isinstance(given, str) else tuple(given)

    @property
    def projections(self) -> tuple[Projection, ...]:
        """The Dense modules."""
        tanh = "torch.nn.modules.activation.Tanh"
        return tuple(
            Projection(folder, bool(config.get("bias", True)), str(config.get("activation_function", tanh)))
            for kind, folder, config in self.modules
            if kind == "Dense"
        )

    @property
    def normalizes(self) -> bool:
        """Whether vectors are meant to have unit length: a Normalize module, or cosine as similarity."""
        return "Normalize" in self.types or self.similarity == "cosine"

    @property
    def max_length(self) -> int | None:
        """The most tokens the model reads, special tokens included; None where nothing says."""
        given = self.wrapper.get("max_seq_length")
        if given is not None:
            return int(given)
        tokenizer = read_json(self.transformer / "tokenizer_config.json", missing={})
        limits = (tokenizer.get("model_max_length"), self.config.get("max_position_embeddings"))
        known = [int(limit) for limit in limits if isinstance(limit, (int, float)) and 0 < limit < 1e9]
        return min(known, default=None)

    @property
    def query_prompt(self) -> str:
        """The text put before queries."""
        return _first(self.prompts, _QUERY_PROMPTS)

    @property
    def document_prompt(self) -> str:
        """The text put before documents."""
        return _first(self.prompts, _DOCUMENT_PROMPTS)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read what a folder's JSON files say.

    A folder without modules.json is a plain transformer; as in sentence-transformers it gets mean pooling.

    Raises:
        ConfigError: the folder holds no model.
        FormatError: a JSON file cannot be parsed.
    """
    if (folder / BOOK).is_file():
        raise ConfigError(
            f"{folder} holds a book of codes; write codes:FOLDER, or name it as the sparse model"
        )
    listed = read_json(folder / "modules.json", missing=None)
    if listed is None and not (folder / "config.json").is_file():
        raise ConfigError(
            f"{folder} holds no model: neither modules.json nor config.json; "
            "give the folder that SentenceTransformer.save made"
        )
    modules = _modules(folder, listed) if listed is not None else [("Transformer", folder, {}), _mean(folder)]
    settings = read_json(folder / "config_sentence_transformers.json", missing={})
    prompts = settings.get("prompts") or {}
    return Checkpoint(
        folder=folder,
        modules=tuple(modules),
        config=read_json(modules[0][1] / "config.json", missing={}),
        wrapper=modules[0][2],
        prompts={str(name): str(text or "") for name, text in prompts.items()},
        similarity=str(settings.get("similarity_fn_name") or ""),
        model_type=str(settings.get("model_type") or ("" if listed is None else "SentenceTransformer")),
        max_active_dims=settings.get("max_active_dims"),
    )


def _modules(folder: Path, listed: Sequence[Mapping[str, Any]]) -> list[tuple[str, Path, Mapping[str, Any]]]:
    modules: list[tuple[str, Path, Mapping[str, Any]]] = []
    try:
        for entry in sorted(listed, key=lambda entry: int(entry["idx"])):
            modules.append(read_module(str(entry["type"]), folder / str(entry["path"])))
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(
            'not a list of modules with "idx", "path" and "type"', folder / "modules.json"
        ) from error
    if not modules:
        raise FormatError("lists no module", folder / "modules.json")
    return modules


def read_module(kind: str, place: Path) -> tuple[str, Path, Mapping[str, Any]]:
    """(type, folder, config) of a module, its type without sentence-transformers' package.

    Raises:
        FormatError: its config is no JSON.
    """
    known = kind.startswith("sentence_transformers.")
    name = kind.rpartition(".")[2] if known else kind
    transformer = name in ("Transformer", "MLMTransformer")
    wanted = "sentence_bert_config.json" if transformer else "config.json"
    return name, place, read_json(place / wanted, missing={})


def _mean(folder: Path) -> tuple[str, Path, Mapping[str, Any]]:
    return "Pooling", folder, {"pooling_mode": "mean"}


def _first(prompts: Mapping[str, str], names: Sequence[str]) -> str:
    return next((prompts[name] for name in names if prompts.get(name)), "")


def read_json(path: Path, missing: Any) -> Any:
    """The content of a JSON file, or ``missing`` where there is none.

    Raises:
        FormatError: the file is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return missing
    except (OSError, ValueError) as error:
        raise FormatError(f"not valid JSON ({error})", path) from error
