"""Weights of query terms that start as their IDF."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from retrieval.errors import ConfigError
from training.splade.head import with_head
from training.splade.query_table import inverse_document_frequencies, query_weights, with_query_table


def test_rare_terms_weigh_more(encoder: Any, texts: list[str]) -> None:
    tokenizer = encoder.tokenizer
    weights = inverse_document_frequencies(tokenizer, texts, len(tokenizer))
    river, index, unseen, pad = tokenizer.convert_tokens_to_ids(["river", "index", "slow", "[PAD]"])
    n = len(texts)
    assert weights[river] == pytest.approx(math.log(1 + (n - 2 + 0.5) / 2.5))
    assert weights[index] == pytest.approx(math.log(1 + (n - 1 + 0.5) / 1.5))
    assert weights[tokenizer.convert_tokens_to_ids("engine")] == weights[index]
    assert weights[unseen] == weights[index]
    assert weights[pad] == 0.0


@pytest.mark.parametrize("trained", [True, False])
def test_queries_are_read_without_the_model(
    encoder: Any, texts: list[str], tmp_path: Path, trained: bool
) -> None:
    from sentence_transformers import SparseEncoder

    documents = encoder.encode(texts).to_dense()
    assert query_weights(encoder) is None
    model = with_query_table(encoder, texts, trained=trained)
    table = query_weights(model)
    assert table is not None
    assert table.requires_grad is trained
    assert torch.equal(model.encode_document(texts).to_dense(), documents)
    found = model.encode_query(["river river index"]).to_dense()[0]
    terms = model.tokenizer.convert_tokens_to_ids(["river", "index"])
    assert torch.equal(found.nonzero()[:, 0].sort().values, torch.tensor(sorted(terms)))
    assert torch.equal(found[terms], table.detach()[terms])
    model.save(str(tmp_path), create_model_card=False)
    loaded = SparseEncoder(str(tmp_path), device="cpu")
    assert torch.equal(loaded.encode_query(["river river index"]).to_dense()[0], found)


def test_terms_and_dimensions_must_be_as_many(make_checkpoint: Callable[..., Path]) -> None:
    model = with_head(make_checkpoint(), "relu")
    with pytest.raises(ConfigError, match="113 dimensions; there are 112"):
        with_query_table(model, ["river"], trained=True)
