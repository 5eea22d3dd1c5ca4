"""One line before kernels are compiled, and none when they come from the cache."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import click
import pytest

from indexing.command_line import run
from indexing.compile_notice import NOTICE, announce_compiling

KERNEL = """
from indexing.compiled import INT, entry

@entry(INT, returns=INT)
def first(n):
    return n + 1

@entry(INT, returns=INT)
def second(n):
    return n + 2
"""


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    yield
    announce_compiling(None)


@pytest.fixture
def load(tmp_path):
    """Import a new module with two kernels; the second import finds them in numba's cache."""
    file = tmp_path / "kernels.py"
    file.write_text(KERNEL)

    def imported():
        spec = importlib.util.spec_from_file_location("kernels", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return imported


def test_one_word_before_the_first_kernel_and_none_when_all_are_cached(load):
    said: list[str] = []
    announce_compiling(said.append)
    assert load().second(1) == 3
    assert said == [NOTICE]
    announce_compiling(said.append)
    assert load().second(1) == 3
    assert said == [NOTICE]


@pytest.mark.parametrize(("arguments", "told"), [([], NOTICE + "\n"), (["-q"], ""), (["--quiet"], "")])
def test_commands_tell_on_stderr_unless_they_are_quiet(load, capsys, arguments, told):
    @click.command()
    @click.option("-q", "--quiet", is_flag=True)
    def command(quiet):
        click.echo(load().first(1))

    assert run(command, arguments) == 0
    output = capsys.readouterr()
    assert output.out == "2\n"
    assert output.err == told


def test_nobody_is_told_outside_of_commands(load, capsys):
    load()
    assert capsys.readouterr() == ("", "")
