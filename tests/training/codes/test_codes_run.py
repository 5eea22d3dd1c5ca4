"""A whole run, from a recipe to a book that searches."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexing.progress import Silent
from retrieval.encoders import open_encoder
from retrieval.encoders.codes.book import CodeBook
from retrieval.errors import ConfigError
from retrieval.values import Document
from training.recipe.reading import read_recipe
from training.run.running import train

RECIPE = """
name = "tiny"
family = "codes"
[model]
base = "{base}"
max_length = 16
[model.options]
documents = 9
queries = 4
crops = 40
tokens = 30
dim = 8
codes = 6
rounds = 3
features = 12
steps = 4
batch = 8
word_bits = 10
static_codes = 2
[[data]]
source = "one"
[[data]]
source = "two"
[dev]
queries = 2
documents = 6
"""


@pytest.fixture
def recipe(tmp_path: Path, tiny_bert: Path, write_set: Callable[..., Path]) -> Callable[..., Any]:
    for name in ("one", "two"):
        write_set(tmp_path / "data" / name)
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE.format(base=tiny_bert))
    return lambda *overrides: read_recipe(path, overrides)


def test_a_run_leaves_a_book_that_searches_and_a_record(
    recipe: Callable[..., Any], tmp_path: Path, tiny_bert: Path
) -> None:
    output = tmp_path / "out"
    facts = train(recipe(), output, tmp_path / "data", Silent())
    assert {path.name for path in output.iterdir()} >= {
        "codes.json",
        "codes.safetensors",
        "names.txt",
        "recipe.toml",
        "run.json",
        "curve.json",
        "README.md",
    }
    assert not (output / "work").exists()
    assert json.loads((output / "run.json").read_text()) == facts
    assert facts["steps"] == 4
    assert facts["figures"].keys() == {"words alone", "static queries", "after"}
    words, after = facts["figures"]["words alone"], facts["figures"]["after"]
    assert words["query_terms"] < after["query_terms"] and words["document_terms"] == after["document_terms"]
    book = CodeBook.load(output)
    assert (len(book.codes), len(book.feature_scales), len(book.word_idf)) == (6, 12, 1024)
    assert book.settings.model == str(tiny_bert)
    assert book.settings.words == pytest.approx(4)
    assert all(name.startswith("~ ") for name in book.names)
    documents = [Document("a", "river mountain"), Document("b", "cat dog bird")]
    for queries in ("model", "static"):
        encoder = open_encoder({"family": "codes", "model": str(output), "options": {"queries": queries}})
        encoder = encoder.fit(documents)
        stored, asked = encoder.encode_documents(documents), encoder.encode_queries(["cat dog"])
        shared = [np.intersect1d(row, asked.indices) for row in np.split(stored.indices, stored.indptr[1:-1])]
        words = [int((dims < book.first_code).sum()) for dims in shared]
        assert words == [0, 2]
        assert all((dims >= book.first_code).any() for dims in shared)


def test_the_same_recipe_gives_the_same_book(recipe: Callable[..., Any], tmp_path: Path) -> None:
    files = {}
    for name, overrides in (("a", ()), ("b", ()), ("c", ("seed=1",))):
        output = tmp_path / name
        train(recipe(*overrides, "dev.queries=0"), output, tmp_path / "data", Silent())
        files[name] = [
            (output / file).read_bytes() for file in ("codes.json", "codes.safetensors", "names.txt")
        ]
    assert files["a"] == files["b"]
    assert files["a"] != files["c"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optim.lr=1e-4", r"\[optim\]"),
        ("negatives.per_query=3", r"\[negatives\]"),
        ("losses.0.name=ranking", r"\[\[losses\]\]"),
        ("teachers.0.name=bm25", r"\[\[teachers\]\]"),
        ("ranker.steps=3", r"\[ranker\]"),
        ("model.lora_rank=4", r"model\.lora_rank"),
        ("model.query_length=8", r"model\.query_length"),
        ("dev.every=10", r"dev\.every"),
    ],
)
def test_what_would_change_nothing_is_refused(recipe: Callable[..., Any], override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"{said} would change nothing; leave that out"):
        recipe(override)


def test_options_that_do_not_exist_fail_with_those_that_do(
    recipe: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"unknown option of the codes encoder 'code'.*dim, documents"):
        train(recipe("model.options.code=3"), tmp_path / "out", tmp_path / "data", Silent())


def test_more_codes_than_tokens_are_refused(recipe: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"99 codes are to be made of .* sampled tokens; lower"):
        train(recipe("model.options.codes=99"), tmp_path / "out", tmp_path / "data", Silent())
