"""Recipes: TOML to values, values set beside the file, and back to TOML."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import ConfigError, FormatError
from training.losses.table import LOSSES
from training.recipe.options import (
    DataOptions,
    LossOptions,
    ModelOptions,
    NegativeOptions,
    OptimOptions,
    RankerOptions,
    Recipe,
    TeacherOptions,
)
from training.recipe.ranges import RANGES, Numbers
from training.recipe.reading import read_recipe, shipped_recipes
from training.recipe.writing import recipe_toml

RECIPE = """
name = "mine"
family = "dense"

[model]
base = "some/model"
options = { pooling = "mean", deep = { of = [1, 2] } }

[[data]]
source = "one"

[[data]]
source = "two.jsonl"
limit = 100

[[losses]]
name = "ranking"
options.temperature = 0.05

[[losses]]
name = "triplet"
weight = 2
matryoshka = [128, 64]

[optim]
lr = 1
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE)
    return path


def test_a_recipe_is_read_with_defaults_for_what_it_leaves_out(recipe: Path) -> None:
    assert read_recipe(recipe) == Recipe(
        name="mine",
        family="dense",
        model=ModelOptions(base="some/model", options={"pooling": "mean", "deep": {"of": [1, 2]}}),
        data=(DataOptions("one"), DataOptions("two.jsonl", limit=100)),
        losses=(
            LossOptions("ranking", options={"temperature": 0.05}),
            LossOptions("triplet", weight=2.0, matryoshka=(128, 64)),
        ),
        optim=OptimOptions(lr=1.0),
    )
    assert type(read_recipe(recipe).optim.lr) is float


@pytest.mark.parametrize(
    ("overrides", "change"),
    [
        (["optim.lr=2e-5"], {"optim": OptimOptions(lr=2e-5)}),
        (["seed=3", "seed=4"], {"seed": 4}),
        (["name=other name"], {"name": "other name"}),
        (['name="7"'], {"name": "7"}),
        (["data.1.limit=5"], {"data": (DataOptions("one"), DataOptions("two.jsonl", limit=5))}),
        (["data.1.limit="], {"data": (DataOptions("one"), DataOptions("two.jsonl"))}),
        (["data.0.source=a=b"], {"data": (DataOptions("a=b"), DataOptions("two.jsonl", limit=100))}),
        (["teachers.0.name=bm25", "teachers.0.weight=2", "negatives.margin=0.9"],
         {"teachers": (TeacherOptions("bm25", weight=2.0),), "negatives": NegativeOptions(margin=0.9)}),
        (["model.options.heads=[1, 2]", "model.base="],
         {"model": ModelOptions(options={"pooling": "mean", "deep": {"of": [1, 2]}, "heads": [1, 2]})}),
        (["losses.1.matryoshka.1=32", "losses.0.options="],
         {"losses": (LossOptions("ranking"), LossOptions("triplet", 2.0, matryoshka=(128, 32)))}),
    ],
)  # fmt: skip
def test_values_are_set_beside_the_file(recipe: Path, overrides: list[str], change: dict[str, Any]) -> None:
    assert read_recipe(recipe, overrides) == replace(read_recipe(recipe), **change)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lrr=1", r"unknown key 'optim.lrr'; did you mean 'optim.lr'\? \(valid in \[optim\]: lr, head_lr"),
        ("optims.lr=1", r"unknown key 'optims'; did you mean 'optim'\? \(valid in a recipe: name, family"),
        ("losses.0.wait=1", r"unknown key 'losses.0.wait'.*valid in \[losses.0\]: name, weight"),
        ("optim.lr=fast", "optim.lr is 'fast', a string; it must be a number"),
        ("optim.batch=8.5", "optim.batch is 8.5, a number; it must be a whole number"),
        ("optim.checkpointing=1", "optim.checkpointing is 1, an integer; it must be true or false"),
        ("seed=true", "seed is True, a boolean; it must be a whole number"),
        ("optim=3", "optim is 3, an integer; it must be a table"),
        ("losses=3", "losses is 3, an integer; it must be a list"),
        ("model.options=3", "model.options is 3, an integer; it must be a table"),
        ("losses.1.matryoshka.0=-1", "losses.1.matryoshka.0 is -1; it must be at least 1"),
        ("teachers.0.name=bm25", r"\[\[teachers\]\].*nothing asks for them; add one of adversarial"),
        ("family=sparse", "matryoshka is for prefixes of dense vectors"),
        ("negatives.margin=1.5", "negatives.margin is 1.5; it must be above 0 and at most 1"),
        ("optim.batch=0", "optim.batch is 0; it must be at least 1"),
        ("optim.lr=0", "optim.lr is 0.0; it must be above 0"),
        ("optim.lr=nan", "optim.lr is nan; it must be above 0"),
        ("optim.average=1.5", "optim.average is 1.5; it must be at least 0 and at most 1"),
        ("losses.0.warmup=-0.1", "losses.0.warmup is -0.1; it must be at least 0 and at most 1"),
        ("optim.precision=float16", "optim.precision is 'float16'; it must be one of auto, bfloat16, float32"),
        ("data.1.limit=-3", "data.1.limit is -3; it must be at least 1"),
        ("family=thick", "unknown family 'thick'; valid: .*sparse"),
        ("losses.0.name=lost", "unknown loss 'lost'; valid: .*word-prediction"),
        ("teachers.0.name=me", "unknown teacher 'me'; valid: bm25"),
        ("data.0.generated=x", "unknown generator 'x'; valid: crops"),
        ("dev.metric=bleu", "unknown metric 'bleu'"),
        ("negatives.first=200", r"negatives.first is 200, behind negatives.last \(100\)"),
        ("model.training_length=300", r"model.training_length is 300, more than the model reads .*256"),
        ("name=", "name is missing; it has no default"),
        ('name=""', "name is empty"),
        ("losses=", r"at least one \[\[losses\]\]"),
        ("data.0.source=", r"\[\[data\]\] table, and each of them a source"),
        ("data=", r"needs a \[\[data\]\] table"),
        ("optim.lr", "needed is key=value"),
        ("optim..lr=1", "needed is key=value"),
        ("=1", "needed is key=value"),
        ("losses.3.weight=1", r"--set losses.3.weight=1: '3' is no place in a list of 2 \(from 0\)"),
        ("losses.weight=1", "'weight' is no place in a list of 2"),
        ("name.first=1", "no key 'first' in 'mine', which is no table"),
    ],
)  # fmt: skip
def test_a_bad_value_is_named_with_what_is_valid(recipe: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_recipe(recipe, [override])


def test_a_file_that_is_no_toml_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("name = 'a'\nfamily = \n")
    with pytest.raises(FormatError, match=r"bad\.toml:2: no TOML"):
        read_recipe(path)
    path.write_bytes(b"name = '\xff'")
    with pytest.raises(FormatError, match=r"bad\.toml: invalid UTF-8 at byte 8"):
        read_recipe(path)


def test_shipped_recipes_are_found_by_name_and_sound() -> None:
    assert "tiny-dense" in shipped_recipes()
    for name in shipped_recipes():
        assert read_recipe(name).name == name
    assert read_recipe("tiny-dense", ["optim.steps=2"]).optim.steps == 2
    with pytest.raises(ConfigError, match=r"no recipe 'tiny-dens'; did you mean 'tiny-dense'\?"):
        read_recipe("tiny-dens")


def keys(kind: Any, prefix: str = "") -> dict[str, Any]:
    """Every scalar key of a recipe with its type."""
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        inner = get_args(hint)[0] if get_origin(hint) is tuple else hint
        if type(inner) is UnionType:
            (inner,) = {*get_args(inner)} - {type(None)}
        if is_dataclass(inner):
            found |= keys(inner, f"{prefix}{name}.")
        elif get_origin(inner) is not Mapping:
            found[prefix + name] = inner
    return found


def test_every_number_of_a_recipe_has_a_range_that_its_default_is_in() -> None:
    kinds = keys(Recipe)
    assert {key for key, kind in kinds.items() if kind in (int, float)} == {
        key for key in RANGES if isinstance(RANGES[key], Numbers)
    }
    assert RANGES.keys() <= kinds.keys()
    for table in fields(Recipe):
        value = table.default_factory() if callable(table.default_factory) else None
        value = RankerOptions() if table.name == "ranker" else value
        for field in fields(value) if is_dataclass(value) else ():
            default = getattr(value, field.name)
            valid = RANGES.get(f"{table.name}.{field.name}")
            assert valid is None or default is None or default in valid


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
anything = st.recursive(
    st.one_of(words, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)),
    max_leaves=6,
)
options = st.dictionaries(words, anything, max_size=3)
shares = st.floats(0, 1)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    some = st.none() | st.integers(1, 2**40)
    family = draw(st.sampled_from(["dense", "sparse", "late"]))
    losses = st.builds(
        LossOptions,
        name=st.sampled_from(sorted(LOSSES)),
        weight=st.floats(0, 1e300),
        warmup=shares,
        matryoshka=st.lists(st.integers(1, 512), max_size=3 if family == "dense" else 0).map(tuple),
        options=options,
    )
    ranker = draw(st.none() | st.builds(RankerOptions, base=words, lr=st.floats(5e-324, 1e300)))
    return Recipe(
        name=draw(words),
        family=family,
        model=ModelOptions(base=draw(words), query_length=draw(some), options=draw(options)),
        data=tuple(draw(st.lists(st.builds(DataOptions, source=words, limit=some), min_size=1, max_size=2))),
        negatives=NegativeOptions(searcher="model", every=1) if ranker else NegativeOptions(),
        ranker=ranker,
        losses=(*draw(st.lists(losses, min_size=1, max_size=2)), LossOptions("adversarial")),
        teachers=tuple(draw(st.lists(st.builds(TeacherOptions, st.just("bm25"), words), max_size=2))),
        optim=OptimOptions(lr=draw(st.floats(5e-324, 1e300)), checkpointing=draw(st.booleans())),
    )


@given(recipes())
def test_a_recipe_is_written_and_read_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, recipe: Recipe
) -> None:
    path = tmp_path_factory.getbasetemp() / "resolved.toml"
    path.write_text(recipe_toml(recipe), encoding="utf-8", newline="")
    assert read_recipe(path) == recipe
    assert recipe_toml(read_recipe(path)) == recipe_toml(recipe)


def test_the_written_recipe_has_the_defaults_in_it(recipe: Path) -> None:
    written = tomllib.loads(recipe_toml(read_recipe(recipe)))
    assert written["optim"]["batch"] == 32 and written["dev"]["metric"] == "nDCG@10"
    assert "query_length" not in written["model"]
    assert not math.isnan(written["losses"][1]["weight"])


def test_what_toml_cannot_hold_is_named(recipe: Path) -> None:
    dated = read_recipe(recipe, ["model.options.since=2020-01-01"])
    with pytest.raises(ConfigError, match=r"since is datetime\.date"):
        recipe_toml(dated)
