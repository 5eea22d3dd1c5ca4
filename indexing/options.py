"""What a new collection is to contain: representations with encoders and indexes, chunking, limits."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from indexing.assembly import index_spec
from indexing.chunking import Chunking
from indexing.commit import IndexSpec
from indexing.kinds import KINDS, kind_class
from retrieval.encoders import FAMILIES, family_class, open_encoder, query_value
from retrieval.errors import ConfigError, FormatError, unknown_name
from retrieval.values import MultiSparse, MultiVector

DEFAULT_REPRESENTATIONS = ("bm25", "dense")
DEFAULT_LATE_KIND = "plaid"
"""What "late" is indexed by where no kind is named."""
ON_DUPLICATE = ("error", "replace", "skip")
BATCH_ROWS = 10_000
_TOKEN_BATCH_ROWS = 2_000  # of a vector a token, which take a hundred times the room
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_HYBRID = "hybrid"  # means all representations together
_TABLE_KEYS: dict[str, type] = {"encoder": str, "options": dict, "indexes": list}
_KEY_FORMS = {
    "encoder": "a name in quotes",
    "options": "a table such as { NAME = VALUE }",
    "indexes": 'a list of tables such as [{ kind = "flat" }]',
}
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class KnownRepresentation:
    """What ``--with`` and ``--using`` mean by a name; a collection.toml may have any names.

    Attributes:
        family: of its encoder.
        model: where none is named; None where one must be.
        wanted: what to name, for people.
    """

    family: str
    model: str | None
    wanted: str = ""

    def encoder(self, name: str, model: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
        """The encoder, as ``open_encoder`` takes it.

        Raises:
            ConfigError: no model is named and there is no default one, or an option is wrong.
        """
        model = model or self.model
        if model is None:
            raise ConfigError(f"{name} needs a model: --{name}-model FOLDER or a Hub id of {self.wanted}")
        if self.family == "terms":
            return terms_spec(options, model)
        if self.family == "dense":
            return encoder_spec(model, options)
        if self.family == "sparse":
            return sparse_spec(model, options)
        return {"family": self.family, "model": model, "options": dict(options)}


KNOWN_REPRESENTATIONS = {
    "bm25": KnownRepresentation("terms", ""),
    "dense": KnownRepresentation("dense", "default"),
    "sparse": KnownRepresentation("sparse", "default-sparse"),
    "late": KnownRepresentation("late", "default"),
    "slim": KnownRepresentation("slim", None, "a masked language model, such as naver/splade-v3"),
    "multivariate": KnownRepresentation(
        "multivariate", None, "a multivariate model that `tercet train` made"
    ),
    "hypencoder": KnownRepresentation("hypencoder", None, "a hypencoder that `tercet train` made"),
}


@dataclass(frozen=True)
class RepresentationOptions:
    """One representation to be made.

    Attributes:
        name: letters, digits, "_", "." and "-", the first no "." or "-": it names folders and is joined by "+".
        encoder: how to encode, as ``open_encoder`` takes it; empty for indexes over vectors that are there.
        indexes: what to build over the vectors, at most one of a kind; the first is searched by default.
    """

    name: str
    encoder: Mapping[str, Any]
    indexes: tuple[IndexSpec, ...]

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name == _HYBRID:
            raise ConfigError(
                f"{self.name!r} cannot name a representation; a name has letters, digits, _ . and -, begins with a "
                f"letter, digit or _, and is not {_HYBRID}"
            )
        if not self.indexes:
            raise ConfigError(f"the representation {self.name!r} needs at least one index")
        kinds = [spec.kind for spec in self.indexes]
        for kind in kinds:
            if kinds.count(kind) > 1:
                raise ConfigError(
                    f"the representation {self.name!r} can have one {kind} index, not {kinds.count(kind)}"
                )
        if self.encoder:
            self._check_kinds(kinds)

    def _check_kinds(self, kinds: Iterable[str]) -> None:
        family = self.encoder["family"]
        encoder = family_class(family)
        made, asked = encoder.value.__name__, query_value(encoder).__name__
        for kind in kinds:
            index = kind_class(kind)
            held, taken = index.value.__name__, query_value(index).__name__
            if held != made:
                raise ConfigError(
                    f"an index of kind {kind} is made of {held} vectors, and the {family} encoder of {self.name!r} "
                    f"makes {made} ones; choose another kind"
                )
            if taken != asked:
                raise ConfigError(
                    f"an index of kind {kind} is asked by a {taken}, and the {family} encoder of {self.name!r} makes a "
                    f"{asked} of a query; choose another kind"
                )


def check_distinct(names: Iterable[str]) -> None:
    """Refuse representations of one collection whose names, or those of their indexes, are the same.

    An index is called NAME-KIND, and kinds have dashes too: "a" and "a-lucene" could both own "a-lucene-bm25".

    Raises:
        ConfigError: names both.
    """
    owners: dict[str, str] = {}
    for owner in names:
        for name in (owner, *(f"{owner}-{kind}" for kind in KINDS)):
            if name in owners:
                raise ConfigError(
                    f"the representations {owners[name]!r} and {owner!r} could both be meant by {name!r}; "
                    "choose another name"
                )
            owners[name] = owner


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


def rows_together(rows: int, values: Iterable[type]) -> int:
    """At most so many rows are encoded, staged and resumed together, fewer where a representation has token vectors.

    Args:
        values: what the encoders make.
    """
    tokens = any(value in (MultiVector, MultiSparse) for value in values)
    return min(rows, _TOKEN_BATCH_ROWS) if tokens else rows


@dataclass(frozen=True)
class BuildOptions:
    """What a new collection contains and how it is written."""

    representations: tuple[RepresentationOptions, ...]
    chunking: Chunking = field(default_factory=Chunking.default)
    writing: WriteOptions = field(default_factory=WriteOptions)

    def __post_init__(self) -> None:
        if not self.representations:
            raise ConfigError("a collection needs at least one representation, such as bm25")
        check_distinct(part.name for part in self.representations)


def encoder_spec(text: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The encoder a person names.

    Args:
        text: "FAMILY:MODEL" ("hashing:256", "endpoint:text-embedding-3-small"), or just a sentence-transformers
            checkpoint: a folder, a Hub id or "default".
        options: the family's options.
    """
    family, colon, model = text.partition(":")
    if family == "terms":
        return terms_spec(options, model)
    if family == "hashing" and model:
        if not model.isdigit():
            raise ConfigError(f"{text!r}: write the width after the colon, such as hashing:256")
        return {"family": family, "model": "", "options": {"dim": int(model), **(options or {})}}
    if family in FAMILIES and (colon or family != "dense"):
        return {"family": family, "model": model, "options": dict(options or {})}
    return {"family": "dense", "model": text, "options": dict(options or {})}


def terms_spec(options: Mapping[str, Any] | None = None, model: str = "") -> dict[str, Any]:
    """The encoder of a BM25 representation, with its options checked.

    Raises:
        ConfigError: an unknown option, language or field.
    """
    import Stemmer

    given = dict(options or {})
    language = given.get("language", "english")
    languages = ["none", *Stemmer.algorithms()]
    if language not in languages:
        raise unknown_name("language", language, languages)
    spec = {"family": "terms", "model": model, "options": given}
    open_encoder(spec)
    return spec


def sparse_spec(model: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The encoder of a sparse representation: words and codes where the model is a book of codes, else SPLADE."""
    from retrieval.encoders.codes.book import is_book
    from retrieval.encoders.transformer.location import local_folder

    folder = local_folder(model)
    family = "codes" if folder is not None and is_book(folder) else "sparse"
    return {"family": family, "model": model, "options": dict(options or {})}


def default_kind(encoder: Mapping[str, Any]) -> str:
    """The index kind for what an encoder makes, where none is named."""
    kinds = {
        "terms": "bm25",
        "codes": "inverted",
        "sparse": "inverted",
        "late": DEFAULT_LATE_KIND,
        "slim": "slim",
        "hypencoder": "hypencoder",
    }
    return kinds.get(encoder["family"], "flat")


def representation_options(
    text: str, model: str | None = None, options: Mapping[str, Any] | None = None
) -> RepresentationOptions:
    """A representation as written after ``--with``: NAME or NAME:KIND.

    Args:
        text: a name of ``KNOWN_REPRESENTATIONS``, with or without a kind.
        model: of its encoder; None for the default one.
        options: of its encoder.

    Raises:
        ConfigError: an unknown name, kind or option, or no model where there is no default one.
    """
    name, _, kind = text.partition(":")
    if name not in KNOWN_REPRESENTATIONS:
        raise unknown_name("representation", name, KNOWN_REPRESENTATIONS)
    encoder = KNOWN_REPRESENTATIONS[name].encoder(name, model, options or {})
    return RepresentationOptions(name, encoder, (index_spec(kind or default_kind(encoder), {}),))


def merge_representations(parts: Iterable[RepresentationOptions]) -> tuple[RepresentationOptions, ...]:
    """Parts of one name as one representation with all their indexes, the first one first; a repetition adds nothing.

    Raises:
        ConfigError: parts of one name have different encoders, or one index kind with different parameters.
    """
    merged: dict[str, RepresentationOptions] = {}
    for part in parts:
        known = merged.setdefault(part.name, part)
        if known.encoder != part.encoder:
            raise ConfigError(
                f"the representation {part.name!r} is given two encoders; name one of them otherwise"
            )
        new = tuple(spec for spec in part.indexes if spec not in known.indexes)
        merged[part.name] = replace(known, indexes=(*known.indexes, *new))
    return tuple(merged.values())


def parse_memory(text: str) -> int:
    """Bytes from "2GB", "512M" or "1000000".

    Raises:
        ConfigError: it is none of these, or less than one byte.
    """
    digits = text.strip().upper()
    unit = digits.lstrip("0123456789.")
    try:
        n_bytes = int(float(digits[: len(digits) - len(unit)]) * _UNITS[unit.strip()])
    except (KeyError, ValueError, OverflowError):
        raise ConfigError(f"--memory {text!r} is no size; write it like 2GB or 512M") from None
    if n_bytes < 1:
        raise ConfigError(f"--memory {text!r} leaves nothing to build with; write it like 2GB or 512M")
    return n_bytes


def options_from_file(path: Path) -> tuple[RepresentationOptions, ...]:
    """The representations of a collection.toml: a table each, ``[NAME]`` with encoder, options, indexes.

    Example:
        [bm25]
        options = { language = "german" }
        [dense]
        encoder = "BAAI/bge-small-en-v1.5"
        indexes = [{ kind = "hnsw", m = 32 }]

    Raises:
        FormatError: no valid TOML, or an unknown key, kind, parameter or value; names the table.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FormatError("there is no such file", path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"not valid TOML: {error}", path) from error
    parts = []
    for name, table in tables.items():
        try:
            parts.append(_from_table(name, table))
        except ConfigError as error:
            raise FormatError(f"[{name}] {error}", path) from error
    return tuple(parts)


def _from_table(name: str, table: Any) -> RepresentationOptions:
    if not isinstance(table, dict):
        raise ConfigError(f"is {table!r}; it must be a table with {', '.join(_TABLE_KEYS)}")
    for key, value in table.items():
        if key not in _TABLE_KEYS:
            raise unknown_name("key", key, _TABLE_KEYS)
        if not isinstance(value, _TABLE_KEYS[key]):
            raise ConfigError(f"{key} is {value!r}; it must be {_KEY_FORMS[key]}")
    usual = {"bm25": "terms:", "late": "late:default", "sparse": "codes:default-sparse"}.get(name, "default")
    encoder = encoder_spec(table.get("encoder", usual), table.get("options"))
    default = default_kind(encoder)
    specs = []
    for spec in table.get("indexes", [{}]):
        if not isinstance(spec, dict) or not isinstance(spec.get("kind", ""), str):
            raise ConfigError(f"indexes holds {spec!r}; it must be {_KEY_FORMS['indexes']}")
        parameters = {key: value for key, value in spec.items() if key != "kind"}
        specs.append(index_spec(spec.get("kind", default), parameters))
    return RepresentationOptions(name, encoder, tuple(specs))
