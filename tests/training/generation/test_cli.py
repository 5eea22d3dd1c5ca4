"""`tercet generate` as people call it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from indexing.command_line import DONE, FAILED, USAGE, run
from training.generation.cli import generate_command


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run(generate_command, [str(one) for one in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_run_says_what_it_did(corpus: Path, tmp_path: Path, capsys):
    code, out, err = call(
        capsys, corpus, "-o", tmp_path / "made", "--with", "crops", "--round-trip", "bm25", "--top", 2
    )
    assert code == DONE, err
    assert " queries of 6 documents in " in out and "not among the first 2 of bm25" in out
    assert "make queries" in err and "6/6 documents" in err
    options = ["--with", "crops", "--longest", 9, "--limit", 3, "--json", "-q"]
    code, out, err = call(capsys, corpus, "-o", tmp_path / "made", *options)
    assert code == DONE and err == ""
    assert json.loads(out)["asked"] == 0 and json.loads(out)["chosen"] == 3


def test_a_server_is_asked_as_the_options_say(corpus: Path, tmp_path: Path, capsys, server):
    examples = tmp_path / "e.jsonl"
    examples.write_text('{"document": "Snow is cold.", "query": "how cold is snow"}\n')
    options: list[Any] = [
        "--with",
        "endpoint",
        "--url",
        server.url,
        "--model",
        "tiny",
        "--examples",
        examples,
    ]
    options += [
        "--api",
        "completions",
        "--instruction",
        "Go on.",
        "--per-document",
        3,
        "--request",
        "top_p=0.5",
    ]
    code, out, err = call(capsys, corpus, "-o", tmp_path / "made", *options, "--temperature", 0.2, "-q")
    assert code == DONE, err
    _, _, body = server.requests[0]
    assert body["prompt"].startswith("Go on.\n\nDocument: Snow is cold.\nQuery: how cold is snow\n\n")
    assert (body["n"], body["top_p"], body["temperature"]) == (3, 0.5, 0.2)
    assert "tokens read and 90 written by the model" in out
    code, out, _ = call(capsys, corpus, "-o", tmp_path / "made", *options, "--temperature", 0.2, "-q")
    assert code == DONE and "6 documents were answered by an earlier run" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--with", "nonsense"],
            "unknown generator 'nonsense'; valid: crops, endpoint, keywords, local, titles",
        ),
        (["--model", "m"], "--model goes with --with endpoint or --with local"),
        (["--with", "local", "--url", "http://x"], "--url goes with --with endpoint"),
        (["--with", "endpoint", "--batch", "3"], "--batch goes with --with local"),
        (["--top", "3"], "--top goes with --round-trip"),
        (["--with", "endpoint", "--request", "top_p"], "'top_p' is not NAME=VALUE"),
    ],
)
def test_wrong_usage(corpus: Path, tmp_path: Path, capsys, options, message):
    code, _, err = call(capsys, corpus, "-o", tmp_path / "made", *options)
    assert code == USAGE and message in err
    assert not (tmp_path / "made").exists()


def test_failures_are_one_line(corpus: Path, tmp_path: Path, capsys, server):
    server.script = [(401, {}, {"error": "bad key"})] * 6
    options = ["--with", "endpoint", "--url", server.url, "--model", "tiny", "-q"]
    code, _, err = call(capsys, corpus, "-o", tmp_path / "made", *options)
    assert code == FAILED and err.count("\n") == 1 and "refused the key: 401 (bad key)" in err
    examples = tmp_path / "e.jsonl"
    examples.write_text("{}\n")
    code, _, err = call(capsys, corpus, "-o", tmp_path / "made", *options, "--examples", examples)
    assert code == FAILED and f'tercet: {examples}:1: "document" is missing' in err
