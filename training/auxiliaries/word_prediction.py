"""Predicting a document's words from its vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.auxiliaries.table import Sizes
from training.scored import Scored, wide


class WordPrediction(nn.Module):
    """A document's vector must tell which words the document has: mean -log softmax(W d + b) over its distinct words.

    After the word prediction of Shi, Zhang & Rong, "Query-Response Interactions by Multi-tasks in Semantic Search for
    Chatbot Candidate Retrieval" (MSSNN), 2022, arXiv:2208.11018, which shapes the embedding of a response (of that
    paper only the abstract was at hand); the softmax over several words is that of Weng et al., "Neural Machine
    Translation with Word Predictions", EMNLP 2017, arXiv:1708.01771. MSSNN's other task, a decoder over the query
    encoder, is left out: encoders here are pretrained.

    A document without words counts as 0.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.words = nn.Linear(sizes.width, sizes.vocabulary)

    def forward(self, scored: Scored) -> Tensor:
        """The mean over this device's documents.

        Raises:
            ConfigError: the batch has no token ids, or no single vector for each document.
        """
        ids, is_word = scored.given("tokens")
        log_shares = wide(self.words(scored.vectors("documents"))).log_softmax(1)
        present = torch.zeros_like(log_shares).scatter_reduce(1, ids, is_word.to(log_shares.dtype), "amax")
        each = -(present * log_shares).sum(1) / present.sum(1).clamp(min=1)
        return each.mean()
