"""Data sets in BEIR's form: a folder, or a name that is looked up and, if need be, downloaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eval.archives import ARCHIVES, fetch
from eval.metrics import Qrels
from eval.qrels import read_qrels
from eval.text_lines import existing, lines
from indexing.corpora.jsonl import parsed
from indexing.progress import Progress
from retrieval.errors import ConfigError, FormatError
from retrieval.values import Query

DATA_VARIABLE = "TERCET_DATA"


@dataclass(frozen=True)
class BeirDataset:
    """One split of a test collection.

    Attributes:
        name: the folder's name, "cqadupstack/android" for a part of CQADupStack.
        folder: holds corpus.jsonl, queries.jsonl (each also .gz or .zst) and qrels/SPLIT.tsv.
        split: which judgements.
        drop_self: whether a query's own document is taken out of its results (see ``eval.archives``).
    """

    name: str
    folder: Path
    split: str = "test"
    drop_self: bool = False

    @property
    def corpus_path(self) -> Path:
        """corpus.jsonl or its compressed form (FormatError when there is neither)."""
        return _required(self.folder / "corpus.jsonl")

    def qrels(self) -> Qrels:
        """The judgements of the split.

        Raises:
            ConfigError: the data set has no such split; lists those it has.
            FormatError: names file and line.
        """
        path = existing(self.folder / "qrels" / f"{self.split}.tsv")
        if path is None:
            raise ConfigError(
                f"{self.folder}: no split {self.split!r}; it has: {', '.join(self.splits()) or 'none'}"
            )
        return read_qrels(path)

    def splits(self) -> list[str]:
        """The splits there are judgements for."""
        return sorted({path.name.split(".tsv")[0] for path in (self.folder / "qrels").glob("*.tsv*")})

    def queries(self) -> list[Query]:
        """The queries that the split judges, in the order of queries.jsonl.

        Raises:
            FormatError: names file and line; also when a judged query has no text.
        """
        judged = self.qrels()
        path = _required(self.folder / "queries.jsonl")
        queries = [query for query in read_queries(path) if query.id in judged]
        missing = judged.keys() - {query.id for query in queries}
        if missing:
            raise FormatError(
                f"no text for {len(missing)} judged queries of {self.split!r}, such as {min(missing)!r}",
                path,
            )
        return queries


def read_queries(path: Path) -> Iterator[Query]:
    """The queries of a JSONL file whose lines hold "_id" and "text".

    Raises:
        FormatError: names file and line: no JSON object, a missing or empty "_id", "text" that is no string,
            or an id that occurred before.
    """
    seen: dict[str, int] = {}
    for number, line in lines(path):
        fields = parsed(line.encode(), str(path), number)
        id_ = _id(fields, path, number)
        if not isinstance(fields.get("text"), str):
            raise FormatError(
                '"text" is missing or no string; every line needs "_id" and "text"', path, number
            )
        if id_ in seen:
            raise FormatError(f"query {id_!r} stands in line {seen[id_]} already", path, number)
        seen[id_] = number
        yield Query(id_, fields["text"])


def _id(fields: dict[str, Any], path: Path, number: int) -> str:
    id_ = fields.get("_id")
    if isinstance(id_, int) and not isinstance(id_, bool):
        return str(id_)
    if not isinstance(id_, str) or not id_:
        raise FormatError(f'"_id" is missing, empty or no string ({id_!r})', path, number)
    return id_


def open_dataset(
    name_or_path: str | Path,
    split: str = "test",
    data_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> BeirDataset:
    """One data set, by path or by name.

    A name is looked for in this order: as a path, under ``data_dir`` and under ``$TERCET_DATA`` (each also in
    its ``eval`` folder), in the cache; at last it is downloaded there from BEIR's official address.

    Raises:
        ConfigError: there is none of that name, or it is a group such as cqadupstack.
        DownloadError: it cannot be fetched.
    """
    found = open_datasets(name_or_path, split, data_dir, progress)
    if len(found) > 1:
        raise ConfigError(
            f"{name_or_path} holds {len(found)} data sets; name one of them, such as {found[0].name}"
        )
    return found[0]


def open_datasets(
    name_or_path: str | Path,
    split: str = "test",
    data_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> list[BeirDataset]:
    """The same, but a folder of several data sets (CQADupStack has twelve) gives them all.

    The score of such a group is the mean of its parts' scores, not that of the pooled queries.
    """
    folder = _find(str(name_or_path), data_dir, progress)
    name = _name(str(name_or_path), folder)
    if existing(folder / "corpus.jsonl"):
        return [_dataset(name, folder, split)]
    parts = sorted(path.parent for path in folder.glob("*/corpus.jsonl*"))
    if not parts:
        raise ConfigError(f"{folder}: no corpus.jsonl there, nor in a folder below; it is no BEIR data set")
    return [_dataset(f"{name}/{part.name}", part, split) for part in dict.fromkeys(parts)]


def override_self(dataset: BeirDataset, drop_self: bool | None) -> BeirDataset:
    """The data set with its rule about a query's own document replaced (None keeps it)."""
    return dataset if drop_self is None else replace(dataset, drop_self=drop_self)


def cache_folder() -> Path:
    """Where what can be fetched or built again is kept: $XDG_CACHE_HOME/tercet or ~/.cache/tercet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tercet"


def _dataset(name: str, folder: Path, split: str) -> BeirDataset:
    known = ARCHIVES.get(name.split("/")[0])
    return BeirDataset(name, folder, split, drop_self=known is not None and known.drop_self)


def _name(given: str, folder: Path) -> str:
    """What the data set is called: the name itself, or the last parts of its path."""
    resolved = folder.resolve()
    if resolved.parent.name == "cqadupstack":
        return f"cqadupstack/{resolved.name}"
    return resolved.name or given


def _find(given: str, data_dir: str | Path | None, progress: Progress | None) -> Path:
    if not given:
        raise ConfigError("the name of a data set is empty")
    if Path(given).is_dir():
        return Path(given)
    if Path(given).exists():
        raise ConfigError(
            f"{given} is a file; a data set is a folder with corpus.jsonl, queries.jsonl and qrels/"
        )
    roots = [Path(root) for root in (data_dir, os.environ.get(DATA_VARIABLE)) if root]
    downloads = cache_folder() / "beir"
    tried = [folder for root in roots for folder in (root / given, root / "eval" / given)]
    tried.append(downloads / given)
    for folder in tried:
        if folder.is_dir():
            return folder
    set_name, _, part = given.partition("/")
    if set_name not in ARCHIVES:
        places = ", ".join(str(folder) for folder in tried)
        raise ConfigError(
            f"no data set {given!r}: no such folder (tried also {places}) and no BEIR name; "
            f"BEIR's are: {', '.join(sorted(ARCHIVES))}"
        )
    folder = fetch(set_name, downloads, progress)
    if part and not (folder / part).is_dir():
        raise ConfigError(f"{set_name} has no part {part!r}; it has: {', '.join(_folders(folder))}")
    return folder / part if part else folder


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def _required(path: Path) -> Path:
    found = existing(path)
    if found is None:
        raise FormatError("the file is missing (nor is there a .gz or .zst of it)", path)
    return found
