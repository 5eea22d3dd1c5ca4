"""How much each token of a late-interaction query counts: a weight for each word piece, without a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from retrieval.encoders.transformer.head_module import HeadModule


class QueryTokenWeights(HeadModule):
    """Scales the vectors of a query's tokens, so that MaxSim becomes a weighted sum; documents pass unchanged.

    A weight of a word piece is the same in every query, so it costs a look-up. (Idea of term weights: Hofstätter et
    al., COLBERTer, arXiv:2203.13088, there computed by the model and on the side of documents.)

    Attributes:
        weight: (V,) by id of the word piece; one below 0 counts as 0.
    """

    def __init__(self, size: int) -> None:
        """Make a table of ones, which changes nothing.

        Args:
            size: of the vocabulary, V.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    @property
    def config(self) -> dict[str, Any]:
        """The size."""
        return {"size": len(self.weight)}

    def scales(self, ids: Tensor) -> Tensor:
        """Weights of word pieces, of the shape of ``ids``."""
        return self.weight.relu()[ids]

    def forward(self, features: Mapping[str, Any], task: str | None = None) -> Mapping[str, Any]:
        """Scale ``token_embeddings`` (B, L, D) where the task is "query"."""
        if (task or features.get("task")) != "query":
            return features
        scales = self.scales(features["input_ids"]).unsqueeze(-1)
        return {**features, "token_embeddings": features["token_embeddings"] * scales}
