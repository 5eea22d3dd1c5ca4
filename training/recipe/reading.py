"""Recipes from TOML files, checked before anything is trained."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Sequence
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from eval.metrics import parse_metric
from retrieval.errors import ConfigError, FormatError, unknown_name
from training.auxiliaries.table import AUXILIARIES
from training.families.table import FAMILIES, FITTED
from training.generation.table import GENERATORS
from training.losses.table import LOSSES
from training.recipe.conversion import convert
from training.recipe.options import ModelOptions, Recipe
from training.recipe.overrides import override
from training.teachers.asked import OF_BATCHES, OF_LISTS, asks_of_batches, asks_of_lists
from training.teachers.teacher import TEACHERS

_LINE = re.compile(r"at line (\d+)")


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe, complete and with possible values.

    Args:
        path: a TOML file, or the name of a recipe that Tercet ships (see ``shipped_recipes``).
        overrides: ``key=value`` each (see ``training.recipe.overrides``).

    Raises:
        ConfigError: there is no such recipe, an unknown or missing key, or an impossible value; names the key, the
            value and what is valid.
        FormatError: the file is no TOML.
    """
    found = _found(path)
    recipe = convert(override(_tables(found), overrides), Recipe)
    _check(recipe)
    return recipe


def shipped_recipes() -> list[str]:
    """Names of the recipes in the package."""
    return sorted(path.stem for path in _folder().glob("*.toml"))


def _folder() -> Path:
    return Path(str(files("training"))) / "recipes"


def _found(path: str | Path) -> Path:
    given = Path(path)
    if given.is_file():
        return given
    names = shipped_recipes()
    if str(path) in names:
        return _folder() / f"{path}.toml"
    near = difflib.get_close_matches(str(path), names, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(
        f"no recipe {str(path)!r}{meant} (a TOML file, or one of: {', '.join(names) or 'none'})"
    )


def _tables(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise FormatError(f"invalid UTF-8 at byte {error.start}; convert the file to UTF-8", path) from error
    except tomllib.TOMLDecodeError as error:
        line = _LINE.search(str(error))
        raise FormatError(f"no TOML: {error}", path, int(line[1]) if line else None) from error


def _check(recipe: Recipe) -> None:
    """What no single value tells: names that stand in tables, and values that belong together."""
    names = [("family", recipe.family, {**FAMILIES, **FITTED})]
    names += [("loss", one.name, {**LOSSES, **AUXILIARIES}) for one in recipe.losses]
    names += [("teacher", one.name, TEACHERS) for one in recipe.teachers]
    names += [("generator", one.generated, GENERATORS) for one in recipe.data if one.generated is not None]
    for what, name, valid in names:
        if name not in valid:
            raise unknown_name(what, name, valid)
    parse_metric(recipe.dev.metric)
    if not recipe.name:
        raise ConfigError("name is empty; it is what the model is called")
    if not recipe.data or not all(one.source for one in recipe.data):
        raise ConfigError("every recipe needs a [[data]] table, and each of them a source")
    if recipe.family in FITTED:
        _check_fitted(recipe)
        return
    trained_on = recipe.model.training_length
    if trained_on is not None and trained_on > recipe.model.max_length:
        raise ConfigError(
            f"model.training_length is {trained_on}, more than the model reads (model.max_length is "
            f"{recipe.model.max_length})"
        )
    if not recipe.losses:
        raise ConfigError("every recipe needs at least one [[losses]] table")
    if recipe.negatives.first > recipe.negatives.last:
        raise ConfigError(
            f"negatives.first is {recipe.negatives.first}, behind negatives.last ({recipe.negatives.last})"
        )
    if recipe.family != "dense" and any(one.matryoshka for one in recipe.losses):
        raise ConfigError(
            f"losses.matryoshka is for prefixes of dense vectors; leave it out of a {recipe.family} model's losses"
        )
    if recipe.teachers and not (asks_of_lists(recipe) or asks_of_batches(recipe)):
        raise ConfigError(
            "[[teachers]] names whose scores are learnt from, and nothing asks for them; add one of "
            f"{', '.join(sorted(OF_LISTS | OF_BATCHES))} to [[losses]], or leave [[teachers]] out"
        )
    if recipe.ranker is not None:
        _check_ranker(recipe)


def _check_fitted(recipe: Recipe) -> None:
    """What is fitted to texts learns from no examples, so whatever is about these would be without effect."""
    plain = Recipe(recipe.name, recipe.family)
    said = [f"[{name}]" for name in ("negatives", "ranker", "optim") if _differs(recipe, plain, name)]
    said += [f"[[{name}]]" for name in ("teachers", "losses") if _differs(recipe, plain, name)]
    used = {"base", "max_length", "options"}
    keys = {field.name for field in fields(ModelOptions)} - used
    said += [f"model.{key}" for key in sorted(keys) if _differs(recipe.model, plain.model, key)]
    said += [f"dev.{key}" for key in ("every", "patience") if _differs(recipe.dev, plain.dev, key)]
    if said:
        raise ConfigError(
            f"a {recipe.family} model is fitted to texts, without examples, so {', '.join(said)} would change nothing; "
            f"leave that out (used are [[data]], [dev] and, of [model], {', '.join(sorted(used))})"
        )


def _differs(one: Any, other: Any, name: str) -> bool:
    return bool(getattr(one, name) != getattr(other, name))


def _check_ranker(recipe: Recipe) -> None:
    """A ranker learns from what the model finds, again and again, and nothing but a loss learns from the ranker."""
    negatives = recipe.negatives
    if negatives.searcher != "model" or not negatives.every:
        raise ConfigError(
            f"[ranker] learns in turns with the model, and negatives.searcher is {negatives.searcher!r} and "
            f'negatives.every {negatives.every}; set negatives.searcher = "model" and negatives.every, such as 2000'
        )
    if not any(one.name in OF_LISTS for one in recipe.losses):
        raise ConfigError(
            f"[ranker] is a teacher, and no loss learns from its scores; add one of {', '.join(sorted(OF_LISTS))} "
            "to [[losses]]"
        )
