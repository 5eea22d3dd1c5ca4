"""Documents made of the standard library: one a module, class, function, method and property."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from indexing.corpora.corpus import Position, Record, fingerprint_of, position_of
from indexing.corpora.fields import FieldNames
from indexing.corpora.python_docs.definitions import CLASS, MODULE, Definition, Item, ModuleContent, is_public
from indexing.corpora.python_docs.library import RENAMED, Library
from retrieval.errors import ConfigError, FormatError
from retrieval.values import Document

NAME = "python-docs"
REVISION = 1
"""Raised when the same library gives other documents, so that no build resumes across the change."""


class _Named(NamedTuple):
    """A definition under a public name."""

    rank: tuple[bool, int, str]
    module: str
    name: str
    definition: Definition


@dataclass(frozen=True)
class PythonDocsCorpus:
    """The documentation of the running interpreter's standard library.

    The id and title of a document is its qualified name, the text its signature, where it belongs, and its docstring
    (where it has none, the comment before it), the metadata ``module`` and ``kind`` (module, class, function, method,
    property). Source modules are parsed, never run; only compiled ones are imported. Names with a leading
    underscore and the library's own tests are left out.
    """

    @classmethod
    def open(cls, path: Path, names: FieldNames) -> PythonDocsCorpus:
        """Nothing is read yet.

        Raises:
            ConfigError: fields were chosen; there are none to choose from.
        """
        if names != FieldNames():
            raise ConfigError(f"{NAME} has fields of its own; leave out --id-field and its kin")
        return cls()

    @property
    def source(self) -> str:
        """The name and Python's version."""
        return f"{NAME} of Python {platform.python_version()}"

    @property
    def n_bytes(self) -> int | None:
        """UTF-8 size of all documents (reads the library, a few seconds)."""
        return self._sizes[-1]

    @property
    def resumable(self) -> bool:
        """The order is fixed."""
        return True

    def fingerprint(self) -> str:
        """Of Python's version and build, and of the revision of this reader."""
        return fingerprint_of({"format": NAME, "revision": REVISION, "python": sys.version})

    def read(self, start: Sequence[int] | None = None) -> Iterator[Record]:
        """One record a definition, module by module.

        Raises:
            FormatError: the interpreter comes without its library's sources.
        """
        for number in range(position_of(start).line, len(self._documents)):
            document, file, line = self._documents[number]
            yield Record(document, file, line, Position(number + 1, number + 1), self._sizes[number])

    @cached_property
    def _documents(self) -> list[tuple[Document, str, int | None]]:
        documents: dict[str, tuple[Document, str, int | None]] = {}
        for document, file, line in _documents(Library()):
            documents.setdefault(document.id, (document, file, line))
        if not documents:
            raise FormatError("this Python comes without the sources of its standard library", NAME)
        return list(documents.values())

    @cached_property
    def _sizes(self) -> list[int]:
        sizes, total = [], 0
        for document, _, _ in self._documents:
            total += len(document.text.encode("utf-8", "surrogatepass"))
            sizes.append(total)
        return sizes


def _documents(library: Library) -> Iterator[tuple[Document, str, int | None]]:
    """All documents in order, with their places; an id may come twice."""
    modules = list(library.public_modules())
    named = _named(library, modules)
    for module in modules:
        shown = RENAMED.get(module.name, module.name)
        text = f"module {shown}\n\n{module.doc}".rstrip()
        yield Document(shown, text, shown, {"module": shown, "kind": MODULE}), module.file, 1
        for entry in named.get(module.name, ()):
            yield from _of_definition(library, entry, shown)


def _named(library: Library, modules: Sequence[ModuleContent]) -> dict[str, list[_Named]]:
    """The definitions every module documents: each definition under its best name only."""
    best: dict[tuple[str, str, str], _Named] = {}
    for module in modules:
        for name in library.names(module):
            definition = library.resolve(module, name)
            if definition is None or name.startswith("_") or _only_renames(definition, name):
                continue
            home = definition.module
            near = not is_public(home) or f"{home}.".startswith(f"{module.name}.")
            entry = _Named((not near, module.name.count("."), module.name), module.name, name, definition)
            key = (home, definition.name, name)
            if key not in best or entry.rank < best[key].rank:
                best[key] = entry
    named: dict[str, list[_Named]] = {}
    for entry in best.values():
        named.setdefault(entry.module, []).append(entry)
    return named


def _only_renames(definition: Definition, name: str) -> bool:
    """Whether a name is just another one for a public class, whose members need no second set of documents."""
    public = is_public(f"{definition.module}.{definition.name}")
    return public and definition.name != name and definition.items[0].kind == CLASS


def _of_definition(
    library: Library, entry: _Named, module: str
) -> Iterator[tuple[Document, str, int | None]]:
    definition = entry.definition
    itself = library.itself(definition)
    signature = entry.name + itself.signature.removeprefix(definition.name.rpartition(".")[2])
    yield (
        _document(itself, signature, f"{module}.{entry.name}", f"in {module}", module),
        definition.file,
        _line(itself),
    )
    for item, file in library.members(definition):
        owner = ".".join([entry.name, *item.name.split(".")[:-1]])
        name = f"{module}.{entry.name}.{item.name}"
        yield _document(item, item.signature, name, f"of {owner} in {module}", module), file, _line(item)


def _line(item: Item) -> int | None:
    return item.line or None


def _document(item: Item, signature: str, name: str, where: str, module: str) -> Document:
    # "os.path.join" is one word to an analyser: signature and place give its parts as words of their own.
    text = f"{signature}\n{item.kind} {where}\n\n{item.doc}".rstrip()
    return Document(name, text, name, {"module": module, "kind": item.kind})
