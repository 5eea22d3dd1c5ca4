"""Batches that the tests of losses share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from training.auxiliaries.table import AUXILIARIES, Sizes, open_auxiliary
from training.losses.table import open_loss
from training.scored import Scored

WIDTH, VOCABULARY, DOMAINS = 6, 11, 3


@pytest.fixture
def make_batch() -> Callable[..., Scored]:
    """A function that makes a batch of random non-negative vectors, which every loss can take."""
    return _make_batch


@pytest.fixture
def open_any() -> Callable[..., Callable[[Scored], Tensor]]:
    """A function that opens a loss of either table."""
    return _open_any


@pytest.fixture
def permuted() -> Callable[[Scored, Tensor], Scored]:
    """A function that puts the queries of a batch, with what is theirs, into another order."""
    return _permuted


def _make_batch(
    queries: int = 4, n: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64, width: int = WIDTH
) -> Scored:
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=dtype)

    asked, found = (normal(rows, width).add(0.7).relu() for rows in (queries, queries * n))
    labels = torch.zeros(queries, n, dtype=dtype)
    labels[:, 0] = 1
    labels[::2, : n - 1] = 2  # every other query has several answers, but for one that does not
    rivals = torch.zeros(queries, queries * n, dtype=torch.bool)
    rivals[0, -1] = rivals[-1, 0] = queries > 1
    ids = torch.randint(VOCABULARY, (queries * n, 5), generator=random)
    return Scored(
        scores=asked @ found.T,
        n=n,
        labels=labels,
        teacher=normal(queries, n),
        queries=(asked,),
        documents=(found,),
        rivals=rivals,
        teacher_batch=normal(queries, queries * n),
        domains=torch.arange(queries) % DOMAINS,
        tokens=(ids, ids > 2),
        idf=torch.rand(width, generator=random, dtype=dtype) * 8,
        progress=0.3,
    )


def _open_any(name: str, options: dict[str, Any], dtype: torch.dtype = torch.float64) -> Any:
    if name not in AUXILIARIES:
        return open_loss(name, options)
    torch.manual_seed(1)
    return open_auxiliary(name, Sizes(WIDTH, VOCABULARY, DOMAINS), options).to(dtype)


def _permuted(scored: Scored, order: Tensor) -> Scored:
    documents = (order[:, None] * scored.n + torch.arange(scored.n)).flatten()
    changes: dict[str, Any] = {
        name: getattr(scored, name)[order][:, documents] for name in ("scores", "rivals", "teacher_batch")
    }
    changes |= {name: getattr(scored, name)[order] for name in ("labels", "teacher", "domains")}
    changes["queries"] = (scored.queries[0][order],)
    changes["documents"] = (scored.documents[0][documents],)
    changes["tokens"] = tuple(part[documents] for part in scored.tokens or ())
    return replace(scored, **changes)
