"""The chosen index over all rows: built, searched with as much effort as its recall needs, verified."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexing.adding import index_segments
from indexing.assembly import index_spec
from indexing.collection import CollectionSnapshot
from indexing.commit import Commit, IndexSpec
from indexing.durable import MANIFEST, read_sealed, write_sealed
from indexing.fitting import shared_folder, with_indexes
from indexing.kinds import kind_class
from indexing.progress import Progress
from indexing.searching import RepresentationSearcher
from indexing.segment import index_folder, segment_folder
from indexing.tuning.frontier import Point, Target
from indexing.tuning.grid import Candidate
from indexing.tuning.ladder import first_reaching
from indexing.tuning.measuring import folder_bytes, point_of, resident_bytes, scored_at_last, single_searches
from indexing.tuning.queries import TuningQueries
from indexing.tuning.recall import lower_bound, recalls
from retrieval.protocols import SearchRequest
from retrieval.values import Dense, Hits

EXACT = "flat"


@dataclass(frozen=True, eq=False)
class Verified:
    """An index over all rows, built and measured, that the commit on disk does not name.

    Attributes:
        commit: one that names it, with a flat index beside it.
        point: what was measured of it with the queries that chose nothing.
    """

    commit: Commit
    point: Point


def build_and_verify(
    path: Path,
    commit: Commit,
    name: str,
    chosen: Point,
    queries: TuningQueries,
    target: Target,
    *,
    memory_bytes: int,
    progress: Progress,
) -> Verified | None:
    """Build the chosen index over every segment and find the parameter that keeps the promise there.

    Recall falls as rows become more, so the parameter is found anew: the least that reaches the target with one half
    of the queries, then raised until the other half confirms it.

    The caller holds the writer lock, and commits what it gets or sweeps it away.

    Returns:
        None where no value of the parameter finds enough.
    """
    rows = max(entry.n_rows for entry in commit.segments)
    candidate = Candidate.of(chosen.kind, chosen.number, rows, queries.vectors.dim, target.k)
    have = {spec.kind: spec for spec in commit.representations[name].indexes}
    wanted = {candidate.kind: candidate.build, EXACT: {}}
    missing = [
        index_spec(kind, build) for kind, build in wanted.items() if kind != EXACT or EXACT not in have
    ]
    started = time.monotonic()
    entries, made = index_segments(path, commit, name, missing, memory_bytes, progress)
    build_s = time.monotonic() - started
    specs = {**have, **{spec.kind: spec for spec in made}}
    following = with_indexes(commit.following(segments=entries), name, tuple(specs.values()))
    snapshot = CollectionSnapshot.open(path, following)
    try:
        whole = _Whole(snapshot, name, candidate, target.k)
        point = _verified(whole, chosen.search, queries, target, build_s, progress)
    finally:
        snapshot.close()
    return None if point is None else Verified(following, point)


def sealed_anew(path: Path, commit: Commit, name: str, kind: str, search: Mapping[str, Any]) -> IndexSpec:
    """Write the final search parameters into the manifests of indexes that no commit on disk names yet.

    Returns:
        The index's spec with them.
    """
    (spec,) = (spec for spec in commit.representations[name].indexes if spec.kind == kind)
    spec = replace(spec, parameters={**spec.parameters, **search})
    for folder in _folders(path, commit, name, kind):
        manifest = read_sealed(folder / MANIFEST)
        write_sealed(folder / MANIFEST, {**manifest, "parameters": dict(spec.parameters)})
    return spec


@dataclass(frozen=True, eq=False)
class _Whole:
    """A collection with the new index, searched as its users do."""

    snapshot: CollectionSnapshot
    name: str
    candidate: Candidate
    k: int

    def search(self, queries: Dense, kind: str, search: Mapping[str, Any]) -> Hits:
        no_encoder: Any = None  # the queries are encoded already
        searcher = RepresentationSearcher(self.snapshot, self.name, kind, no_encoder, search)
        return searcher.search_encoded(queries, SearchRequest(k=self.k))

    def documents(self, queries: Dense, kind: str, search: Mapping[str, Any]) -> NDArray[np.int64]:
        """(Q, k) numbers of the documents found."""
        return self.snapshot.document_numbers(self.search(queries, kind, search).rows)

    def judged(self, queries: Dense) -> _Judged:
        return _Judged(queries, self.documents(queries, EXACT, {}))

    def recalls(self, judged: _Judged, search: Mapping[str, Any]) -> NDArray[np.float64]:
        """(Q,) shares of the exact answers that the new index finds."""
        return recalls(self.documents(judged.queries, self.candidate.kind, search), judged.truth)

    def resident_bytes(self, search: Mapping[str, Any]) -> int:
        kind, commit = self.candidate.kind, self.snapshot.commit
        (spec,) = (spec for spec in commit.representations[self.name].indexes if spec.kind == kind)
        folders = _folders(self.snapshot.path, commit, self.name, kind)
        folders += shared_folder(self.snapshot.path, self.name, spec).values()
        segment = self.snapshot.segments[0]
        vectors: Any = segment.vectors(self.name)
        index = replace(segment.index(self.name, kind), **search)
        return resident_bytes(
            sum(map(folder_bytes, folders)),
            self.snapshot.n_rows,
            vectors.dim * vectors.values.itemsize,
            scored_at_last(self.candidate, index, self.k),
        )


@dataclass(frozen=True, eq=False)
class _Judged:
    """Queries and the documents that answer them, (Q, k)."""

    queries: Dense
    truth: NDArray[np.int64]


def _verified(
    whole: _Whole,
    chosen: Mapping[str, Any],
    queries: TuningQueries,
    target: Target,
    build_s: float,
    progress: Progress,
) -> Point | None:
    progress.start("verify the index", None, "settings")
    choosing, verifying = map(whole.judged, queries.halves())
    exact = kind_class(whole.candidate.kind).exact
    search = dict(chosen) if exact else _least(whole, chosen, choosing, verifying, target, progress)
    if search is None:
        return None
    return point_of(
        whole.candidate,
        search,
        whole.recalls(verifying, search),
        single_searches(lambda query: whole.search(query, whole.candidate.kind, search), verifying.queries),
        whole.resident_bytes(search),
        build_s,
        target.k,
    )


def _least(
    whole: _Whole,
    chosen: Mapping[str, Any],
    choosing: _Judged,
    verifying: _Judged,
    target: Target,
    progress: Progress,
) -> dict[str, Any] | None:
    """The parameters of a search that finds enough of both, with as little effort as may be."""
    candidate = whole.candidate

    def reaches(place: int, judged: _Judged) -> bool:
        progress.advance(1)
        return lower_bound(whole.recalls(judged, candidate.search(chosen, place)), target.k) >= target.recall

    places = len(candidate.values)
    found = first_reaching(places, candidate.place(chosen), lambda place: reaches(place, choosing))
    if found is None:
        return None
    confirmed = next((place for place in range(found, places) if reaches(place, verifying)), None)
    return None if confirmed is None else candidate.search(chosen, confirmed)


def _folders(path: Path, commit: Commit, name: str, kind: str) -> list[Path]:
    """Of the index, in every segment."""
    key = f"{name}-{kind}"
    return [
        index_folder(segment_folder(path, entry.id), key, entry.indexes[key]) for entry in commit.segments
    ]
