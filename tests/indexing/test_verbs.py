"""The verbs of this package on the command line: what they refuse, with which exit code, and what they say."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from indexing import command_line
from indexing.cli import COMMANDS
from indexing.collection import Collection
from indexing.command_line import run
from indexing.verification import verify

# with the names of `tercet`: click keeps a command's help option as its first caller wants it
GROUP = click.Group("t", commands=list(COMMANDS), context_settings={"help_option_names": ["-h", "--help"]})
HASHING = ("-m", "hashing:16", "-q")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder to be in, with corpus.jsonl."""
    monkeypatch.chdir(tmp_path)
    lines = [{"_id": f"d{n}", "title": "t", "text": f"some words{n}", "year": 2000 + n} for n in range(6)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


@pytest.fixture
def call(here, capsys):
    """A verb's exit code, output and errors."""

    def run_it(*arguments: str) -> tuple[int, str, str]:
        code = run(GROUP, arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run_it


@pytest.fixture
def collection(here, call) -> Path:
    code, _, err = call("index", "corpus.jsonl", "-o", "c", *HASHING)
    assert code == 0, err
    return here / "c"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["", ":hnsw", ".", "..", "a/b", "x+y", "hybrid", " ", "-x:flat"])
def test_a_name_that_is_none_touches_nothing(collection, call, name):
    before = files(collection)
    code, out, err = call("index", "c", f"--add={name}", *HASHING)
    assert (code, out) == (2, "") and "cannot name a representation" in err
    assert files(collection) == before
    assert not verify(collection).problems


def test_a_name_that_an_index_has_is_refused(collection, call):
    code, _, err = call("index", "c", "--add", "dense-hnsw", *HASHING)
    assert code == 1 and "'dense' and 'dense-hnsw' could both be meant" in err


def test_every_index_of_with_is_built(here, call):
    assert call("index", "corpus.jsonl", "-o", "c", "--with", "bm25, dense,dense:hnsw", *HASHING)[0] == 0
    kinds = [spec.kind for spec in Collection.open("c").commit().representations["dense"].indexes]
    assert kinds == ["flat", "hnsw"]


def test_adding_takes_the_options_that_apply(collection, call):
    assert call("index", "c", "--add", "dense:hnsw", "-p", "m=8", "-q")[0] == 0
    assert (
        call("index", "c", "--add", "bm25-german", "--language", "german", "--fields", "title,text", "-q")[0]
        == 0
    )
    representations = Collection.open(collection).commit().representations
    assert dict(representations["dense"].indexes[1].parameters)["m"] == 8
    options = representations["bm25-german"].encoder["options"]
    assert (options["language"], options["fields"]) == ("german", ["title", "text"])


INDEX = ("index", "corpus.jsonl", "-o", "new")
ADD = ("index", "c", "--add")
UPDATE = ("add", "c", "corpus.jsonl", "--metadata-only")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*ADD, "w", "-o", "new"), "--output has no effect with --add"),
        ((*ADD, "w", "--with", "bm25"), "--with has no effect with --add"),
        ((*ADD, "w", "--config", "x.toml"), "--config has no effect with --add"),
        ((*ADD, "w", "--chunk", "none"), "--chunk has no effect with --add"),
        ((*ADD, "w", "--on-duplicate", "skip"), "--on-duplicate has no effect with --add"),
        ((*ADD, "w", "--text-field", "x"), "--text-field has no effect with --add"),
        ((*ADD, "w", "--language", "german"), "--language has no effect: 'w' is no BM25"),
        ((*ADD, "bm25x", "-m", "hashing:8"), "--model has no effect: 'bm25x' is a BM25"),
        ((*ADD, "dense:hnsw", "-m", "hashing:8"), "--model has no effect: 'dense' is there"),
        ((*ADD, "w:tree"), "unknown index kind 'tree'"),
        ((*ADD, "w", "-m", "hashing:wide"), "write the width after the colon"),
        ((*ADD, "dense:hnsw", "-p", "m"), "'m' is not NAME=VALUE"),
        ((*ADD, "dense:hnsw", "-p", "m=x"), "hnsw parameter m is 'x'"),
        ((*INDEX, "--vectors", "v.npy"), "--vectors goes with --add"),
        ((*INDEX, "-p", "m=8"), "--parameter goes with --add"),
        ((*INDEX, "--config", "x.toml", "--with", "bm25"), "--with has no effect with --config"),
        ((*INDEX, "--config", "x.toml", "-m", "hashing:8"), "--model has no effect with --config"),
        ((*INDEX, "--config", "x.toml", "--language", "german"), "--language has no effect with --config"),
        ((*INDEX, "--with", "bm25", "-m", "hashing:8"), "--model is for dense, which --with leaves out"),
        ((*INDEX, "--with", "dense", "--fields", "text"), "--fields is for bm25, which --with leaves out"),
        ((*INDEX, "--with", "nosuch"), "unknown representation 'nosuch'"),
        ((*INDEX, "--with", "bm25:hnsw"), "choose another kind"),
        ((*INDEX, "--with", "bm25,"), "unknown representation ''"),
        ((*INDEX, "--chunk", "abc"), "chunking 'abc' is not understood"),
        ((*INDEX, "--memory", "lots"), "--memory 'lots' is no size"),
        ((*INDEX, "--memory", "0"), "--memory '0' leaves nothing"),
        ((*INDEX, "--language", "klingon"), "unknown language 'klingon'"),
        ((*INDEX, "--fields", "body"), "unknown field 'body'"),
        ((*INDEX, "--format", "nosuch"), "unknown corpus format 'nosuch'"),
        ((*INDEX, "--encoder-option", "x"), "--encoder-option: 'x' is not NAME=VALUE"),
        (("add", "c", "corpus.jsonl", "--memory", "0"), "--memory '0'"),
        (("compact", "c", "--memory", "0"), "--memory '0'"),
        ((*UPDATE, "--memory", "1GB"), "--memory has no effect with --metadata-only"),
        ((*UPDATE, "--restart"), "--restart has no effect with --metadata-only"),
        ((*UPDATE, "--on-duplicate", "error"), "--on-duplicate has no effect with --metadata-only"),
        ((*UPDATE, "--format", "csv"), "--format has no effect with --metadata-only"),
        ((*UPDATE, "--text-field", "x"), "--text-field has no effect with --metadata-only"),
        (("encode", "corpus.jsonl", "-o", "v.npy", "-m", "hashing:x"), "write the width"),
    ],
)
def test_options_that_do_not_apply_or_mean_nothing_are_wrong_usage(collection, call, arguments, said):
    before = files(collection)
    code, out, err = call(*arguments)
    assert (code, out) == (2, "") and said in err
    assert files(collection) == before and not Path("new").exists()


def test_metadata_updates_take_the_options_that_apply(collection, call):
    Path("u.jsonl").write_text('{"key": "d1", "year": 1, "note": [{}]}\n')
    code, out, err = call(
        "add", "c", "u.jsonl", "--metadata-only", "--id-field", "key", "--ignore-field", "note", "--json"
    )
    assert (code, json.loads(out)) == (0, {"updated": 1}), err


@pytest.mark.parametrize(
    "number", ["99999999999999999999999", "18446744073709551615", "-9223372036854775809"]
)
def test_integers_of_more_than_64_bits_are_refused_alike(here, call, number):
    lines = '{"_id": "a", "text": "t"}\n{"_id": "b", "text": "t", "n": {"m": NUMBER}}\n'
    Path("big.jsonl").write_text(lines.replace("NUMBER", number))
    code, _, err = call("index", "big.jsonl", "-o", "c", "--with", "bm25", "-q")
    assert code == 1 and f'big.jsonl:2: the metadata field "n.m" is {number}; integers have 64 bits' in err
    assert not Path("c").exists()


def test_ids_to_delete_are_read_line_by_line(collection, call):
    Path("ids").write_bytes(b"d1\r\n\n  \nd2")
    assert call("delete", "c", "d3", "--ids-from", "ids", "--json")[:2] == (0, '{"deleted": 3}\n')
    Path("ids").write_bytes(b"d4\n\xff\xfe\n")
    code, _, err = call("delete", "c", "--ids-from", "ids")
    assert code == 1 and "ids:2: invalid UTF-8: byte 0xff" in err
    assert Collection.open("c").snapshot().n_documents == 3


def test_encoding_never_replaces_what_it_was_not_told_to(here, call):
    corpus = Path("corpus.jsonl").read_bytes()
    encode = ("encode", "corpus.jsonl", *HASHING, "-o")
    os.link("corpus.jsonl", "same.jsonl")
    for output, *overwrite in (
        ["corpus.jsonl"],
        ["corpus.jsonl", "--overwrite"],
        ["same.jsonl", "--overwrite"],
    ):
        code, _, err = call(*encode, output, *overwrite)
        assert code == 1 and f"{output} is what is to be encoded" in err
    assert Path("corpus.jsonl").read_bytes() == corpus
    assert "is a folder; name the .npy file" in call(*encode, ".")[2]
    assert "no/where: no such folder" in call(*encode, "no/where/v.npy")[2]
    assert call(*encode, "v.npy")[0] == 0
    np.save("v.npy", np.zeros(1))
    code, _, err = call(*encode, "v.npy")
    assert code == 1 and "v.npy is there already; name another file, or replace it with --overwrite" in err
    assert np.load("v.npy").shape == (1,)
    assert call(*encode, "v.npy", "--overwrite")[0] == 0
    assert np.load("v.npy").shape == (6, 16)


def test_what_is_no_collection_gets_advice_that_can_be_followed(here, call):
    (here / "full").mkdir()
    (here / "full" / "notes.txt").write_text("mine")
    (here / "empty").mkdir()
    for path, advice in (
        ("corpus.jsonl", "tercet index corpus.jsonl -o FOLDER"),
        ("full", "tercet index CORPUS -o FOLDER"),
        ("empty", "tercet index CORPUS -o empty"),
        ("nowhere", "tercet index CORPUS -o nowhere"),
    ):
        code, _, err = call("info", path)
        assert code == 1 and err.startswith(f"tercet: {path}: ") and f"`{advice}`" in err
        if "FOLDER" not in advice:
            assert call(*advice.replace("CORPUS", "corpus.jsonl").split()[1:], *HASHING)[0] == 0


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.EACCES, "check who owns it"), (errno.EROFS, "reading only"), (errno.ENOLCK, "no locks")],
)
def test_an_error_of_the_system_names_the_file_and_what_to_check(
    collection, call, monkeypatch, number, advice
):
    from indexing import lock

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    code, _, err = call("delete", "c", "d1", "--debug")
    assert code == 1 and f"c/writer.lock: {os.strerror(number)}; " in err and advice in err


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_write_permission_is_named(collection, call):
    (collection / "writer.lock").unlink()
    collection.chmod(0o500)
    code, _, err = call("delete", "c", "d1")
    collection.chmod(0o700)
    assert code == 1 and "c/writer.lock: Permission denied; check who owns it" in err


@pytest.mark.parametrize(
    ("arguments", "left", "debug"),
    [
        (["--debug", "info", "c"], ["info", "c"], True),
        (["info", "--debug", "c"], ["info", "c"], True),
        (["delete", "c", "--", "--debug"], ["delete", "c", "--", "--debug"], False),
        (["--debug", "delete", "c", "--", "--debug"], ["delete", "c", "--", "--debug"], True),
        (["info", "c"], ["info", "c"], False),
    ],
)
def test_debug_is_an_option_only_before_two_dashes(monkeypatch, arguments, left, debug):
    monkeypatch.delenv("TERCET_DEBUG", raising=False)
    received: list[list[str]] = []

    class Receiving(click.Command):
        def main(self, args, **_):
            received.append(args)
            raise ValueError("to be shown")

    shown = CliRunner().invoke(click.command()(lambda: run(Receiving("t"), arguments)))
    assert received == [left]
    assert ("Traceback" in shown.stderr) is debug


def test_a_document_called_debug_can_be_deleted(collection, call):
    Path("d.jsonl").write_text('{"_id": "--debug", "text": "t"}\n')
    assert call("add", "c", "d.jsonl", "-q")[0] == 0
    assert call("delete", "c", "--", "--debug")[:2] == (0, "deleted 1 documents\n")


def test_the_examples_of_the_help_keep_their_lines(call):
    _, out, _ = call("index", "--help")
    assert "\n    tercet index notes/ -o my-notes --with bm25\n" in out and "\\b" not in out


def test_config_errors_are_usage_only_where_options_are_read():
    from retrieval.errors import ConfigError

    with pytest.raises(click.UsageError, match="wrong value"), command_line.reading_options():
        raise ConfigError("wrong value")
