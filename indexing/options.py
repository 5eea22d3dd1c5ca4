"""What a new collection is to contain: representations with encoders and indexes, chunking, limits."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from indexing.assembly import index_spec
from indexing.chunking import Chunking
from indexing.commit import IndexSpec
from retrieval.errors import ConfigError, FormatError, unknown_name

DEFAULT_REPRESENTATIONS = ("bm25", "dense")
ON_DUPLICATE = ("error", "replace", "skip")
BATCH_ROWS = 10_000
_DEFAULT_KINDS = {"bm25": "bm25", "dense": "flat"}
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class RepresentationOptions:
    """One representation to be made: its name, how to encode, what to build over the vectors."""

    name: str
    encoder: Mapping[str, Any]
    indexes: tuple[IndexSpec, ...]


@dataclass(frozen=True)
class WriteOptions:
    """How documents are written, to a new collection or an existing one.

    Attributes:
        on_duplicate: what a repeated id means: "error", "replace" (the later wins) or "skip" (the earlier wins).
        memory_bytes: what an index build may hold beside the model and fixed overheads.
        batch_rows: rows encoded, staged and resumed together.
        restart: forget unfinished builds instead of resuming one.
    """

    on_duplicate: str = "error"
    memory_bytes: int = 512 * 10**6
    batch_rows: int = BATCH_ROWS
    restart: bool = False

    def __post_init__(self) -> None:
        if self.on_duplicate not in ON_DUPLICATE:
            raise unknown_name("--on-duplicate policy", self.on_duplicate, ON_DUPLICATE)
        if self.batch_rows < 1:
            raise ConfigError(f"a batch has at least one row, got {self.batch_rows}")


@dataclass(frozen=True)
class BuildOptions:
    """What a new collection contains and how it is written."""

    representations: tuple[RepresentationOptions, ...]
    chunking: Chunking = field(default_factory=Chunking.default)
    writing: WriteOptions = field(default_factory=WriteOptions)

    def __post_init__(self) -> None:
        if not self.representations:
            raise ConfigError("a collection needs at least one representation, such as bm25")


def encoder_spec(text: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The encoder a person names.

    Args:
        text: "FAMILY:MODEL" ("hashing:256", "endpoint:text-embedding-3-small"), or just a sentence-transformers
            checkpoint: a folder, a Hub id or "default".
        options: the family's options.
    """
    from retrieval.encoders import FAMILIES

    family, colon, model = text.partition(":")
    if family == "hashing" and model:
        if not model.isdigit():
            raise ConfigError(f"{text!r}: write the width after the colon, such as hashing:256")
        return {"family": family, "model": "", "options": {"dim": int(model), **(options or {})}}
    if family in FAMILIES and (colon or family != "dense"):
        return {"family": family, "model": model, "options": dict(options or {})}
    return {"family": "dense", "model": text, "options": dict(options or {})}


def representation_options(
    text: str, *, dense_model: str = "default", options: Mapping[str, Any] | None = None
) -> RepresentationOptions:
    """A representation as written after ``--with``: NAME or NAME:KIND.

    Raises:
        ConfigError: an unknown name or kind.
    """
    name, _, kind = text.partition(":")
    if name not in _DEFAULT_KINDS:
        raise unknown_name("representation", name, _DEFAULT_KINDS)
    chosen = index_spec(kind or _DEFAULT_KINDS[name], {})
    encoder = (
        {"family": "terms", "model": "", "options": dict(options or {})}
        if name == "bm25"
        else encoder_spec(dense_model, options)
    )
    return RepresentationOptions(name, encoder, (chosen,))


def parse_memory(text: str) -> int:
    """Bytes from "2GB", "512M" or "1000000".

    Raises:
        ConfigError: it is none of these.
    """
    digits = text.strip().upper()
    unit = digits.lstrip("0123456789.")
    try:
        return int(float(digits[: len(digits) - len(unit)]) * _UNITS[unit.strip()])
    except (KeyError, ValueError):
        raise ConfigError(f"--memory {text!r} is no size; write it like 2GB or 512M") from None


def options_from_file(path: Path) -> tuple[RepresentationOptions, ...]:
    """The representations of a collection.toml: a table each, ``[NAME]`` with encoder, options, indexes.

    Example:
        [bm25]
        options = { language = "german" }
        [dense]
        encoder = "BAAI/bge-small-en-v1.5"
        indexes = [{ kind = "hnsw", m = 32 }]

    Raises:
        FormatError: no valid TOML.
        ConfigError: an unknown key, kind or parameter.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FormatError("there is no such file", path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"not valid TOML: {error}", path) from error
    return tuple(_from_table(path, name, table) for name, table in tables.items())


def _from_table(path: Path, name: str, table: Any) -> RepresentationOptions:
    if not isinstance(table, dict):
        raise FormatError(f"{name!r} must be a table, written [{name}]", path)
    for key in table:
        if key not in ("encoder", "options", "indexes"):
            raise unknown_name(f"key in {path} [{name}]", key, ("encoder", "options", "indexes"))
    encoder = encoder_spec(
        table.get("encoder", "terms:" if name == "bm25" else "default"), table.get("options")
    )
    default = "bm25" if encoder["family"] == "terms" else "flat"
    indexes: Sequence[Mapping[str, Any]] = table.get("indexes", [{"kind": default}])
    specs = tuple(
        index_spec(spec.get("kind", default), {key: value for key, value in spec.items() if key != "kind"})
        for spec in indexes
    )
    return RepresentationOptions(name, encoder, specs)
