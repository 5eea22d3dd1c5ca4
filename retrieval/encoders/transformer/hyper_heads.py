"""From the token vectors of a query to the small network that scores documents for it."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retrieval.encoders.transformer.head_module import HeadModule, in_float32, without_autocast

_SMALL = 0.1
"""How far the hidden layers of networks that begin as inner products move a document, as a share of its length."""


class HyperHead(nn.Module):
    """One matrix of the network: each of its rows is what a learned query of its own attends to, and a learned base."""

    def __init__(self, width: int, rows: int, columns: int) -> None:
        """As the paper's code begins: queries of standard deviation 10, and projections that give next to nothing.

        Args:
            width: H, of a token's vector.
            rows: of the matrix.
            columns: of the matrix, and width of keys, values and learned queries.
        """
        super().__init__()
        self.key, self.value = nn.Linear(width, columns), nn.Linear(width, columns)
        self.project = nn.Linear(columns, columns)
        self.queries = nn.Parameter(10.0 * torch.randn(rows, columns))
        self.base = nn.Parameter(torch.zeros(rows, columns))
        nn.init.normal_(self.project.weight, std=columns**-2)
        for layer in (self.key, self.value, self.project):
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """(B, rows, columns) of token vectors (B, L, H); ``mask`` (B, L) is True for real tokens."""
        seen = None if mask is None else mask[:, None, :]
        queries = self.queries.expand(len(tokens), -1, -1)
        attended = F.scaled_dot_product_attention(
            queries, self.key(tokens), self.value(tokens), attn_mask=seen
        )
        return self.base + self.project(F.layer_norm(F.relu(attended), attended.shape[-1:]))


class HyperHeads(HeadModule):
    """The hypernetwork of a Hypencoder (Killingback, Zeng & Zamani, SIGIR 2025, arXiv:2502.05364).

    Every weight and every bias of the network has a head of its own (``HyperHead``): for each row a learned query
    attends to the query's token vectors, then ReLU, layer normalisation, a linear layer, and a learned base added. See
    ``QueryNetwork`` for the network itself. Its documents are the vectors that the checkpoint pools, by the same
    transformer.

    With ``normalised`` the networks have the paper's form. Without it they begin as what the checkpoint was before:
    the last layer's weight is the query's pooled vector plus what its head gives, and hidden layers are small and not
    normalised; so documents are ranked nearly as by inner products from the first step on, which is what training from
    a good bi-encoder on little data needs.

    With ``mip`` token vectors are divided by their root mean square before the heads see them, the half of Magnitude
    Invariant Parametrizations (Ortiz et al., ICLR 2024, arXiv:2304.07645) that Hypencoders lack. The other half,
    outputs that are added to an independent learned base, they have. The paper makes input norms constant by (cos,
    sin) of numbers from a known range, which token vectors do not have; dividing by the norm does the same for any.
    The parameters of a network then do not change when its query's token vectors grow.
    """

    def __init__(
        self,
        width: int,
        dim: int,
        layers: int = 1,
        hidden: int | None = None,
        normalised: bool = True,
        mip: bool = False,
    ) -> None:
        """Heads to be trained or loaded.

        Args:
            width: of a token's vector.
            dim: D, width of a document's vector, and of a query's pooled one.
            layers: hidden layers; with 0 a network is one inner product.
            hidden: their width; D unless given. It must be D without ``normalised``, where layers add to their input.
            normalised: whether networks have the paper's form.
            mip: whether the magnitude of token vectors is taken away.

        Raises:
            ValueError: a number is below what it may be, or the hidden width does not suit.
        """
        super().__init__()
        if (
            layers < 0
            or (hidden is not None and hidden < 1)
            or (not normalised and hidden not in (None, dim))
        ):
            raise ValueError(
                f"layers {layers} is at least 0, hidden {hidden} at least 1, and without normalised it is {dim}"
            )
        self._arguments = {
            "width": width,
            "dim": dim,
            "layers": layers,
            "hidden": hidden,
            "normalised": normalised,
            "mip": mip,
        }
        self.normalised, self.mip = normalised, mip
        widths = [dim, *[hidden or dim] * layers]
        shapes = [*zip(widths[1:], widths, strict=False), (1, widths[-1])]
        weights = [HyperHead(width, rows, columns) for rows, columns in shapes]
        biases = [HyperHead(width, 1, outputs) for outputs in widths[1:]]
        self.heads, self.n_weights = nn.ModuleList([*weights, *biases]), len(weights)
        self._initialise(weights)

    def _initialise(self, weights: list[HyperHead]) -> None:
        """Bases of weights as the class says; those of biases stay zero."""
        for head in weights if self.normalised else weights[:-1]:
            spread = math.sqrt(2 / head.base.shape[1])
            nn.init.normal_(head.base, std=spread if self.normalised else _SMALL * spread)

    @property
    def config(self) -> dict[str, Any]:
        """The arguments it was made with."""
        return dict(self._arguments)

    def networks(self, tokens: Tensor, mask: Tensor | None, pooled: Tensor) -> tuple[Tensor, ...]:
        """All weights (B, out, in), then all biases (B, out), as ``QueryNetwork.arrays`` has them.

        Args:
            tokens: (B, L, H) token vectors of queries.
            mask: (B, L) True for real tokens; None where all are.
            pooled: (B, D) the vectors of the queries, as documents have them.
        """
        if self.mip:
            tokens = F.rms_norm(tokens, tokens.shape[-1:])
        made = [head(tokens, mask) for head in self.heads]
        weights, biases = made[: self.n_weights], made[self.n_weights :]
        if not self.normalised:
            weights[-1] = weights[-1] + pooled[:, None, :]
        return (*weights, *(bias[:, 0] for bias in biases))

    def forward(self, features: dict[str, Any], task: str | None = None) -> dict[str, Any]:
        """Add ``networks`` to the features of queries, and (B,) ``normalised``; documents pass through."""
        if task == "query":
            tokens = in_float32(features, "token_embeddings")
            with without_autocast(tokens.device):
                features["networks"] = self.networks(
                    tokens, features["attention_mask"].bool(), in_float32(features, "sentence_embedding")
                )
            features["normalised"] = torch.full((len(tokens),), self.normalised, device=tokens.device)
        return features


def network_scores(networks: tuple[Tensor, ...], documents: Tensor, normalised: bool) -> Tensor:
    """Scores with gradients: what ``retrieval.query_networks`` computes, by torch.

    Args:
        networks: of B queries, as ``HyperHeads.networks`` gives them.
        documents: (M, D), scored by every network.
        normalised: whether the networks have the paper's form.

    Returns:
        (B, M).
    """
    n_hidden = len(networks) // 2
    weights, biases = networks[: n_hidden + 1], networks[n_hidden + 1 :]
    x = documents.expand(len(weights[0]), -1, -1)  # (B, M, D)
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=False)):
        y = F.relu(torch.baddbmm(bias[:, None, :], x, weight.transpose(1, 2)))  # (B, M, out)
        if normalised:
            y = F.layer_norm(y, y.shape[-1:])
        adds = weight.shape[1] == weight.shape[2] and not (normalised and number == n_hidden - 1)
        x = x + y if adds else y
    return torch.bmm(x, weights[-1].transpose(1, 2))[:, :, 0]
