"""Public names: which definition of the library is known under which name.

A name belongs to a module's interface when ``__all__`` lists it; where ``__all__`` is missing or made at run time, when
it is defined there without a leading underscore, imported with ``*``, or imported from a private module
(``ssl`` takes ``RAND_bytes`` from ``_ssl``). One definition gets one name: that of the module that defines it, of the
package above that exports it (``json.JSONDecoder``, not ``json.decoder.JSONDecoder``), or, where the definition is in
a private module, of whichever exports it with the fewest dots (``os.getcwd``, ``socket.gethostname``).
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator
from dataclasses import replace

from indexing.corpora.python_docs.compiled import read_compiled
from indexing.corpora.python_docs.definitions import (
    FUNCTION,
    AllOf,
    Definition,
    Item,
    ModuleContent,
    is_public,
)
from indexing.corpora.python_docs.modules import find_modules
from indexing.corpora.python_docs.source import read_source

DEEPEST = 12
"""Longest chain of imports that is followed."""

RENAMED = {os.path.__name__: "os.path"}
"""Modules known by another name."""

_BEHIND = frozenset(("posix", "nt", "posixpath", "ntpath", "genericpath")) - RENAMED.keys()
"""Public by name, but their contents are known as those of ``os`` and ``os.path``."""


class Library:
    """The modules of the standard library, read when needed."""

    def __init__(self) -> None:
        self.files = find_modules()
        self._contents: dict[str, ModuleContent | None] = {}

    def public_modules(self) -> Iterator[ModuleContent]:
        """Modules a program may import, in the order of their names."""
        for name in self.files:
            if is_public(name) and name not in _BEHIND:
                content = self.content(name)
                if content is not None:
                    yield content

    def content(self, name: str) -> ModuleContent | None:
        """A module of the library; None for any other, and for one that cannot be read."""
        file = self.files.get(name)
        if file is None:
            return None
        if name not in self._contents:
            self._contents[name] = read_compiled(name) if file.path is None else read_source(file)
        return self._contents[name]

    def names(self, module: ModuleContent, depth: int = 0) -> list[str]:
        """The names of a module's interface."""
        names: dict[str, None] = {}
        for part in module.exported or ():
            if isinstance(part, str):
                names[part] = None
            elif depth < DEEPEST and (other := self._named_module(module, part)) is not None:
                names.update(dict.fromkeys(self.names(other, depth + 1)))
        if module.exported is None or not module.complete:
            local = [*module.definitions, *module.aliases]
            if module.exported is None:
                local += [name for name, sources in module.imports.items() if not is_public(sources[0][0])]
            names.update(dict.fromkeys(name for name in local if not name.startswith("_")))
            for star in module.stars:
                other = self.content(star)
                if other is not None and depth < DEEPEST:
                    names.update(dict.fromkeys(self.names(other, depth + 1)))
        return list(names)

    def resolve(self, module: ModuleContent, name: str, depth: int = 0) -> Definition | None:
        """The definition a dotted name stands for in a module, wherever it is."""
        if depth > DEEPEST:
            return None
        first, _, rest = name.partition(".")
        if not rest and first in module.definitions:
            return module.definitions[first]
        if first in module.imports:
            sources = (self._imported(source, rest, depth) for source in module.imports[first])
            return next(filter(None, sources), None)
        if first in module.aliases and module.aliases[first] != name:
            return self._alias(module, module.aliases[first], rest, depth)
        for star in module.stars:
            other = self.content(star)
            found = None if other is None else self.resolve(other, name, depth + 1)
            if found is not None:
                return found
        if rest:
            inner = self.content(f"{module.name}.{first}")
            return None if inner is None else self.resolve(inner, rest, depth + 1)
        return self._in_submodule(module, first) if first in (module.exported or ()) else None

    def members(self, definition: Definition, depth: int = 0) -> list[tuple[Item, str]]:
        """The public members of a class with their files, those of private base classes included.

        ``socket.socket.recv`` is a method of the private ``_socket.socket``, but part of the public class.
        """
        members = {item.name: (item, definition.file) for item in definition.items[1:]}
        for base in self._private_bases(definition, depth):
            for item, file in self.members(base, depth + 1):
                members.setdefault(item.name, (item, file))
        return list(members.values())

    def itself(self, definition: Definition) -> Item:
        """What a definition says of itself; a class without docstring takes that of a private base class."""
        item = definition.items[0]
        for base in self._private_bases(definition, 0) if not item.documented else ():
            if base.items[0].documented:
                return replace(item, doc=base.items[0].doc, documented=True)
        return item

    def _private_bases(self, definition: Definition, depth: int) -> Iterator[Definition]:
        module = self.content(definition.module)
        if module is None or depth > DEEPEST:
            return
        for name in definition.bases:
            base = self.resolve(module, name)
            if base is not None and base is not definition and not is_public(f"{base.module}.{base.name}"):
                yield base

    def _imported(self, source: tuple[str, str | None], rest: str, depth: int) -> Definition | None:
        name, inner = source
        other = self.content(name)
        wanted = ".".join(part for part in (inner, rest) if part)
        return None if other is None or not wanted else self.resolve(other, wanted, depth + 1)

    def _alias(self, module: ModuleContent, target: str, rest: str, depth: int) -> Definition | None:
        """``name = other``; ``name = instance.method`` gives the method as a function."""
        if target.endswith("()"):
            if not rest or "." in rest:
                return None
            owner = self.resolve(module, target[:-2], depth + 1)
            return None if owner is None else self._bound_method(owner, rest)
        return self.resolve(module, f"{target}.{rest}" if rest else target, depth + 1)

    def _bound_method(self, owner: Definition, name: str) -> Definition | None:
        for item, file in self.members(owner):
            if item.name == name:
                function = replace(item, name="", kind=FUNCTION)
                return Definition(owner.module, f"{owner.name}.{name}", file, (function,))
        return None

    def _in_submodule(self, module: ModuleContent, name: str) -> Definition | None:
        """What a package loads when first asked for: a name in ``__all__`` that one of its modules defines."""
        prefix = f"{module.name}."
        for inner in self.files:
            if (
                inner.startswith(prefix)
                and (other := self.content(inner)) is not None
                and name in other.definitions
            ):
                return other.definitions[name]
        return None

    def _named_module(self, module: ModuleContent, part: AllOf) -> ModuleContent | None:
        if part.module in module.imports:
            return self.content(".".join(piece for piece in module.imports[part.module][0] if piece))
        inner = f"{module.name}.{part.module}"
        return self.content(inner if inner in self.files else part.module)
