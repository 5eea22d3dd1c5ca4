"""Hypencoders: a document is a vector, a query a small network that scores it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from indexing.progress import Progress
from retrieval.encoders.options import Option
from retrieval.encoders.transformer.hyper_heads import HyperHeads, network_scores
from retrieval.query_networks import best_rows
from retrieval.values import Dense, Hits, QueryNetwork
from training.families.dense import DenseFamily
from training.families.encoding import BATCH, encoded, measuring
from training.families.family import Features, Sample, Task
from training.families.headed import is_new, open_headed, run_headed
from training.recipe.options import ModelOptions
from training.scored import Representation

OPTIONS: dict[str, Option] = {
    "layers": Option(int, default=1, least=0),
    "hidden": Option(int, least=1),
    "normalised": Option(bool, default=False),
    "mip": Option(bool, default=False),
}
"""``layers``: hidden layers of a query's network; ``hidden``: their width, by default that of the vectors;
``normalised``: networks in the paper's form instead of one that begins as an inner product; ``mip``: without the
magnitude of token vectors. See ``HyperHeads``."""


class HypencoderFamily(DenseFamily):
    """A dense model with ``HyperHeads`` (Killingback, Zeng & Zamani, SIGIR 2025, arXiv:2502.05364)."""

    def open(self, options: ModelOptions, seed: int, sample: Sample, progress: Progress) -> Any:
        """See ``Family``; ``OPTIONS`` are its own."""
        return open_headed(
            "hypencoder",
            options,
            seed,
            OPTIONS,
            HyperHeads,
            lambda width, pooled, chosen: HyperHeads(width, pooled, **chosen),
        )

    def represent(self, model: Any, features: Features, task: Task) -> Representation:
        """Of documents ``(vectors (M, D),)``.

        Of queries all weights (B, out, in) and all biases (B, out) of their networks, and (B,) bool, whether these
        have the paper's form.
        """
        made = model(dict(features), task=task)
        if task == "document":
            return (made["sentence_embedding"],)
        networks: tuple[Tensor, ...] = made["networks"]
        return (*networks, made["normalised"])

    def score(self, queries: Representation, documents: Representation) -> Tensor:
        """The output of every query's network for every document."""
        *networks, normalised = queries
        with torch.autocast(documents[0].device.type, enabled=False):
            return network_scores(tuple(networks), documents[0].float(), bool(normalised.all()))

    def is_new(self, parameter: str) -> bool:
        """Heads and low-rank updates."""
        return is_new(parameter)

    def search(
        self, model: Any, queries: Sequence[str], documents: Sequence[str], k: int, progress: Progress
    ) -> tuple[Hits, dict[str, float]]:
        """See ``Family``."""
        parts = encoded(model, documents, "document", progress, convert_to_numpy=True)
        vectors = Dense(np.concatenate(parts).astype(np.float32))
        found = []
        for start in range(0, len(queries), BATCH):
            part = queries[start : start + BATCH]
            found.append(best_rows(self._networks(model, part), vectors, None, k))
            progress.advance(len(part))
        return Hits.concat(found), {}

    def _networks(self, model: Any, texts: Sequence[str]) -> QueryNetwork:
        with measuring(model):
            made = run_headed(model, texts, "query")
        arrays = [part.float().cpu().numpy() for part in made["networks"]]
        return QueryNetwork.of(arrays, bool(made["normalised"].all()))


HYPENCODER = HypencoderFamily()
"""The family."""
