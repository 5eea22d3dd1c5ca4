"""Rerankers: query and document read together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from indexing.progress import Progress
from retrieval.encoders.options import read_options
from retrieval.encoders.transformer.location import locate
from retrieval.errors import ConfigError
from retrieval.topk import top_k
from retrieval.values import Hits
from training.families.candidates import bm25_candidates
from training.families.encoding import BATCH, measuring
from training.families.family import Features, Sample, Task
from training.families.opening import drop_layers, is_low_rank, limit_length, load, restrict, save_merged
from training.recipe.options import ModelOptions
from training.scored import Representation

_CANDIDATES = 50  # of BM25, that are put in order to measure


class RerankerFamily:
    """A ``CrossEncoder`` with one output (Nogueira & Cho, arXiv:1901.04085); of any other model, with a new one.

    What it gives is the logit that was trained, without the sigmoid that sentence-transformers gives a single output by
    itself: as a teacher's, scores between 0 and 1 would tell good documents hardly apart.
    """

    joint = True

    def open(self, options: ModelOptions, seed: int, sample: Sample, progress: Progress) -> Any:
        """See ``Family``; there are no options of its own."""
        from sentence_transformers import CrossEncoder

        read_options("reranker", options.options, {})
        if options.query_layers is not None:
            raise ConfigError("a reranker reads query and document together; leave model.query_layers out")
        torch.manual_seed(seed)
        folder = locate(options.base)
        model = load(CrossEncoder, folder, num_labels=1, activation_fn=nn.Identity())
        limit_length(model, folder, options)
        drop_layers(model, options)
        return restrict(model, options, self.is_new)

    def features(self, model: Any, texts: Sequence[Any], task: Task) -> Features:
        """Of pairs (query, document)."""
        features: dict[str, Any] = model.preprocess([tuple(pair) for pair in texts])
        return features

    def represent(self, model: Any, features: Features, task: Task) -> Representation:
        """``(logits (M,),)``."""
        return (model(dict(features))["scores"].float().flatten(),)

    def score(self, queries: Representation, documents: Representation) -> Tensor:
        """See ``Family``."""
        raise NotImplementedError("a reranker scores pairs")

    def is_new(self, parameter: str) -> bool:
        """The classifier, and low-rank updates."""
        return "classifier." in parameter or is_low_rank(parameter)  # DistilBERT has a "pre_classifier" too

    def search(
        self, model: Any, queries: Sequence[str], documents: Sequence[str], k: int, progress: Progress
    ) -> tuple[Hits, dict[str, float]]:
        """The best candidates of BM25 in the model's order."""
        found = bm25_candidates(queries, documents, min(_CANDIDATES, len(documents)))
        scores = np.full(found.rows.shape, -np.inf, dtype=np.float32)
        with measuring(model):
            for number, (query, rows) in enumerate(zip(queries, found.rows, strict=True)):
                pairs = [(query, documents[row]) for row in rows[rows >= 0]]
                if pairs:
                    scores[number, : len(pairs)] = model.predict(
                        pairs, batch_size=BATCH, show_progress_bar=False
                    )
                progress.advance(1)
        progress.advance(len(documents))
        return top_k(scores, k, found.rows), {}

    def finish(self, model: Any, options: ModelOptions, sample: Sample, progress: Progress) -> None:
        """Nothing."""

    def save(self, model: Any, folder: Path) -> None:
        """See ``Family``."""
        save_merged(model, folder)


RERANKER = RerankerFamily()
"""The family."""
