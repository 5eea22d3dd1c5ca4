"""Fewer vectors a document: its first ones, or the means of alike ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.sparse_rows import row_offsets
from retrieval.values import MultiVector


@dataclass(frozen=True, slots=True)
class TokenPooling:
    """Hierarchical pooling of a text's vectors (Clavié et al., arXiv:2409.14683).

    Ward's clustering of the cosine distances, cut at 1 / factor of the vectors; a cluster becomes its mean. The
    numbers are those of sentence-transformers' HierarchicalTokenPooling; the order is that of each cluster's first
    token.

    Attributes:
        factor: how many vectors become one, on average; 1 leaves all.
        protected: leading vectors that stay as they are, such as [CLS]'s.
        normalize: make the outcome unit vectors.
    """

    factor: float
    protected: int = 1
    normalize: bool = True

    def leaders(self, values: NDArray[np.float32]) -> NDArray[np.int64]:
        """(L,) for each vector of a text the position of the first of its cluster."""
        alone = np.arange(len(values))
        members = values[self.protected :]
        n_clusters = max(int(len(members) // self.factor), 1)
        if n_clusters >= len(members):
            return alone
        labels = ward_labels(members, n_clusters)
        _, first, cluster = np.unique(labels, return_index=True, return_inverse=True)
        return np.concatenate([alone[: self.protected], self.protected + first[cluster]])

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(L, D) unit vectors of a text to fewer, each the mean of a cluster."""
        leaders, cluster = np.unique(self.leaders(values), return_inverse=True)
        if len(leaders) < len(values):
            means = np.zeros((len(leaders), values.shape[1]), dtype=np.float32)
            np.add.at(means, cluster, values)
            means /= np.bincount(cluster)[:, None]
            values = means
        return unit_rows(values) if self.normalize else values


def ward_labels(values: NDArray[np.float32], n_clusters: int) -> NDArray[np.int32]:
    """(L,) cluster numbers of at least two vectors, by Ward's method on cosine distances.

    Args:
        values: (L, D) unit vectors.
        n_clusters: how many clusters at most; below L.
    """
    # Imported here: it takes a tenth of a second, and few need it.
    from scipy.cluster.hierarchy import fcluster, linkage  # type: ignore[import-untyped]

    distances = np.clip(1 - values @ values.T, 0, 2)
    upper = np.triu_indices(len(values), 1)
    labels: NDArray[np.int32] = fcluster(linkage(distances[upper], "ward"), n_clusters, "maxclust")
    return labels


def pooled_rows(rows: MultiVector, pooling: TokenPooling) -> MultiVector:
    """Every text's vectors pooled on their own."""
    parts = [
        pooling(rows.values[low:high]) for low, high in zip(rows.indptr[:-1], rows.indptr[1:], strict=True)
    ]
    return MultiVector(row_offsets([len(part) for part in parts]), np.concatenate([rows.values[:0], *parts]))


def first_vectors(rows: MultiVector, most: int) -> MultiVector:
    """The first vectors of every text, at most so many (ME-BERT, Luan et al., TACL 2021, arXiv:2005.00181)."""
    counts = np.diff(rows.indptr)
    rank = np.arange(len(rows.values)) - np.repeat(rows.indptr[:-1], counts)
    return MultiVector(row_offsets(np.minimum(counts, most)), rows.values[rank < most])


def unit_rows(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows divided by their lengths; a row of zeros stays."""
    lengths = np.sqrt(np.einsum("ij,ij->i", values, values))[:, None]
    unit: NDArray[np.float32] = values / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit
