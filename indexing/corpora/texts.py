"""A folder of .txt and .md files: one document a file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from indexing.corpora.corpus import Position, Record, fingerprint_of, position_of
from indexing.corpora.fields import FieldNames
from indexing.corpora.lines import LONGEST_LINE, invalid_utf8
from retrieval.errors import ConfigError, FormatError
from retrieval.values import Document
from retrieval.values.texts import MetadataValue

SUFFIXES = (".txt", ".md", ".markdown")
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.*?)[ \t#]*$", re.MULTILINE)
_FENCE = re.compile(r"^ {0,3}(```|~~~).*?(?:^ {0,3}\1|\Z)", re.MULTILINE | re.DOTALL)
_File = tuple[str, os.stat_result]  # path below the folder with "/", facts


@dataclass(frozen=True)
class TextsCorpus:
    """The files below a folder, in the order of their names.

    The id is the path below the folder, with "/"; the title is the first Markdown heading, else the file name without
    its ending; metadata is ``path`` and ``modified`` (time of change, UTC, to the second). Hidden files and folders are
    left out, and links to folders are not followed.

    Attributes:
        folder: where the files are.
        ignore: metadata fields to leave out.
    """

    folder: Path
    ignore: tuple[str, ...] = ()

    @classmethod
    def open(cls, path: Path, names: FieldNames) -> TextsCorpus:
        """Look for a first file.

        Raises:
            FormatError: the folder has no matching file.
            ConfigError: a field was chosen; files have none.
        """
        if names.id or names.text or names.title:
            raise ConfigError(
                "files in a folder have no fields; leave out --id-field, --text-field, --title-field"
            )
        if not path.is_dir():
            raise FormatError("is no folder; give a folder of .txt and .md files", path)
        corpus = cls(path, names.ignore)
        if next(corpus._files(), None) is None:
            raise FormatError(
                f"no corpus.jsonl and no file ending in {', '.join(SUFFIXES)} in the folder", path
            )
        return corpus

    @property
    def source(self) -> str:
        """The folder."""
        return str(self.folder)

    @property
    def n_bytes(self) -> int | None:
        """Sizes of all files together."""
        return sum(facts.st_size for _, facts in self._files())

    @property
    def resumable(self) -> bool:
        """Files come in a fixed order."""
        return True

    def fingerprint(self) -> str:
        """Of the files' paths, sizes and times of change."""
        facts = [[name, facts.st_size, facts.st_mtime_ns] for name, facts in self._files()]
        return fingerprint_of({"format": "texts", "files": facts, "ignore": self.ignore})

    def read(self, start: Sequence[int] | None = None) -> Iterator[Record]:
        """One record a file."""
        position = position_of(start)
        consumed = 0
        for number, (name, facts) in enumerate(self._files(), 1):
            consumed += facts.st_size
            if number > position.line:
                path = self.folder / name
                document = self._document(name, _content(path, facts), facts)
                yield Record(document, str(path), None, Position(number, number), consumed)

    def _document(self, name: str, text: str, facts: os.stat_result) -> Document:
        path = PurePosixPath(name)
        title = path.stem
        if path.suffix.lower() != ".txt":
            heading = _HEADING.search(_FENCE.sub("", text))
            title = heading[1] if heading and heading[1] else title
        modified = datetime.fromtimestamp(int(facts.st_mtime), UTC).replace(tzinfo=None)
        metadata: dict[str, MetadataValue] = {"path": name, "modified": modified}
        return Document(name, text, title, {key: metadata[key] for key in metadata if key not in self.ignore})

    def _files(self) -> Iterator[_File]:
        yield from _walk(str(self.folder), "")


def _walk(folder: str, prefix: str) -> Iterator[_File]:
    """Matching files below a folder, sorted within each; only one folder's names are held at a time."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(
                (entry for entry in found if not entry.name.startswith(".")), key=lambda e: e.name
            )
        for entry in entries:
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, f"{name}/")
            elif entry.name.lower().endswith(SUFFIXES) and entry.is_file():
                yield name, entry.stat()
    except OSError as error:
        raise FormatError(f"cannot be read ({error.strerror or error})", folder) from error


def _content(path: Path, facts: os.stat_result) -> str:
    if facts.st_size > LONGEST_LINE:
        raise FormatError(f"is larger than {LONGEST_LINE >> 20} MiB; split it into several files", path)
    try:
        path.name.encode()
        data = path.read_bytes()
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeEncodeError as error:
        raise FormatError("the file name is no UTF-8; rename the file", repr(str(path))) from error
    except UnicodeDecodeError as error:
        raise invalid_utf8(error, data, str(path), None) from error
    except OSError as error:
        raise FormatError(f"cannot be read ({error.strerror or error})", path) from error
