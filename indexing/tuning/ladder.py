"""The values a search parameter is tried with, and the search for the least one that is good enough."""

from __future__ import annotations

from collections.abc import Callable

_STEPS = 4  # to a doubling: recall rises by some hundredths from one to the next


def ladder(low: int, high: int) -> list[int]:
    """Integers from low to high, both included, about a fifth apart."""
    values = {high}
    step = 0
    while (value := round(low * 2 ** (step / _STEPS))) < high:
        values.add(value)
        step += 1
    return sorted(values)


def first_reaching(n: int, start: int, reaches: Callable[[int], bool]) -> int | None:
    """The least place of 0 .. n-1 that reaches a goal, where every place after one that does reaches it too.

    Args:
        n: places, at least 1.
        start: the place to look at first; the nearer it is to the answer, the fewer are looked at.
        reaches: is asked once a place, of O(log n) places.

    Returns:
        The place, or None where not even the last one reaches the goal.
    """
    low, high = -1, n  # low does not reach it; high does, or is past the end
    place, step = start, 1
    while high - low > 1:
        if reaches(place):
            high = place
            place = max(low + 1, place - step) if low < 0 else (low + high) // 2
        else:
            low = place
            place = min(high - 1, place + step) if high == n else (low + high) // 2
        step *= 2
    return high if high < n else None
