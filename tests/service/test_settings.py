"""Options of `tercet serve` and their variables."""

from __future__ import annotations

import click
import pytest

from retrieval.errors import ConfigError
from service.live import LiveCollection
from service.metrics import Metrics
from service.serve_cli import read_settings, serve_command
from service.settings import Settings


def test_every_option_has_a_variable():
    options = {param.name for param in serve_command.params if isinstance(param, click.Option)}
    assert (
        options - {"threads"} <= Settings.model_fields.keys()
    )  # TERCET_THREADS is read by retrieval.compute
    assert {option for param in serve_command.params for option in param.opts} >= {
        f"--{name.replace('_', '-')}" for name in options
    }


@pytest.mark.parametrize(
    ("variable", "value", "field", "expected"),
    [
        ("TERCET_RERANK", "minilm", "rerank", ("minilm",)),
        ("TERCET_RERANK", "minilm, bge", "rerank", ("minilm", "bge")),
        ("TERCET_RERANK", "", "rerank", ()),
        ("TERCET_DRAIN", "2.5", "drain", 2.5),
        ("TERCET_MAX_QUEUE", "7", "max_queue", 7),
        ("TERCET_PORT", "", "port", 8000),
    ],
)
def test_variables_are_read_as_people_write_them(monkeypatch, tmp_path, variable, value, field, expected):
    monkeypatch.setenv(variable, value)
    assert getattr(Settings(collection=tmp_path), field) == expected


def test_a_wrong_variable_is_named_and_so_is_a_wrong_option(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match=r"^--max-queue: .*'many'"):
        read_settings(tmp_path, max_queue="many")
    monkeypatch.setenv("TERCET_MAX_QUEUE", "lots")
    with pytest.raises(ConfigError, match=r"^TERCET_MAX_QUEUE: .*'lots'"):
        read_settings(tmp_path)
    assert read_settings(tmp_path, max_queue=3).max_queue == 3


def test_a_reranker_that_does_not_exist_is_named_with_its_variable(monkeypatch, tmp_path, collection):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TERCET_RERANK", "no/such-model")
    live = LiveCollection(Settings(collection=tmp_path), Metrics(), lambda path: collection)
    with pytest.raises(ConfigError, match=r"TERCET_RERANK.*'no/such-model'.*minilm, bge"):
        live.load()
