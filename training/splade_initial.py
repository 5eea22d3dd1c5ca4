"""The head's closed-form start: a ridge regression that makes the model a lexical encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from training.splade_encoder import BATCH

_LINEAR = 4.0  # GELU leaves what is above it (in standard deviations) all but unchanged
_RIDGE = 1e-2  # of the mean variance of the token vectors


def initialise_head(encoder: Any, texts: Sequence[str], threshold: float, own_logit: float) -> None:
    """Make the head lexical in closed form, from the token vectors of some texts.

    The dense layer is the ridge regression from a token's final vector to its centred word embedding, so a
    position's logits are highest at its own word piece and then at its neighbours. A large bias keeps GELU in its
    linear part; LayerNorm, blind to a constant, takes the bias off again. The output bias puts each term's zero
    ``threshold`` standard deviations above its mean over the texts, which silences what is common everywhere
    (stop words among them) and leaves documents sparse from the first step. Special tokens are never terms.

    Args:
        encoder: what ``splade_encoder`` returned; changed in place.
        texts: a sample of queries and documents.
        threshold: in standard deviations of a term's logit.
        own_logit: what LayerNorm's gain makes the mean positive logit of a token for its own term.
    """
    model, special = encoder[0].auto_model, encoder.tokenizer.all_special_ids
    head = model.cls.predictions
    words = model.get_input_embeddings().weight.detach()
    vectors, tokens = _token_vectors(encoder, texts)
    ordinary = ~torch.isin(tokens, torch.tensor(special))
    weights, bias = _ridge(vectors[ordinary], (words - words.mean(0))[tokens[ordinary]])
    spread = (vectors @ weights.T + bias).std()
    with torch.no_grad():
        head.transform.dense.weight.copy_(weights / spread)
        head.transform.dense.bias.copy_(bias / spread + _LINEAR)
        head.transform.LayerNorm.weight.fill_(1.0)
        head.transform.LayerNorm.bias.zero_()
        outputs = head.transform(vectors)
        deviations = ((words @ torch.cov(outputs.T)) * words).sum(1).clamp(min=0).sqrt()
        zeros = words @ outputs.mean(0) + threshold * deviations
        own = (outputs * words[tokens]).sum(1) - zeros[tokens]
        gain = own_logit / own[ordinary & (own > 0)].mean().nan_to_num(own_logit)
        head.transform.LayerNorm.weight.fill_(gain)
        head.bias.copy_(-zeros * gain)
        head.bias[special] = -1e4


def _token_vectors(encoder: Any, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """(T, D) final vectors of every token of the texts and (T,) their word pieces."""
    vectors, tokens = [], []
    with torch.no_grad():
        for start in range(0, len(texts), BATCH):
            features = encoder.preprocess(list(texts[start : start + BATCH]))
            asked = {name: features[name] for name in ("input_ids", "attention_mask")}
            present = asked["attention_mask"].bool()
            vectors.append(encoder[0].auto_model.bert(**asked).last_hidden_state[present])
            tokens.append(asked["input_ids"][present])
    return torch.cat(vectors), torch.cat(tokens)


def _ridge(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (E, D) and bias (E,) of the regularised least squares from inputs (T, D) to targets (T, E)."""
    mean, target_mean = inputs.mean(0), targets.mean(0)
    centred = inputs - mean
    covariance = centred.T @ centred / len(inputs)
    covariance += _RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance))
    weights = torch.linalg.solve(covariance, centred.T @ (targets - target_mean) / len(inputs)).T
    return weights, target_mean - weights @ mean
