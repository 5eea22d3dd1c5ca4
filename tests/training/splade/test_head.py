"""A head on a model that has none: its weights, what saving keeps, and what terms a text has before any training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from indexing.progress import Silent
from retrieval.errors import ConfigError
from training.splade.head import initialise_head, with_head


def test_the_head_shares_the_word_embeddings(encoder: Any) -> None:
    model = encoder[0].auto_model
    assert model.cls.predictions.decoder.weight is model.get_input_embeddings().weight
    assert model.cls.predictions.decoder.bias is model.cls.predictions.bias


def test_the_encoder_weights_are_those_of_the_checkpoint(still: Path) -> None:
    from transformers import AutoModel

    mine, theirs = with_head(still, "relu")[0].auto_model.bert.state_dict(), AutoModel.from_pretrained(still)
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


def test_only_bert_gets_a_head(make_checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="made for BERT"):
        with_head(make_checkpoint("distilbert", dim=32, hidden_dim=64, n_layers=2, n_heads=4), "relu")


def test_the_fitted_head_finds_the_words_of_a_text(encoder: Any) -> None:
    weights = encoder.encode(["river mountain search engine"]).to_dense()[0]
    tokens = encoder.tokenizer("river mountain search engine", add_special_tokens=False)["input_ids"]
    others = torch.ones(len(weights), dtype=torch.bool)
    others[tokens] = False
    assert weights[tokens].mean() > 4 * weights[others].mean()
    assert (weights[tokens] > 0).sum() >= 3


def test_special_tokens_are_never_terms(encoder: Any, texts: list[str]) -> None:
    weights = encoder.encode([*texts, "[MASK] [CLS]"]).to_dense()
    assert torch.all(weights[:, encoder.tokenizer.all_special_ids] == 0)


def test_a_higher_threshold_leaves_fewer_terms(encoder: Any, texts: list[str]) -> None:
    loose = torch.count_nonzero(encoder.encode(texts).to_dense())
    initialise_head(encoder, texts, threshold=2.0, own_logit=3.0, progress=Silent())
    assert 0 < torch.count_nonzero(encoder.encode(texts).to_dense()) < loose


def test_the_gain_sets_the_logit_of_a_tokens_own_term(encoder: Any, texts: list[str]) -> None:
    logits = encoder.preprocess(texts)
    tokens, present = logits["input_ids"], logits["attention_mask"].bool()
    with torch.no_grad():
        found = encoder[0].auto_model(input_ids=tokens, attention_mask=present.long()).logits
    own = found.gather(2, tokens[..., None])[..., 0]
    ordinary = present & ~torch.isin(tokens, torch.tensor(encoder.tokenizer.all_special_ids))
    assert own[ordinary & (own > 0)].mean() == pytest.approx(3.0, rel=1e-3)


def test_a_head_needs_texts(encoder: Any) -> None:
    with pytest.raises(ConfigError, match="there are none"):
        initialise_head(encoder, [], threshold=1.0, own_logit=3.0, progress=Silent())
