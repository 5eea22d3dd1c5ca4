"""`tercet encode`: the dense vectors of a corpus as one .npy, written in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexing.corpora import Corpus
from indexing.durable import sync_file, sync_folder
from indexing.growing import GrowingArray
from indexing.progress import Progress
from indexing.vectors import check_finite
from retrieval.encoders import open_encoder, query_value
from retrieval.errors import ConfigError, FormatError
from retrieval.protocols import Encoder
from retrieval.values import Dense, Document

_BATCH = 1024


@dataclass(frozen=True)
class EncodingReport:
    """What was encoded."""

    rows: int
    dim: int
    truncated: int


def encode_corpus(
    corpus: Corpus,
    spec: Mapping[str, Any],
    output: Path,
    *,
    queries: bool,
    overwrite: bool = False,
    progress: Progress,
) -> EncodingReport:
    """Encode every text of a corpus in order.

    The file appears under its name only when it is complete.

    Raises:
        ConfigError: the encoder does not make dense vectors, or the output is a folder, the corpus itself, or a file
            that is there (unless overwrite).
        FormatError: the corpus holds no text or cannot be read.
    """
    _check_output(output, corpus.source, overwrite=overwrite)
    encoder = open_encoder(spec)
    if encoder.value is not Dense or (queries and query_value(encoder) is not Dense):
        raise ConfigError(f"`tercet encode` writes dense vectors; {spec['family']!r} encoders make others")
    temporary = output.with_name(output.name + ".tmp")
    target: GrowingArray | None = None
    before = encoder.tally.snapshot().n_truncated
    progress.start("encode", corpus.n_bytes, "B")
    batch: list[Document] = []
    read = 0
    try:
        for record in corpus.read():
            batch.append(record.document)
            if len(batch) >= _BATCH:
                target = _append(target, temporary, encoder, batch, queries)
                progress.advance(record.bytes_read - read)
                read, batch = record.bytes_read, []
        if batch:
            target = _append(target, temporary, encoder, batch, queries)
        if target is None:
            raise FormatError("holds no text to encode", corpus.source)
        target.close()
        sync_file(temporary)
        os.replace(temporary, output)
        sync_folder(output.absolute().parent)
    finally:
        if target is not None:
            target.close()
        temporary.unlink(missing_ok=True)
    truncated = encoder.tally.snapshot().n_truncated - before
    return EncodingReport(target.rows, target.width[0], truncated)


def _check_output(output: Path, source: str, *, overwrite: bool) -> None:
    if output.is_dir():
        raise ConfigError(
            f"{output} is a folder; name the .npy file to write, such as {output / 'vectors.npy'}"
        )
    if not output.parent.is_dir():
        raise ConfigError(f"{output.parent}: no such folder; make it first")
    if output.exists():
        if Path(source).exists() and output.samefile(source):
            raise ConfigError(f"{output} is what is to be encoded; name another file to write")
        if not overwrite:
            raise ConfigError(f"{output} is there already; name another file, or replace it with --overwrite")


def _append(
    target: GrowingArray | None,
    path: Path,
    encoder: Encoder[Any, Any],
    batch: list[Document],
    queries: bool,
) -> GrowingArray:
    vectors = (
        encoder.encode_queries([document.text for document in batch])
        if queries
        else encoder.encode_documents(batch)
    )
    check_finite(vectors, "the encoder")
    if target is None:
        target = GrowingArray(path, vectors.values.dtype, (vectors.dim,))
    target.append(vectors.values)
    return target
