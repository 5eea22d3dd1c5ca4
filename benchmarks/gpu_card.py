"""A card as the GPU checks see it: how large they are, how time is taken, what the card does at best."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

Row = dict[str, object]


@dataclass(frozen=True)
class Card:
    """Where a check runs and how thoroughly.

    Attributes:
        device: "cuda", or "cpu" for a dry run whose times mean nothing.
        small: sizes for seconds instead of minutes.
        matrix: rows and columns of the product that measures the card.
        copied_bytes: bytes of the copy that does.
        rounds: times a piece of work is timed.
    """

    device: str = "cuda"
    small: bool = False
    matrix: int = 8192
    copied_bytes: int = 1 << 31
    rounds: int = 20

    @property
    def searched(self) -> str:
        """The device of a search: of the CPU torch's, since "cpu" means the CPU's own kernels."""
        return "cpu:0" if self.device == "cpu" else self.device

    def seconds(self, work: Callable[[], object], rounds: int | None = None) -> float:
        """The median time of a piece of work, warm."""
        cuda, taken = self.device != "cpu", []
        for round_ in range(-3 if cuda else 0, min(self.rounds, rounds or self.rounds)):
            if cuda:
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                work()
                end.record()
                end.synchronize()
                taken_now = begin.elapsed_time(end) / 1e3
            else:
                start = time.perf_counter()
                work()
                taken_now = time.perf_counter() - start
            if round_ >= 0:
                taken.append(taken_now)
        return statistics.median(taken)

    def generator(self, seed: int) -> torch.Generator:
        """Random numbers on the device."""
        return torch.Generator(self.device).manual_seed(seed)

    def unit(self, seed: int, *shape: int) -> torch.Tensor:
        """Random vectors of length 1 in half precision."""
        out = torch.empty(shape, dtype=torch.float16, device=self.device)
        draw = self.generator(seed)
        for part in out.split(1 << 20):
            fresh = torch.randn(part.shape, generator=draw, device=self.device)
            part.copy_(torch.nn.functional.normalize(fresh, dim=-1))
        return out


DRY = Card("cpu", True, 256, 1 << 20, 1)


@dataclass(frozen=True)
class Peak:
    """What the card does at best.

    Attributes:
        operations: of a bfloat16 product, a second.
        n_bytes: of a copy, read and written, a second.
    """

    operations: float
    n_bytes: float

    @classmethod
    def measured(cls, card: Card) -> Peak:
        """Measure it."""
        left, right = (torch.randn(card.matrix, card.matrix, device=card.device).bfloat16() for _ in range(2))
        operations = 2 * card.matrix**3 / card.seconds(lambda: left @ right)
        source = torch.randint(0, 255, (card.copied_bytes,), dtype=torch.uint8, device=card.device)
        target = torch.empty_like(source)
        return cls(operations, 2 * card.copied_bytes / card.seconds(lambda: target.copy_(source)))

    def figures(self, taken: float, operations: float, n_bytes: float) -> dict[str, object]:
        """How near work comes to the ceiling that binds it."""
        allowed = {"operations": operations / self.operations, "bytes": n_bytes / self.n_bytes}
        binding = max(allowed, key=lambda name: allowed[name])
        return {
            "ms": 1e3 * taken,
            "tflops": operations / taken / 1e12,
            "gb_s": n_bytes / taken / 1e9,
            "binding": binding,
            "share": allowed[binding] / taken,
        }


def row(section: str, engine: str, setting: str, **figures: object) -> Row:
    """One line of output."""
    rounded = {name: round(v, 6) if isinstance(v, float) else v for name, v in figures.items()}
    return {"bench": "gpu_check", "section": section, "engine": engine, "setting": setting, **rounded}


def ceilings(card: Card, peak: Peak) -> Iterator[Row]:
    """What the card does at best."""
    name = torch.cuda.get_device_name() if card.device != "cpu" else "cpu"
    versions = f"torch {torch.__version__}"
    yield row("ceilings", name, versions, tflops=peak.operations / 1e12, gb_s=peak.n_bytes / 1e9)
