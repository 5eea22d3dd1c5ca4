"""A masked-language head for a model that has none, with a closed-form start that makes it a lexical encoder.

A dense model such as all-MiniLM-L6-v2 has lost its own head, and the pairs at hand are too few to teach a random one
what words mean. The ridge regression here makes each token say its own word piece and its neighbours before the
first step of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from indexing.progress import Progress
from retrieval.errors import ConfigError
from training.families.encoding import BATCH
from training.families.opening import load

_LINEAR = 4.0  # GELU leaves what is above it (in standard deviations) all but unchanged
_RIDGE = 1e-2  # of the mean variance of the token vectors


def with_head(folder: Path, activation: str) -> Any:
    """A ``SparseEncoder`` whose encoder is the model's and whose head is random, tied to its word embeddings.

    Args:
        folder: a BERT checkpoint, of sentence-transformers or of transformers.
        activation: of the pooling, ``relu`` or ``log1p_relu``.

    Raises:
        ConfigError: the model is no BERT.
    """
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.modules import SpladePooling, Transformer
    from transformers import BertForMaskedLM

    def transformer_of(name: str, model_kwargs: dict[str, Any], **_: Any) -> Any:
        return Transformer(name, transformer_task="fill-mask", model_kwargs=model_kwargs)

    transformer = load(transformer_of, folder)
    if not isinstance(transformer.auto_model, BertForMaskedLM):
        raise ConfigError(f"{folder}: a {type(transformer.auto_model).__name__}; the head is made for BERT")
    vocabulary = transformer.auto_model.config.vocab_size
    pooling = SpladePooling("max", activation_function=activation, embedding_dimension=vocabulary)
    return SparseEncoder(modules=[transformer, pooling], similarity_fn_name="dot", device="cpu")


def initialise_head(
    encoder: Any, texts: Sequence[str], threshold: float, own_logit: float, progress: Progress
) -> None:
    """Make the head lexical in closed form, from the token vectors of some texts.

    The dense layer is the ridge regression from a token's final vector to its centred word embedding, so a
    position's logits are highest at its own word piece and then at its neighbours. A large bias keeps GELU in its
    linear part; LayerNorm, blind to a constant, takes the bias off again. The output bias puts each term's zero
    ``threshold`` standard deviations above its mean over the texts, which silences what is common everywhere
    (stop words among them) and leaves documents sparse from the first step. Special tokens are never terms.

    Args:
        encoder: what ``with_head`` returned; changed in place.
        texts: a sample of queries and documents.
        threshold: in standard deviations of a term's logit.
        own_logit: what LayerNorm's gain makes the mean positive logit of a token for its own term.
        progress: told of each text.

    Raises:
        ConfigError: there is no text.
    """
    if not texts:
        raise ConfigError("the head starts from the token vectors of some texts; there are none")
    model, special = encoder[0].auto_model, encoder.tokenizer.all_special_ids
    head = model.cls.predictions
    words = model.get_input_embeddings().weight.detach()
    vectors, tokens = _token_vectors(encoder, texts, progress)
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


def _token_vectors(encoder: Any, texts: Sequence[str], progress: Progress) -> tuple[Tensor, Tensor]:
    """(T, D) final vectors of every token of the texts and (T,) their word pieces."""
    progress.start("fitting the head", len(texts), "texts")
    vectors, tokens = [], []
    with torch.no_grad():
        for start in range(0, len(texts), BATCH):
            part = list(texts[start : start + BATCH])
            features = encoder.preprocess(part)
            asked = {name: features[name] for name in ("input_ids", "attention_mask")}
            present = asked["attention_mask"].bool()
            vectors.append(encoder[0].auto_model.bert(**asked).last_hidden_state[present])
            tokens.append(asked["input_ids"][present])
            progress.advance(len(part))
    return torch.cat(vectors), torch.cat(tokens)


def _ridge(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (E, D) and bias (E,) of the regularised least squares from inputs (T, D) to targets (T, E)."""
    mean, target_mean = inputs.mean(0), targets.mean(0)
    centred = inputs - mean
    covariance = centred.T @ centred / len(inputs)
    covariance += _RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance))
    weights = torch.linalg.solve(covariance, centred.T @ (targets - target_mean) / len(inputs)).T
    return weights, target_mean - weights @ mean
