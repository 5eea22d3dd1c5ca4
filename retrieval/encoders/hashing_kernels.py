"""The compiled loop of the hashing encoder. Compiled on first use and cached on disk."""

from __future__ import annotations

from typing import Any

import numpy as np

from retrieval.compute import kernel_cache

kernel_cache()

from numba import njit  # noqa: E402

FNV_OFFSET = np.uint64(0xCBF29CE484222325)
FNV_PRIME = np.uint64(0x100000001B3)


@njit(cache=True, nogil=True)
def _mixed(h: Any) -> Any:
    """The finaliser of MurmurHash3: every bit of the input moves every bit of the output."""
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xFF51AFD7ED558CCD)
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xC4CEB9FE1A85EC53)
    return h ^ (h >> np.uint64(33))


@njit(cache=True, nogil=True)
def _is_letter(byte: Any) -> bool:
    """ASCII letters and digits, and every byte of a character beyond ASCII."""
    return byte >= 128 or 97 <= byte <= 122 or 48 <= byte <= 57 or 65 <= byte <= 90


@njit(cache=True, nogil=True)
def hash_texts(blob: Any, offsets: Any, seed: Any, ngrams: Any, out: Any) -> int:
    """Add every word, and every run of up to ``ngrams`` words, to its place of the text's vector.

    Args:
        blob: (bytes,) uint8, lower-cased UTF-8 of all texts.
        offsets: (N+1,) int64 into blob.
        seed: uint64.
        ngrams: the longest run of words, at least 1 and at most 8.
        out: (N, D) float32, zero on entry; unit length on return, zero where a text has no word.

    Returns:
        The number of words.
    """
    dim = np.uint64(out.shape[1])
    before = np.empty(8, dtype=np.uint64)  # hashes of the last words
    n_words = 0
    for row in range(len(offsets) - 1):
        vector = out[row]
        known, at, end = 0, offsets[row], offsets[row + 1]
        while at < end:
            if not _is_letter(blob[at]):
                at += 1
                continue
            word = FNV_OFFSET ^ seed
            while at < end and _is_letter(blob[at]):
                word = (word ^ np.uint64(blob[at])) * FNV_PRIME
                at += 1
            n_words += 1
            for i in range(min(known, ngrams - 1), 0, -1):
                before[i] = before[i - 1]
            before[0] = word
            known = min(known + 1, ngrams)
            joined = np.uint64(0)
            for i in range(known):
                joined = joined * FNV_PRIME + before[i]
                h = _mixed(joined + np.uint64(i))
                sign = np.float32(1.0) if h >> np.uint64(63) else np.float32(-1.0)
                vector[(h & np.uint64(0x7FFFFFFFFFFFFFFF)) % dim] += sign
        total = 0.0
        for i in range(len(vector)):
            total += np.float64(vector[i]) * np.float64(vector[i])
        if total > 0:
            scale = 1.0 / np.sqrt(total)
            for i in range(len(vector)):
                vector[i] = np.float32(vector[i] * scale)
    return n_words
