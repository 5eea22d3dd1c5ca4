"""The head's closed-form start: what terms a text has before any training."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from training.splade_initial import initialise_head


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
    initialise_head(encoder, texts, threshold=2.0, own_logit=3.0)
    assert 0 < torch.count_nonzero(encoder.encode(texts).to_dense()) < loose


def test_the_gain_sets_the_logit_of_a_tokens_own_term(encoder: Any, texts: list[str]) -> None:
    logits = encoder.preprocess(texts)
    tokens, present = logits["input_ids"], logits["attention_mask"].bool()
    with torch.no_grad():
        found = encoder[0].auto_model(input_ids=tokens, attention_mask=present.long()).logits
    own = found.gather(2, tokens[..., None])[..., 0]
    ordinary = present & ~torch.isin(tokens, torch.tensor(encoder.tokenizer.all_special_ids))
    assert own[ordinary & (own > 0)].mean() == pytest.approx(3.0, rel=1e-3)
