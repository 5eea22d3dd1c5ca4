"""Writes docs/recipe.md from the code that reads recipes: `python docs/make_recipe_reference.py` (or `make docs`)."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from training.auxiliaries.table import AUXILIARIES
from training.families.table import FAMILIES, FITTED
from training.generation.table import GENERATORS
from training.losses.table import LOSSES
from training.recipe.options import Recipe
from training.recipe.ranges import RANGES, Words
from training.recipe.reading import read_recipe, shipped_recipes
from training.teachers.teacher import TEACHERS

PAGE = Path(__file__).with_name("recipe.md")
RECIPES = Path(__file__).parents[1] / "training" / "recipes"

_ENTRY = re.compile(r"^    ([\w, ]+): (.*)$")
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", Mapping: "table"}
_INTRO = """# What a recipe can say

Every table and key of a recipe, read off the code; [training.md](training.md) explains how they play together. A key \
that a recipe leaves out has its default; "-" is a key that has none and may be left out, "**needed**" one that may \
not; where a meaning says None, the key is left out. An unknown key is an error that lists the valid ones.
"""


def page() -> str:
    """The reference as Markdown."""
    kinds = _tables(Recipe)
    named = ", ".join(f"[`{header}`](#{header.strip('[]')})" for header in kinds if header)
    parts = [
        _INTRO,
        f"Tables: {named}. Names: [losses](#losses-1), [families](#families), [teachers](#teachers-1), "
        "[generators](#generators), [recipes](#recipes).",
        *(_table_of_keys(header, kind) for header, kind in kinds.items()),
        _losses(),
        _families(),
        _names("Teachers", TEACHERS),
        _names("Generators", GENERATORS),
        _shipped(),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


# --- tables and keys


def _tables(kind: type) -> dict[str, type]:
    """Header as TOML writes it -> dataclass; the keys above all tables come first, under ""."""
    found = {"": kind}
    for name, hint in get_type_hints(kind).items():
        inner = _without_none(hint)
        if get_origin(inner) is tuple and is_dataclass(get_args(inner)[0]):
            found[f"[[{name}]]"] = get_args(inner)[0]
        elif is_dataclass(inner):
            found[f"[{name}]"] = inner  # type: ignore[assignment]
    return found


def _table_of_keys(header: str, kind: type) -> str:
    """One table of the recipe.

    Raises:
        LookupError: a key is not described in the class's docstring.
    """
    meanings, hints = entries(kind, "Attributes"), get_type_hints(kind)
    inner = {table.strip("[]") for table in _tables(kind)}
    rows = [
        (
            f"`{field.name}`",
            _valid(header, field.name, hints[field.name]),
            _default(field),
            meanings[field.name],
        )
        for field in fields(kind)
        if field.name not in inner
    ]
    title = f"## {header}" if header else "## Above all tables"
    said = "\n\n".join(_paragraphs(kind))
    return f"{title}\n\n{said}\n\n" + _markdown(("key", "value", "default", "meaning"), rows)


def _valid(header: str, name: str, hint: Any) -> str:
    key = f"{header.strip('[]')}.{name}" if header else name
    bounds = RANGES.get(key)
    if isinstance(bounds, Words):
        return str(bounds)
    return _type(hint) + (f", {bounds}" if bounds else "")


def _default(field: Field[Any]) -> str:
    if field.default_factory is not MISSING:
        return _shown(field.default_factory())
    return "**needed**" if field.default is MISSING else _shown(field.default)


def _shown(value: Any) -> str:
    if value is None or value in ("", (), {}):
        return "-"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


# --- losses, families, names


def _losses() -> str:
    """Every loss with its options and sources."""
    rows, options = [], []
    for name, place in {**LOSSES, **AUXILIARIES}.items():
        found = _named(place)
        numbers = _ARXIV.findall(inspect.getdoc(found) or "")
        sources = [f"[{number}](https://arxiv.org/abs/{number})" for number in numbers]
        rows.append((f"`{name}`", _paragraphs(found)[0], ", ".join(sources)))
        options += [(f"`{name}`", *row) for row in _loss_options(found)]
    return "\n\n".join(
        [
            "## Losses",
            "Of the key `name` in `[[losses]]`. The number is that of the paper on arXiv.",
            _markdown(("loss", "what it is", "source"), rows),
            "Their options, as `options.NAME = VALUE`:",
            _markdown(("loss", "option", "value", "default", "meaning"), options),
        ]
    )


def _loss_options(function: Callable[..., Any]) -> Iterator[tuple[str, str, str, str]]:
    """(name, values, default, meaning) of the keyword-only arguments."""
    meanings = entries(function, "Args")
    called = function.__init__ if inspect.isclass(function) else function
    hints = get_type_hints(called, include_extras=True)
    for parameter in inspect.signature(called).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            name = parameter.name
            yield f"`{name}`", _type(hints[name]), _shown(parameter.default), meanings[name]


def _families() -> str:
    """Every family with its options."""
    parts = ["## Families", "Of the key `family`; its options are `options.NAME = VALUE` in `[model]`."]
    for name, place in {**FAMILIES, **FITTED}.items():
        module = importlib.import_module(place.partition(":")[0])
        family = type(getattr(module, place.partition(":")[2]))
        parts += [f"### {name}", *_paragraphs(family)]
        options = getattr(module, "OPTIONS", {})
        if options:
            rows = [
                (
                    f"`{option}`",
                    _WORDS[values.kind] + ("" if values.least is None else f", at least {values.least:g}"),
                    _shown(values.default),
                )
                for option, values in options.items()
            ]
            parts += [_markdown(("option", "value", "default"), rows), _said_of_options(module)]
    return "\n\n".join(parts)


def _said_of_options(module: Any) -> str:
    """The text that stands below ``OPTIONS`` in the source, one item an option.

    Raises:
        LookupError: there is none, or it lacks an option.
    """
    body = ast.parse(inspect.getsource(module)).body
    for statement, after in pairwise(body):
        target = getattr(statement, "target", None)
        if getattr(target, "id", "") == "OPTIONS" and isinstance(after, ast.Expr):
            text = " ".join(ast.literal_eval(after.value).split())
            missing = [name for name in module.OPTIONS if f"``{name}``" not in text]
            if missing:
                raise LookupError(f"{module.__name__}: OPTIONS does not say what {missing[0]} is")
            return _plain(text)
    raise LookupError(f"{module.__name__}: nothing stands below OPTIONS")


def _names(title: str, table: Mapping[str, str]) -> str:
    rows = [(f"`{name}`", _paragraphs(_named(place))[0]) for name, place in table.items()]
    return f"## {title}\n\n" + _markdown(("name", "what it is"), rows)


def _shipped() -> str:
    """The first sentence of every recipe in the package."""
    rows = []
    for name in shipped_recipes():
        text = (RECIPES / f"{name}.toml").read_text(encoding="utf-8")
        comment = " ".join(
            line.lstrip("# ") for line in takewhile(lambda line: line[:1] == "#", text.splitlines())
        )
        rows.append((f"`{name}`", read_recipe(name).family, comment.partition(". ")[0].rstrip(".") + "."))
    return "## Recipes\n\nThose that Tercet ships, found by name.\n\n" + _markdown(
        ("recipe", "family", "what it trains"), rows
    )


# --- docstrings and types in words


def entries(documented: Any, section: str) -> dict[str, str]:
    """Name -> meaning, of a section of a docstring such as ``Args``; names that share a line share the meaning."""
    _, _, text = (inspect.getdoc(documented) or "").partition(f"\n{section}:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in text.splitlines():
        entry = _ENTRY.match(line)
        if not line.startswith("    "):
            break
        if entry:
            names = [name.strip() for name in entry[1].split(",")]
        for name in names:
            found[name] = f"{found.get(name, '')} {entry[2] if entry else line.strip()}".strip()
    return {name: _plain(text) for name, text in found.items()}


def _paragraphs(documented: Any) -> list[str]:
    """What a docstring says before its sections, a line a paragraph."""
    text = re.split(r"\n(?:Args|Attributes|Raises|Returns):\n", inspect.getdoc(documented) or "")[0]
    return [_plain(" ".join(part.split())) for part in text.strip().split("\n\n")]


def _plain(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def _named(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, UnionType):
        (hint,) = {*get_args(hint)} - {NoneType}
    return hint


def _type(hint: Any) -> str:
    """An annotation in words."""
    hint = _without_none(hint)
    if get_origin(hint) is Annotated:
        base, bounds = get_args(hint)
        return f"{_type(base)}, {bounds}"
    if get_origin(hint) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(hint))
    if get_origin(hint) is tuple:
        return f"list of {_type(get_args(hint)[0])}s"
    return _WORDS[get_origin(hint) or hint]


def _markdown(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
