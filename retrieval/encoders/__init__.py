"""Encoder families by name; a family's module is imported when one of its encoders is opened."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from retrieval.errors import ConfigError, unknown_name

FAMILIES: dict[str, str] = {
    "codes": "retrieval.encoders.codes.encoder:CodesEncoder",
    "dense": "retrieval.encoders.dense:DenseEncoder",
    "endpoint": "retrieval.encoders.endpoint:EndpointEncoder",
    "hashing": "retrieval.encoders.hashing:HashingEncoder",
    "hypencoder": "retrieval.encoders.hypencoder:HypencoderEncoder",
    "late": "retrieval.encoders.late:LateEncoder",
    "multivariate": "retrieval.encoders.multivariate:MultivariateEncoder",
    "slim": "retrieval.encoders.slim:SlimEncoder",
    "sparse": "retrieval.encoders.sparse:SparseEncoder",
    "terms": "retrieval.encoders.terms:TermsEncoder",
}
"""Family name -> "module:Class"; the class has ``open(model, options)``."""


def family_class(name: str) -> Any:
    """The class of a family.

    Raises:
        ConfigError: there is no such family.
    """
    if name not in FAMILIES:
        raise unknown_name("encoder family", name, FAMILIES)
    module, _, attribute = FAMILIES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def query_value(made: Any) -> type:
    """The type of a query: what an encoder, a family or an index kind makes or takes besides documents' ``value``."""
    found: type = getattr(made, "query_value", made.value)
    return found


def open_encoder(spec: Mapping[str, Any]) -> Any:
    """The encoder that ``{"family", "model", "options"}`` describes.

    Weights are not read before the first text is encoded.

    Args:
        spec: JSON-like; ``model`` and ``options`` may be left out where the family has defaults.

    Raises:
        ConfigError: an unknown family, option or model, or a spec that is no such mapping.
        MissingExtraError: the family needs a package that is not installed.
    """
    unknown = set(spec) - {"family", "model", "options"}
    options = spec.get("options") or {}
    model = spec.get("model") or ""
    if unknown or "family" not in spec or not isinstance(options, Mapping) or not isinstance(model, str):
        raise ConfigError(
            f'not an encoder: {dict(spec)!r}; it is {{"family": ..., "model": ..., "options": {{...}}}}'
        )
    return family_class(str(spec["family"])).open(model, options)
