"""The compiled loops behind top-k, exact dense scoring and fusion.

They share one file because numba's cache on disk notices a change in the file of the caller only. Import
this module inside functions: it takes a quarter of a second, and compiling for the first time longer.

A *line* is one query's candidates. Order is always descending score, then ascending row. Arrays that come
from files are passed read-only (``frozen``), so that a map and an array in memory share one compiled version.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.compute import kernel_cache

kernel_cache()

from numba import njit  # noqa: E402

from retrieval.intrinsics import widened  # noqa: E402

FLOAT32_MAX = float(np.finfo(np.float32).max)
_NO_ROW = np.int64(-1)


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """A read-only, C-ordered view (a copy only where the order is another); float16 as its uint16 bits."""
    view = np.ascontiguousarray(array).view()
    if view.dtype == np.float16:
        view = view.view(np.uint16)
    view.flags.writeable = False
    return view


# --- the k best of a line --------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _sift_down(scores: Any, rows: Any, size: int, at: int) -> None:
    """Restore the heap whose root is the worst entry (lowest score, then highest row)."""
    score, row = scores[at], rows[at]
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        other = child + 1
        if other < size and (
            scores[other] < scores[child] or (scores[other] == scores[child] and rows[other] > rows[child])
        ):
            child = other
        if scores[child] < score or (scores[child] == score and rows[child] > row):
            scores[at], rows[at] = scores[child], rows[child]
            at = child
        else:
            break
    scores[at], rows[at] = score, row


@njit(cache=True, nogil=True)
def _select(scores: Any, rows: Any, n: int, out_rows: Any, out_scores: Any) -> None:
    """The best of the first n entries into the out line, padded with -1 and -inf.

    Scores are rounded to float32 before they are compared: the order is that of the scores handed out.
    """
    k, size = len(out_rows), 0
    for i in range(n):
        score, row = np.float32(scores[i]), rows[i]
        if row < 0 or score == -np.inf:
            continue
        if size < k:
            out_scores[size], out_rows[size] = score, row
            size += 1
            if size == k:
                for at in range(k // 2 - 1, -1, -1):
                    _sift_down(out_scores, out_rows, k, at)
        elif score > out_scores[0] or (score == out_scores[0] and row < out_rows[0]):
            out_scores[0], out_rows[0] = score, row
            _sift_down(out_scores, out_rows, k, 0)
    if size < k:
        for at in range(size // 2 - 1, -1, -1):
            _sift_down(out_scores, out_rows, size, at)
    for last in range(size - 1, 0, -1):  # heap sort: the worst goes to the end
        out_scores[0], out_scores[last] = out_scores[last], out_scores[0]
        out_rows[0], out_rows[last] = out_rows[last], out_rows[0]
        _sift_down(out_scores, out_rows, last, 0)
    for i in range(size, k):
        out_scores[i], out_rows[i] = -np.inf, _NO_ROW


@njit(cache=True, nogil=True)
def best(scores: Any, rows: Any, out_rows: Any, out_scores: Any) -> None:
    """The k best of every line.

    Args:
        scores: (Q, N); -inf is never returned.
        rows: (Q, N) or (1, N) int64; -1 is never returned.
        out_rows: (Q, K) int64, written.
        out_scores: (Q, K) float32, written.
    """
    for query in range(len(scores)):
        names = rows[min(query, len(rows) - 1)]
        _select(scores[query], names, len(names), out_rows[query], out_scores[query])


# --- inner products --------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _dot(query: Any, vector: Any) -> float:
    """The inner product in one fixed order.

    Products of two float32 are exact in float64, and eight sums run side by side and meet in a fixed tree,
    so the result depends on the two vectors alone: not on batch, chunk, segment, thread or CPU.
    """
    n = len(query)
    whole = n - n % 8
    a = b = c = d = e = f = g = h = 0.0
    for i in range(0, whole, 8):
        a += np.float64(query[i]) * np.float64(widened(vector[i]))
        b += np.float64(query[i + 1]) * np.float64(widened(vector[i + 1]))
        c += np.float64(query[i + 2]) * np.float64(widened(vector[i + 2]))
        d += np.float64(query[i + 3]) * np.float64(widened(vector[i + 3]))
        e += np.float64(query[i + 4]) * np.float64(widened(vector[i + 4]))
        f += np.float64(query[i + 5]) * np.float64(widened(vector[i + 5]))
        g += np.float64(query[i + 6]) * np.float64(widened(vector[i + 6]))
        h += np.float64(query[i + 7]) * np.float64(widened(vector[i + 7]))
    for i in range(whole, n):
        a += np.float64(query[i]) * np.float64(widened(vector[i]))
    return ((a + e) + (c + g)) + ((b + f) + (d + h))


@njit(cache=True, nogil=True)
def inner_products(queries: Any, values: Any, rows: Any, out: Any) -> None:
    """The final scores of chosen rows, by the one kernel every dense index ends with.

    Args:
        queries: (Q, D) float32.
        values: (N, D) float32, or the uint16 bits of float16.
        rows: (Q, C) int64; -1 scores -inf.
        out: (Q, C) float32, written; beyond the range of float32 the score is its largest number.
    """
    for query in range(len(queries)):
        for i in range(rows.shape[1]):
            row = rows[query, i]
            if row < 0:
                out[query, i] = -np.inf
            else:
                score = _dot(queries[query], values[row])
                out[query, i] = min(max(score, -FLOAT32_MAX), FLOAT32_MAX)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def estimates(queries: Any, values: Any, rows: Any, out: Any) -> None:
    """Inner products as fast as memory delivers the vectors, summed in whatever order the CPU likes.

    Args:
        queries: (Q, D) float32.
        values: (N, D) float32, or the uint16 bits of float16.
        rows: (C,) int64.
        out: (Q, C) float32, written.
    """
    for i in range(len(rows)):
        vector = values[rows[i]]
        for query in range(len(queries)):
            line = queries[query]
            total = np.float32(0.0)
            for j in range(len(line)):
                total += line[j] * widened(vector[j])
            out[query, i] = total


@njit(cache=True, nogil=True)
def halves(stored: Any, out: Any) -> None:
    """float16, as the uint16 bits (C, D), to float32 (C, D)."""
    for i in range(len(stored)):
        for j in range(stored.shape[1]):
            out[i, j] = widened(stored[i, j])


# --- candidates of a scan --------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _shrink(scores: Any, rows: Any, count: int, k: int, slack: float) -> tuple[int, float]:
    """Drop what cannot be among the k best; the new count, and the estimate below which nothing can."""
    if count < k:
        return count, -np.inf
    floor = np.partition(scores[:count], count - k)[count - k] - slack
    kept = 0
    for i in range(count):
        if scores[i] >= floor:
            scores[kept], rows[kept] = scores[i], rows[i]
            kept += 1
    return kept, floor


@njit(cache=True, nogil=True)
def collect(
    estimated: Any,
    columns: Any,
    names: Any,
    k: int,
    slack: Any,
    starts: Any,
    rows: Any,
    scores: Any,
    counts: Any,
    floors: Any,
) -> bool:
    """Keep, for every query, each row whose score may turn out to be among the k best.

    Args:
        estimated: (Q, C) float32 estimates of one chunk.
        columns: (M,) int64, the columns that may be returned.
        names: (M,) int64, the row each of them is.
        k: results wanted.
        slack: (Q,) float64, twice the largest error of an estimate.
        starts: (Q,) int64, how many columns each query has seen; written.
        rows: (Q, S) int64 candidates, written.
        scores: (Q, S) float32 their estimates, written.
        counts: (Q,) int64 how many there are, written.
        floors: (Q,) float64 estimates below these cannot be among the k best, written.

    Returns:
        Whether every query saw all columns. One that did not holds so many rows within the error of each
        other that the caller has to score them exactly before it goes on.
    """
    size, done = rows.shape[1], True
    for query in range(len(estimated)):
        line, kept_scores, kept_rows = estimated[query], scores[query], rows[query]
        count, floor, at = counts[query], floors[query], starts[query]
        while at < len(columns):
            score = line[columns[at]]
            if score >= floor:
                if count == size:
                    count, floor = _shrink(kept_scores, kept_rows, count, k, slack[query])
                    if 4 * count > 3 * size:
                        done = False
                        break
                    continue
                kept_scores[count], kept_rows[count] = score, names[at]
                count += 1
            at += 1
        counts[query], floors[query], starts[query] = count, floor, at
    return done


@njit(cache=True, nogil=True)
def finish(k: int, slack: Any, rows: Any, scores: Any, counts: Any, floors: Any) -> None:
    """Drop the candidates that fell behind, and mark the unused places with -1."""
    for query in range(len(rows)):
        count, floors[query] = _shrink(scores[query], rows[query], counts[query], k, slack[query])
        counts[query] = count
        rows[query, count:] = _NO_ROW


# --- fusion ----------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def sum_by_row(rows: Any, parts: Any, out_rows: Any, out_scores: Any) -> None:
    """Add what several lists say about the same row, and keep the k best sums of every query.

    Args:
        rows: (Q, M) int64, the lists one beside the other; -1 is skipped.
        parts: (Q, M) float64, what each entry contributes; added from left to right.
        out_rows: (Q, K) int64, written.
        out_scores: (Q, K) float32, written.
    """
    m = rows.shape[1]
    size = 16
    while size < 2 * m:
        size *= 2
    mask = np.uint64(size - 1)
    table = np.empty(size, dtype=np.int32)  # open addressing: hashed row -> place among the distinct ones
    distinct = np.empty(m, dtype=np.int64)
    sums = np.empty(m, dtype=np.float64)
    for query in range(len(rows)):
        table[:] = -1
        n = 0
        for i in range(m):
            row = rows[query, i]
            if row < 0:
                continue
            slot = (np.uint64(row) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)) & mask
            while table[slot] >= 0 and distinct[table[slot]] != row:
                slot = (slot + np.uint64(1)) & mask
            place = table[slot]
            if place < 0:
                table[slot] = n
                distinct[n], sums[n] = row, parts[query, i]
                n += 1
            else:
                sums[place] += parts[query, i]
        _select(sums, distinct, n, out_rows[query], out_scores[query])
