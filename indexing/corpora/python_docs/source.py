"""Reading a module from its source with ``ast``; nothing is executed."""

from __future__ import annotations

import ast
import inspect
import re
import tokenize
import warnings
from collections.abc import Iterator, Sequence

from indexing.corpora.python_docs.definitions import (
    CLASS,
    FUNCTION,
    METHOD,
    PROPERTY,
    AllOf,
    Definition,
    Item,
    ModuleContent,
)
from indexing.corpora.python_docs.modules import ModuleFile

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_RULE = re.compile(r"[-=*#_~]*")
_PROPERTIES = frozenset(
    ("property", "cached_property", "abstractproperty", "getter", "DynamicClassAttribute")
)


def read_source(module: ModuleFile) -> ModuleContent | None:
    """What a source module defines and imports; None where it cannot be parsed (library files that are no Python)."""
    if module.path is None:
        raise ValueError(f"{module.name} is compiled")
    try:
        with tokenize.open(module.path) as stream:
            text = stream.read()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in old files
            tree = ast.parse(text)
    except (SyntaxError, UnicodeDecodeError, OSError):
        return None
    reader = _Reader(module, text.splitlines())
    reader.read(tree.body)
    return ModuleContent(
        name=module.name,
        file=str(module.path),
        doc=ast.get_docstring(tree) or "",
        definitions=reader.definitions,
        exported=None if reader.exported is None else tuple(reader.exported),
        complete=reader.complete,
        imports=reader.imports,
        stars=tuple(reader.stars),
        aliases=reader.aliases,
    )


class _Reader:
    """Collects the names of one module, statement by statement; the first definition of a name wins."""

    def __init__(self, module: ModuleFile, lines: Sequence[str]) -> None:
        self._module = module
        self._lines = lines
        self.definitions: dict[str, Definition] = {}
        self.exported: list[str | AllOf] | None = None
        self.complete = True
        self.imports: dict[str, list[tuple[str, str | None]]] = {}
        self.stars: list[str] = []
        self.aliases: dict[str, str] = {}

    def read(self, body: Sequence[ast.stmt]) -> None:
        for node in _statements(body):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                self._define(node.name, (_function(node, "", FUNCTION, self._lines),), ())
            elif isinstance(node, ast.ClassDef):
                items = tuple(_class(node, "", self._lines))
                self._define(node.name, items, tuple(filter(None, map(_dotted, node.bases))))
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    bound = alias.asname or alias.name.partition(".")[0]
                    self.imports.setdefault(bound, []).append((alias.name if alias.asname else bound, None))
            elif isinstance(node, ast.ImportFrom):
                self._import_from(node)
            elif isinstance(node, ast.Assign) and len(node.targets) == 1:
                self._assign(node.targets[0], node.value)
            elif isinstance(node, ast.AugAssign) and _dotted(node.target) == "__all__":
                self._export(node.value)
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                self._call(node.value)

    def _define(self, name: str, items: tuple[Item, ...], bases: tuple[str, ...]) -> None:
        if name not in self.definitions:
            self.definitions[name] = Definition(self._module.name, name, str(self._module.path), items, bases)

    def _import_from(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if node.level:
            parts = self._module.name.split(".")
            parts = parts[: len(parts) - node.level + (1 if self._module.package else 0)]
            module = ".".join([*parts, module] if module else parts)
        for alias in node.names:
            if alias.name == "*":
                self.stars.append(module)
            else:
                self.imports.setdefault(alias.asname or alias.name, []).append((module, alias.name))

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if not isinstance(target, ast.Name):
            return
        if target.id == "__all__":
            self.exported = []
            self._export(value)
            return
        # `name = other`, `name = module.other`, and `name = Class()` whose methods may be names of the module
        dotted = _dotted(value.func) + "()" if isinstance(value, ast.Call) else _dotted(value)
        if dotted and dotted != "()":
            self.aliases.setdefault(target.id, dotted)

    def _call(self, call: ast.Call) -> None:
        name = _dotted(call.func)
        if name == "__all__.extend" and len(call.args) == 1:
            self._export(call.args[0])
        elif name == "__all__.append" and len(call.args) == 1:
            self._export(ast.List([call.args[0]]))
        elif name == "__all__.remove":
            self.complete = False

    def _export(self, value: ast.expr) -> None:
        exported = self.exported = [] if self.exported is None else self.exported
        if isinstance(value, ast.List | ast.Tuple):
            for element in value.elts:
                if isinstance(element, ast.Constant) and isinstance(element.value, str):
                    exported.append(element.value)
                else:
                    self.complete = False
        elif isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
            self._export(value.left)
            self._export(value.right)
        elif isinstance(value, ast.Attribute) and value.attr == "__all__" and _dotted(value.value):
            exported.append(AllOf(_dotted(value.value)))
        else:
            self.complete = False


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements in order, those inside ``if``, ``try`` and ``with`` too; not under ``__name__ == "__main__"``."""
    for node in body:
        if isinstance(node, ast.If):
            if "__main__" not in ast.unparse(node.test):
                yield from _statements(node.body)
            yield from _statements(node.orelse)
        elif isinstance(node, ast.Try):
            yield from _statements(node.body)
            for handler in node.handlers:
                yield from _statements(handler.body)
            yield from _statements(node.orelse)
            yield from _statements(node.finalbody)
        elif isinstance(node, ast.With):
            yield from _statements(node.body)
        else:
            yield node


def _dotted(node: ast.expr) -> str:
    """``a.b.c`` for a name or attribute, else ""."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        front = _dotted(node.value)
        return f"{front}.{node.attr}" if front else ""
    return ""


def _function(node: _Function, name: str, kind: str, lines: Sequence[str]) -> Item:
    if kind == METHOD and any(
        _dotted(decorator).rpartition(".")[2] in _PROPERTIES for decorator in node.decorator_list
    ):
        kind = PROPERTY
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    static = any(_dotted(decorator) == "staticmethod" for decorator in node.decorator_list)
    arguments = _arguments(node.args, drop_first=kind == METHOD and not static)
    signature = node.name + returns if kind == PROPERTY else f"{node.name}({arguments}){returns}"
    doc = ast.get_docstring(node)
    return Item(
        name=name,
        kind=kind,
        signature=signature,
        doc=doc or _leading_comment(node, lines),
        line=node.lineno,
        documented=bool(doc),
    )


def _arguments(arguments: ast.arguments, *, drop_first: bool) -> str:
    if drop_first:  # self or cls
        positional = arguments.posonlyargs or arguments.args
        if positional:
            del positional[0]
    return ast.unparse(arguments)


def _class(node: ast.ClassDef, name: str, lines: Sequence[str]) -> Iterator[Item]:
    """The class and its public members; arguments and docstring of ``__init__`` go with the class."""
    doc = ast.get_docstring(node) or ""
    arguments = ""
    members: dict[str, _Function | ast.ClassDef] = {}
    for statement in _statements(node.body):
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            members.setdefault(statement.name, statement)
    made = members.get("__init__") or members.get("__new__")
    if isinstance(made, ast.FunctionDef):
        made_doc = ast.get_docstring(made)
        doc = inspect.cleandoc(f"{doc}\n\n{made_doc}") if made_doc else doc
        arguments = f"({_arguments(made.args, drop_first=True)})"
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    signature = f"{node.name}{arguments}" + (f", based on {bases}" if bases and bases != "object" else "")
    yield Item(name, CLASS, signature, doc or _leading_comment(node, lines), node.lineno, bool(doc))
    for member_name, member in members.items():
        if not member_name.startswith("_"):
            inner = f"{name}.{member_name}" if name else member_name
            if isinstance(member, ast.ClassDef):
                yield from _class(member, inner, lines)
            else:
                yield _function(member, inner, METHOD, lines)


def _leading_comment(node: _Function | ast.ClassDef, lines: Sequence[str]) -> str:
    """The comment lines right above a definition, else those right below its first line."""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    above: list[str] = []
    for number in range(first - 2, -1, -1):
        if not lines[number].lstrip().startswith("#"):
            break
        above.append(lines[number])
    below: list[str] = []
    for number in range(node.lineno, node.body[0].lineno - 1):
        if lines[number].lstrip().startswith("#"):
            below.append(lines[number])
    comment = above[::-1] or below
    texts = [line.strip().lstrip("#").strip() for line in comment]
    return "\n".join(text for text in texts if not _RULE.fullmatch(text))
