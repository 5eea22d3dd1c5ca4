"""What is said about a trained model."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from indexing.cli import index_command
from service.search_cli import search_command
from training.families.table import FAMILIES, FITTED
from training.recipe.options import DataOptions, LossOptions, Recipe
from training.run.record import write_card


@pytest.mark.parametrize("family", [*FAMILIES, *FITTED])
def test_the_card_names_a_command_that_there_is(family: str, tmp_path: Path) -> None:
    recipe = Recipe("mine", family, data=(DataOptions("set"),), losses=(LossOptions("ranking"),))
    write_card(tmp_path, recipe, {})
    lines = (tmp_path / "README.md").read_text().splitlines()
    (use,) = (line.split() for line in lines if line.startswith("tercet "))
    command: click.Command = {"index": index_command, "search": search_command}[use[1]]
    known = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in use if word.startswith("-")} <= known
    assert "FOLDER" in use
