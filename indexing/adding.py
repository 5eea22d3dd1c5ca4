"""`tercet index COLLECTION --add NAME`: a further index, or a whole representation, over documents already stored."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from indexing.assembly import build_index
from indexing.collection import CollectionSnapshot
from indexing.commit import Commit, IndexSpec, Representation, SegmentEntry, read_commit, write_commit
from indexing.documents import pack_documents
from indexing.durable import sync_folder
from indexing.encoder_fitting import able_to_encode, spread, with_learned
from indexing.fitting import fitted, same_index, with_indexes
from indexing.lock import writer_lock
from indexing.options import BATCH_ROWS, RepresentationOptions, check_distinct, rows_together
from indexing.progress import Progress, Silent
from indexing.segment import Segment
from indexing.staging import Staging
from indexing.sweeping import sweep
from indexing.vectors import Vectors, check_finite, join_vectors, load_vectors, value_name
from retrieval.encoders import open_encoder
from retrieval.errors import ConfigError, IncompatibleError
from retrieval.protocols import Encoder
from retrieval.values import Dense, Document, Strings


def add_representation(
    path: str | Path,
    options: RepresentationOptions,
    *,
    vectors: Dense | None = None,
    memory_bytes: int = 512 * 10**6,
    restart: bool = False,
    progress: Progress | None = None,
) -> None:
    """Add a representation, or further indexes over one that is there (from its stored vectors).

    Args:
        vectors: the rows' vectors made elsewhere, in the collection's row order; ``options.encoder`` then only
            encodes queries. None encodes the stored texts.
        restart: forget unfinished runs instead of resuming one.

    Raises:
        ConfigError: the collection already has all of it, or a representation whose indexes could not be told
            from it.
        IncompatibleError: the vectors' number or width does not fit.
    """
    path = Path(path)
    progress = progress or Silent()
    read_commit(path)
    with writer_lock(path):
        commit = read_commit(path)
        check_distinct(dict.fromkeys([*commit.representations, options.name]))
        if options.name in commit.representations and vectors is None:
            following = _add_indexes(path, commit, options, memory_bytes, progress)
        elif options.name in commit.representations:
            raise ConfigError(f"{path} already has vectors named {options.name!r}; choose another name")
        else:
            following = _add_vectors(path, commit, options, vectors, memory_bytes, restart, progress)
        write_commit(path, following)
        sweep(path, following)  # takes away the staged vectors too, which no kill before this point may lose


def _add_indexes(
    path: Path, commit: Commit, options: RepresentationOptions, memory_bytes: int, progress: Progress
) -> Commit:
    name = options.name
    representation = commit.representations[name]
    options = replace(options, encoder=representation.encoder)
    have = {spec.kind: spec for spec in representation.indexes}
    wanted = [spec for spec in options.indexes if not same_index(have.get(spec.kind), spec)]
    if not wanted:
        raise ConfigError(f"{path} already has this index: {name}-{options.indexes[0].kind}")
    entries, made = index_segments(path, commit, name, wanted, memory_bytes, progress)
    specs = {**have, **{spec.kind: spec for spec in made}}
    return with_indexes(commit.following(segments=entries), name, tuple(specs.values()))


def index_segments(
    path: Path, commit: Commit, name: str, specs: Sequence[IndexSpec], memory_bytes: int, progress: Progress
) -> tuple[tuple[SegmentEntry, ...], Sequence[IndexSpec]]:
    """Build indexes over the stored vectors of every segment; the caller holds the writer lock and commits them.

    Returns:
        The segments with the new indexes, and the specs with what these have learned.
    """
    entries = []
    for entry in commit.segments:
        vectors = load_vectors(path / "segments" / entry.id / "vectors" / name)
        specs = fitted(path, name, specs, vectors, memory_bytes=memory_bytes, progress=progress)
        indexes = dict(entry.indexes)
        for spec in specs:
            key = f"{name}-{spec.kind}"
            generation = indexes.get(key, 0) + 1
            build_index(path, entry.id, name, spec, generation, memory_bytes=memory_bytes, progress=progress)
            indexes[key] = generation
        entries.append(replace(entry, indexes=indexes))
    return tuple(entries), specs


def _add_vectors(
    path: Path,
    commit: Commit,
    options: RepresentationOptions,
    vectors: Dense | None,
    memory_bytes: int,
    restart: bool,
    progress: Progress,
) -> Commit:
    encoder = open_encoder(options.encoder)
    snapshot = CollectionSnapshot.open(path, commit)
    if vectors is not None:
        _check_fit(snapshot, vectors, encoder, options.name)
    plan = {
        "base": commit.token,
        "add": options.name,
        "encoder": encoder.fingerprints.documents,
        "vectors": None if vectors is None else list(vectors.values.shape),
    }
    staging = Staging(path, plan, restart=restart)
    if vectors is not None:  # cheap to stage again, and the file may have changed under the same shape
        staging.drop()
        staging = Staging(path, plan)
    progress.start(f"encode {options.name}", snapshot.n_rows, "rows")
    with staging.filling(resumable=vectors is None):
        if vectors is None and snapshot.n_rows:
            able = able_to_encode(staging, {options.name: encoder}, lambda: _sample(snapshot))
            encoder = able[options.name]
        _stage(snapshot, staging, options.name, encoder, vectors, progress)
    entries = []
    for entry in commit.segments:
        target = path / "segments" / entry.id / "vectors" / options.name
        if target.exists():  # left by a killed attempt: no commit names it
            shutil.rmtree(target)
        parts = [
            batch.vectors_folder(options.name)
            for batch in staging.batches
            if batch.facts["segment"] == entry.id
        ]
        join_vectors(parts, target)
        sync_folder(target.parent)
        entries.append(replace(entry, vectors=(*entry.vectors, options.name)))
    following = replace(commit, segments=tuple(entries))
    indexed, specs = index_segments(path, following, options.name, options.indexes, memory_bytes, progress)
    representation = Representation(
        dict(encoder.spec), encoder.fingerprints.documents, value_name(encoder.value), tuple(specs)
    )
    representation = with_learned(path, staging, options.name, representation, encoder)
    snapshot.close()
    return commit.following(
        segments=indexed, representations={**commit.representations, options.name: representation}
    )


def _stage(
    snapshot: CollectionSnapshot,
    staging: Staging,
    name: str,
    encoder: Encoder[Any, Any],
    vectors: Dense | None,
    progress: Progress,
) -> None:
    """Stage the vectors of every row, segment by segment, after those that are staged already."""
    done = len(staging.batches)
    step = rows_together(BATCH_ROWS, [encoder.value])
    for number, (segment, start, stop) in enumerate(_row_batches(snapshot, step)):
        if number >= done:
            part = _part(segment, start, stop, encoder, vectors)
            check_finite(part, f"representation {name!r}")
            staging.add(pack_documents([], None), Strings.of([]), {name: part}, {"segment": segment.entry.id})
        progress.advance(stop - start)


def _part(
    segment: Segment, start: int, stop: int, encoder: Encoder[Any, Any], vectors: Dense | None
) -> Vectors:
    if vectors is not None:
        return vectors[segment.base + start : segment.base + stop]
    encoded: Vectors = encoder.encode_documents(segment.documents.passages(start, stop))
    return encoded


def _row_batches(snapshot: CollectionSnapshot, step: int) -> Iterator[tuple[Segment, int, int]]:
    for segment in snapshot.segments:
        for start in range(0, segment.n_rows, step):
            yield segment, start, min(start + step, segment.n_rows)


def _sample(snapshot: CollectionSnapshot) -> list[Document]:
    """Texts of rows from all over the collection; deleted ones only where there are no others."""
    live = np.concatenate(
        [
            np.ones(segment.n_rows, dtype=np.bool_) if segment.live is None else segment.live.mask()
            for segment in snapshot.segments
        ]
    )
    rows = np.flatnonzero(live) if live.any() else np.arange(len(live))
    return snapshot.passages(spread(rows))


def _check_fit(snapshot: CollectionSnapshot, vectors: Dense, encoder: Encoder[Any, Any], name: str) -> None:
    if encoder.value is not Dense:
        raise IncompatibleError(
            f"the vectors for {name!r} are dense ones, its encoder makes {value_name(encoder.value)} ones; "
            "name the model they were made with (-m MODEL)"
        )
    if len(vectors) != snapshot.n_rows:
        raise IncompatibleError(
            f"the vectors for {name!r} have {len(vectors)} rows, the collection has {snapshot.n_rows} "
            "(one for every chunk of every document, deleted ones included until `tercet compact`)"
        )
    width = encoder.encode_queries(["width"]).dim  # of a network, that of the vectors it scores
    if width != vectors.dim:
        raise IncompatibleError(
            f"the vectors for {name!r} are {vectors.dim} wide, the query encoder makes {width}; "
            "name the model they were made with (-m MODEL)"
        )
