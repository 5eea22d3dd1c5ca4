"""The `tercet` command as a whole: verbs, exit codes, what goes where, what is imported, what the documents say."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from indexing.command_line import run
from service.cli import VERBS, tercet

ROOT = Path(__file__).resolve().parents[2]


def call(*arguments: str | Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = run(tercet, [str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    lines = [
        {"_id": f"d{n}", "title": f"title {n}", "text": f"some words about topic{n % 5}", "year": 2000 + n}
        for n in range(20)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def collection(tmp_path, corpus, capsys):
    path = tmp_path / "c"
    code, _, err = call("index", corpus, "-o", path, "-m", "hashing:32", "-q", capsys=capsys)
    assert code == 0, err
    return path


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_a_line_in_the_documents(verb):
    shown = CliRunner().invoke(tercet, [verb, "--help"])
    assert shown.exit_code == 0 and "Usage:" in shown.output and "\\b" not in shown.output
    command = tercet.get_command(click.Context(tercet), verb)
    assert command.help
    for option in command.params:
        if isinstance(option, click.Option) and option.name not in ("host", "port"):
            assert option.help, f"{verb} {option.opts} has no help"
    assert verb in (ROOT / "README.md").read_text()


def test_the_examples_of_the_help_keep_their_lines():
    shown = CliRunner().invoke(tercet, ["--help"]).output
    assert "\n    tercet serve my-collection\n" in shown
    assert "\\b" not in shown


@pytest.mark.parametrize("verb", ["search", "serve"])
def test_help_lists_the_short_names_of_rerankers(verb):
    from retrieval.rerank import MODELS

    shown = CliRunner().invoke(tercet, [verb, "--help"]).output
    assert all(name in shown for name in MODELS)


def test_the_command_reference_is_current():
    spec = importlib.util.spec_from_file_location("make_commands", ROOT / "docs" / "make_commands.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert (ROOT / "docs" / "commands.md").read_text() == made.page(), "run `make docs`"


def test_index_search_info_and_verify_work_in_json(collection, capsys):
    code, out, _ = call("search", collection, "topic3 words", "-k", "3", "--json", capsys=capsys)
    assert code == 0
    hits = json.loads(out)["results"][0]["hits"]
    assert len(hits) == 3 and {"id", "score", "title", "text", "metadata"} <= hits[0].keys()
    code, out, _ = call("info", collection, "--json", capsys=capsys)
    assert code == 0 and json.loads(out)["documents"] == 20
    code, out, _ = call("verify", collection, "--json", "-q", capsys=capsys)
    assert code == 0 and json.loads(out)["problems"] == []


def test_add_delete_compact_and_encode_report_what_they_did(collection, corpus, tmp_path, capsys):
    more = tmp_path / "more.jsonl"
    more.write_text('{"_id": "new", "text": "entirely new"}\n')
    assert call("add", collection, more, "-q", "--json", capsys=capsys)[0] == 0
    code, out, _ = call("delete", collection, "d1", "--where", "year >= 2015", "--json", capsys=capsys)
    assert (code, json.loads(out)) == (0, {"deleted": 6})
    code, out, _ = call("compact", collection, "-q", "--json", capsys=capsys)
    assert (code, json.loads(out)) == (0, {"compacted": True})
    code, out, _ = call(
        "encode", corpus, "-m", "hashing:16", "-o", tmp_path / "v.npy", "-q", "--json", capsys=capsys
    )
    assert code == 0 and json.loads(out)["rows"] == 20
    code, _, err = call("index", collection, "--add", "dense:hnsw", "-q", capsys=capsys)
    assert code == 0, err
    assert call("search", collection, "new", "--using", "dense-hnsw", capsys=capsys)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["index"], 2, "Missing argument"),
        (["nonsense"], 2, "No such command"),
        (["index", "CORPUS"], 2, "-o FOLDER"),
        (["search", "nowhere", "q"], 1, "no collection here"),
        (["info", "nowhere"], 1, "tercet index"),
        (["index", "missing.jsonl", "-o", "OUT"], 1, "missing.jsonl"),
        (["index", "CORPUS", "-o", "COLLECTION"], 1, "already holds a collection"),
        (["index", "CORPUS", "-o", "OUT", "--with", "lates"], 2, "unknown representation 'lates'"),
        (["index", "CORPUS", "-o", "OUT", "--with", "dense:tree"], 2, "unknown index kind 'tree'"),
        (["index", "CORPUS", "-o", "OUT", "--chunk", "many"], 2, "many"),
        (["index", "CORPUS", "-o", "OUT", "-m", "no/such-model", "-q"], 1, "no/such-model"),
        (["search", "COLLECTION", "q", "--using", "late"], 2, "cannot search using 'late'"),
        (["search", "COLLECTION", "q", "--using", "bm25+bm25"], 2, "bm25 and bm25 are one index"),
        (["search", "COLLECTION", "q", "--using", "best:hybrid"], 2, "unknown fusion method 'best'"),
        (["search", "COLLECTION", "q", "--filter", "year >"], 2, "year >"),
        (["search", "COLLECTION", "q", "--filter", "colour = 1"], 2, "unknown field 'colour'"),
        (["search", "COLLECTION", "q", "--rerank", "no/such-model"], 1, "short names: minilm, bge"),
        (["serve", "COLLECTION", "--using", "late"], 2, "cannot search using 'late'"),
        (["serve", "nowhere", "--using", "late"], 1, "no collection here"),
        (["delete", "COLLECTION", "nobody"], 1, "no document 'nobody'"),
        (["delete", "COLLECTION"], 2, "name ids"),
        (["compact", "COLLECTION", "--memory", "lots"], 2, "--memory 'lots'"),
    ],
)
def test_wrong_input_ends_with_one_clear_line(
    collection, corpus, tmp_path, capsys, monkeypatch, arguments, code, said
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    named = {"CORPUS": corpus, "COLLECTION": collection, "OUT": tmp_path / "out"}
    got, out, err = call(*(named.get(argument, argument) for argument in arguments), capsys=capsys)
    assert got == code and said in err
    assert "Traceback" not in err and not out


def test_a_damaged_file_is_named_and_debug_shows_the_traceback(collection, capsys):
    victim = collection / "segments" / "00000001" / "documents" / "ids_blob.npy"
    victim.write_bytes(victim.read_bytes()[:-3])
    code, _, err = call("search", collection, "q", capsys=capsys)
    assert code == 1 and "ids_blob.npy" in err and "Traceback" not in err
    code, _, err = call("--debug", "search", collection, "q", capsys=capsys)
    assert code == 1 and "Traceback" in err
    code, out, _ = call("verify", collection, "-q", capsys=capsys)
    assert code == 1 and "ids_blob.npy" in out


def test_help_imports_nothing_heavy():
    script = (
        "import sys; from indexing.command_line import run; from service.cli import tercet\n"
        "try:\n run(tercet, ['--help'])\nexcept SystemExit:\n pass\n"
        "heavy = {'torch', 'numba', 'numpy', 'polars', 'rich', 'fastapi'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if 'torch' in heavy or 'fastapi' in heavy or 'numba' in heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_the_packages_leaves_torch_out():
    script = "import sys, retrieval.protocols, indexing.collection; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_searching_with_bm25_leaves_torch_out(collection):
    script = (
        "import sys; from indexing.command_line import run; from service.cli import tercet\n"
        f"code = run(tercet, ['search', {str(collection)!r}, 'topic3', '--using', 'bm25', '--json'])\n"
        "sys.exit(code or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], stdout=subprocess.DEVNULL).returncode == 0


@pytest.mark.parametrize("module", ["indexing", "eval", "service"])
def test_each_package_runs_as_a_module(module):
    done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "Usage:" in done.stdout, done.stderr


def test_every_table_entry_resolves():
    from eval.metrics import METRICS
    from indexing.kinds import KINDS, kind_class
    from retrieval.encoders import FAMILIES, family_class

    assert METRICS
    for kind in KINDS:
        assert kind_class(kind).kind == kind
    for family in FAMILIES:
        assert hasattr(family_class(family), "open")
    for target in VERBS.values():
        module, attribute = target.split(":")
        assert isinstance(getattr(importlib.import_module(module), attribute), click.Command)


def test_the_python_of_the_readme_runs(tmp_path, corpus, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"<!-- runs -->\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert "d1" in capsys.readouterr().out
