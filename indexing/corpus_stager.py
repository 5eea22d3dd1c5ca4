"""The streaming half of a build: records in, sealed batches out, in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from indexing.chunking import Chunking
from indexing.collection import CollectionSnapshot
from indexing.corpora import Corpus, Record
from indexing.corpora.corpus import error_at
from indexing.documents import Documents, id_hash, id_hashes, pack_documents
from indexing.encoder_fitting import able_to_encode, spread
from indexing.growing import map_strings
from indexing.metadata import pack_metadata
from indexing.metadata_schema import MetadataSchema
from indexing.progress import Progress
from indexing.seen_ids import SeenIds
from indexing.staging import Staging
from indexing.vectors import Vectors, check_finite
from retrieval.encoders.transformer.batches import MOST_TEXTS, text_groups
from retrieval.encoders.transformer.passes import PASSES
from retrieval.protocols import Encoder
from retrieval.values import Dense, Document, MultiSparse, MultiVector, Sparse, Strings

MAX_BATCH_CHARACTERS = 32_000_000
"""A batch ends here even when it has few rows, so that huge documents do not pile up in memory."""

_SLICE_SECONDS = 1.5
_FIRST_SLICE = 256
_MOST_ROWS = 8192
_SLOW = (Dense, Sparse, MultiVector, MultiSparse)
"""What a model makes that reads every text in full."""


@dataclass
class Tallies:
    """Counts of one build, kept with every batch so that a resumed build reports the whole."""

    documents: int = 0
    rows: int = 0
    replaced: int = 0
    skipped: int = 0
    empty: int = 0
    truncated: dict[str, int] = field(default_factory=dict)
    dead: list[int] = field(default_factory=list)
    dead_before: list[list[int]] = field(default_factory=list)
    """[segment position, document number] of documents of the collection that were replaced."""


class CorpusStager:
    """Stages a corpus for a job, continuing after the job's last sealed batch."""

    def __init__(
        self,
        corpus: Corpus,
        staging: Staging,
        encoders: Mapping[str, Encoder[Any, Any]],
        chunking: Chunking,
        schema: Mapping[str, str],
        existing: CollectionSnapshot | None,
        on_duplicate: str,
        batch_rows: int,
        progress: Progress,
    ) -> None:
        self._corpus = corpus
        self._staging = staging
        self._encoders = encoders
        self._chunking = chunking
        self._existing = existing
        self._on_duplicate = on_duplicate
        self._batch_rows = batch_rows
        self._progress = progress
        self._seen = SeenIds()
        self._records: list[Record] = []
        self._spans: list[list[tuple[int, int]]] = []
        self._rows = self._characters = 0
        self._slice = _FIRST_SLICE
        self.tallies = Tallies()
        self.schema = MetadataSchema.from_json(dict(schema))
        self._position: Any = None
        for batch in staging.batches:
            numbers = np.arange(self.tallies.documents, self.tallies.documents + batch.facts["n_documents"])
            self._seen.extend(id_hashes(batch.documents().ids), numbers)
            self.tallies.documents += len(numbers)
        if staging.batches:
            facts = staging.batches[-1].facts
            self.tallies = Tallies(**facts["tallies"])
            self.schema = MetadataSchema.from_json(facts["schema"])
            self._position = facts["position"]
        self.resumed_documents = self.tallies.documents

    def run(self) -> None:
        """Stage everything that is not staged yet.

        Raises:
            FormatError: a record cannot be read, conflicts with the metadata types so far, or repeats an id.
        """
        self._progress.start("read and encode", None, "rows")
        if self._staging.batches:
            self._progress.note(
                f"resuming after {self.resumed_documents:,} documents that are already encoded"
            )
            self._progress.advance(self.tallies.rows)
        for record in self._corpus.read(self._position):
            self._take(record)
            if self._rows >= self._batch_rows or self._characters >= MAX_BATCH_CHARACTERS:
                self._seal(record)
        if self._records:
            self._seal(self._records[-1])

    def _take(self, record: Record) -> None:
        document = record.document
        if not self._admit(record):
            return
        self.schema.add(document.metadata, record.place)
        spans = self._chunking.spans(document.text)
        if not document.text and not document.title:
            self.tallies.empty += 1
        self._records.append(record)
        self._spans.append(spans)
        self._rows += len(spans)
        self._characters += len(document.text)

    def _admit(self, record: Record) -> bool:
        """Whether a record becomes a document; duplicates are refused, skipped or replace what was there."""
        id_ = record.document.id
        hash_ = id_hash(id_)
        number = self.tallies.documents + len(self._records)
        earlier = self._seen.get(hash_)
        if earlier is not None and self._id_and_place(earlier)[0] == id_:
            if self._on_duplicate == "error":
                raise error_at(
                    record.place,
                    f'"_id" {id_!r} was already used at {self._id_and_place(earlier)[1]}; '
                    "every document needs its own, or choose --on-duplicate replace or skip",
                )
            if self._on_duplicate == "skip":
                self.tallies.skipped += 1
                return False
            self.tallies.dead.append(earlier)
            self.tallies.replaced += 1
        elif self._existing is not None and (found := self._existing.find(id_)) is not None:
            if self._on_duplicate == "error":
                raise error_at(
                    record.place,
                    f'"_id" {id_!r} is already in the collection {self._existing.path}; '
                    "choose --on-duplicate replace or skip",
                )
            if self._on_duplicate == "skip":
                self.tallies.skipped += 1
                return False
            self.tallies.dead_before.append([self._existing.segments.index(found[0]), found[1]])
            self.tallies.replaced += 1
        self._seen.note(hash_, number)
        return True

    def _id_and_place(self, number: int) -> tuple[str, str]:
        """The id and place of an earlier document of this job, wherever it is now."""
        if number >= self.tallies.documents:
            record = self._records[number - self.tallies.documents]
            return record.document.id, record.place
        for batch in self._staging.batches:
            if number < batch.facts["n_documents"]:
                return batch.documents().ids[number], map_strings(batch.folder, "places")[number]
            number -= batch.facts["n_documents"]
        raise IndexError(number)

    def _seal(self, last: Record) -> None:
        documents = [record.document for record in self._records]
        chunked = str(self._chunking) != "none"
        packed = pack_documents(documents, self._spans if chunked else None)
        passages = (
            [
                Document(document.id, document.text[start:stop], document.title)
                for document, spans in zip(documents, self._spans, strict=True)
                for start, stop in spans
            ]
            if chunked
            else documents
        )
        if self._corpus.n_bytes:  # rows to come, as if the rest of the corpus were like what has been read
            unread = max(1.0, self._corpus.n_bytes / max(last.bytes_read, 1))
            self._progress.expect(round((self.tallies.rows + packed.n_rows) * unread))
        self._encoders = able_to_encode(self._staging, self._encoders, lambda: spread(passages))
        before = {name: encoder.tally.snapshot().n_truncated for name, encoder in self._encoders.items()}
        vectors = self._encode(passages, packed.n_rows)
        for name, encoder in self._encoders.items():
            check_finite(vectors[name], f"the encoder of {name!r}")
            cut = encoder.tally.snapshot().n_truncated - before[name]
            self.tallies.truncated[name] = self.tallies.truncated.get(name, 0) + cut
        self.tallies.documents += len(packed)
        self.tallies.rows += packed.n_rows
        self._stage(packed, vectors, last)
        self._records, self._spans, self._rows, self._characters = [], [], 0, 0

    def _stage(self, packed: Documents, vectors: Mapping[str, Vectors], last: Record) -> None:
        facts = {
            "position": last.position,
            "schema": self.schema.to_json(),
            "tallies": vars(self.tallies),
        }
        extra = {"places": Strings.of(record.place for record in self._records)}
        metadata = pack_metadata(record.document.metadata for record in self._records)
        self._staging.add(packed, metadata, vectors, facts, extra)

    def _encode(self, passages: list[Document], n_rows: int) -> dict[str, Vectors]:
        """Encode a batch; models in slices of a second or so, so that the bar moves and they share passes."""
        models = {name: encoder for name, encoder in self._encoders.items() if encoder.value in _SLOW}
        vectors: dict[str, Vectors] = {
            name: encoder.encode_documents(passages)
            for name, encoder in self._encoders.items()
            if name not in models
        }
        parts: dict[str, list[Any]] = {name: [] for name in models}
        done, reported = 0, 0
        while models and done < len(passages):
            started = perf_counter()
            part = passages[done : done + self._slice]
            if len(models) > 1:
                # token encoders read no more at a time, and only the very same batch can be shared
                part = part[next(text_groups([passage.contents() for passage in part]))]
            with PASSES.shared():
                for name, encoder in models.items():
                    parts[name].append(encoder.encode_documents(part))
            seconds = max(perf_counter() - started, 1e-3)
            done += len(part)
            now = n_rows * done // len(passages)
            self._progress.advance(now - reported)
            reported = now
            most = _MOST_ROWS if len(models) == 1 else MOST_TEXTS
            self._slice = int(min(most, max(128, len(part) * _SLICE_SECONDS / seconds)))
        self._progress.advance(n_rows - reported)
        joined = {
            name: found[0] if len(found) == 1 else type(found[0]).concat(found)
            for name, found in parts.items()
        }
        return {name: (vectors | joined)[name] for name in self._encoders}
