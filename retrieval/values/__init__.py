"""The values that cross package boundaries, and no others."""

from retrieval.values.hits import Hits
from retrieval.values.networks import QueryNetwork
from retrieval.values.run import Run
from retrieval.values.strings import Strings
from retrieval.values.terms import Terms
from retrieval.values.texts import Document, Metadata, MetadataValue, Query
from retrieval.values.vectors import Dense, MultiSparse, MultiVector, Sparse

__all__ = [
    "Dense",
    "Document",
    "Hits",
    "Metadata",
    "MetadataValue",
    "MultiSparse",
    "MultiVector",
    "Query",
    "QueryNetwork",
    "Run",
    "Sparse",
    "Strings",
    "Terms",
]
