"""Windows: every token of a text once, framed like a text, in as few windows as will do."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.encoders.transformer.batches import MOST_TEXTS, text_groups
from retrieval.encoders.transformer.windows import Windows, window_places


@pytest.mark.parametrize("frame", [(1, 1), (0, 1), (2, 0), (0, 0)])
def test_windows_partition_what_is_inside_the_frame(frame: tuple[int, int]):
    before, behind = frame
    for n in range(before + behind, 200):
        for size in (16, 17, 40):
            ids = np.arange(n)
            windows = [ids[places] for places in window_places(n, size, frame)]
            inner = [window[before : len(window) - behind] for window in windows]
            assert np.concatenate(inner).tolist() == list(range(before, n - behind))
            assert all(len(window) <= size for window in windows)
            assert len(windows) == max(1, -(-(n - before - behind) // (size - before - behind)))
            assert max(map(len, inner)) - min(map(len, inner)) <= 1
            for window in windows:
                assert window[:before].tolist() == list(range(before))
                assert window[len(window) - behind :].tolist() == list(range(n - behind, n))


def test_texts_know_their_windows():
    texts = [np.arange(5, dtype=np.int32), np.arange(40, dtype=np.int32), np.arange(2, dtype=np.int32)]
    windows = Windows.of(texts, 16, (1, 1))
    assert windows.starts.tolist() == [0, 1, 4, 5] and windows.rows().tolist() == [0, 1, 1, 1, 2]
    assert [len(ids) for ids in windows.tokens.ids] == [5, 15, 14, 15, 2]
    assert Windows.of(texts, None, (1, 1)).starts.tolist() == [0, 1, 2, 3]
    assert Windows.of([], 16, (1, 1)).starts.tolist() == [0]


def test_groups_are_bounded_by_texts_and_by_characters():
    assert list(text_groups([])) == []
    assert [group.stop for group in text_groups(["a"] * (2 * MOST_TEXTS + 1))] == [512, 1024, 1025]
    long = "a" * 50_000
    assert list(text_groups([long] * 5)) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert list(text_groups([long * 10, "a", long * 10])) == [slice(0, 1), slice(1, 2), slice(2, 3)]
