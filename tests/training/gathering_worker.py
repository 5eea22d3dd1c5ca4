"""One of several processes that share a batch: gradients of every loss, as DistributedDataParallel averages them.

    python gathering_worker.py RANK WORLD FOLDER

Processes meet at a file in the folder; each writes its losses and gradients there as ``RANK-of-WORLD.pt``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.util import maxsim
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from training.auxiliaries.table import AUXILIARIES, Sizes, open_auxiliary
from training.losses.matryoshka import with_prefixes
from training.losses.ranking import ranking
from training.losses.table import LOSSES, open_loss
from training.scored import Scored
from training.trainer.gathering import gather_documents, queries_before

QUERIES, N, INPUT, WIDTH, VOCABULARY = 4, 3, 5, 6, 11
"""Of all devices together, but for the widths."""


class Step(nn.Module):
    """Encodes queries and documents by one layer and takes a loss, as one module whose gradients are averaged."""

    def __init__(self, loss: Callable[[Scored], Tensor], late: bool) -> None:
        super().__init__()
        self.encoder = nn.Linear(INPUT, WIDTH, dtype=torch.float64)
        self.loss = loss
        self.late = late

    def forward(self, batch: dict[str, Any]) -> Tensor:
        asked, found = (self.encoder(batch[side]).relu() for side in ("queries", "documents"))
        own = (found, batch["mask"]) if self.late else (found,)
        everywhere = gather_documents(own)
        if self.late:
            scores = maxsim(asked, everywhere[0], b_mask=everywhere[1]).double()
        else:
            scores = asked @ everywhere[0].T
        given = {name: batch[name] for name in GIVEN}
        return self.loss(
            Scored(
                scores, N, queries_before(len(scores)), queries=(asked,), documents=own, progress=0.5, **given
            )
        )


GIVEN = ("labels", "teacher", "teacher_batch", "rivals", "domains", "tokens", "idf")


def share(late: bool, rank: int, world: int) -> dict[str, Any]:
    """What one of the devices holds of the batch, the same batch whatever the number of devices."""
    random = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    lengths = torch.tensor([2, 1, 3, 2, 2, 1, 5, 4, 2, 1, 3, 5])
    rivals = torch.rand(QUERIES, QUERIES * N, generator=random) < 0.2
    rivals[torch.block_diag(*[torch.ones(1, N)] * QUERIES) > 0] = False
    ids = torch.randint(VOCABULARY, (QUERIES * N, 7), generator=random)
    by_query = {
        "queries": normal(QUERIES, 2, INPUT) if late else normal(QUERIES, INPUT),
        "labels": torch.tensor([[1.0, 0.0, 0.0], [1, 1, 0], [2, 0, 0], [1, 1, 0]], dtype=torch.float64),
        "teacher": normal(QUERIES, N),
        "teacher_batch": normal(QUERIES, QUERIES * N),
        "rivals": rivals,
        "domains": torch.arange(QUERIES) % 2,
    }
    by_document = {
        "documents": normal(QUERIES * N, 5, INPUT) if late else normal(QUERIES * N, INPUT),
        "mask": torch.arange(5) < lengths[:, None],
        "ids": ids,
        "words": ids > 2,
    }
    queries = slice(rank * QUERIES // world, (rank + 1) * QUERIES // world)
    documents = slice(queries.start * N, queries.stop * N)
    held = {name: value[queries] for name, value in by_query.items()}
    held |= {name: value[documents] for name, value in by_document.items()}
    if late:  # each device pads its documents to its own longest
        longest = int(lengths[documents].max())
        held |= {name: held[name][:, :longest] for name in ("documents", "mask")}
    return held | {"tokens": (held["ids"], held["words"]), "idf": torch.linspace(0, 8, WIDTH).double()}


def cases() -> dict[str, Callable[[], Any]]:
    """Name -> what makes the loss."""
    made: dict[str, Callable[[], Any]] = {name: lambda name=name: open_loss(name) for name in LOSSES}
    sizes = Sizes(WIDTH, VOCABULARY, 2)
    for name in AUXILIARIES:
        made[name] = lambda name=name: open_auxiliary(name, sizes).double()
    made["ranking-symmetric"] = lambda: open_loss("ranking", {"symmetric": True})
    made["ranking-late"] = lambda: open_loss("ranking")
    made["flops-threshold"] = lambda: open_loss("flops", {"threshold": 2})
    made["matryoshka"] = lambda: lambda scored: with_prefixes(ranking, scored, (2, 4))
    return made


def gradients(rank: int, world: int) -> dict[str, dict[str, Tensor]]:
    """Case -> the mean loss and the gradient of each parameter."""
    results = {}
    for name, made in cases().items():
        torch.manual_seed(0)
        late = name.endswith("-late")
        step: nn.Module = Step(made(), late)
        several = DistributedDataParallel(step) if world > 1 else step
        loss = several(share(late, rank, world))
        loss.backward()
        mean = loss.detach().clone()
        if world > 1:
            distributed.all_reduce(mean)
        results[name] = {"loss": mean / world} | {
            parameter: value.grad.clone() for parameter, value in step.named_parameters()
        }
    return results


def main(rank: int, world: int, folder: Path) -> None:
    """Join the others and write what came out."""
    meeting = f"file://{folder / 'meeting'}"
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    try:
        torch.save(gradients(rank, world), folder / f"{rank}-of-{world}.pt")
    finally:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
