"""Which reader reads what."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from indexing.corpora.corpus import Corpus
from indexing.corpora.fields import FieldNames
from indexing.corpora.lines import COMPRESSIONS
from retrieval.errors import ConfigError, FormatError, unknown_name

FORMATS: dict[str, str] = {
    "jsonl": "indexing.corpora.jsonl:JsonlCorpus",
    "csv": "indexing.corpora.delimited:CsvCorpus",
    "tsv": "indexing.corpora.delimited:TsvCorpus",
    "parquet": "indexing.corpora.parquet:ParquetCorpus",
    "texts": "indexing.corpora.texts:TextsCorpus",
    "python-docs": "indexing.corpora.python_docs:PythonDocsCorpus",
}
"""Format -> class with ``open(path, names) -> Corpus``. A new format is a file, a line here and one below."""

EXTENSIONS: dict[str, str] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
"""File name extension -> format; ``.gz`` and ``.zst`` after those of line formats."""

NAMED = ("python-docs",)
"""Corpora that every machine has: the name stands for the path."""


def open_corpus(
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002 - the word people type
    id_field: str | None = None,
    text_field: str | None = None,
    title_field: str | None = None,
    ignore_fields: Sequence[str] = (),
) -> Corpus:
    """Open a corpus without reading it.

    Args:
        path: a file (``.jsonl``, ``.ndjson``, ``.csv``, ``.tsv``, each also ``.gz`` or ``.zst``; ``.parquet``), a BEIR
            folder (its ``corpus.jsonl``), a folder of ``.txt`` and ``.md`` files, ``-`` for JSON Lines on standard
            input, or the name ``python-docs`` (``./python-docs`` is the folder of that name).
        format: a name in ``FORMATS``, where the extension does not tell.
        id_field: the field with the id; usually ``_id`` or ``id``.
        text_field: the field with the text; usually ``text``, ``contents``, ``content`` or ``body``.
        title_field: the field with the title; usually ``title``.
        ignore_fields: metadata fields to leave out.

    Raises:
        FormatError: there is nothing to read, or its type is not known.
        ConfigError: an unknown format.
    """
    names = FieldNames(id_field, text_field, title_field, tuple(ignore_fields))
    if str(path) == "-":
        if format not in (None, "jsonl"):
            raise ConfigError(f"standard input is read as jsonl, not as {format}")
        from indexing.corpora.jsonl import JsonlStream

        return JsonlStream(names)
    where, chosen = Path(path), format
    if chosen is None and str(path) in NAMED:
        chosen = str(path)
    if chosen is None:
        where, chosen = _recognised(where)
    if chosen not in FORMATS:
        raise unknown_name("corpus format", chosen, FORMATS)
    module, _, name = FORMATS[chosen].partition(":")
    corpus: Corpus = getattr(importlib.import_module(module), name).open(where, names)
    return corpus


def _recognised(path: Path) -> tuple[Path, str]:
    """The file to read and its format, by its name."""
    if path.is_dir():
        for suffix in ("", *COMPRESSIONS):
            beir = path / f"corpus.jsonl{suffix}"
            if beir.is_file():
                return beir, "jsonl"
        return path, "texts"
    if not path.exists():
        named = ", ".join(NAMED)
        raise FormatError(f"no such file or folder; give a corpus file, a folder, or a name ({named})", path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compressed = bool(suffixes) and suffixes[-1] in COMPRESSIONS
    ending = (suffixes[:-1] if compressed else suffixes)[-1:] or [""]
    known_format = EXTENSIONS.get(ending[0])
    if known_format is None:
        known = ", ".join(EXTENSIONS)
        shown = "".join([*ending, suffixes[-1]]) if compressed else ending[0]
        raise FormatError(
            f"unknown file type {shown!r}; known are {known} (line formats also with .gz or .zst) and folders of "
            f".txt or .md files; say which it is with --format {'|'.join(FORMATS)}",
            path,
        )
    if compressed and known_format == "parquet":
        raise FormatError("Parquet is compressed inside; decompress the file first", path)
    return path, known_format
