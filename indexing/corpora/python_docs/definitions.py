"""What reading a module gives: its definitions, and the names it takes from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MODULE, CLASS, FUNCTION, METHOD, PROPERTY = "module", "class", "function", "method", "property"


@dataclass(frozen=True, slots=True)
class Item:
    """A class, function, method or property.

    Attributes:
        name: its name below the definition it belongs to; "" for the definition itself.
        kind: one of the five kinds.
        signature: its name with arguments as one would call it.
        doc: docstring, or the comment before it, or "".
        line: where it is defined; 0 in compiled modules.
        documented: whether it has a docstring of its own.
    """

    name: str
    kind: str
    signature: str
    doc: str
    line: int
    documented: bool


@dataclass(frozen=True, slots=True)
class Definition:
    """A function or class of a module, with the members of a class.

    Attributes:
        module: where it is defined, which need not be where it is public.
        name: its name there.
        file: the source file, or the name of a compiled module.
        items: the definition itself first, then its public members in order.
        bases: names of base classes as written.
    """

    module: str
    name: str
    file: str
    items: tuple[Item, ...]
    bases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AllOf:
    """A part of ``__all__`` that is another module's ``__all__``.

    Attributes:
        module: the name it goes by in the module that says so.
    """

    module: str


@dataclass(frozen=True, slots=True)
class ModuleContent:
    """One module.

    Attributes:
        name: dotted.
        file: the source file, or the name of a compiled module.
        doc: its docstring, or "".
        definitions: by name, private ones included.
        exported: ``__all__`` as far as it can be read without running anything; None where there is none.
        complete: whether that is all of ``__all__``.
        imports: local name -> where it may come from, in order: (module, name there; None for the module itself).
        stars: modules whose names are all imported.
        aliases: local name -> dotted expression it is assigned.
    """

    name: str
    file: str
    doc: str
    definitions: Mapping[str, Definition] = field(default_factory=dict)
    exported: tuple[str | AllOf, ...] | None = None
    complete: bool = True
    imports: Mapping[str, Sequence[tuple[str, str | None]]] = field(default_factory=dict)
    stars: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)


def is_public(name: str) -> bool:
    """Whether no part of a dotted name begins with an underscore (``__future__`` is public)."""
    return all(not part.startswith("_") or part == "__future__" for part in name.split("."))
