"""Builds and additions: stage a corpus, assemble one segment of it, commit."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

from indexing.assembly import assemble_segment
from indexing.chunking import Chunking
from indexing.collection import CollectionSnapshot
from indexing.collection_encoder import collection_encoder
from indexing.commit import COMMIT_FILE, Commit, Representation, read_commit, write_commit
from indexing.corpora import Corpus
from indexing.corpus_stager import CorpusStager, Tallies
from indexing.deletes import mark_deleted
from indexing.documents import load_documents
from indexing.encoder_fitting import with_learned
from indexing.lock import WRITER_LOCK, writer_lock
from indexing.options import BuildOptions, WriteOptions, rows_together
from indexing.progress import Progress, Silent
from indexing.segment import segment_folder
from indexing.staging import Staging
from indexing.sweeping import sweep
from indexing.vectors import value_name
from retrieval.encoders import open_encoder
from retrieval.errors import ConfigError, FormatError
from retrieval.protocols import Encoder


@dataclass(frozen=True)
class BuildReport:
    """What a build or addition did.

    Attributes:
        n_documents: documents written, replaced ones of the same corpus included.
        empty: documents without title and text; they are stored and never found by their words.
        resumed_documents: how many of them an earlier, interrupted run had encoded.
        truncated: representation -> texts cut to the encoder's maximum length.
    """

    path: Path
    n_documents: int
    n_rows: int
    replaced: int
    skipped: int
    empty: int
    resumed_documents: int
    truncated: Mapping[str, int]
    seconds: float


def build_collection(
    corpus: Corpus, path: str | Path, options: BuildOptions, progress: Progress | None = None
) -> BuildReport:
    """Make a new collection of a corpus.

    Memory stays bounded whatever the corpus holds: a batch, the hashes of the ids and the index builders'
    budget. A build that was killed continues where its last sealed batch ended when it is started again with the
    same corpus and options.

    Raises:
        ConfigError: the path already holds a collection, or is a file.
        FormatError: a record cannot be read, or repeats an id; nothing is committed, and nothing is left behind
            unless batches before it are staged.
        LockedError: another process is writing there.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path} is a file; name a folder for the collection")
    if path.is_dir() and not (path / "building").exists() and not (path / COMMIT_FILE).exists():
        strangers = [entry.name for entry in path.iterdir() if entry.name != WRITER_LOCK]
        if strangers:
            raise ConfigError(f"{path} holds other files ({strangers[0]}, ...); name a new or empty folder")
    encoders = {part.name: open_encoder(part.encoder) for part in options.representations}
    made = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    with writer_lock(path):
        if (path / COMMIT_FILE).exists():
            raise ConfigError(
                f"{path} already holds a collection; add to it with `tercet add {path} CORPUS`, "
                "or remove the folder first"
            )
        commit = Commit(
            uuid=uuid.uuid4().hex,
            generation=0,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            source=corpus.source,
            chunking=str(options.chunking),
            schema={},
            representations={
                part.name: Representation(
                    dict(encoders[part.name].spec),
                    encoders[part.name].fingerprints.documents,
                    value_name(encoders[part.name].value),
                    part.indexes,
                )
                for part in options.representations
            },
            segments=(),
        )
        try:
            return _write_segment(corpus, path, commit, encoders, None, options.writing, progress or Silent())
        except FormatError:
            if made and os.listdir(path) == [WRITER_LOCK]:
                (path / WRITER_LOCK).unlink()
                path.rmdir()
            raise


def add_documents(
    corpus: Corpus, path: str | Path, options: WriteOptions, progress: Progress | None = None
) -> BuildReport:
    """Add a corpus to a collection as one new segment, encoded as the collection is.

    Raises:
        FormatError: as for ``build_collection``; an id that the collection already has counts as repeated.
        IncompatibleError: an encoder no longer is what the collection was made with.
        LockedError: another process is writing there.
    """
    path = Path(path)
    read_commit(path)
    with writer_lock(path):
        commit = read_commit(path)
        encoders = {
            name: collection_encoder(path, commit.representations, name) for name in commit.representations
        }
        existing = CollectionSnapshot.open(path, commit)
        return _write_segment(corpus, path, commit, encoders, existing, options, progress or Silent())


def _write_segment(
    corpus: Corpus,
    path: Path,
    commit: Commit,
    encoders: Mapping[str, Encoder[Any, Any]],
    existing: CollectionSnapshot | None,
    options: WriteOptions,
    progress: Progress,
) -> BuildReport:
    started = perf_counter()
    base = "" if existing is None else commit.token
    batch_rows = rows_together(options.batch_rows, (encoder.value for encoder in encoders.values()))
    plan = {
        "base": base,
        "corpus": corpus.fingerprint(),
        "chunking": commit.chunking,
        "encoders": {name: facts.fingerprint for name, facts in commit.representations.items()},
        "on_duplicate": options.on_duplicate,
        "batch_rows": batch_rows,
    }
    staging = Staging(path, plan, restart=options.restart)
    if not corpus.resumable and staging.batches:
        staging.drop()
        staging = Staging(path, plan)
    stager = CorpusStager(
        corpus,
        staging,
        encoders,
        Chunking.parse(commit.chunking),
        commit.schema,
        existing,
        options.on_duplicate,
        batch_rows,
        progress,
    )
    tallies = stager.tallies
    with staging.filling(resumable=corpus.resumable):
        stager.run()
        if not tallies.documents and existing is None:
            raise FormatError("the corpus holds no document; nothing was built", corpus.source)
    following = commit
    if tallies.documents:
        learned = {
            name: with_learned(path, staging, name, representation, encoders[name])
            for name, representation in commit.representations.items()
        }
        commit = replace(commit, representations=learned)
        following = _assemble(
            path, commit, staging, tallies, stager.schema.to_json(), existing, options, progress
        )
    if existing is not None:
        existing.close()
    staging.drop()
    sweep(path, following)
    return BuildReport(
        path=path,
        n_documents=tallies.documents,
        n_rows=tallies.rows,
        replaced=tallies.replaced,
        skipped=tallies.skipped,
        empty=tallies.empty,
        resumed_documents=stager.resumed_documents,
        truncated={name: count for name, count in tallies.truncated.items() if count},
        seconds=perf_counter() - started,
    )


def _assemble(
    path: Path,
    commit: Commit,
    staging: Staging,
    tallies: Tallies,
    schema: Mapping[str, str],
    existing: CollectionSnapshot | None,
    options: WriteOptions,
    progress: Progress,
) -> Commit:
    """Turn the staged batches into a committed segment, replaced documents deleted in the same commit."""
    following = commit.following(schema=dict(schema))
    entry, following = assemble_segment(
        path, following, staging.batches, memory_bytes=options.memory_bytes, progress=progress
    )
    if tallies.dead:
        documents = load_documents(segment_folder(path, entry.id) / "documents")
        entry = mark_deleted(path, entry, documents, tallies.dead, None, following.generation)
    segments = list(commit.segments)
    for position in sorted({position for position, _ in tallies.dead_before}):
        if existing is None:
            raise AssertionError("documents of no collection cannot be replaced")
        segment = existing.segments[position]
        dead = [document for where, document in tallies.dead_before if where == position]
        segments[position] = mark_deleted(
            path, segment.entry, segment.documents, dead, segment.live, following.generation
        )
    following = following.following(
        segments=(*segments, entry), next_segment=commit.next_segment + 1, generation=following.generation
    )
    write_commit(path, following)
    return following
