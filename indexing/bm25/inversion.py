"""Rows of terms joined under one vocabulary, and turned into postings, both in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexing.growing import GrowingArray
from retrieval.analysis.lengths import length_bytes
from retrieval.errors import IncompatibleError
from retrieval.values import Strings, Terms
from retrieval.values.storage import release_pages, write_facts

RUN = 1_000_000  # entries of the forward rows that are held at once


def _runs(terms: Terms, entries: int = RUN) -> Iterator[tuple[int, int]]:
    """Ranges of rows with about that many entries each (at least one row)."""
    start, n = 0, len(terms)
    while start < n:
        limit = int(terms.indptr[start]) + entries
        stop = int(np.searchsorted(terms.indptr, limit, side="right")) - 1
        stop = min(n, max(start + 1, stop), start + entries)
        yield start, stop
        start = stop


class JointVocabulary:
    """The terms of many parts, each once, numbered by first occurrence.

    About 40 bytes a term and its text; no Python object per term.
    """

    def __init__(self) -> None:
        self._slots = np.full(1 << 12, -1, dtype=np.int32)
        self._hashes = np.zeros(1 << 12, dtype=np.uint64)
        self._blob = np.zeros(1 << 14, dtype=np.uint8)
        self._offsets = np.zeros(1 << 12, dtype=np.int64)
        self._fields = np.zeros(1 << 12, dtype=np.uint8)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, terms: Terms) -> NDArray[np.int32]:
        """The number of each entry of a part's vocabulary."""
        from indexing.bm25.term_kernels import intern_terms

        vocabulary = terms.vocabulary
        self._reserve(len(vocabulary), len(vocabulary.blob))
        numbers = np.empty(len(vocabulary), dtype=np.int32)
        self._size = intern_terms(
            np.asarray(vocabulary.blob),
            np.asarray(vocabulary.offsets),
            np.asarray(terms.term_fields),
            self._slots,
            self._hashes,
            self._blob,
            self._offsets,
            self._fields,
            self._size,
            numbers,
        )
        return numbers

    def _reserve(self, terms: int, size: int) -> None:
        from indexing.bm25.term_kernels import rehash

        wanted = self._size + terms
        if wanted * 2 > len(self._slots):
            slots = np.full(1 << (wanted * 2).bit_length(), -1, dtype=np.int32)
            hashes = np.zeros(len(slots), dtype=np.uint64)
            rehash(self._hashes, self._slots, slots, hashes)
            self._slots, self._hashes = slots, hashes
        if wanted + 1 > len(self._offsets):
            more = max(wanted + 1, len(self._offsets) * 3 // 2)
            self._offsets = np.concatenate(
                [self._offsets, np.zeros(more - len(self._offsets), dtype=np.int64)]
            )
            self._fields = np.concatenate([self._fields, np.zeros(more - len(self._fields), dtype=np.uint8)])
        used = int(self._offsets[self._size])
        if used + size > len(self._blob):
            more = max(used + size, len(self._blob) * 3 // 2)
            grown = np.zeros(more, dtype=np.uint8)
            grown[:used] = self._blob[:used]
            self._blob = grown

    def strings(self) -> Strings:
        """The terms by number."""
        offsets = self._offsets[: self._size + 1]
        return Strings(self._blob[: int(offsets[-1])], offsets)

    def fields(self) -> NDArray[np.uint8]:
        """(V,) the field of each term."""
        return self._fields[: self._size]


def unify_terms(
    parts: Sequence[Path], folder: Path, keep: Sequence[NDArray[np.bool_] | None] | None = None
) -> int:
    """Join stored Terms, each with a vocabulary of its own, into one, reading a run of rows at a time.

    Args:
        parts: folders that ``Terms.save`` wrote, in row order; at least one.
        folder: existing; receives what ``Terms.load`` reads.
        keep: for each part, (N,) the rows to take, or None for all. Terms that only dropped rows have stay in
            the vocabulary, with no effect on any score.

    Returns:
        The number of rows written.

    Raises:
        IncompatibleError: the parts have different fields.
        CorruptError: a part cannot be read.
    """
    from indexing.bm25.inversion_kernels import renumber_rows

    joint = JointVocabulary()
    fields = Terms.load(parts[0]).fields
    end = 0
    with (
        GrowingArray(folder / "indptr.npy", np.int64) as indptr,
        GrowingArray(folder / "indices.npy", np.int32) as indices,
        GrowingArray(folder / "frequencies.npy", np.int32) as frequencies,
        GrowingArray(folder / "lengths.npy", np.int32, (len(fields),)) as lengths,
    ):
        indptr.append(np.zeros(1, dtype=np.int64))
        for number, path in enumerate(parts):
            part = Terms.load(path)
            if part.fields != fields:
                raise IncompatibleError(
                    f"{path} has the fields {list(part.fields)}, {parts[0]} has {list(fields)}; "
                    "index again with one encoder"
                )
            numbers = joint.add(part)
            mask = None if keep is None else keep[number]
            for start, stop in _runs(part):
                run = part[start:stop]
                if mask is not None:
                    run = run.take(np.flatnonzero(mask[start:stop]))
                new_indices = np.empty(len(run.indices), dtype=np.int32)
                new_frequencies = np.empty(len(run.indices), dtype=np.int32)
                renumber_rows(
                    np.asarray(run.indptr),
                    np.asarray(run.indices),
                    np.asarray(run.frequencies),
                    numbers,
                    new_indices,
                    new_frequencies,
                )
                indptr.append(run.indptr[1:] + end)
                end += int(run.indptr[-1])
                indices.append(new_indices)
                frequencies.append(new_frequencies)
                lengths.append(run.lengths)
                release_pages(part.indices, part.frequencies, part.lengths, part.indptr)
        n_rows = indptr.rows - 1
    vocabulary = joint.strings()
    np.save(folder / "vocabulary_blob.npy", vocabulary.blob, allow_pickle=False)
    np.save(folder / "vocabulary_offsets.npy", vocabulary.offsets, allow_pickle=False)
    np.save(folder / "term_fields.npy", joint.fields(), allow_pickle=False)
    names = ["frequencies", "indices", "indptr", "lengths", "term_fields"]
    write_facts(folder, "terms", {"fields": list(fields)}, [*names, "vocabulary_blob", "vocabulary_offsets"])
    return n_rows


def _keyed_runs(terms: Terms) -> Iterator[tuple[int, Terms, NDArray[np.int64]]]:
    """First row, rows, and the key of each entry (see ``pair_keys``), a run at a time."""
    from indexing.bm25.inversion_kernels import pair_keys

    term_fields = np.array(terms.term_fields)
    for start, stop in _runs(terms):
        run = terms[start:stop]
        keys = np.empty(len(run.indices), dtype=np.int64)
        flat = length_bytes(run.lengths).reshape(-1)
        pair_keys(
            np.asarray(run.indptr),
            np.asarray(run.indices),
            np.asarray(run.frequencies),
            flat,
            term_fields,
            keys,
        )
        yield start, run, keys
        release_pages(terms.indices, terms.frequencies, terms.lengths, terms.indptr)


def count_terms(
    terms: Terms, progress: Callable[[int], None]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """One pass over the rows.

    Returns:
        (V,) document frequencies; (C,) the distinct keys of (tf, field, length byte), ascending; and (2, F)
        documents with a term and total tokens of each field.
    """
    df = np.zeros(len(terms.vocabulary), dtype=np.int64)
    pairs = np.zeros(0, dtype=np.int64)
    totals = np.zeros((2, len(terms.fields)), dtype=np.int64)
    for _, run, keys in _keyed_runs(terms):
        df += np.bincount(run.indices, minlength=len(df))
        keys.sort()
        pairs = np.union1d(pairs, keys[np.flatnonzero(np.diff(keys, prepend=-1))])
        totals[0] += np.count_nonzero(run.lengths, axis=0)
        totals[1] += run.lengths.sum(axis=0, dtype=np.int64)
        progress(len(run))
    return df, pairs, totals


def invert(
    terms: Terms,
    folder: Path,
    df: NDArray[np.int64],
    pairs: NDArray[np.int64],
    reference: NDArray[np.float32],
    memory_bytes: int,
) -> None:
    """Write rows.npy and codes.npy (postings by term, rows ascending) and peaks.npy.

    Terms are inverted in ranges whose postings fit the memory, each range in one pass over the rows.

    Args:
        terms: N rows; folder: existing.
        df: (V,) document frequencies.
        pairs: (C,) keys, see ``count_terms``; a posting's code is the position of its key.
        reference: (C,) factor of each code; a term's peak is the largest among its postings.
        memory_bytes: what the postings of one range may take, roughly.
    """
    from indexing.bm25.inversion_kernels import place_kernel

    code_type = np.dtype(np.uint16 if len(pairs) <= 1 << 16 else np.uint32)
    place = place_kernel(code_type)
    near = np.zeros(int(min(pairs[-1] + 1, len(terms.fields) << 16)) if len(pairs) else 0, dtype=np.int32)
    low_pairs = pairs[pairs < len(near)]
    near[low_pairs] = np.arange(len(low_pairs))
    ends = np.cumsum(df)
    budget = max(1, memory_bytes // (4 + code_type.itemsize))
    with (
        GrowingArray(folder / "rows.npy", np.int32) as rows_file,
        GrowingArray(folder / "codes.npy", code_type) as codes_file,
        GrowingArray(folder / "peaks.npy", np.float32) as peaks_file,
    ):
        low = 0
        while low < len(df):
            before = int(ends[low - 1]) if low else 0
            high = max(low + 1, int(np.searchsorted(ends, before + budget, side="right")))
            rows = np.empty(int(ends[high - 1]) - before, dtype=np.int32)
            codes = np.empty(len(rows), dtype=code_type)
            peaks = np.zeros(high - low, dtype=np.float32)
            cursors = ends[low:high] - df[low:high] - before
            for first_row, run, keys in _keyed_runs(terms):
                place(
                    np.asarray(run.indptr),
                    np.asarray(run.indices),
                    keys,
                    pairs,
                    near,
                    first_row,
                    low,
                    high,
                    cursors,
                    rows,
                    codes,
                    reference,
                    peaks,
                )
            rows_file.append(rows)
            codes_file.append(codes)
            peaks_file.append(peaks)
            low = high


def hash_directory(terms: Terms) -> tuple[NDArray[np.uint64], NDArray[np.int32], NDArray[np.int64]]:
    """The vocabulary as ``term_kernels.look_up`` reads it: hashes ascending, the term of each, buckets."""
    from indexing.bm25.term_kernels import hash_terms

    vocabulary = terms.vocabulary
    hashes = hash_terms(
        np.asarray(vocabulary.blob), np.asarray(vocabulary.offsets), np.asarray(terms.term_fields)
    )
    order = np.argsort(hashes, kind="stable")
    bits = max(0, len(hashes).bit_length() - 1)  # about one term a bucket
    first = (
        np.arange(1 << bits, dtype=np.uint64) << np.uint64(64 - bits)
        if bits
        else np.zeros(1, dtype=np.uint64)
    )
    buckets = np.append(np.searchsorted(hashes[order], first), len(hashes))
    return hashes[order], order.astype(np.int32), buckets.astype(np.int64)
