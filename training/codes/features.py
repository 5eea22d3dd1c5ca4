"""Features: a sparse code of a text's one vector that keeps the cosines between texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from indexing.progress import Progress
from retrieval.compute import apply_threads, choose_device, choose_dtype
from retrieval.errors import ConfigError

_RATE, _BIAS_RATE, _LAST = 1e-3, 3e-3, 0.1  # of Adam, and the part of them that is left in the end
_SHARPNESS = 15.0  # of cosines, before the softmax
_SQUARES = 20.0  # weight of the squared errors of cosines
_FIRST_BIAS = -0.1
_LOGS = 40


@dataclass(frozen=True, eq=False)
class Features:
    """What makes features of a vector x of H dimensions: relu((x - mean) directions^T + bias), the strongest of it.

    Attributes:
        directions: (S, H) float32.
        bias: (S,) float32.
        mean: (H,) float32.
    """

    directions: NDArray[np.float32]
    bias: NDArray[np.float32]
    mean: NDArray[np.float32]

    def bytes_and_scales(self) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
        """The directions in 8 bits, and what a row of those is multiplied by."""
        scales = np.maximum(np.abs(self.directions).max(axis=1) / 127, 1e-6).astype(np.float16)
        rounded = np.rint(self.directions / scales.astype(np.float32)[:, None])
        return np.clip(rounded, -127, 127).astype(np.int8), scales


@dataclass(frozen=True)
class FeatureTraining:
    """How features are trained.

    Attributes:
        count: S.
        active: features of a text.
        steps: of Adam.
        batch: texts of a step.
        seed: of the start and the batches.
    """

    count: int
    active: int
    steps: int
    batch: int
    seed: int


def train_features(
    sets: Sequence[NDArray[np.float16]], training: FeatureTraining, progress: Progress
) -> tuple[Features, list[dict[str, float]]]:
    """Features whose cosines are those of the vectors.

    Within a batch, which comes from one set, the softmax of each text's cosines to all others is distilled (KL), and
    the cosines themselves up to a constant. A contrastive sparse representation (CSR, Wen et al., arXiv:2503.01776)
    with the vectors' own cosines as the teacher, no decoder, and rows of the data for a start.

    Args:
        sets: (N, H) unit vectors of the texts of each set.
        training: how.
        progress: advances by one for each step.

    Returns:
        The features and the curve of the loss.

    Raises:
        ConfigError: there are fewer vectors than features.
    """
    apply_threads()
    device = choose_device("auto")
    generator = torch.Generator().manual_seed(training.seed)
    model = _Model.start(sets, training, generator, device)
    optimiser = torch.optim.Adam(
        [{"params": [model.directions], "lr": _RATE}, {"params": [model.bias], "lr": _BIAS_RATE}]
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: 1 - (1 - _LAST) * step / training.steps
    )
    progress.start("features", training.steps, "steps")
    every = max(1, training.steps // _LOGS)
    curve: list[dict[str, float]] = []
    for step in range(training.steps):
        vectors = sets[step % len(sets)]
        rows = torch.randint(len(vectors), (training.batch,), generator=generator).numpy()
        loss = model.loss(torch.from_numpy(vectors[rows].astype(np.float32)).to(device))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if (step + 1) % every == 0:
            curve.append({"step": step + 1, "loss": float(loss.detach())})
        progress.advance(1)
    return model.features(), curve


@dataclass(frozen=True)
class _Model:
    directions: Tensor
    bias: Tensor
    mean: Tensor
    active: int
    dtype: torch.dtype

    @classmethod
    def start(
        cls,
        sets: Sequence[NDArray[np.float16]],
        training: FeatureTraining,
        generator: torch.Generator,
        device: str,
    ) -> _Model:
        """Directions of random texts, off the mean."""
        total = sum(len(part) for part in sets)
        if total < training.count:
            raise ConfigError(
                f"{training.count} features are to be made of {total} texts and windows; lower "
                "model.options.features, or raise the number of documents"
            )
        sums = [part.sum(axis=0, dtype=np.float64) / len(part) for part in sets]
        mean = torch.from_numpy(np.mean(sums, axis=0).astype(np.float32))
        chosen = np.sort(torch.randperm(total, generator=generator)[: training.count].numpy())
        vectors = torch.from_numpy(np.concatenate(sets)[chosen].astype(np.float32))
        directions = F.normalize(vectors - mean, dim=1).to(device)
        bias = torch.full((training.count,), _FIRST_BIAS, device=device)
        return cls(
            directions.requires_grad_(),
            bias.requires_grad_(),
            mean.to(device),
            training.active,
            getattr(torch, choose_dtype(device)),
        )

    def code(self, vectors: Tensor) -> Tensor:
        """(B, S) of unit length."""
        low = self.dtype
        found = F.relu(((vectors - self.mean).to(low) @ self.directions.to(low).T).float() + self.bias)
        best = found.topk(min(self.active, found.shape[1]), dim=1)
        return F.normalize(torch.zeros_like(found).scatter(1, best.indices, best.values), dim=1)

    def loss(self, vectors: Tensor) -> Tensor:
        """Of a batch of unit vectors (B, H)."""
        code = self.code(vectors)
        low = code.to(self.dtype)
        student, teacher = (low @ low.T).float(), vectors @ vectors.T
        others = ~torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
        ranked, wanted = (
            F.log_softmax((_SHARPNESS * scores).masked_fill(~others, -1e4), dim=1)
            for scores in (student, teacher)
        )
        divergence = F.kl_div(ranked, wanted, log_target=True, reduction="batchmean")
        return divergence + _SQUARES * (student - teacher)[others].var(correction=0)

    def features(self) -> Features:
        parts = (self.directions, self.bias, self.mean)
        return Features(*(part.detach().cpu().numpy() for part in parts))
