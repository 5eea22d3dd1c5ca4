"""Queries without a model: a weight for each term, which starts from how rare the term is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from retrieval.errors import ConfigError
from training.families.layers import with_modules

_GROUP = 1000  # documents tokenised at once


def with_query_table(model: Any, documents: Sequence[str], *, trained: bool) -> Any:
    """The model for documents, and for queries a table of weights that starts as their IDF (Geng et al., 2411.04403).

    Args:
        model: a ``SparseEncoder`` over its tokenizer's vocabulary.
        documents: a sample that terms are counted in.
        trained: whether the weights go on to learn.

    Raises:
        ConfigError: the tokenizer knows fewer or more terms than the model has dimensions.
    """
    from sentence_transformers.base.modules import Router
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding

    size = model[0].auto_model.config.vocab_size
    known = len(model.tokenizer.get_vocab())
    if known != size:
        raise ConfigError(
            f"a table of query weights needs a term for each of {size} dimensions; there are {known}"
        )
    weights = inverse_document_frequencies(model.tokenizer, documents, size)
    table = SparseStaticEmbedding(tokenizer=model.tokenizer, weight=weights, frozen=not trained)
    router = Router.for_query_document([table], list(model.children()), default_route="document")
    return with_modules(model, [router])


def inverse_document_frequencies(tokenizer: Any, documents: Sequence[str], size: int) -> Tensor:
    """(V,) log(1 + (N - n + 0.5) / (n + 0.5)) of a term that n of N documents have; 0 for special tokens.

    Args:
        tokenizer: of transformers.
        documents: N texts; each is read as far as the tokenizer's maximum length.
        size: of the vocabulary, V.
    """
    counts = torch.zeros(size)
    for start in range(0, len(documents), _GROUP):
        part = list(documents[start : start + _GROUP])
        for ids in tokenizer(part, add_special_tokens=False, truncation=True)["input_ids"]:
            counts[torch.tensor(sorted(set(ids)), dtype=torch.long)] += 1
    weights = torch.log1p((len(documents) - counts + 0.5) / (counts + 0.5))
    weights[torch.tensor(tokenizer.all_special_ids)] = 0.0
    return weights


def query_weights(model: nn.Module) -> Tensor | None:
    """(V,) the table of a model whose queries are read without a model; None of any other."""
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding

    tables = [part.weight for part in model.modules() if isinstance(part, SparseStaticEmbedding)]
    return tables[0] if tables else None
