"""Hypencoder: documents as vectors, queries as small networks that score them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from retrieval.encoders.headed import HeadedEncoder
from retrieval.values import Dense, Document, QueryNetwork

if TYPE_CHECKING:
    from torch import Tensor


class HypencoderEncoder(HeadedEncoder):
    """Makes a network of a query that scores the vectors of documents (Killingback et al., arXiv:2502.05364).

    The vectors are those of the dense model that the heads stand behind; the heads turn a query's token vectors into
    the network's weights and biases, see ``retrieval.encoders.transformer.hyper_heads``. Networks are large: with one
    hidden layer as wide as MiniLM's vectors one takes 0.6 MB.
    """

    family: ClassVar[str] = "hypencoder"
    value: ClassVar[type] = Dense
    query_value: ClassVar[type] = QueryNetwork
    module: ClassVar[str] = "retrieval.encoders.transformer.hyper_heads.HyperHeads"

    def encode_queries(self, texts: Sequence[str]) -> QueryNetwork:
        """N networks in float32."""
        _, heads = self._loaded()
        if not texts:
            import torch

            width, device = (heads.config[name] for name in ("width", "dim")), self._loaded()[0].device
            tokens, pooled = (torch.zeros(1, size, device=device) for size in width)
            with torch.inference_mode():
                made = heads.networks(tokens[None], None, pooled)
            return QueryNetwork.of([part.cpu().numpy() for part in made], heads.normalised)[:0]

        def networks(tokens: Tensor, mask: Tensor | None, pooled: Tensor) -> tuple[Tensor, ...]:
            made: tuple[Tensor, ...] = heads.networks(tokens, mask, pooled)
            return made

        return QueryNetwork.of(self._run(self._query_texts(texts), networks), heads.normalised)

    def encode_documents(self, documents: Sequence[Document]) -> Dense:
        """(N, D) float32; texts longer than the maximum length are cut and counted in ``tally``."""
        engine, _ = self._loaded()
        if not documents:
            return Dense(np.zeros((0, self.dim), dtype=np.float32))
        return Dense(engine.encode(self._document_texts(documents), self.tally))

    @property
    def dim(self) -> int:
        """The width D of a document's vector; loads the weights."""
        return int(self._loaded()[1].config["dim"])

    def _load_heads(self, folder: Path, device: str) -> Any:
        from retrieval.encoders.transformer.hyper_heads import HyperHeads

        return HyperHeads.load(str(folder)).to(device).eval()
