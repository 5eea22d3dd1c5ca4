"""``tercet train`` from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from retrieval.encoders.transformer.location import SHIPPED, locate
from retrieval.errors import ConfigError, TercetError
from service.cli import VERBS
from training.cli import train_command

RECIPE = """
name = "tiny"
family = "dense"
[model]
base = "{base}"
max_length = 16
[[data]]
source = "set"
[dev]
queries = 2
documents = 4
[negatives]
searcher = "none"
[[losses]]
name = "ranking"
[optim]
batch = 2
steps = 50
"""


@pytest.fixture
def recipe(still: Path, tmp_path: Path, write_set: Callable[..., Path]) -> Path:
    write_set(tmp_path / "data" / "set")
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(base=still))
    return path


def test_it_trains_and_prints_figures(recipe: Path, tmp_path: Path) -> None:
    arguments = [
        str(recipe),
        "-o",
        str(tmp_path / "model"),
        "--data",
        str(tmp_path / "data"),
        "--set",
        "optim.steps=2",
    ]
    told = CliRunner().invoke(train_command, [*arguments, "--json"], catch_exceptions=False)
    facts = json.loads(told.stdout)
    assert facts["steps"] == 2
    assert "nDCG@10" in facts["figures"]["after"]
    again = CliRunner().invoke(train_command, arguments)
    assert isinstance(again.exception, ConfigError)
    told = CliRunner().invoke(train_command, [*arguments, "--fresh"], catch_exceptions=False)
    assert told.stdout.startswith(f"{tmp_path / 'model'}, nDCG@10 ")
    assert "training" in told.stderr


def test_a_folder_called_like_a_shipped_model_is_said_to_need_its_path(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [str(recipe), "-o", "default-sparse", "--data", "data", "--set", "optim.steps=1"]
    told = CliRunner().invoke(train_command, arguments, catch_exceptions=False)
    assert "write ./default-sparse for this model" in told.stderr
    assert locate("./default-sparse") == (tmp_path / "default-sparse").resolve()
    assert locate("default-sparse") == SHIPPED / "default-sparse"


def test_a_key_that_does_not_exist_is_wrong_usage(recipe: Path) -> None:
    told = CliRunner().invoke(train_command, [str(recipe), "--set", "optim.learning_rate=1"])
    assert told.exit_code == 2
    assert "learning_rate" in told.stderr
    assert "lr" in told.stderr


def test_a_set_that_does_not_exist_is_named(recipe: Path, tmp_path: Path) -> None:
    told = CliRunner().invoke(
        train_command, [str(recipe), "-o", str(tmp_path / "model"), "--data", str(tmp_path)]
    )
    assert isinstance(told.exception, TercetError)
    assert "'set'" in str(told.exception)


def test_the_verb_is_there_and_its_help_imports_no_torch() -> None:
    assert VERBS["train"] == "training.cli:train_command"
    code = "import sys; from training.cli import train_command; assert 'torch' not in sys.modules"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )
