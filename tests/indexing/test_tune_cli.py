"""`tercet tune` on the command line: what it prints, refuses and leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from indexing.cli import COMMANDS
from indexing.command_line import run
from indexing.tune_cli import milliseconds
from retrieval.errors import ConfigError

GROUP = click.Group("t", commands=list(COMMANDS), context_settings={"help_option_names": ["-h", "--help"]})


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """A verb's exit code, output and errors, in a folder with the collection c."""
    monkeypatch.chdir(tmp_path)
    lines = [{"_id": f"d{n}", "text": f"word{n} topic{n % 7} and word{n % 31}"} for n in range(60)]
    Path("corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def run_it(*arguments: str) -> tuple[int, str, str]:
        code = run(GROUP, arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    assert run_it("index", "corpus.jsonl", "-o", "c", "-m", "hashing:16", "--chunk", "none", "-q")[0] == 0
    return run_it


def test_tuning_prints_its_reasons_and_info_remembers(call):
    code, out, err = call("tune", "c", "--recall", "0.9", "--kinds", "flat,hnsw", "-q")
    assert (code, err) == (0, "")
    assert (
        "pseudo-queries" in out and "recall@10 on 60 of 60 rows" in out and "dense is now searched by" in out
    )
    assert "measured: recall@10 1.0000" in call("info", "c")[1]


def test_json_is_one_object(call):
    code, out, _ = call("tune", "c", "--kinds", "flat", "--dry-run", "--json", "-q")
    facts = json.loads(out)
    assert code == 0 and facts["chosen"]["kind"] == "flat" and facts["installed"] is None
    assert facts["points"][0]["frontier"] is True


def test_without_a_solution_the_exit_code_is_1(call):
    code, out, err = call("tune", "c", "--kinds", "flat", "--memory", "10", "-q")
    assert code == 1
    assert (
        "c is unchanged: no setting keeps every limit; the closest, flat" in err
        and "allow --memory 1MB" in err
    )
    assert "flat" in out
    assert "measured" not in call("info", "c")[1]


def test_orders_are_compared_and_nothing_changes(call):
    code, out, _ = call("tune", "c", "--orders", "-q")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split()[:3] == ["recall@10", "ef", "10"]
    assert {line.split()[0] for line in lines[1:]} >= {"given", "random", "lid-descending"}
    assert "measured" not in call("info", "c")[1]
    assert {row["order"] for row in json.loads(call("tune", "c", "--orders", "--json", "-q")[1])} >= {"given"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--recall", "0"), "--recall"),
        (("--recall", "1.1"), "--recall"),
        (("--memory", "lots"), "'lots' is no size"),
        (("--memory", "0"), "leaves nothing"),
        (("--p95", "soon"), "'soon' is no time"),
        (("--p95", "0ms"), "no search takes 0.0 ms"),
        (("--kinds", "flat,tree"), "unknown kind to tune 'tree'"),
        (("--sample", "5"), "less than the 10 results"),
        (("--sample", "100001"), "--sample"),
        (("--minutes", "0"), "--minutes"),
    ],
)
def test_impossible_wishes_are_wrong_usage(call, arguments, said):
    code, out, err = call("tune", "c", *arguments)
    assert (code, out) == (2, "") and said in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--using", "bm25"), "no dense representation 'bm25'"),
        (("--k", "61"), "holds 60 documents, fewer than the 61"),
        (("--queries", "none.txt"), "none.txt: cannot be read"),
        (("--queries", "corpus.jsonl.missing"), "cannot be read"),
    ],
)
def test_what_cannot_be_done_is_one_line(call, arguments, said):
    code, out, err = call("tune", "c", *arguments, "-q")
    assert (code, out) == (1, "") and said in err and len(err.splitlines()) == 1


def test_times_are_read():
    assert [milliseconds(text) for text in ("5ms", "0.1s", "7", " 2.5 ms ")] == [5, 100, 7, 2.5]
    for text in ("", "ms", "-1ms", "5m"):
        with pytest.raises(ConfigError):
            milliseconds(text)
