"""Query banks of a collection: vectors of sample queries in ``shared/``, for searches that hold hubs back.

See ``retrieval.query_bank``. A bank belongs to a representation and to the encoder of its queries. What it says about
rows is found in every snapshot anew, since adding and deleting documents changes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from indexing.collection import Collection, require_representation
from indexing.collection_encoder import collection_encoder
from indexing.commit import read_commit, write_commit
from indexing.index_facts import read_facts, write_facts
from indexing.lock import writer_lock
from indexing.progress import Progress, Silent
from indexing.searching import RepresentationSearcher
from indexing.shared_state import bank_name, open_state, put_state
from indexing.sweeping import sweep
from indexing.vectors import check_finite, value_name
from retrieval.encoders import query_value
from retrieval.errors import ConfigError, IncompatibleError, unknown_name
from retrieval.hubness import Hubness, hubness, occurrences
from retrieval.protocols import Encoder, Searcher, SearchRequest
from retrieval.query_bank import ACTIVATING, BETA, HubCorrection, QueryBank, QueryBankNormalised
from retrieval.values import Dense

if TYPE_CHECKING:
    from indexing.collection import CollectionSnapshot

LARGEST = 10_000
"""Queries of a bank; every candidate is compared with all of them once, which takes 1 ms at width 384."""

_FACTS = "bank.json"
_JUDGED_HITS = 10
_BATCH = 256  # queries encoded or searched together


@dataclass(frozen=True)
class StoredBank:
    """What was stored, and what it says about the collection.

    Attributes:
        representation: whose bank it is.
        queries: how many there are.
        left_out: queries over ``LARGEST``.
        hubness: of the first 10 hits of these queries.
    """

    representation: str
    queries: int
    left_out: int
    hubness: Hubness


def store_query_bank(
    path: str | Path,
    name: str,
    queries: Sequence[str],
    parameters: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> StoredBank:
    """Encode queries and commit them as the bank of a representation, instead of the one before.

    Args:
        path: of the collection.
        name: a representation of one vector a row.
        queries: texts; of more than ``LARGEST`` evenly spaced ones are taken.
        parameters: ``beta`` and ``k``, see ``QueryBank``.

    Raises:
        ConfigError: no query, no such representation, one of other vectors, or an impossible parameter.
        FormatError: a vector holds NaN or infinity.
        IncompatibleError: the encoder is not the one the collection was encoded with.
        LockedError: another process is writing.
    """
    path, progress = Path(path), progress or Silent()
    read_commit(path)
    full = _parameters(parameters or {})
    taken = list(queries[:: max(1, math.ceil(len(queries) / LARGEST))])
    with writer_lock(path):
        commit = read_commit(path)
        representation = require_representation(commit.representations, name)
        if representation.value != value_name(Dense):
            raise ConfigError(
                f"a query bank is for representations of one dense vector a document; {name!r} holds "
                f"{representation.value} vectors"
            )
        encoder = collection_encoder(path, commit.representations, name)
        if query_value(encoder) is not Dense:
            raise ConfigError(f"a query bank is of vectors; the encoder of {name!r} makes others of queries")
        bank = QueryBank(_encoded(encoder, taken, progress), **full)
        generation = put_state(path, bank_name(name), lambda folder: _save(folder, bank, encoder))
        changed = {**commit.representations, name: replace(representation, query_bank=generation)}
        following = commit.following(representations=changed)
        write_commit(path, following)
        sweep(path, following)
    judged = _hubness(path, name, bank.vectors, progress)
    return StoredBank(name, len(taken), len(queries) - len(taken), judged)


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    defaults = {"beta": BETA, "k": ACTIVATING}
    for name in given:
        if name not in defaults:
            raise unknown_name("parameter of a query bank", name, defaults)
    return {**defaults, **given}


def _encoded(encoder: Encoder[Any, Any], queries: list[str], progress: Progress) -> Dense:
    if not queries:
        raise ConfigError("a query bank holds at least one query; give a file with queries")
    progress.start("encode queries", len(queries), "queries")
    parts = []
    for start in range(0, len(queries), _BATCH):
        parts.append(encoder.encode_queries(queries[start : start + _BATCH]))
        progress.advance(len(parts[-1]))
    vectors = Dense(Dense.concat(parts).values.astype(np.float32))
    check_finite(vectors, "query bank")
    return vectors


def _save(folder: Path, bank: QueryBank, encoder: Encoder[Any, Any]) -> None:
    bank.vectors.save(folder)
    facts = {"n": len(bank.vectors), "dim": bank.vectors.dim, "beta": bank.beta, "k": bank.k}
    write_facts(folder / _FACTS, {**facts, "encoder": encoder.fingerprints.queries})


def _hubness(path: Path, name: str, queries: Dense, progress: Progress) -> Hubness:
    """How unevenly the queries' hits fall on the live rows."""
    snapshot = Collection.open(path).snapshot()
    kind = snapshot.representations[name].indexes[0].kind
    searcher = RepresentationSearcher(snapshot, name, kind, snapshot.encoder(name), {})
    progress.start("count hubs", len(queries), "queries")
    counts = np.zeros(snapshot.n_rows, dtype=np.int64)
    for start in range(0, len(queries), _BATCH):
        part = queries[start : start + _BATCH]
        counts += occurrences(searcher.search_encoded(part, SearchRequest(k=_JUDGED_HITS)).rows, len(counts))
        progress.advance(len(part))
    live = [
        np.ones(segment.n_rows, dtype=np.bool_) if segment.live is None else segment.live.mask()
        for segment in snapshot.segments
    ]
    return hubness(counts[np.concatenate(live)] if live else counts, _JUDGED_HITS)


def normalised_searchers(
    snapshot: CollectionSnapshot, searchers: Sequence[RepresentationSearcher]
) -> list[Searcher]:
    """The searchers, with hubs held back by those whose representation has a query bank.

    What a bank says about the rows is kept with the snapshot.

    Raises:
        ConfigError: none of the representations has a bank.
        CorruptError: a bank is damaged.
        IncompatibleError: another encoder made it.
    """
    if all(snapshot.representations[searcher.name].query_bank is None for searcher in searchers):
        names = " or ".join(dict.fromkeys(searcher.name for searcher in searchers))
        raise ConfigError(
            f"there is no query bank for {names}; store one of sample queries: "
            f"tercet index {snapshot.path} --query-bank QUERIES.jsonl --using dense"
        )
    return [_normalised(snapshot, searcher) for searcher in searchers]


def _normalised(snapshot: CollectionSnapshot, searcher: RepresentationSearcher) -> Searcher:
    generation = snapshot.representations[searcher.name].query_bank
    if generation is None:
        return searcher
    correction = snapshot.hub_correction(
        f"{searcher.name}-{searcher.kind}",
        lambda: HubCorrection(_opened(snapshot, searcher, generation), snapshot.n_rows),
    )
    store: Any = snapshot.store(searcher.name)  # of Dense, or there would be no bank
    return QueryBankNormalised(searcher, correction, store)


def _opened(snapshot: CollectionSnapshot, searcher: RepresentationSearcher, generation: str) -> QueryBank:
    folder = open_state(snapshot.path, bank_name(searcher.name), generation)
    vectors = Dense.load(folder)
    facts = read_facts(folder / _FACTS, {"n": len(vectors), "dim": vectors.dim}, "beta", "k")
    if facts.get("encoder") != searcher.encoder.fingerprints.queries:
        raise IncompatibleError(
            f"the query bank of {searcher.name!r} was made by another encoder of queries; store it again: "
            f"tercet index {snapshot.path} --query-bank QUERIES.jsonl --using {searcher.name}"
        )
    return QueryBank(vectors, facts["beta"], facts["k"])
