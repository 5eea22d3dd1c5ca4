"""The encoders of a collection: opened with what they have learned, and checked against what it holds."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from indexing.collection import require_representation
from indexing.commit import Representation
from indexing.shared_state import open_state
from retrieval.encoders import open_encoder
from retrieval.errors import IncompatibleError
from retrieval.protocols import Encoder, Fitted

_ENCODERS: dict[str, Encoder[Any, Any]] = {}
_LOCK = threading.Lock()


def collection_encoder(
    collection: Path, representations: Mapping[str, Representation], name: str
) -> Encoder[Any, Any]:
    """The encoder of a representation, opened once a process.

    Raises:
        ConfigError: there is no such representation.
        CorruptError: what the encoder has learned is damaged.
        IncompatibleError: its document fingerprint is not the one the collection was encoded with.
    """
    representation = require_representation(representations, name)
    # what an encoder has learned may change its queries alone, so the fingerprint of documents does not say it all
    known_by = (name, representation.fingerprint, representation.state)
    key = f"{known_by}:{sorted(representation.encoder.items(), key=str)}"
    with _LOCK:
        if key not in _ENCODERS:
            encoder = _opened(collection, representation, name)
            check_encoder(representation, name, encoder)
            _ENCODERS[key] = encoder
        return _ENCODERS[key]


def _opened(collection: Path, representation: Representation, name: str) -> Encoder[Any, Any]:
    encoder: Encoder[Any, Any] = open_encoder(representation.encoder)
    if representation.state is None:
        return encoder
    if not isinstance(encoder, Fitted):
        raise IncompatibleError(
            f"representation {name!r} was encoded with something learned from its documents, which the encoder at "
            f"hand, {describe_encoder(encoder.spec)}, does not take; index the collection again"
        )
    return encoder.with_state(open_state(collection, name, representation.state))


def check_encoder(representation: Representation, name: str, encoder: Encoder[Any, Any]) -> None:
    """Refuse an encoder that does not make the vectors a representation holds.

    Raises:
        IncompatibleError: names both.
    """
    if encoder.fingerprints.documents != representation.fingerprint:
        raise IncompatibleError(
            f"representation {name!r} was encoded with {describe_encoder(representation.encoder)} "
            f"(fingerprint {representation.fingerprint[:12]}), the encoder at hand is "
            f"{describe_encoder(encoder.spec)} (fingerprint {encoder.fingerprints.documents[:12]}); "
            "open the collection with the encoder it was made with, or index it again"
        )


def describe_encoder(spec: Mapping[str, Any]) -> str:
    """Family and model for messages."""
    return f"{spec['family']} {spec['model']!r}" if spec.get("model") else str(spec["family"])
