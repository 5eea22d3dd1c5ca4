"""What to do where memory does not suffice for training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from retrieval.errors import ConfigError

_SIGNS = ("out of memory", "can't allocate memory", "not enough memory")


@contextmanager
def enough_memory() -> Iterator[None]:
    """Say what to lower where memory does not suffice.

    Raises:
        ConfigError: it did not.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(sign in str(error).lower() for sign in _SIGNS):
            raise
        raise ConfigError(
            "out of memory; encode fewer texts at once (optim.chunk, such as 8), cut documents (model.max_length), "
            f"lower optim.batch or negatives.per_query, or set optim.checkpointing = true ({_first_line(error)})"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
