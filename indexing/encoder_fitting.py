"""Encoders that learn from the corpus before they encode it: once a write, and then kept for the whole collection."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from indexing.commit import Representation
from indexing.durable import MANIFEST
from indexing.shared_state import put_state
from indexing.staging import Staging
from retrieval.protocols import Encoder, Fitted
from retrieval.values import Document

SAMPLE_ROWS = 2_000
"""Texts an encoder learns from."""

T = TypeVar("T", list[Document], NDArray[np.int64])


def spread(items: T) -> T:
    """At most ``SAMPLE_ROWS`` of the items, evenly spaced."""
    return items[:: max(1, -(-len(items) // SAMPLE_ROWS))]


def able_to_encode(
    staging: Staging,
    encoders: Mapping[str, Encoder[Any, Any]],
    sample: Callable[[], Sequence[Document]],
) -> dict[str, Encoder[Any, Any]]:
    """The encoders of a write by representation, those that need it with what they have learned.

    What one learns is durable in the job's folder before this returns; a resumed job takes it from there.

    Args:
        sample: the texts to learn from; called only where an encoder has yet to learn.

    Raises:
        CorruptError: what an earlier run has learned is damaged.
    """
    return {name: _able(staging, name, encoder, sample) for name, encoder in encoders.items()}


def _able(
    staging: Staging, name: str, encoder: Encoder[Any, Any], sample: Callable[[], Sequence[Document]]
) -> Encoder[Any, Any]:
    if not isinstance(encoder, Fitted) or not encoder.needs_fit:
        return encoder
    learner: Fitted = encoder
    folder = staging.learn(name, lambda empty: learner.fit(sample()).save_state(empty))
    able: Any = learner.with_state(folder)  # from the files, so that a resumed job encodes the very same
    return able


def with_learned(
    collection: Path,
    staging: Staging,
    name: str,
    representation: Representation,
    encoder: Encoder[Any, Any],
) -> Representation:
    """The representation with what its encoder has learned for the job, which becomes the collection's."""
    folder = staging.learned(name)
    if folder is None or not isinstance(encoder, Fitted):
        return representation
    able: Any = encoder.with_state(folder)
    generation = put_state(collection, name, _copier(folder))
    return replace(representation, fingerprint=able.fingerprints.documents, state=generation)


def _copier(state: Path) -> Callable[[Path], None]:
    def copy(target: Path) -> None:
        for file in state.iterdir():
            if file.name != MANIFEST:
                shutil.copyfile(file, target / file.name)

    return copy
