"""Vectors of many texts, made in blocks, so that only a block of them is ever in memory, and mapped from then on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from indexing.progress import Progress
from indexing.vectors import Vectors, check_finite, join_vectors, load_vectors, save_vectors
from retrieval.errors import ConfigError
from retrieval.values import Document

BLOCK = 2_000
"""Texts that are encoded together; their token vectors take about 250 MB."""


def store_vectors(
    encode: Callable[[pl.DataFrame], Vectors],
    texts: pl.DataFrame,
    folder: Path,
    what: str,
    progress: Progress,
) -> Vectors:
    """Encode texts into a folder.

    Args:
        encode: from a block of rows to its vectors, such as ``document_vectors`` with an encoder.
        texts: ``id`` and ``text``, at least one row.
        folder: of the vectors alone; made, and emptied where it is there.
        what: is encoded, for progress.
        progress: hears of texts.

    Returns:
        A row a text, memory-mapped.

    Raises:
        ConfigError: there are no texts.
        FormatError: the encoder makes numbers that are not finite.
    """
    if not texts.height:
        raise ConfigError(f"there are no {what} to encode")
    shutil.rmtree(folder, ignore_errors=True)
    blocks = folder.with_name(f"{folder.name}-blocks")
    shutil.rmtree(blocks, ignore_errors=True)
    progress.start(f"encode {what}", texts.height, "texts")
    parts = []
    for number, block in enumerate(texts.iter_slices(BLOCK)):
        vectors = encode(block)
        check_finite(vectors, f"the encoder of {what}")
        parts.append(blocks / str(number))
        save_vectors(parts[-1], vectors)
        progress.advance(block.height)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if len(parts) == 1:
        parts[0].rename(folder)
    else:
        join_vectors(parts, folder)
    shutil.rmtree(blocks)
    return load_vectors(folder)


def as_documents(block: pl.DataFrame) -> Sequence[Document]:
    """Rows of ``id`` and ``text`` as encoders take documents."""
    return [Document(id_, text) for id_, text in block.iter_rows()]
