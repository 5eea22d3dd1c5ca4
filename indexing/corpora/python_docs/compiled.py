"""Reading a compiled module with ``inspect``; only built-in and extension modules are imported."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
import types
import warnings
from collections.abc import Iterator

from indexing.corpora.python_docs.definitions import (
    CLASS,
    FUNCTION,
    METHOD,
    PROPERTY,
    Definition,
    Item,
    ModuleContent,
    is_public,
)
from indexing.corpora.python_docs.modules import extension_path

# Loading these runs modules written in Python; all have a twin in Python that is read instead.
_NOT_LOADED = frozenset(("_tkinter", "_asyncio", "_elementtree", "_zoneinfo"))
_CALLABLE = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    staticmethod,
    classmethod,
)
_SELF = re.compile(r"^\(\$?(?:self|type|cls|module)\b(?:, /)?(?:, )?")
_DATA = (types.GetSetDescriptorType, types.MemberDescriptorType)


def read_compiled(name: str) -> ModuleContent | None:
    """What a compiled module defines; None where it is not there or does not load."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated modules say so when imported
        module = _loaded(name)
        if module is None:
            return None
        definitions: dict[str, Definition] = {}
        for attribute in sorted(vars(module)):
            items = tuple(_items(name, attribute, vars(module)[attribute]))
            if items:
                bases = tuple(base.__name__ for base in getattr(vars(module)[attribute], "__bases__", ()))
                definitions[attribute] = Definition(name, attribute, name, items, bases)
        return ModuleContent(name, name, _doc(module), definitions)


def _loaded(name: str) -> types.ModuleType | None:
    if name in _NOT_LOADED:
        return None
    path = extension_path(name)
    if name not in sys.builtin_module_names:
        spec = importlib.util.find_spec(name)
        # something else of that name may come first on sys.path: that would be executing somebody's Python
        if path is None or spec is None or spec.origin is None or not path.samefile(spec.origin):
            return None
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _items(module: str, name: str, value: object) -> Iterator[Item]:
    """A function or class, and the members of a class.

    Second names are skipped (``array.ArrayType``), except in private modules, which may give a class its public name
    (``_weakref.ref``), and there too if what they name is a builtin (``_socket.error``).
    """
    renamed = getattr(value, "__name__", None) != name
    if name.startswith("__") or (
        renamed and (is_public(module) or getattr(value, "__module__", "builtins") == "builtins")
    ):
        return
    if isinstance(value, types.BuiltinFunctionType):
        yield _item("", FUNCTION, value, name)
    elif isinstance(value, type):
        yield _item("", CLASS, value, name)
        for member in sorted(vars(value)):
            attribute = vars(value)[member]
            if member.startswith("_"):
                continue
            if isinstance(attribute, _CALLABLE):
                yield _item(member, METHOD, attribute, member)
            elif isinstance(attribute, _DATA):
                yield _item(member, PROPERTY, attribute, member)


def _item(name: str, kind: str, value: object, shown: str) -> Item:
    doc = _doc(value)
    signature = shown if kind == PROPERTY else shown + _signature(value)
    return Item(name, kind, signature, doc, 0, bool(doc))


def _doc(value: object) -> str:
    doc = getattr(value, "__doc__", None)
    return inspect.cleandoc(doc) if isinstance(doc, str) else ""


def _signature(value: object) -> str:
    """Arguments in parentheses, without self; "" where a compiled function does not tell.

    ``inspect.signature`` would evaluate the defaults written there.
    """
    function = value.__func__ if isinstance(value, staticmethod | classmethod) else value
    written = getattr(function, "__text_signature__", None)
    return _SELF.sub("(", written, count=1) if isinstance(written, str) else ""
