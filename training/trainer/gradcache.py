"""Batches larger than memory: representations first, gradients chunk by chunk (GradCache).

Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", RepL4NLP 2021,
arXiv:2101.06983. Cutting batches, replaying dropout and the second pass are those of sentence-transformers' cached
losses; what is added is that a text may have several tensors, ragged ones too, where those know one matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from training.families.family import Family, Features, Task
from training.scored import Representation

Calculate = Callable[[Mapping[Task, Representation]], tuple[Tensor, dict[str, Tensor]]]
"""From the representations of a batch, by task, to the loss and its parts."""


@dataclass
class _ChunkReader:
    """Reads features some rows at a time, in the form that sentence-transformers' hook asks for.

    Attributes:
        model: of the family.
        family: knows how to represent.
    """

    model: Any
    family: Family

    def embed_minibatch_iter(
        self,
        sentence_feature: dict[str, Any],
        with_grad: bool,
        copy_random_state: bool,
        random_states: Sequence[Any] | None = None,
        ranges: Sequence[tuple[int, int]] = (),
    ) -> Iterator[tuple[Tensor, Representation, Any]]:
        """(all that has a gradient as one line, representation, state of randomness before) of each chunk."""
        from sentence_transformers.base.losses.gradcache import RandContext, _create_minibatch

        task: Task = sentence_feature["_task"]
        features = {name: value for name, value in sentence_feature.items() if name != "_task"}
        for number, (first, last) in enumerate(ranges):
            part = _create_minibatch(features, first, last)
            tensors = [value for value in part.values() if isinstance(value, Tensor)]
            state = RandContext(*tensors) if copy_random_state else None
            with torch.set_grad_enabled(with_grad):
                if random_states is None:
                    found = self.family.represent(self.model, part, task)
                else:
                    with random_states[number]:
                        found = self.family.represent(self.model, part, task)
            yield _line(found), found, state


def cached_loss(
    model: Any, family: Family, features: Mapping[Task, Features], chunk: int, calculate: Calculate
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch that is encoded in chunks, twice; ``backward`` of what is returned does the second pass.

    Args:
        model: of the family.
        family: knows how to represent.
        features: of the batch, by task.
        chunk: texts that are encoded at once.
        calculate: is called once. Parameters of its own get their gradients at once.

    Returns:
        The loss and its parts, without any graph behind them.
    """
    from sentence_transformers.base.losses.gradcache import _backward_hook, _minibatch_ranges

    reader = _ChunkReader(model, family)
    sides = [{**part, "_task": task} for task, part in features.items()]
    ranges = [_minibatch_ranges(side, chunk) for side in sides]
    chunks: list[list[Representation]] = []
    states: list[list[Any]] = []
    for side, spans in zip(sides, ranges, strict=True):
        read = list(reader.embed_minibatch_iter(side, False, True, ranges=spans))
        chunks.append([_leaves(found) for _, found, _ in read])
        states.append([state for _, _, state in read])
    with torch.enable_grad():
        loss, parts = calculate(
            {side["_task"]: joined(part) for side, part in zip(sides, chunks, strict=True)}  # type: ignore[misc]
        )
        loss.backward()  # type: ignore[no-untyped-call]
    cache = [[_line(_gradients(part)) for part in side] for side in chunks]
    hooked = loss.detach().requires_grad_()
    hooked.register_hook(  # type: ignore[no-untyped-call]
        partial(
            _backward_hook,
            sentence_features=sides,
            loss_obj=reader,
            cache=cache,
            random_states=states,
            ranges=ranges,
        )
    )
    return hooked, parts


def joined(parts: Sequence[Representation]) -> Representation:
    """Chunks as one representation; rows of a narrower chunk are padded with zeros in their second dimension."""
    whole = []
    for tensors in zip(*parts, strict=True):
        if tensors[0].ndim > 1:
            widest = max(tensor.shape[1] for tensor in tensors)
            tensors = tuple(_widened(tensor, widest) for tensor in tensors)
        whole.append(torch.cat(tensors))
    return tuple(whole)


def _widened(tensor: Tensor, width: int) -> Tensor:
    lacking = width - tensor.shape[1]
    return functional.pad(tensor, [0, 0] * (tensor.ndim - 2) + [0, lacking]) if lacking else tensor


def _leaves(found: Representation) -> Representation:
    return tuple(
        part.detach().requires_grad_() if part.is_floating_point() else part.detach() for part in found
    )


def _gradients(leaves: Representation) -> Representation:
    """Of what has one; zeros where the loss made no use of it."""
    return tuple(
        torch.zeros_like(part) if part.grad is None else part.grad
        for part in leaves
        if part.is_floating_point()
    )


def _line(found: Representation) -> Tensor:
    """All floats as one line."""
    return torch.cat([part.flatten() for part in found if part.is_floating_point()])
