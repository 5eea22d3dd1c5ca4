"""What families share when they run a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from indexing.progress import Progress
from training.families.family import Features, Task
from training.trainer.arguments import uses_half

BATCH = 32
"""Texts a model reads at once outside of training."""

_GROUP = 16 * BATCH  # texts between two reports; sorted by length within, for less padding


def read(model: Any, texts: Sequence[Any], task: Task) -> Features:
    """The model's own features of texts behind its prompt for the task."""
    features: dict[str, Any] = model.preprocess(
        list(texts), prompt=model.prompts.get(task) or None, task=task
    )
    return features


@contextmanager
def measuring(model: Any) -> Iterator[None]:
    """The model as it is used and not as it is trained: no dropout, no gradients, half precision where that is fast."""
    trained = model.training
    device = model.device.type
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=uses_half("auto", device)):
            yield
    finally:
        model.train(trained)


def encoded(model: Any, texts: Sequence[str], task: Task, progress: Progress, **settings: Any) -> list[Any]:
    """What ``encode_query`` or ``encode_document`` of sentence-transformers gives, some texts at a time."""
    encode = model.encode_query if task == "query" else model.encode_document
    parts = []
    with measuring(model):
        for start in range(0, len(texts), _GROUP):
            part = list(texts[start : start + _GROUP])
            parts.append(encode(part, batch_size=BATCH, show_progress_bar=False, **settings))
            progress.advance(len(part))
    return parts
