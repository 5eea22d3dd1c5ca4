"""The documents of a segment: ids, titles, texts and where each document's rows (chunks) lie.

Files: ``ids``, ``titles`` and ``texts`` as blob + offsets; ``id_hashes`` (sorted 64-bit hashes) with
``id_documents`` beside it, for looking an id up without reading them all; and, where documents are chunked,
``first_rows`` (first row of every document) and ``spans`` (character range of every row in its text).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexing.durable import open_manifest, write_manifest
from indexing.growing import GrowingArray, GrowingStrings, map_strings, take_strings
from retrieval.values import Document, Strings
from retrieval.values.storage import map_array


def id_hash(id_: str) -> int:
    """The 64-bit hash ids are looked up by (BLAKE2b)."""
    return int.from_bytes(
        hashlib.blake2b(id_.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little"
    )


def id_hashes(ids: Sequence[str] | Strings) -> NDArray[np.uint64]:
    """``id_hash`` of each."""
    return np.fromiter((id_hash(id_) for id_ in ids), dtype=np.uint64, count=len(ids))


@dataclass(frozen=True, eq=False)
class Documents:
    """N documents with R rows.

    Attributes:
        first_rows: (N+1,) int64, the first row of every document; row == document where nothing is chunked.
        spans: (R, 2) int64 character ranges, or None where every row is a whole document.
    """

    ids: Strings
    titles: Strings
    texts: Strings
    first_rows: NDArray[np.int64]
    spans: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_rows(self) -> int:
        """Rows of all documents."""
        return len(self) if self.spans is None else len(self.spans)

    def of_rows(self, rows: NDArray[np.integer]) -> NDArray[np.int64]:
        """The document number of each row."""
        if self.spans is None:
            return np.asarray(rows, dtype=np.int64)
        return np.searchsorted(self.first_rows, rows, side="right") - 1

    def rows_of(self, document: int) -> tuple[int, int]:
        """The first row of a document and the one past its last."""
        if self.spans is None:
            return document, document + 1
        return int(self.first_rows[document]), int(self.first_rows[document + 1])

    def text_of_row(self, row: int, document: int) -> str:
        """The chunk a row stands for."""
        text = self.texts[document]
        if self.spans is None:
            return text
        start, stop = self.spans[row].tolist()
        return text[start:stop]

    def passages(self, start: int, stop: int) -> list[Document]:
        """Rows start .. stop-1 as documents (title kept, text cut to the chunk, no metadata)."""
        rows = np.arange(start, stop)
        return [
            Document(self.ids[doc], self.text_of_row(row, doc), self.titles[doc])
            for row, doc in zip(rows.tolist(), self.of_rows(rows).tolist(), strict=True)
        ]

    def select(self, documents: NDArray[np.int64]) -> Documents:
        """The chosen documents (ascending), packed and with their rows renumbered."""
        if self.spans is None:
            first_rows, spans = np.arange(len(documents) + 1, dtype=np.int64), None
        else:
            counts = self.first_rows[documents + 1] - self.first_rows[documents]
            first_rows = np.zeros(len(documents) + 1, dtype=np.int64)
            np.cumsum(counts, out=first_rows[1:])
            shift = np.repeat(self.first_rows[documents] - first_rows[:-1], counts)
            spans = np.asarray(self.spans[np.arange(first_rows[-1]) + shift])
        return Documents(
            take_strings(self.ids, documents),
            take_strings(self.titles, documents),
            take_strings(self.texts, documents),
            first_rows,
            spans,
        )


@dataclass(frozen=True, eq=False)
class StoredDocuments(Documents):
    """Documents of a segment on disk, with id look-up."""

    hashes: NDArray[np.uint64]
    hash_documents: NDArray[np.int64]

    def find(self, id_: str) -> int | None:
        """The number of the last document with this id, or None."""
        wanted = np.uint64(id_hash(id_))
        low = int(np.searchsorted(self.hashes, wanted, side="left"))
        high = int(np.searchsorted(self.hashes, wanted, side="right"))
        same = [doc for doc in self.hash_documents[low:high].tolist() if self.ids[doc] == id_]
        return max(same) if same else None


class DocumentsWriter:
    """Writes a documents component batch by batch."""

    def __init__(self, folder: Path, *, chunked: bool) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._strings = {name: GrowingStrings(folder, name) for name in ("ids", "titles", "texts")}
        self._first_rows = GrowingArray(folder / "first_rows.npy", np.int64) if chunked else None
        self._spans = GrowingArray(folder / "spans.npy", np.int64, (2,)) if chunked else None
        self._hashes: list[NDArray[np.uint64]] = []
        self.n_documents = 0
        self.n_rows = 0

    def append(self, batch: Documents) -> None:
        """Add documents."""
        self._strings["ids"].append(batch.ids)
        self._strings["titles"].append(batch.titles)
        self._strings["texts"].append(batch.texts)
        self._hashes.append(id_hashes(batch.ids))
        if self._first_rows is not None and self._spans is not None:
            if batch.spans is None:
                raise ValueError("a chunked component needs the spans of every batch")
            self._first_rows.append(batch.first_rows[:-1] + self.n_rows)
            self._spans.append(batch.spans)
        self.n_documents += len(batch)
        self.n_rows += batch.n_rows

    def close(self) -> None:
        """Complete the files; the component is sealed by its manifest."""
        for strings in self._strings.values():
            strings.close()
        if self._first_rows is not None and self._spans is not None:
            self._first_rows.append(np.array([self.n_rows], dtype=np.int64))
            self._first_rows.close()
            self._spans.close()
        hashes = np.concatenate(self._hashes) if self._hashes else np.zeros(0, dtype=np.uint64)
        order = np.argsort(hashes, kind="stable")
        np.save(self._folder / "id_hashes.npy", hashes[order], allow_pickle=False)
        np.save(self._folder / "id_documents.npy", order.astype(np.int64), allow_pickle=False)
        write_manifest(
            self._folder,
            {
                "component": "documents",
                "n_documents": self.n_documents,
                "n_rows": self.n_rows,
                "chunked": self._spans is not None,
            },
        )


def load_documents(folder: Path) -> StoredDocuments:
    """Map a documents component.

    Raises:
        CorruptError: a file is missing, cut short or changed.
    """
    manifest = open_manifest(folder)
    chunked = manifest["chunked"]
    n = manifest["n_documents"]
    return (
        StoredDocuments(
            ids=map_strings(folder, "ids"),
            titles=map_strings(folder, "titles"),
            texts=map_strings(folder, "texts"),
            first_rows=map_array(folder / "first_rows.npy") if chunked else np.zeros(0, dtype=np.int64),
            spans=map_array(folder / "spans.npy") if chunked else None,
            hashes=map_array(folder / "id_hashes.npy"),
            hash_documents=map_array(folder / "id_documents.npy"),
        )
        if n
        else _no_documents(chunked=chunked)
    )


def _no_documents(*, chunked: bool) -> StoredDocuments:
    nothing = np.zeros(0, dtype=np.int64)
    return StoredDocuments(
        Strings.of([]),
        Strings.of([]),
        Strings.of([]),
        np.zeros(1, dtype=np.int64),
        np.zeros((0, 2), dtype=np.int64) if chunked else None,
        np.zeros(0, dtype=np.uint64),
        nothing,
    )


def pack_documents(
    documents: Sequence[Document], spans: Sequence[Sequence[tuple[int, int]]] | None
) -> Documents:
    """Documents in memory; spans are the chunks of each, or None where nothing is chunked."""
    if spans is None:
        first_rows = np.arange(len(documents) + 1, dtype=np.int64)
        flat = None
    else:
        first_rows = np.zeros(len(documents) + 1, dtype=np.int64)
        np.cumsum([len(part) for part in spans], out=first_rows[1:])
        flat = np.array([span for part in spans for span in part], dtype=np.int64).reshape(-1, 2)
    return Documents(
        Strings.of(document.id for document in documents),
        Strings.of(document.title for document in documents),
        Strings.of(document.text for document in documents),
        first_rows,
        flat,
    )
