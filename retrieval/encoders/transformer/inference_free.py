"""Queries without a model: their own terms, each with a weight from a table. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.sparse_rows import heaviest, row_offsets
from retrieval.encoders.tally import Tally
from retrieval.encoders.transformer.checkpoint import Checkpoint
from retrieval.encoders.transformer.term_tokens import TermTokenizer
from retrieval.errors import CorruptError
from retrieval.values import Sparse

_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}


@dataclass(frozen=True)
class InferenceFreeEngine:
    """Weights by lookup (Geng et al., arXiv:2411.04403): a term counts once, however often it occurs.

    As there, a weight below 0 counts as 0; sentence-transformers would keep it.

    Attributes:
        tokenizer: text to term ids.
        weights: (V,) float32, finite.
        place: the tokenizer's folder.
    """

    tokenizer: TermTokenizer
    weights: NDArray[np.float32]
    place: Path

    @property
    def dim(self) -> int:
        """The vocabulary's size V."""
        return len(self.weights)

    def encode(self, texts: Sequence[str], tally: Tally, task: str, keep: int | None) -> Sparse:
        """One row a text, of at most ``keep`` terms; long texts are cut and counted.

        Raises:
            CorruptError: the tokenizer knows terms that the table lacks.
        """
        tokens = self.tokenizer(texts)
        tally.add(len(texts), int(tokens.lengths().sum()), tokens.n_truncated)
        terms = [self._weighted(np.unique(ids)) for ids in tokens.ids]
        indices = np.concatenate([np.zeros(0, dtype=np.int32), *terms])
        rows = Sparse(row_offsets([len(part) for part in terms]), indices, self.weights[indices], self.dim)
        return rows if keep is None else heaviest(rows, keep)

    def _weighted(self, terms: NDArray[np.int32]) -> NDArray[np.int32]:
        """Those of ascending terms that have a weight."""
        if len(terms) and terms[-1] >= self.dim:
            raise CorruptError(
                self.place / "tokenizer.json",
                f"it gives the term {terms[-1]}, but there are weights for {self.dim} terms only",
            )
        return terms[self.weights[terms] > 0]


def load_inference_free(route: Checkpoint, tokenizer: TermTokenizer) -> InferenceFreeEngine:
    """Read a SparseStaticEmbedding's table.

    Raises:
        CorruptError: the file is damaged, or a weight is not finite.
    """
    weights = _read_table(route.transformer / "model.safetensors")
    return InferenceFreeEngine(tokenizer, weights, route.transformer)


def unweighted(route: Checkpoint, tokenizer: TermTokenizer, dim: int) -> InferenceFreeEngine:
    """Every term of a query with weight 1, special tokens with none (SPLADE-doc, arXiv:2109.10086, section 3)."""
    weights = np.ones(dim, dtype=np.float32)
    special = tokenizer.special_terms()
    weights[special[special < dim]] = 0
    return InferenceFreeEngine(tokenizer, weights, route.transformer)


def _read_table(path: Path) -> NDArray[np.float32]:
    from safetensors import SafetensorError, deserialize

    try:
        found = dict(deserialize(path.read_bytes()))["weight"]  # type: ignore[no-untyped-call]
    except KeyError:
        raise CorruptError(path, "there is no tensor 'weight'") from None
    except (SafetensorError, OSError) as error:
        raise CorruptError(path, f"not a complete safetensors file ({error})") from error
    kind, data = str(found["dtype"]), bytes(found["data"])
    if kind == "BF16":  # numpy has no such type: the upper half of a float32
        table = (np.frombuffer(data, dtype="<u2").astype(np.uint32) << 16).view(np.float32)
    elif kind in _DTYPES:
        table = np.frombuffer(data, dtype=_DTYPES[kind]).astype(np.float32)
    else:
        raise CorruptError(path, f"the weights of terms are of type {kind}; they should be floats")
    if not np.isfinite(table).all():
        raise CorruptError(path, "the weights of terms are not finite")
    return table
