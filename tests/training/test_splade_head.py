"""The command: a short run from data sets to a folder that loads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from indexing.progress import Silent
from retrieval.errors import ConfigError
from training.splade_encoder import splade_encoder
from training.splade_head import command, train
from training.splade_recipe import Recipe


def test_a_short_run_saves_an_encoder_that_loads(
    make_checkpoint: Callable[..., Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    texts: list[str],
    tiny: Recipe,
    write_set: Callable[..., Path],
) -> None:
    pytest.importorskip("accelerate", reason="training needs accelerate and datasets")
    from sentence_transformers import SparseEncoder

    for name in ("one", "two"):
        write_set(tmp_path / "data" / name)
    recipe = Recipe(**(vars(tiny) | {"model": str(make_checkpoint())}))
    facts = train(tmp_path / "model", tmp_path / "data", recipe, steps=2, progress=Silent())
    output = capfd.readouterr()
    assert not output.out and not output.err

    loaded = SparseEncoder(str(tmp_path / "model"), device="cpu")
    assert loaded.encode(texts).shape[1] == loaded[0].auto_model.config.vocab_size
    assert facts == json.loads((tmp_path / "model" / "recipe.json").read_text())
    assert facts["steps"] == 2 and facts["triplets"] == {"one": 10, "two": 10}
    assert facts["dev"]["queries"] == 4 and facts["dev"]["documents"] == 8
    assert facts["dev"]["pruned"]["document_terms"] > 0
    assert set(facts["data"]) == {
        f"{name}/{file}"
        for name in ("one", "two")
        for file in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv")
    }
    start = splade_encoder(make_checkpoint(), 16)[0].auto_model.bert.state_dict()
    trained = loaded[0].auto_model.bert.state_dict()
    assert any(not torch.equal(trained[name], start[name]) for name in start)


def test_the_command_wants_to_know_where_the_data_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TERCET_DATA", raising=False)
    result = CliRunner().invoke(command, ["-o", str(tmp_path)])
    assert isinstance(result.exception, ConfigError) and "--data" in str(result.exception)
