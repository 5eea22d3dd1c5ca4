"""The folder of a run: begun, gone on with, or begun anew, and never mistaken for another."""

from __future__ import annotations

import shutil
from pathlib import Path

from retrieval.errors import ConfigError, IncompatibleError
from training.recipe.options import Recipe
from training.recipe.writing import recipe_toml

RECIPE, RECORD, WORK = "recipe.toml", "run.json", "work"


def begin(recipe: Recipe, output: Path, *, fresh: bool) -> None:
    """Make the folder ready, with the resolved recipe in it.

    Args:
        recipe: of the run.
        output: new, empty, or of an earlier run.
        fresh: forget an earlier run, finished or not.

    Raises:
        ConfigError: the folder has a finished model, or holds something else.
        IncompatibleError: it was begun with another recipe.
    """
    wanted, path = recipe_toml(recipe), output / RECIPE
    begun = path.exists() and ((output / WORK).is_dir() or (output / RECORD).exists())
    if begun and fresh:
        shutil.rmtree(output)
    elif begun:
        _check_same(path.read_text(encoding="utf-8"), wanted, output)
    elif output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"{output} exists and is no training run; choose another folder")
    (output / WORK).mkdir(parents=True, exist_ok=True)
    path.write_text(wanted, encoding="utf-8")


def _check_same(found: str, wanted: str, output: Path) -> None:
    if (output / RECORD).exists():
        raise ConfigError(
            f"{output} holds a trained model already; choose another folder, or --fresh to train anew"
        )
    if found != wanted:
        lines = set(found.splitlines()) ^ set(wanted.splitlines())
        first = next(line for line in [*wanted.splitlines(), *found.splitlines()] if line in lines)
        raise IncompatibleError(
            f"{output} was begun with another recipe (see {first!r}); choose another folder, or --fresh to forget it"
        )
