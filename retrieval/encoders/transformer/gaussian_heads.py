"""Texts as normal distributions, folded so that an inner product compares two of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retrieval.encoders.transformer.head_module import HeadModule, in_float32, without_autocast

FLOOR = 1e-4
"""The least variance: a document's vector has its inverse."""

_LARGEST_LOG = 80.0
"""Of a product of variances in the paper's form: float32 holds e^88."""

Fold = Callable[[Tensor, Tensor], Tensor]
"""(M, k) means and (M, k) variances to (M, 2 k + 1) or (M, 2 k + 2) vectors."""


def exact_query(mean: Tensor, variance: Tensor) -> Tensor:
    """``[1, mean^2 + variance - 1, mean]``."""
    return torch.cat([torch.ones_like(mean[:, :1]), mean**2 + variance - 1, mean], dim=1)


def exact_document(mean: Tensor, variance: Tensor) -> Tensor:
    """``[-2 KL(N || D), 1 - 1 / variance, 2 mean / variance]``, N the standard normal distribution.

    The inner product with a query's vector is 2 KL(Q || N) - 2 KL(Q || D): how much better D describes the query than
    N does. The first term is the same for all documents. Written as in the paper, without it, components are sums of
    hundreds of numbers near 1 that cancel each other, and vectors are long and nearly parallel: codes of a byte and
    graphs over inner products cannot tell them apart.
    """
    prior = -(variance.log() + (mean**2 + 1) / variance - 1).sum(dim=1, keepdim=True)
    return torch.cat([prior, 1 - 1 / variance, 2 * mean / variance], dim=1)


def paper_query(mean: Tensor, variance: Tensor) -> Tensor:
    """``[1, prod variance, mean^2, mean]``, as published."""
    return torch.cat([torch.ones_like(mean[:, :1]), _product(variance, 1.0), mean**2, mean], dim=1)


def paper_document(mean: Tensor, variance: Tensor) -> Tensor:
    """``[gamma, -1 / prod variance, -1 / variance, 2 mean / variance]``, as published."""
    gamma = -(variance.log() + mean**2 / variance).sum(dim=1, keepdim=True)
    return torch.cat([gamma, -_product(variance, -1.0), -1 / variance, 2 * mean / variance], dim=1)


def _product(variance: Tensor, power: float) -> Tensor:
    """(M, 1) the product of the variances, or of their inverses, within float32."""
    exponent = power * variance.log().sum(dim=1, keepdim=True)
    return exponent.clamp(-_LARGEST_LOG, _LARGEST_LOG).exp()


FORMS: dict[str, tuple[Fold, Fold]] = {
    "exact": (exact_query, exact_document),
    "paper": (paper_query, paper_document),
}
"""Name -> what folds a query and a document."""


class GaussianHeads(HeadModule):
    """Mean and variance of a text (Zamani & Bendersky, "Multivariate Representation Learning", SIGIR 2023).

    A text is a normal distribution of k independent dimensions. Its mean is a linear function of the pooled vector; its
    variance ``softplus(linear(x), beta)`` of the first token's vector x. Documents are ranked by the negative
    Kullback-Leibler divergence KL(Q || D), which is an inner product of vectors folded from both.

    Deviations: the paper puts a token [VAR] of its own behind [CLS] and reads mean and variance from the two; here
    [CLS] is read for the variance, so that no checkpoint needs another vocabulary, and the mean from what the
    checkpoint pools. The form ``paper`` has the product of the ratios of variances where the divergence has their sum
    (the trace of diagonal matrices); the form ``exact`` has the divergence itself. Products of variances beyond
    e^80 are cut off there.

    At first the mean is the pooled vector, if there are as many dimensions, and every variance is 1: the ranking is by
    distance from the query's pooled vector.

    Attributes:
        reference: (k,) variances that the exact form is relative to. Both distributions are divided by them, which
            changes no divergence; see ``exact_document`` and ``refer_to``.
    """

    reference: Tensor

    def __init__(self, width: int, pooled: int, dim: int, form: str = "exact", beta: float = 1.0) -> None:
        """Heads to be trained or loaded.

        Args:
            width: of a token's vector.
            pooled: width of the pooled vector.
            dim: k, dimensions of the distribution, at most ``pooled``.
            form: a name of ``FORMS``.
            beta: of the softplus, above 0: the larger, the nearer it is to a ReLU.

        Raises:
            ValueError: an argument is none of these.
        """
        super().__init__()
        if form not in FORMS or not 1 <= dim <= pooled or beta <= 0:
            raise ValueError(
                f"form {form!r} is one of {', '.join(FORMS)}, dim {dim} is from 1 to {pooled}, beta {beta} above 0"
            )
        self._arguments = {"width": width, "pooled": pooled, "dim": dim, "form": form, "beta": beta}
        self.dim, self.form, self.beta = dim, form, beta
        mean, variance = nn.Linear(pooled, dim), nn.Linear(width, dim)
        nn.init.eye_(mean.weight)
        nn.init.zeros_(mean.bias)
        nn.init.zeros_(variance.weight)
        nn.init.constant_(variance.bias, math.log(math.expm1(beta * (1 - FLOOR))) / beta)
        self.heads = nn.ModuleDict({"mean": mean, "variance": variance})
        self.register_buffer("reference", torch.ones(dim))

    @property
    def config(self) -> dict[str, Any]:
        """The arguments it was made with."""
        return dict(self._arguments)

    @property
    def vector_dim(self) -> int:
        """The width of the vectors: 2 k + 1, or 2 k + 2 in the paper's form."""
        return 2 * self.dim + (1 if self.form == "exact" else 2)

    def distribution(self, pooled: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """(M, k) means and variances of (M, P) pooled vectors and (M, H) vectors of first tokens."""
        variance = F.softplus(self.heads["variance"](first), beta=self.beta) + FLOOR
        return self.heads["mean"](pooled), variance

    def folded(self, mean: Tensor, variance: Tensor, task: str) -> Tensor:
        """(M, ``vector_dim``) for the task "query" or "document"."""
        if self.form == "exact":
            mean, variance = mean / self.reference.sqrt(), variance / self.reference
        return FORMS[self.form][0 if task == "query" else 1](mean, variance)

    def refer_to(self, variance: Tensor) -> None:
        """Compare documents with distributions of these variances, instead of 1; no ranking changes.

        Args:
            variance: (M, k) of typical documents. Their inverses are averaged, so that the components
                ``1 - reference / variance`` of documents vary around zero.
        """
        self.reference.copy_(1 / (1 / variance).mean(dim=0))

    def forward(self, features: dict[str, Any], task: str | None = None) -> dict[str, Any]:
        """Replace ``sentence_embedding`` and add (M, k) ``variance``; a text of no task is a document."""
        with without_autocast(features["sentence_embedding"].device):
            first = in_float32(features, "token_embeddings")[:, 0]
            mean, variance = self.distribution(in_float32(features, "sentence_embedding"), first)
            features["sentence_embedding"] = self.folded(mean, variance, task or "document")
        features["variance"] = variance
        return features
