"""The compiled loops over vocabularies: hashing terms, looking them up, joining the terms of many parts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from indexing.compiled import INT, entry, filled, given, kernel

_STRINGS = (given(np.uint8), given(np.int64), given(np.uint8))


@kernel
def hash_term(blob: NDArray[np.uint8], start: int, stop: int, field: int) -> np.uint64:
    """FNV-1a over the bytes and the field, then MurmurHash3's finaliser."""
    value = np.uint64(14695981039346656037)
    prime = np.uint64(1099511628211)
    for position in range(start, stop):
        value = (value ^ np.uint64(blob[position])) * prime
    value = (value ^ np.uint64(field)) * prime
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))


@entry(*_STRINGS, returns=filled(np.uint64))
def hash_terms(
    blob: NDArray[np.uint8], offsets: NDArray[np.int64], fields: NDArray[np.uint8]
) -> NDArray[np.uint64]:
    """(V,) hashes of a vocabulary."""
    out = np.empty(len(fields), dtype=np.uint64)
    for term in range(len(fields)):
        out[term] = hash_term(blob, offsets[term], offsets[term + 1], fields[term])
    return out


@entry(
    *(*_STRINGS, given(np.uint64), given(np.int32), given(np.int64), *_STRINGS, given(np.int64)),
    *(filled(np.int32), filled(np.uint64), filled(np.int64)),
)
def look_up(
    blob: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    fields: NDArray[np.uint8],
    hashes: NDArray[np.uint64],
    term_of: NDArray[np.int32],
    buckets: NDArray[np.int64],
    known_blob: NDArray[np.uint8],
    known_offsets: NDArray[np.int64],
    known_fields: NDArray[np.uint8],
    indptr: NDArray[np.int64],
    out_terms: NDArray[np.int32],
    out_hashes: NDArray[np.uint64],
    out_frequencies: NDArray[np.int64],
) -> None:
    """Number of each asked term in a segment, -1 when it is not there, its hash, and how many postings it has.

    Args:
        blob, offsets, fields: the terms asked for.
        hashes: (V,) of the segment's terms, ascending; term_of: (V,) the term of each.
        buckets: (2^b + 1,) where the hashes with each value of their first b bits start.
        known_blob, known_offsets, known_fields: the segment's vocabulary, for comparison byte by byte.
        indptr: (V+1,) where its postings start.
    """
    shift = np.uint64(64)
    size = len(buckets) - 1
    while size > 1:
        size >>= 1
        shift -= np.uint64(1)
    for term in range(len(fields)):
        start, stop = offsets[term], offsets[term + 1]
        value = hash_term(blob, start, stop, fields[term])
        out_hashes[term] = value
        out_terms[term] = -1
        out_frequencies[term] = 0
        bucket = np.int64(value >> shift) if shift < np.uint64(64) else 0
        for position in range(buckets[bucket], buckets[bucket + 1]):
            if hashes[position] != value:
                continue
            candidate = term_of[position]
            low = known_offsets[candidate]
            same = known_offsets[candidate + 1] - low == stop - start
            same = same and known_fields[candidate] == fields[term]
            for step in range(stop - start):
                if not same:
                    break
                same = known_blob[low + step] == blob[start + step]
            if same:
                out_terms[term] = candidate
                out_frequencies[term] = indptr[candidate + 1] - indptr[candidate]
                break


@entry(
    *(*_STRINGS, filled(np.int32), filled(np.uint64)),
    *(filled(np.uint8), filled(np.int64), filled(np.uint8), INT, filled(np.int32)),
    returns=INT,
)
def intern_terms(
    blob: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    fields: NDArray[np.uint8],
    slots: NDArray[np.int32],
    slot_hashes: NDArray[np.uint64],
    all_blob: NDArray[np.uint8],
    all_offsets: NDArray[np.int64],
    all_fields: NDArray[np.uint8],
    size: int,
    out: NDArray[np.int32],
) -> int:
    """Give each term of a part its number in the joint vocabulary, adding those that are new.

    Args:
        blob, offsets, fields: the part's vocabulary.
        slots: an open-addressing table of numbers, -1 where free, its size a power of two;
            slot_hashes: the hash of each.
        all_blob, all_offsets, all_fields: the joint vocabulary, with room for every new term.
        size: its terms so far.
        out: the number of each of the part's terms.

    Returns:
        The terms it has now.
    """
    mask = np.uint64(len(slots) - 1)
    for term in range(len(fields)):
        start, stop = offsets[term], offsets[term + 1]
        value = hash_term(blob, start, stop, fields[term])
        slot = value & mask
        while True:
            known = slots[slot]
            if known < 0:
                slots[slot] = size
                slot_hashes[slot] = value
                low = all_offsets[size]
                for step in range(stop - start):
                    all_blob[low + step] = blob[start + step]
                all_offsets[size + 1] = low + stop - start
                all_fields[size] = fields[term]
                out[term] = size
                size += 1
                break
            if slot_hashes[slot] == value and all_fields[known] == fields[term]:
                low = all_offsets[known]
                same = all_offsets[known + 1] - low == stop - start
                for step in range(stop - start):
                    if not same:
                        break
                    same = all_blob[low + step] == blob[start + step]
                if same:
                    out[term] = known
                    break
            slot = (slot + np.uint64(1)) & mask
    return size


@entry(given(np.uint64), given(np.int32), filled(np.int32), filled(np.uint64))
def rehash(
    hashes: NDArray[np.uint64],
    numbers: NDArray[np.int32],
    slots: NDArray[np.int32],
    slot_hashes: NDArray[np.uint64],
) -> None:
    """Enter what an old table held into a larger, empty one."""
    mask = np.uint64(len(slots) - 1)
    for position in range(len(numbers)):
        if numbers[position] < 0:
            continue
        slot = hashes[position] & mask
        while slots[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = numbers[position]
        slot_hashes[slot] = hashes[position]
