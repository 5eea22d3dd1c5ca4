"""Multivariate encoder: texts as normal distributions, compared by one inner product."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.headed import OPTIONS, HeadedEncoder
from retrieval.encoders.options import Option
from retrieval.errors import unknown_name
from retrieval.values import Dense, Document

if TYPE_CHECKING:
    from torch import Tensor

FORMS = ("exact", "paper")


class MultivariateEncoder(HeadedEncoder):
    """A mean and a variance for each dimension of a text (Zamani & Bendersky, SIGIR 2023, arXiv:2304.14522).

    Vectors are folded so that the inner product of a query's and a document's ranks by the negative Kullback-Leibler
    divergence of their distributions, so that any index of dense vectors serves them; see
    ``retrieval.encoders.transformer.gaussian_heads``, also for the option ``form``: ``exact``, or ``paper`` for the
    vectors as published; by default what the checkpoint was trained with. Vectors have many lengths, none of them 1.
    """

    family: ClassVar[str] = "multivariate"
    value: ClassVar[type] = Dense
    module: ClassVar[str] = "retrieval.encoders.transformer.gaussian_heads.GaussianHeads"
    options: ClassVar[dict[str, Option]] = {**OPTIONS, "form": Option(str)}

    def __init__(self, *arguments: Any) -> None:
        """See ``HeadedEncoder``.

        Raises:
            ConfigError: there is no such form.
        """
        super().__init__(*arguments)
        trained_with = self.checkpoint.modules[-1][2].get("form", FORMS[0])
        self.form: str = self._options["form"] or trained_with
        if self.form not in FORMS:
            raise unknown_name("form of the multivariate encoder", self.form, FORMS)

    def encode_queries(self, texts: Sequence[str]) -> Dense:
        """(N, 2 k + 1) float32, or (N, 2 k + 2) in the paper's form."""
        return self._encode(self._query_texts(texts), "query")

    def encode_documents(self, documents: Sequence[Document]) -> Dense:
        """The same; texts longer than the maximum length are cut and counted in ``tally``."""
        return self._encode(self._document_texts(documents), "document")

    @property
    def dim(self) -> int:
        """The width of the vectors; loads the weights."""
        return int(self._loaded()[1].vector_dim)

    def _identity(self) -> list[Any]:
        return [self.form]

    def _load_heads(self, folder: Path, device: str) -> Any:
        from retrieval.encoders.transformer.gaussian_heads import GaussianHeads

        heads = GaussianHeads.load(str(folder)).to(device).eval()
        heads.form = self.form
        return heads

    def _encode(self, texts: list[str], task: str) -> Dense:
        if not texts:
            return Dense(np.zeros((0, self.dim), dtype=np.float32))
        heads = self._loaded()[1]

        def folded(tokens: Tensor, mask: Tensor | None, pooled: Tensor) -> tuple[Tensor]:
            return (heads.folded(*heads.distribution(pooled, tokens[:, 0]), task),)

        vectors: NDArray[np.float32] = self._run(texts, folded)[0]
        return Dense(vectors)
