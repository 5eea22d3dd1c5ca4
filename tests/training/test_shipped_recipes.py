"""The recipes in the package, and the page that lists what recipes can say."""

from __future__ import annotations

import importlib
import importlib.util
import re
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from retrieval.encoders.options import read_options
from service.cli import tercet
from training.auxiliaries.table import AUXILIARIES, Sizes, open_auxiliary
from training.families.table import FAMILIES, FITTED
from training.losses.table import LOSSES, open_loss
from training.recipe.options import (
    DataOptions,
    DevOptions,
    LossOptions,
    ModelOptions,
    NegativeOptions,
    OptimOptions,
    RankerOptions,
    Recipe,
    TeacherOptions,
)
from training.recipe.reading import read_recipe, shipped_recipes
from training.teachers.asked import OF_BATCHES, asks_of_lists

ROOT = Path(__file__).parents[2]
SETS = ["covidqa_passages", "fever_evidence_sent", "medquad", "squad_v1.1_dev"]
TINY = ("tiny-dense", "ar2-dense")
"""Recipes that do not take all four sets."""
IN_DOMAIN = {"scifact-dense": "../eval/scifact", "nfcorpus-dense": "../eval/nfcorpus"}
"""Recipes of a collection that has queries to train on as well as to test on."""
TABLES = {
    "": Recipe,
    "model": ModelOptions,
    "data": DataOptions,
    "dev": DevOptions,
    "negatives": NegativeOptions,
    "teachers": TeacherOptions,
    "ranker": RankerOptions,
    "losses": LossOptions,
    "optim": OptimOptions,
}


@pytest.fixture(scope="module")
def made() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "make_recipe_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_has_options_that_exist_and_teachers_that_are_asked(name: str) -> None:
    recipe = read_recipe(name)
    for one in recipe.losses:
        if one.name in AUXILIARIES:
            open_auxiliary(one.name, Sizes(8, 16, len(recipe.data)), one.options)
        else:
            open_loss(one.name, one.options)
    family = importlib.import_module({**FAMILIES, **FITTED}[recipe.family].partition(":")[0])
    read_options(recipe.family, recipe.model.options, getattr(family, "OPTIONS", {}))
    in_batches = any(one.name in OF_BATCHES for one in recipe.losses)
    assert bool(recipe.teachers or recipe.ranker) == (asks_of_lists(recipe) or in_batches)
    assert name in (*TINY, *IN_DOMAIN) or sorted(one.source for one in recipe.data) == SETS


def test_every_family_has_a_recipe() -> None:
    assert {read_recipe(name).family for name in shipped_recipes()} == {*FAMILIES, *FITTED}


@pytest.mark.parametrize(("name", "source"), IN_DOMAIN.items())
def test_a_recipe_of_a_collection_neither_learns_from_its_test_queries_nor_chooses_by_them(
    name: str, source: str
) -> None:
    recipe = read_recipe(name)
    assert [(one.source, one.split) for one in recipe.data] == [(source, "train")]
    assert recipe.dev.queries and (recipe.dev.source, recipe.dev.split) in {("", None), (source, "dev")}


def test_the_bi_encoder_beside_the_hypencoder_has_the_same_data_and_budget() -> None:
    network, vector = read_recipe("hypencoder"), read_recipe("hypencoder-bi")
    assert network.model.options and not vector.model.options
    assert vector.family == "dense"
    plain = replace(network.model, options={})
    assert replace(network, name=vector.name, family=vector.family, model=plain) == vector


def test_the_page_of_recipes_is_current(made: ModuleType) -> None:
    assert (ROOT / "docs" / "recipe.md").read_text() == made.page(), "run `make docs`"


def test_the_page_of_recipes_has_every_key_loss_and_option_of_a_family() -> None:
    page = (ROOT / "docs" / "recipe.md").read_text()
    parts = {
        title.strip("[]"): text
        for title, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    }
    for table, kind in TABLES.items():
        for field in fields(kind):
            if field.name not in TABLES or table:
                assert f"\n| `{field.name}` |" in parts[table or "Above all tables"], (table, field.name)
    assert all(f"\n| `{name}` |" in parts["Losses"] for name in {**LOSSES, **AUXILIARIES})
    for name, place in {**FAMILIES, **FITTED}.items():
        options = getattr(importlib.import_module(place.partition(":")[0]), "OPTIONS", {})
        assert f"\n### {name}\n" in parts["Families"]
        assert all(f"\n| `{option}` |" in parts["Families"] for option in options)


def test_sections_of_docstrings_are_read_name_by_name(made: ModuleType) -> None:
    class Documented:
        """Something.

        Attributes:
            first, second: two that share
                a meaning.
            third: another: with a colon.

        Raises:
            Nothing: at all.
        """

    assert made.entries(Documented, "Attributes") == {
        "first": "two that share a meaning.",
        "second": "two that share a meaning.",
        "third": "another: with a colon.",
    }


# --- the guide


def guide(language: str) -> list[str]:
    """The blocks of code in that language; "" has commands."""
    text = (ROOT / "docs" / "training.md").read_text() + (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for named, block in blocks if named == language]


@pytest.mark.parametrize("block", guide("toml"))
def test_recipes_in_the_guide_are_read(block: str, tmp_path: Path) -> None:
    given: dict[str, Any] = tomllib.loads(block)
    path = tmp_path / "given.toml"
    missing = "" if "name" in given else 'name = "x"\nfamily = "dense"\n'
    missing_tables = "".join(
        f'\n[[{table}]]\n{key} = "ranking"\n'
        for table, key in (("data", "source"), ("losses", "name"))
        if table not in given
    )
    path.write_text(missing + block + missing_tables)
    recipe = read_recipe(path)
    for table in given:
        assert getattr(recipe, table)
    for one in recipe.losses:
        open_loss(one.name, one.options)


def test_commands_in_the_guide_have_options_that_exist() -> None:
    lines = [line for block in guide("") for line in block.splitlines() if line.startswith("tercet ")]
    lines += re.findall(r"`(tercet [^`]*)`", (ROOT / "docs" / "training.md").read_text())
    assert len(lines) > 10
    context = click.Context(tercet)
    for line in lines:
        words = line.partition("#")[0].split()
        command = tercet.get_command(context, words[1])
        assert command is not None, line
        known = {
            name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
        }
        assert {word for word in words if word.startswith("-")} <= known | {"--help"}, line


def test_blocks_of_python_in_the_guide_import_what_there_is() -> None:
    for block in guide("python"):
        for module, names in re.findall(r"^from ([\w.]+) import (.*)$", block, re.MULTILINE):
            assert all(hasattr(importlib.import_module(module), name.strip()) for name in names.split(","))
