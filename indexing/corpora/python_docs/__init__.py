"""The documentation of the running interpreter's standard library: a real corpus that every machine has."""

from __future__ import annotations

from indexing.corpora.python_docs.corpus import PythonDocsCorpus

__all__ = ["PythonDocsCorpus"]
