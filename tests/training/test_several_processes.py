"""Training with several processes is training with one of a larger batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from indexing.progress import Silent
from training.recipe.options import (
    DataOptions,
    DevOptions,
    LossOptions,
    ModelOptions,
    NegativeOptions,
    OptimOptions,
    Recipe,
)
from training.recipe.writing import recipe_toml
from training.run.running import train


@pytest.mark.parametrize(
    ("family", "options", "chunk"),
    [
        pytest.param("dense", {}, 0, marks=pytest.mark.slow),
        ("sparse", {"threshold": 1.0, "queries": "static"}, 3),
    ],
)
def test_two_processes_do_what_one_does_with_twice_the_batch(
    family: str,
    options: dict[str, Any],
    chunk: int,
    still: Path,
    tmp_path: Path,
    write_set: Callable[..., Path],
) -> None:
    write_set(tmp_path / "data" / "set")
    losses = [LossOptions("ranking", options={"temperature": 1.0})]
    losses += (
        [LossOptions("flops", weight=0.1)]
        if family == "sparse"
        else [LossOptions("word-prediction", weight=0.1)]
    )
    recipe = Recipe(
        name="tiny",
        family=family,
        model=ModelOptions(base=str(still), max_length=16, options=options),
        data=(DataOptions("set"),),
        dev=DevOptions(queries=2, documents=4),
        negatives=NegativeOptions(searcher="bm25", last=3, every=2),
        losses=tuple(losses),
        optim=OptimOptions(lr=1e-3, batch=4, steps=4, precision="float32", chunk=chunk),
    )
    train(recipe, tmp_path / "one", tmp_path / "data", Silent())
    halved = replace(recipe, optim=replace(recipe.optim, batch=2))
    (tmp_path / "recipe.toml").write_text(recipe_toml(halved))
    worker = Path(__file__).parent / "training_worker.py"
    arguments = [str(tmp_path / name) for name in ("recipe.toml", "two", "data")]
    told = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
            str(worker),
            *arguments,
        ],
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(sys.path), "TERCET_DEVICE": "cpu", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    one, two = (
        [
            entry["loss"]
            for entry in json.loads((tmp_path / name / "curve.json").read_text())
            if "loss" in entry
        ]
        for name in ("one", "two")
    )
    assert two == pytest.approx(one, rel=1e-4)
    for path in sorted((tmp_path / "one").rglob("*.safetensors")):
        weights = load_file(path), load_file(tmp_path / "two" / path.relative_to(tmp_path / "one"))
        for name, value in weights[0].items():
            if name.endswith("key.bias"):  # no score depends on it, so AdamW makes steps of rounding errors
                continue
            torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4, msg=name)
