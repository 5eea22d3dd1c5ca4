"""Encoders on a GPU beside themselves in float32 on the CPU; see gpu_check.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from benchmarks.corpora import Corpus
from benchmarks.gpu_card import Card, Peak, Row, row
from retrieval.encoders import open_encoder
from retrieval.errors import ConfigError
from retrieval.values import Dense, Document, Sparse

COMPARED = 32
TEXTS, FEW = 4096, 32


def dense_cosines(one: Dense, other: Dense) -> np.ndarray:
    """(N,) of the rows of both, which have unit length."""
    return np.asarray((one.values.astype(np.float32) * other.values.astype(np.float32)).sum(1))


def sparse_cosines(one: Sparse, other: Sparse) -> np.ndarray:
    """(N,) of the rows of both."""
    both = np.zeros((2, len(one), one.dim), dtype=np.float32)
    for weights, rows in zip(both, (one, other), strict=True):
        weights[np.repeat(np.arange(len(rows)), np.diff(rows.indptr)), rows.indices] = rows.values
    norms = np.linalg.norm(both, axis=2).prod(axis=0)
    return np.asarray((both[0] * both[1]).sum(1) / np.maximum(norms, 1e-9))


ENCODERS: Mapping[str, tuple[Callable[[Any, Any], np.ndarray], float]] = {
    "dense": (dense_cosines, 0.999),
    "codes": (sparse_cosines, 0.97),  # where two codes are about as near, half precision may choose the other
}
"""Family -> how its rows are compared, and the least cosine."""


def encode(card: Card, peak: Peak) -> Iterator[Row]:
    """The default dense and sparse encoders on the device."""
    count = FEW if card.small else TEXTS
    texts = [Document(str(n), text) for n, text in enumerate(Corpus(seed=0).texts(count))]
    for family, (cosines, least) in ENCODERS.items():
        try:
            encoder, exact = (
                open_encoder({"family": family, "options": options})
                for options in ({"device": card.device}, {"device": "cpu", "dtype": "float32"})
            )
            got = encoder.encode_documents(texts[:COMPARED])
        except (ConfigError, ImportError) as error:  # the model comes with a package of its own
            yield row("encode", "tercet", family, skipped=str(error))
            continue
        lowest = float(cosines(got, exact.encode_documents(texts[:COMPARED])).min())
        taken = card.seconds(lambda used=encoder: used.encode_documents(texts), rounds=3)
        yield row(
            "encode",
            "tercet",
            f"{family}, {len(texts)} documents",
            correct=lowest > least,
            cosine_min=lowest,
            ms=1e3 * taken,
            qps=len(texts) / taken,
        )


SECTIONS = {"encode": encode}
