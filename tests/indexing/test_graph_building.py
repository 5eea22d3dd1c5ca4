"""A graph built over byte codes: its links, that every row is reached, and that threads change nothing."""

from itertools import pairwise

import numpy as np
import pytest

from indexing.hnsw.graph import building
from indexing.hnsw.graph.building import build_graph, memory_needed
from indexing.hnsw.graph.codes import rounded
from retrieval.compute import set_threads


def clustered(n, dim=24, n_clusters=20, seed=0):
    """Codes of unit vectors around some centres."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((n_clusters, dim))
    values = centres[rng.integers(0, n_clusters, n)] + 0.5 * rng.standard_normal((n, dim))
    return rounded(values / np.linalg.norm(values, axis=1, keepdims=True), 1 / 127)


def build(codes, m=8, ef=60, order=None):
    return build_graph(codes, m, ef, order, lambda rows: None)


@pytest.fixture(scope="module")
def sample():
    """3000 rows to index, and 50 like them to ask for."""
    return np.split(clustered(3050), [3000])


@pytest.fixture(scope="module")
def codes(sample):
    return sample[0]


@pytest.fixture(scope="module")
def graph(codes):
    return build(codes)


def reached(links, entry):
    """The rows a walk over ground links can come to."""
    found, front = {entry}, [entry]
    while front:
        near = {int(row) for node in front for row in links[node] if row >= 0}
        front = list(near - found)
        found |= near
    return found


def upper_levels(graph):
    """(row, level, links) of every line of upper links."""
    owners = np.flatnonzero(graph.upper_start >= 0)
    owners = owners[np.argsort(graph.upper_start[owners])]
    bounds = [*graph.upper_start[owners].tolist(), len(graph.upper_links)]
    for row, (start, stop) in zip(owners.tolist(), pairwise(bounds), strict=True):
        for line in range(start, stop):
            yield row, line - start + 1, graph.upper_links[line]


def walk(codes, query, graph, ef):
    """The plain walk of the paper, in Python."""

    def score(row):
        return int(codes[row].astype(np.int64) @ query.astype(np.int64))

    best = graph.entry
    for level in range(graph.top, 0, -1):
        while True:
            links = graph.upper_links[graph.upper_start[best] + level - 1]
            nearest = max([best, *links[links >= 0].tolist()], key=score)
            if nearest == best:
                break
            best = nearest
    pool, seen, followed = {best: score(best)}, {best}, set()
    while open_rows := [row for row in sorted(pool, key=pool.get, reverse=True)[:ef] if row not in followed]:
        followed.add(open_rows[0])
        for row in graph.links[open_rows[0]].tolist():
            if row >= 0 and row not in seen:
                seen.add(row)
                pool[row] = score(row)
    return sorted(pool, key=pool.get, reverse=True)[:ef]


def assert_sound(graph, n, m):
    """Shapes, ranges and connectivity that hold for every graph."""
    assert graph.links.shape == (n, 2 * m)
    assert graph.upper_links.shape[1] == m
    height = {row: 0 for row in range(n)}
    for row, level, _ in upper_levels(graph):
        height[row] = max(height[row], level)
    assert graph.top == max(height.values()) == height[graph.entry]
    lines = [(row, 0, graph.links[row]) for row in range(n)] + list(upper_levels(graph))
    for row, level, links in lines:
        count = int((links >= 0).sum())
        chosen = links[:count].tolist()
        assert (links[count:] == -1).all()
        assert row not in chosen
        assert len(set(chosen)) == count
        assert all(0 <= other < n and height[other] >= level for other in chosen)
    assert reached(graph.links, graph.entry) == set(range(n))


def test_links_are_sound_and_reach_every_row(graph):
    assert_sound(graph, 3000, 8)
    degrees = (graph.links >= 0).sum(axis=1)
    assert degrees.min() >= 1
    assert degrees.mean() > 8


def test_links_stand_closest_first(codes, graph):
    wide = codes.astype(np.int64)
    for row, _, links in [(row, 0, graph.links[row]) for row in range(0, 3000, 50)] + list(
        upper_levels(graph)
    ):
        scores = wide[links[links >= 0]] @ wide[row]
        assert (np.diff(scores) <= 0).all()


def test_a_walk_finds_the_nearest_rows(sample, graph):
    codes, queries = sample
    exact = np.argsort(-(queries.astype(np.int64) @ codes.T.astype(np.int64)), axis=1, kind="stable")[:, :10]
    found = [walk(codes, query, graph, 60)[:10] for query in queries]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, exact.tolist(), strict=True)])
    assert recall >= 0.97


def test_threads_change_nothing(codes, graph):
    for n_threads in (1, 2, 3):
        set_threads(n_threads)
        try:
            again = build(codes)
        finally:
            set_threads(None)
        for field, other in zip(graph, again, strict=True):
            assert np.array_equal(field, other)


def test_batches_find_each_other_like_rows_inserted_one_by_one(codes, graph, monkeypatch):
    """The rows of a batch are no part of the graph they look for neighbours in; that must not show."""
    monkeypatch.setattr(building, "_BATCH", 16)
    small = build(codes)
    assert_sound(small, 3000, 8)
    kept = [set(graph.links[row]) & set(small.links[row]) - {-1} for row in range(3000)]
    assert sum(map(len, kept)) > 0.8 * (graph.links >= 0).sum()


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_fewer_rows_than_links(n):
    graph = build(clustered(n), m=16, ef=200)
    if n == 0:
        assert (graph.links.shape, graph.upper_links.shape, graph.entry, graph.top) == (
            (0, 32),
            (0, 16),
            -1,
            0,
        )
    else:
        assert_sound(graph, n, 16)


@pytest.mark.parametrize(("m", "ef"), [(2, 1), (3, 500), (64, 10)])
def test_unusual_parameters(m, ef):
    assert_sound(build(clustered(700), m=m, ef=ef), 700, m)


def test_thousands_of_equal_rows_are_all_reached():
    codes = clustered(2500)
    codes[200:2300] = codes[100]
    graph = build(codes)
    assert_sound(graph, 2500, 8)
    assert_sound(build(np.zeros((1500, 64), dtype=np.int8)), 1500, 8)
    others = np.r_[0:100, 101:200, 2300:2500]
    found = sum(int(row) in walk(codes, codes[row], graph, 60)[:3] for row in others[::5])
    assert found >= 0.95 * len(others[::5])  # the copies are not in the way


def test_separate_groups_are_linked():
    codes = np.zeros((1200, 64), dtype=np.int8)
    for group in range(6):
        codes[200 * group : 200 * (group + 1), 8 * group : 8 * group + 8] = (
            clustered(200, 64, seed=group)[:, :8] * 3
        )
    assert_sound(build(codes, m=4, ef=20), 1200, 4)


def test_the_order_is_that_of_insertion(codes, graph):
    given = build(codes, order=np.arange(3000))
    assert all(np.array_equal(a, b) for a, b in zip(graph, given, strict=True))
    backwards = build(codes, order=np.arange(3000)[::-1])
    assert_sound(backwards, 3000, 8)
    assert not np.array_equal(backwards.links, graph.links)
    assert np.array_equal(backwards.upper_start, graph.upper_start)  # levels belong to rows


@pytest.mark.parametrize("seed", [0, 1])
def test_walks_start_at_the_first_of_the_highest_rows(codes, seed):
    order = np.random.default_rng(seed).permutation(200)
    graph = build(codes[:200], m=64, order=order)  # hardly any upper levels
    highest = {row for row, level, _ in upper_levels(graph) if level == graph.top} or set(range(200))
    assert len(highest) > 1
    assert graph.entry == next(row for row in order.tolist() if row in highest)


def test_progress_counts_every_row(codes):
    seen = []
    build_graph(codes, 4, 10, None, seen.append)
    assert sum(seen) == 3000
    assert len(seen) > 1


def test_memory_covers_the_graph(codes, graph):
    arrays = (codes, graph.links, graph.upper_start, graph.upper_links)
    assert sum(array.nbytes for array in arrays) < memory_needed(*codes.shape, 8) < 10 * codes.nbytes
