"""Dense vectors without a model: signed feature hashing of words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from retrieval.compute import parallel
from retrieval.encoders.options import Option, read_options
from retrieval.encoders.tally import Tally
from retrieval.errors import ConfigError
from retrieval.protocols import Fingerprints
from retrieval.values import Dense, Document, Strings

OPTIONS: dict[str, Option] = {
    "dim": Option(int, default=256, least=1),
    "ngrams": Option(int, default=1, least=1),
    "seed": Option(int, default=0, least=0),
}
_MOST_NGRAMS = 8
_VERSION = 1  # goes up when the same text may give another vector


class HashingEncoder:
    """Every word adds +1 or -1 at a place given by its hash (Weinberger et al., ICML 2009, arXiv:0902.2206).

    Inner products estimate the cosine of word counts, without inverse document frequencies. The same vectors in
    every process and on every platform; no weights, no torch. Meant for scale runs and tests, where quality does
    not matter but throughput does. Safe to share between threads.
    """

    family: ClassVar[str] = "hashing"
    value: ClassVar[type] = Dense

    def __init__(self, dim: int = 256, ngrams: int = 1, seed: int = 0) -> None:
        """See ``open``."""
        self.dim = dim
        self.ngrams = ngrams
        self.seed = seed
        self.tally = Tally()

    @classmethod
    def open(cls, model: str = "", options: Mapping[str, Any] | None = None) -> Self:
        """An encoder from its spec.

        Args:
            model: must be empty; nothing is loaded.
            options: ``dim``, width of a vector; ``ngrams``, longest run of words that is hashed (1 to 8);
                ``seed`` of the hash.

        Raises:
            ConfigError: an unknown option, a value out of range, or a model.
        """
        values = read_options(cls.family, options or {}, OPTIONS)
        if model:
            raise ConfigError(f"the hashing encoder has no models, got {model!r}; choose by its options")
        if values["ngrams"] > _MOST_NGRAMS or values["seed"] >= 1 << 64:
            raise ConfigError(
                f"the hashing encoder takes ngrams up to {_MOST_NGRAMS} and a seed below 2**64, "
                f"got {values['ngrams']} and {values['seed']}"
            )
        return cls(**values)

    @property
    def spec(self) -> dict[str, Any]:
        """``{"family", "model", "options"}``, from which ``open_encoder`` makes an equal encoder."""
        options = {"dim": self.dim, "ngrams": self.ngrams, "seed": self.seed}
        return {"family": self.family, "model": "", "options": options}

    @property
    def fingerprints(self) -> Fingerprints:
        """Identity of the vectors; the same for documents and queries."""
        facts = [self.family, _VERSION, self.dim, self.ngrams, self.seed]
        digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        return Fingerprints(digest, digest)

    def encode_queries(self, texts: Sequence[str]) -> Dense:
        """(N, dim) float32 of unit length; zero for a text without words."""
        return Dense(self._encode(texts))

    def encode_documents(self, documents: Sequence[Document]) -> Dense:
        """(N, dim) float32 of unit length; zero for a document without words."""
        return Dense(self._encode([document.contents() for document in documents]))

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        from retrieval.encoders.hashing_kernels import hash_texts

        strings = Strings.of(text.lower() for text in texts)
        out = np.zeros((len(texts), self.dim), dtype=np.float32)
        blob, offsets, seed = strings.blob, strings.offsets, np.uint64(self.seed)

        def work(rows: slice) -> int:
            part = offsets[rows.start : rows.stop + 1]
            return int(hash_texts(blob, part, seed, self.ngrams, out[rows]))

        self.tally.add(len(texts), sum(parallel(work, len(texts), grain=256)), 0)
        return out
