"""Multivariate models: a text is a normal distribution, folded into one vector."""

from __future__ import annotations

from typing import Any

import torch

from indexing.progress import Progress
from retrieval.encoders.options import Option
from retrieval.encoders.transformer.gaussian_heads import GaussianHeads
from training.families.dense import DenseFamily
from training.families.encoding import BATCH, measuring
from training.families.family import Sample
from training.families.headed import is_new, open_headed, run_headed
from training.recipe.options import ModelOptions

OPTIONS: dict[str, Option] = {
    "dim": Option(int, least=1),
    "form": Option(str, default="exact"),
    "beta": Option(float, default=1.0),
}
"""``dim``: dimensions of the distributions, by default as many as the base's vectors have; ``form``: ``exact`` or
``paper``, what vectors are folded to; ``beta``: of the softplus that makes variances."""


_TYPICAL = 1000  # documents whose variances are averaged


class MultivariateFamily(DenseFamily):
    """A dense model with ``GaussianHeads`` (Zamani & Bendersky, SIGIR 2023, arXiv:2304.14522).

    A representation is the folded vectors, whose inner product is the score; training sees what an index will.
    """

    def open(self, options: ModelOptions, seed: int, sample: Sample, progress: Progress) -> Any:
        """See ``Family``; ``OPTIONS`` are its own. The untrained model ranks by distance of the base's vectors."""

        def heads(width: int, pooled: int, chosen: dict[str, Any]) -> GaussianHeads:
            dim = chosen["dim"] or pooled
            return GaussianHeads(width, pooled, dim, chosen["form"], chosen["beta"])

        return open_headed("multivariate", options, seed, OPTIONS, GaussianHeads, heads)

    def finish(self, model: Any, options: ModelOptions, sample: Sample, progress: Progress) -> None:
        """Refer vectors to the variances that documents have now; no ranking changes."""
        texts = sample.documents[:_TYPICAL]
        groups = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
        with measuring(model):
            variances = [run_headed(model, group, "document")["variance"] for group in groups]
            if variances:
                list(model.children())[-1].refer_to(torch.cat(variances))

    def is_new(self, parameter: str) -> bool:
        """Heads and low-rank updates."""
        return is_new(parameter)


MULTIVARIATE = MultivariateFamily()
"""The family."""
