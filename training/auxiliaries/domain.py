"""Vectors that do not tell which training set a text is of."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrieval.errors import ConfigError
from training.auxiliaries.table import Sizes
from training.losses.options import Positive
from training.recipe.ranges import Numbers
from training.scored import Scored, wide


class DomainAdversary(nn.Module):
    """A classifier of training sets that learns, behind a gradient reversal that makes the encoder unlearn.

    Ganin & Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", ICML 2015, arXiv:1409.7495; Ganin et al.,
    "Domain-Adversarial Training of Neural Networks", JMLR 2016. The loss is the classifier's cross entropy; its
    gradient reaches the vectors multiplied by -strength. Training sets stand for domains; theirs were one with and
    one without labels.

    Args:
        sizes: width of the vectors and number of training sets.
        who: whose vectors the classifier reads.
        hidden: units of its one hidden layer.
        strength: of the reversed gradient.
        schedule: whether the strength rises as 2 / (1 + exp(-10 p)) - 1 with the share p of the training that is done,
            so that a classifier that knows nothing yet disturbs nothing.

    Raises:
        ConfigError: there is one training set alone, which nothing has to be told from.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        who: Literal["queries", "documents"] = "documents",
        hidden: Annotated[int, Numbers(1)] = 100,
        strength: Positive = 1.0,
        schedule: bool = True,
    ) -> None:
        super().__init__()
        if sizes.domains < 2:
            raise ConfigError(
                "the loss 'domain' tells training sets apart, and there is only one; add a second [[data]] table, or "
                "leave the loss out"
            )
        self.who: Literal["queries", "documents"] = who
        self.strength = strength
        self.schedule = schedule
        self.classifier = nn.Sequential(
            nn.Linear(sizes.width, hidden), nn.ReLU(), nn.Linear(hidden, sizes.domains)
        )

    def forward(self, scored: Scored) -> Tensor:
        """The classifier's mean cross entropy over this device's texts.

        Raises:
            ConfigError: the batch does not say its training sets, or has no single vector for each text.
        """
        domains = scored.given("domains")
        if self.who == "documents":
            domains = domains.repeat_interleave(scored.n)
        strength = self.strength * (ramp(scored.progress) if self.schedule else 1.0)
        vectors: Tensor = _Reversal.apply(scored.vectors(self.who), strength)  # type: ignore[no-untyped-call]
        return functional.cross_entropy(wide(self.classifier(vectors)), domains)


def ramp(progress: float) -> float:
    """From 0 to almost 1 as progress goes from 0 to 1, half-way at 0.11."""
    return 2 / (1 + math.exp(-10 * progress)) - 1


class _Reversal(torch.autograd.Function):
    """The identity, whose gradient is multiplied by -strength."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return vectors.view_as(vectors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None
