"""Dense models: one vector a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indexing.progress import Progress
from retrieval.encoders.options import read_options
from retrieval.encoders.transformer.location import locate
from retrieval.exact import dense_scores
from retrieval.topk import top_k
from retrieval.values import Dense, Hits
from training.families.encoding import encoded, read
from training.families.family import Features, Sample, Task
from training.families.layers import two_towers, with_modules
from training.families.opening import drop_layers, is_low_rank, limit_length, load, restrict, save_even
from training.recipe.options import ModelOptions
from training.scored import Representation


class DenseFamily:
    """Any checkpoint of sentence-transformers with one vector a text; cosine where the checkpoint says so."""

    joint = False

    def open(self, options: ModelOptions, seed: int, sample: Sample, progress: Progress) -> Any:
        """See ``Family``; there are no options of its own."""
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Normalize

        read_options("dense", options.options, {})
        torch.manual_seed(seed)
        folder = locate(options.base)
        model = load(SentenceTransformer, folder)
        modules = list(model.children())
        if model.similarity_fn_name == "cosine" and not isinstance(modules[-1], Normalize):
            model = with_modules(model, [*modules, Normalize()])
        limit_length(model, folder, options)
        drop_layers(model, options)
        if options.query_layers is not None:
            model = two_towers(model, options.query_layers)
        return restrict(model, options, self.is_new)

    def features(self, model: Any, texts: Sequence[Any], task: Task) -> Features:
        """See ``Family``."""
        return read(model, texts, task)

    def represent(self, model: Any, features: Features, task: Task) -> Representation:
        """``(vectors (M, D),)``."""
        return (model(dict(features), task=task)["sentence_embedding"],)

    def score(self, queries: Representation, documents: Representation) -> Tensor:
        """Inner products."""
        return queries[0].float() @ documents[0].float().T

    def is_new(self, parameter: str) -> bool:
        """Low-rank updates."""
        return is_low_rank(parameter)

    def search(
        self, model: Any, queries: Sequence[str], documents: Sequence[str], k: int, progress: Progress
    ) -> tuple[Hits, dict[str, float]]:
        """See ``Family``."""
        rows = encoded(model, queries, "query", progress, convert_to_numpy=True)
        columns = encoded(model, documents, "document", progress, convert_to_numpy=True)
        return top_k(dense_scores(_dense(rows), _dense(columns)), k), {}

    def finish(self, model: Any, options: ModelOptions, sample: Sample, progress: Progress) -> None:
        """Nothing."""

    def save(self, model: Any, folder: Path) -> None:
        """See ``Family``."""
        save_even(model, folder)


def _dense(parts: Sequence[NDArray[np.float32]]) -> Dense:
    return Dense(np.concatenate(parts).astype(np.float32))


DENSE = DenseFamily()
"""The family."""
