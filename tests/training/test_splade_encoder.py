"""The encoder made of a checkpoint, its head's weights and what saving keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from retrieval.errors import ConfigError
from training.splade_encoder import splade_encoder


def test_the_head_shares_the_word_embeddings(encoder: Any) -> None:
    model = encoder[0].auto_model
    assert model.cls.predictions.decoder.weight is model.get_input_embeddings().weight
    assert model.cls.predictions.decoder.bias is model.cls.predictions.bias


def test_the_encoder_weights_are_those_of_the_checkpoint(make_checkpoint: Callable[..., Path]) -> None:
    from transformers import AutoModel

    folder = make_checkpoint()
    mine, theirs = (
        splade_encoder(folder, 16)[0].auto_model.bert.state_dict(),
        AutoModel.from_pretrained(folder),
    )
    for name, weight in theirs.state_dict().items():
        if not name.startswith("pooler"):
            assert torch.equal(mine[name], weight), name


def test_a_saved_encoder_gives_the_same_vectors(encoder: Any, tmp_path: Path, texts: list[str]) -> None:
    from sentence_transformers import SparseEncoder

    encoder.save(str(tmp_path), create_model_card=False)
    loaded = SparseEncoder(str(tmp_path), device="cpu")
    assert torch.equal(loaded.encode(texts).to_dense(), encoder.encode(texts).to_dense())
    model = loaded[0].auto_model
    assert model.cls.predictions.decoder.weight is model.get_input_embeddings().weight
    assert loaded.max_seq_length == 16


def test_only_bert_gets_a_head(make_checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="made for BERT"):
        splade_encoder(make_checkpoint("distilbert", dim=32, hidden_dim=64, n_layers=2, n_heads=4), 16)
