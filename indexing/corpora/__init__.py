"""Corpora: where documents come from."""

from __future__ import annotations

from indexing.corpora.corpus import START, Corpus, Position, Record
from indexing.corpora.formats import EXTENSIONS, FORMATS, open_corpus
from indexing.corpora.npy import read_vectors

__all__ = ["EXTENSIONS", "FORMATS", "START", "Corpus", "Position", "Record", "open_corpus", "read_vectors"]
