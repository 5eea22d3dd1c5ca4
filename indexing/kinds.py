"""Index kinds by name; a kind's module is imported when one of its indexes is built or opened."""

from __future__ import annotations

import importlib
from typing import Any

from retrieval.errors import unknown_name

KINDS: dict[str, str] = {
    "flat": "indexing.dense.flat:FlatIndex",
    "hnsw": "indexing.hnsw.index:HnswIndex",
    "ivf": "indexing.ivf.index:IvfIndex",
    "binary": "indexing.binary.index:BinaryIndex",
    "bm25": "indexing.bm25.index:Bm25Index",
    "inverted": "indexing.inverted.index:InvertedIndex",
    "lucene-bm25": "indexing.lucene.bm25:LuceneBm25Index",
    "lucene-impact": "indexing.lucene.impact:LuceneImpactIndex",
    "maxsim": "indexing.maxsim:MaxSimIndex",
    "fde": "indexing.fde.index:FdeIndex",
    "plaid": "indexing.plaid.index:PlaidIndex",
    "hypencoder": "indexing.hypencoder.exhaustive:HypencoderIndex",
    "hypencoder-graph": "indexing.hypencoder.graph:HypencoderGraphIndex",
    "slim": "indexing.slim.index:SlimIndex",
}
"""Kind -> "module:Class"; what the class promises stands in docs/architecture.md and ``retrieval.protocols.Index``."""


def kind_class(name: str) -> Any:
    """The class of a kind.

    Raises:
        ConfigError: there is no such kind.
    """
    if name not in KINDS:
        raise unknown_name("index kind", name, KINDS)
    module, _, attribute = KINDS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
