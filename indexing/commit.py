"""collection.json: what a collection consists of at one commit, replaced atomically by the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from indexing.durable import read_sealed, write_sealed
from retrieval.errors import ConfigError, IncompatibleError

FORMAT = 1
COMMIT_FILE = "collection.json"


@dataclass(frozen=True)
class IndexSpec:
    """One index over a representation's vectors.

    Attributes:
        kind: of ``KINDS``.
        parameters: all of them.
        measured: what ``indexing.tuning`` found when it chose the index: recall, times, queries, date; None: nothing.
    """

    kind: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, Any] | None = None

    @property
    def state(self) -> str | None:
        """The generation of what its kind was trained to (``indexing.shared_state``); None: nothing, or not yet."""
        return self.parameters.get("state")


@dataclass(frozen=True)
class Representation:
    """One way of encoding every row, and the indexes over it.

    Attributes:
        encoder: the spec that ``open_encoder`` reopens.
        fingerprint: the encoder's document fingerprint; another one may not write here.
        value: "dense" or "terms", what the encoder makes.
        indexes: the first is searched unless another is named.
        state: the generation of what the encoder has learned (``indexing.shared_state``); None: nothing.
        query_bank: the generation of its sample queries (``indexing.query_banks``); None: there are none.
    """

    encoder: Mapping[str, Any]
    fingerprint: str
    value: str
    indexes: tuple[IndexSpec, ...]
    state: str | None = None
    query_bank: str | None = None


@dataclass(frozen=True)
class Deletes:
    """A segment's bitmap of deleted rows."""

    generation: int
    rows: int
    documents: int
    sha256: str


@dataclass(frozen=True)
class SegmentEntry:
    """A live segment and the generation of each of its components.

    Attributes:
        metadata: generation of the metadata component.
        vectors: representation names present.
        indexes: "NAME-KIND" -> generation.
    """

    id: str
    n_documents: int
    n_rows: int
    metadata: int
    vectors: tuple[str, ...]
    indexes: Mapping[str, int]
    deletes: Deletes | None = None


@dataclass(frozen=True)
class Commit:
    """Everything collection.json says.

    Attributes:
        uuid: identity of the collection.
        generation: counts commits from 1.
        chunking: "none" or "WORDS/OVERLAP".
        schema: metadata field -> type name.
    """

    uuid: str
    generation: int
    created: str
    source: str
    chunking: str
    schema: Mapping[str, str]
    representations: Mapping[str, Representation]
    segments: tuple[SegmentEntry, ...]
    next_segment: int = 1

    @property
    def token(self) -> str:
        """Identity of this commit among all collections."""
        return f"{self.uuid}:{self.generation}"

    def following(self, **changes: Any) -> Commit:
        """The next commit with these changes."""
        return replace(self, **{"generation": self.generation + 1, **changes})


def write_commit(collection: Path, commit: Commit) -> None:
    """Publish a commit: durable and visible when this returns."""
    write_sealed(collection / COMMIT_FILE, {"format": FORMAT, **asdict(commit)})


def read_format(collection: Path) -> dict[str, Any]:
    """The raw content of collection.json, whatever its format version.

    Raises:
        ConfigError: there is no collection at the path.
        CorruptError: the file was changed or cut short.
    """
    try:
        return read_sealed(collection / COMMIT_FILE)
    except (FileNotFoundError, NotADirectoryError) as error:
        if (collection / "building").is_dir():
            raise ConfigError(
                f"{collection}: its first build was interrupted before anything was searchable; "
                "run the same `tercet index` command again to resume it"
            ) from error
        if collection.is_file():
            raise ConfigError(
                f"{collection}: a file, no collection; make one of it with `tercet index {collection} -o FOLDER`"
            ) from error
        taken = collection.is_dir() and any(collection.iterdir())
        raise ConfigError(
            f"{collection}: no collection here (no {COMMIT_FILE}); make one with "
            f"`tercet index CORPUS -o {'FOLDER' if taken else collection}`"
        ) from error


def read_commit(collection: Path) -> Commit:
    """The current commit.

    Raises:
        ConfigError: there is no collection at the path.
        CorruptError: collection.json was changed or cut short.
        IncompatibleError: it was written in another format version.
    """
    raw = read_format(collection)
    version = raw.pop("format", None)
    if version != FORMAT:
        remedy = (
            "upgrade tercet"
            if isinstance(version, int) and version > FORMAT
            else f"run `tercet upgrade {collection}`"
        )
        raise IncompatibleError(
            f"{collection}: format version {version}, this tercet reads version {FORMAT}; {remedy}"
        )
    raw["representations"] = {
        name: Representation(**{**facts, "indexes": tuple(IndexSpec(**spec) for spec in facts["indexes"])})
        for name, facts in raw["representations"].items()
    }
    raw["segments"] = tuple(
        SegmentEntry(
            **{
                **facts,
                "vectors": tuple(facts["vectors"]),
                "deletes": Deletes(**facts["deletes"]) if facts["deletes"] else None,
            }
        )
        for facts in raw["segments"]
    )
    return Commit(**raw)
