"""An encoder with a fitted head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from indexing.progress import Silent
from training.splade.head import initialise_head, with_head


@pytest.fixture
def encoder(still: Path, texts: list[str]) -> Any:
    """Of a random model."""
    made = with_head(still, "relu")
    initialise_head(made, texts, threshold=1.0, own_logit=3.0, progress=Silent())
    return made
