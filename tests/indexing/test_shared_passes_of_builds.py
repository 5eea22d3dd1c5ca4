"""A build reads every document once for all encoders of one model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from indexing.builder import build_collection
from indexing.chunking import Chunking
from indexing.collection import Collection
from indexing.corpora import open_corpus
from indexing.options import BuildOptions, representation_options
from retrieval.encoders.transformer.bert import Bert

WORDS = "cat dog bird fish red green blue fast slow old new river mountain search engine index vector".split()


def test_dense_sparse_and_late_vectors_come_from_one_pass(
    tmp_path: Path, tiny_bert: Path, tiny_codes: Path, monkeypatch: pytest.MonkeyPatch
):
    rng = np.random.default_rng(2)
    with (tmp_path / "corpus.jsonl").open("w") as lines:
        for number in range(700):
            text = " ".join(rng.choice(WORDS, rng.integers(0, 12)))
            lines.write(json.dumps({"_id": str(number), "text": text}) + "\n")
    read: list[int] = []
    forward = Bert._forward

    def counted(self, ids, runs):
        read.append(len(ids))
        return forward(self, ids, runs)

    monkeypatch.setattr(Bert, "_forward", counted)
    models = {"dense": tiny_bert, "sparse": tiny_codes, "late": tiny_bert}
    parts = {name: representation_options(name, str(model)) for name, model in models.items()}

    def build(*names: str) -> tuple[Collection, int]:
        read.clear()
        path, options = (
            tmp_path / "-".join(names),
            BuildOptions(tuple(parts[name] for name in names), Chunking.none()),
        )
        build_collection(open_corpus(tmp_path / "corpus.jsonl"), path, options)
        return Collection.open(path), sum(read)

    alone = {name: build(name) for name in parts}
    together, tokens = build(*parts)
    assert tokens == alone["dense"][1] == alone["sparse"][1] == alone["late"][1]
    rows = np.arange(700)
    for name, (apart, _) in alone.items():
        stores = [collection.snapshot().store(name).take(rows) for collection in (together, apart)]
        assert np.array_equal(stores[0].values.shape, stores[1].values.shape)
        assert np.allclose(stores[0].values, stores[1].values, atol=2e-2)
