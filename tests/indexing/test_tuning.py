"""Tuning: its pure parts on known values, and whole runs on small collections against exact search."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexing.adding import add_representation
from indexing.assembly import index_spec
from indexing.builder import add_documents, build_collection
from indexing.chunking import Chunking
from indexing.collection import Collection
from indexing.commit import read_commit
from indexing.compaction import compact
from indexing.corpora import open_corpus
from indexing.deleting import delete_documents
from indexing.durable import read_sealed, write_sealed
from indexing.lock import writer_lock
from indexing.options import BuildOptions, RepresentationOptions, WriteOptions, representation_options
from indexing.progress import Silent
from indexing.tuning import tuning
from indexing.tuning.clock import BuildTimes
from indexing.tuning.frontier import Point, Target, closest, pareto, ranked, remedy, shortfall
from indexing.tuning.grid import GRID, Candidate, candidates, checked_kinds, lists_for, tunable_kinds
from indexing.tuning.ladder import first_reaching, ladder
from indexing.tuning.measuring import resident_bytes
from indexing.tuning.options import TuneOptions
from indexing.tuning.picture import check_picture, save_picture
from indexing.tuning.queries import crop, given_queries, perturbed
from indexing.tuning.recall import lower_bound, recalls
from indexing.tuning.report import as_text, picture, table
from indexing.tuning.tuning import tune
from indexing.verification import verify
from retrieval.errors import ConfigError, FormatError, LockedError, MissingExtraError
from retrieval.protocols import SearchRequest

# --- recall and its bound --------------------------------------------------------------------------


def test_recall_is_the_share_of_the_exact_answer_that_was_found():
    truth = np.array([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]])
    found = np.array([[3, 2, 1, 0], [4, 90, 5, 91], [-1, -1, -1, -1]])
    assert recalls(found, truth).tolist() == [1.0, 0.5, 0.0]


def test_the_bound_is_students_where_queries_differ():
    shares = np.array([0.4, 0.5, 0.9, 0.8, 0.7, 0.6, 0.3, 1.0])  # as far above their mean as below it
    # 1.8946 is Student's 95% quantile with 7 degrees of freedom
    expected = shares.mean() - 1.8946 * shares.std(ddof=1) / math.sqrt(8)
    assert lower_bound(shares, k=10) == pytest.approx(expected, abs=1e-4)


def test_where_nothing_was_missed_the_bound_still_leaves_room():
    assert lower_bound(np.ones(100), k=10) == pytest.approx(0.05 ** (1 / 1000))
    assert lower_bound(np.zeros(10), k=10) == 0.0


def test_the_bound_holds_as_often_as_it_says():
    rng = np.random.default_rng(0)
    kept = 0
    for _ in range(1000):
        hits = rng.binomial(10, rng.beta(19, 1, size=150))  # queries of different difficulty, 0.95 on average
        kept += lower_bound(hits / 10, k=10) <= 0.95
    assert kept / 1000 >= 0.92  # 0.91 without the correction for skewness, and 0.95 were the skewness known


# --- the ladder ------------------------------------------------------------------------------------


def test_a_ladder_has_both_ends_and_steps_of_a_fifth():
    values = ladder(8, 1000)
    assert values[0] == 8 and values[-1] == 1000 and values == sorted(set(values))
    assert all(later / earlier < 1.27 for earlier, later in itertools.pairwise(values))
    assert ladder(5, 5) == [5]
    assert ladder(1, 4) == [1, 2, 3, 4]


@given(st.integers(1, 200), st.data())
def test_the_first_place_that_reaches_the_goal_is_found_with_few_looks(n, data):
    start = data.draw(st.integers(0, n - 1))
    first = data.draw(st.integers(0, n))
    seen: list[int] = []

    def reaches(place: int) -> bool:
        seen.append(place)
        return place >= first

    assert first_reaching(n, start, reaches) == (first if first < n else None)
    assert len(seen) == len(set(seen)) <= 2 * math.log2(n) + 3


# --- frontier and choice ---------------------------------------------------------------------------


def point(
    recall: float, ms: float, mb: float, at_least: float | None = None, kind: str = "hnsw", **search
) -> Point:
    bound = recall if at_least is None else at_least
    return Point(kind, 0, {}, search, recall, bound, ms, 2 * ms, round(mb * 1e6), 1.0)


FLAT = point(1.0, 5.0, 100, kind="flat")
SLOW, FAST, SMALL = (
    point(0.97, 1.0, 120, ef=40),
    point(0.96, 0.5, 120, ef=20),
    point(0.955, 2.0, 30, kind="ivf"),
)
POOR = point(0.90, 0.2, 120, ef=8)
UNSURE = point(0.952, 0.3, 120, at_least=0.944, ef=12)
POINTS = [FLAT, SLOW, FAST, SMALL, POOR, UNSURE]


def test_the_frontier_holds_what_nothing_beats():
    beaten = [point(0.96, 0.6, 120), point(0.5, 0.2, 120), point(1.0, 5.0, 101)]
    assert pareto(POINTS + beaten) == [POOR, UNSURE, SMALL, FAST, SLOW, FLAT]
    assert pareto([FAST, FAST]) == [FAST, FAST]
    assert pareto([]) == []


def test_the_fastest_that_surely_finds_enough_is_chosen():
    assert ranked(POINTS, Target(0.95)) == [FAST, SLOW, SMALL, FLAT]
    assert ranked(POINTS, Target(0.999)) == [FLAT]
    assert ranked(POINTS, Target(0.95, memory_bytes=110_000_000)) == [SMALL, FLAT]


def test_of_equally_fast_ones_the_smallest_is_chosen():
    smaller, slower = point(0.96, 0.54, 90), point(0.96, 0.56, 10)
    assert ranked([FAST, smaller, slower], Target(0.95))[0] is smaller


def test_where_a_time_is_given_the_smallest_that_keeps_it_is_chosen():
    assert ranked(POINTS, Target(0.95, p95_ms=4.5)) == [SMALL, FAST, SLOW]
    assert ranked(POINTS, Target(0.95, p95_ms=1.0)) == [FAST]


def test_without_a_solution_the_closest_and_the_remedies_are_named():
    target = Target(0.95, memory_bytes=25_000_000, p95_ms=4.5)
    assert ranked(POINTS, target) == []
    assert closest(POINTS, target) is SMALL
    assert shortfall(SMALL, target) == pytest.approx(0.2)
    assert remedy(POINTS, target) == "--memory 30MB"
    assert (
        remedy(POINTS, Target(0.95, memory_bytes=110_000_000, p95_ms=1.0)) == "--memory 120MB or --p95 4.4ms"
    )
    assert remedy([POOR, UNSURE], Target(0.95)) == "--recall 0.94"
    assert remedy([FLAT], Target(0.95, memory_bytes=1, p95_ms=1.0)) == ""


@pytest.mark.parametrize(
    "asked",
    [{"recall": 0}, {"recall": 1.5}, {"recall": math.nan}, {"k": 0}, {"memory_bytes": 0}, {"p95_ms": 0}],
)
def test_impossible_targets_are_refused(asked):
    with pytest.raises(ConfigError):
        Target(**asked)


# --- the grid --------------------------------------------------------------------------------------


def test_candidates_take_turns_by_kind_and_are_filled_in():
    found = candidates(["flat", "ivf", "binary"], 50_000, 384, 10)
    assert [candidate.kind for candidate in found[:4]] == ["flat", "ivf", "binary", "ivf"]
    assert [candidate.number for candidate in found if candidate.kind == "ivf"] == list(
        range(len(GRID["ivf"].builds))
    )
    ivf = Candidate.of("ivf", 1, 50_000, 384, 10)
    assert ivf.build["factory"] == "IVF512,PQ96x4fs"


def test_every_kind_of_the_grid_raises_one_parameter():
    for kind in GRID:
        candidate = Candidate.of(kind, 0, 5000, 64, 10)
        place = len(candidate.values) // 2
        search = candidate.search({"other": 1}, place)
        assert search["other"] == 1
        assert candidate.place(search) == place
        assert (len(search) == 1) == (GRID[kind].raised is None)
    graph = Candidate.of("hnsw", 0, 300, 64, 10)
    assert (min(graph.values), max(graph.values)) == (
        10,
        300,
    )  # as many candidates as results, and no more than rows
    assert graph.values[graph.place({"ef": 39})] == 40
    assert Candidate.of("hnsw", 0, 5, 64, 10).values == (5,)


def test_growth_says_how_a_search_slows_down():
    assert GRID["flat"].growth(10.0, 1000) == 10
    assert GRID["hnsw"].growth(10.0, 1000) == pytest.approx(4 / 3)
    assert GRID["ivf"].growth(4.0, 1000) == 2


def test_only_registered_kinds_are_tried(monkeypatch):
    monkeypatch.setattr("indexing.tuning.grid.KINDS", {"flat": "", "hnsw": "", "bm25": ""})
    assert tunable_kinds() == ["flat", "hnsw"]
    assert checked_kinds(["hnsw", "hnsw"]) == ("hnsw",)
    for name in ("bm25", "ivf", "tree", ""):
        with pytest.raises(ConfigError, match="valid: flat, hnsw"):
            checked_kinds([name])


def test_lists_are_few_where_rows_are():
    assert [lists_for(n) for n in (1, 100, 10_000, 1_000_000)] == [1, 2, 128, 2048]


def test_memory_counts_what_searches_read():
    assert resident_bytes(1000, 10, 400, None) == 1000 + 4000
    assert resident_bytes(1000, 10, 400, 5) == 1000 + 4000  # everything is read sooner or later
    assert resident_bytes(1000, 10**9, 400, 5) == 1000 + 1000 * 5 * 4496


def test_a_build_is_expected_to_take_what_its_effort_says():
    times = BuildTimes()
    small, large = (
        Candidate("hnsw", 0, {"m": m, "ef_construction": 100, "backend": "x"}, (0,)) for m in (8, 32)
    )
    assert times.expected(small) == 0
    times.add(small, 10.0)
    assert times.expected(large) == pytest.approx(40)
    assert times.expected(Candidate("hnsw", 0, {"m": 8, "backend": "y"}, (0,))) == 0


# --- queries ---------------------------------------------------------------------------------------


def test_crops_are_runs_of_words_as_long_as_questions():
    rng = np.random.default_rng(0)
    text = " ".join(f"w{n}" for n in range(100))
    crops = [crop(text, rng) for _ in range(200)]
    assert all(one in text for one in crops)
    lengths = {len(one.split()) for one in crops}
    assert min(lengths) == 3 and max(lengths) == 12
    assert crop("two  words", rng) == "two words"
    assert crop("", rng) == crop(" \n", rng) == ""


def test_moved_vectors_keep_their_length_and_leave_their_place():
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((200, 32)).astype(np.float32) * rng.uniform(0.1, 9, (200, 1)).astype(
        np.float32
    )
    moved = perturbed(vectors, rng)
    norms = np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), norms, rtol=1e-5)
    cosine = np.einsum("nd,nd->n", moved, vectors) / norms**2
    assert 0.7 < cosine.mean() < 0.9
    assert np.isfinite(perturbed(np.zeros((3, 4), dtype=np.float32), rng)).all()


@pytest.mark.parametrize(("content", "held"), [("one\n" * 30, 1), ("\n".join("abcdefgh"), 8)])
def test_a_file_of_too_few_queries_is_refused(tmp_path, content, held):
    path = tmp_path / "q.txt"
    path.write_text(content)
    with pytest.raises(FormatError, match=rf"q\.txt.* holds {held} different queries, 20 are the least"):
        given_queries(None, "dense", path, 0, Silent())  # refused before anything is encoded


# --- what is shown ---------------------------------------------------------------------------------


def test_the_table_and_the_picture_mark_the_chosen_point():
    lines = table([POOR, FAST, FLAT], FAST).splitlines()
    assert lines[2].split() == ["*", "0.9600", "0.9600", "0.500", "1.000", "120.0", "1.0", "hnsw", "ef=20"]
    assert [line.split()[0] for line in lines[1:]] == ["A", "*", "B"]
    drawn = picture([POOR, FAST, FLAT], FAST).splitlines()
    assert drawn[0].endswith("B") and "5.000 ms" in drawn[0]  # recall 1 at the right, the slowest on top
    assert drawn[13].split("|")[1].startswith("A") and "0.200 ms" in drawn[13]
    assert sum(line.count("*") for line in drawn) == 1
    assert "0.900" in drawn[-1] and drawn[-1].endswith("1.000")
    assert "*" in picture([FLAT], FLAT)


def test_pictures_are_refused_before_anything_is_measured(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    check_picture(tmp_path / "frontier.png")
    with pytest.raises(ConfigError, match=r"no picture ends in '\.docx'"):
        check_picture(tmp_path / "frontier.docx")
    with pytest.raises(ConfigError, match="there is no folder"):
        check_picture(tmp_path / "no" / "frontier.png")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"tercet\[plot\]"):
        check_picture(tmp_path / "frontier.png")


# --- whole runs ------------------------------------------------------------------------------------

N = 1500


def write_corpus(path: Path, start: int, stop: int) -> Path:
    rng = np.random.default_rng(start)
    lines = []
    for number in range(start, stop):
        topic = number % 40
        words = [f"t{topic}x{rng.integers(12)}" for _ in range(12)] + [
            f"w{rng.integers(400)}" for _ in range(12)
        ]
        lines.append(json.dumps({"_id": f"d{number}", "text": " ".join(words)}))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """A collection of two segments with deleted documents; only flat is there."""
    folder = tmp_path_factory.mktemp("tune")
    path = folder / "c"
    options = BuildOptions((representation_options("dense", model="hashing:32"),), Chunking.none())
    build_collection(open_corpus(write_corpus(folder / "a.jsonl", 0, N - 300)), path, options)
    add_documents(open_corpus(write_corpus(folder / "b.jsonl", N - 300, N)), path, WriteOptions())
    delete_documents(path, [f"d{number}" for number in range(0, 200, 2)])
    return path


@pytest.fixture
def collection(original, tmp_path) -> Path:
    import shutil

    return Path(shutil.copytree(original, tmp_path / "c"))


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "writer.lock"
    }


def hnsw(recall: float = 0.9, **more) -> TuneOptions:
    return TuneOptions(Target(recall), kinds=("hnsw",), **more)


@pytest.fixture(autouse=True)
def few_builds(monkeypatch):
    """Graphs of FAISS alone, so that a run takes a second."""
    from dataclasses import replace

    builds = ({"backend": "faiss", "m": 6, "ef_construction": 30},)
    monkeypatch.setitem(GRID, "hnsw", replace(GRID["hnsw"], builds=builds))


def overlap(path: Path, texts: list[str], k: int = 10) -> float:
    """How much of the exact answer the default search finds."""
    snapshot = Collection.open(path).snapshot()
    found, exact = (
        snapshot.searcher(using).search(texts, SearchRequest(k=k)).rows for using in ("dense", "dense-flat")
    )
    return float(recalls(found, exact).mean())


def unseen(n: int = 400) -> list[str]:
    rng = np.random.default_rng(99)
    return [" ".join(f"t{n % 40}x{rng.integers(12)}" for _ in range(8)) for n in range(n)]


def test_the_promise_holds_on_unseen_queries_and_info_tells_it(collection):
    report = tune(collection, hnsw(0.95))
    assert report.failed == "" and report.installed is not None
    assert "crops of documents" in report.queries
    assert report.rows == report.sample_rows == N - 100
    assert report.installed.recall_at_least >= 0.95
    assert overlap(collection, unseen()) >= 0.94

    snapshot = Collection.open(collection).snapshot()
    first, second = snapshot.info()["representations"]["dense"]["indexes"]
    assert (first["kind"], second["kind"], second["measured"]) == ("hnsw", "flat", None)
    measured = first["measured"]
    assert measured["recall"] == round(report.installed.recall, 4) and measured["target"] == 0.95
    assert (measured["k"], measured["rows"], measured["kind_of_queries"]) == (10, N - 100, "crops")
    assert first["parameters"]["ef"] == report.installed.search["ef"]
    assert snapshot.segments[0].index("dense", "hnsw").ef == report.installed.search["ef"]

    assert not verify(collection).problems
    assert not (collection / "building").exists()
    hits = snapshot.searcher("dense").search(unseen(50), SearchRequest(k=50))
    assert not {f"d{number}" for number in range(0, 200, 2)} & {
        id_ for ids in snapshot.ids(hits.rows) for id_ in ids
    }


def test_what_was_measured_outlives_further_writes(collection, tmp_path):
    tune(collection, hnsw())
    before = read_commit(collection).representations["dense"].indexes[0]
    add_documents(open_corpus(write_corpus(tmp_path / "more.jsonl", N, N + 50)), collection, WriteOptions())
    compact(collection)
    assert read_commit(collection).representations["dense"].indexes[0] == before
    assert overlap(collection, unseen(50)) > 0.8


def test_an_earlier_choice_goes_and_an_index_that_was_asked_for_stays(collection):
    tune(collection, hnsw())
    tune(collection, TuneOptions(Target(1.0), kinds=("flat",)))
    indexes = read_commit(collection).representations["dense"].indexes
    assert [spec.kind for spec in indexes] == ["flat"] and indexes[0].measured["recall"] == 1.0
    assert not list(collection.glob("segments/*/indexes/dense-hnsw-*"))

    add_representation(collection, RepresentationOptions("dense", {}, (index_spec("hnsw", {"m": 4}),)))
    tune(collection, TuneOptions(Target(1.0)))
    kinds = [
        (spec.kind, spec.measured is None)
        for spec in read_commit(collection).representations["dense"].indexes
    ]
    assert kinds == [("flat", False), ("hnsw", True)]
    assert not verify(collection).problems


def test_a_dry_run_changes_nothing(collection):
    before = files(collection)
    report = tune(collection, hnsw(dry_run=True))
    assert report.chosen is not None and report.installed is None and report.failed == ""
    assert "would build hnsw" in as_text(report)
    assert files(collection) == before


def test_without_a_solution_the_collection_stays_and_the_remedy_is_said(collection):
    before = files(collection)
    report = tune(collection, TuneOptions(Target(0.95, memory_bytes=1000)))
    assert report.chosen is report.installed is None
    assert "no setting keeps every limit" in report.failed and "--memory 1MB" in report.failed
    assert files(collection) == before


def test_an_index_that_breaks_its_promise_over_all_rows_gives_way_to_the_next(collection, monkeypatch):
    real = tuning.build_and_verify

    def failing(path, commit, name, chosen, *rest, **more):
        verified = real(path, commit, name, chosen, *rest, **more)
        return None if chosen.kind == "hnsw" else verified

    monkeypatch.setattr(tuning, "build_and_verify", failing)
    monkeypatch.setattr(
        tuning, "ranked", lambda points, target: sorted(points, key=lambda p: p.kind != "hnsw")
    )
    report = tune(collection, TuneOptions(Target(0.9), kinds=("flat", "hnsw")))
    assert report.installed is not None and report.installed.kind == "flat"
    assert not list(collection.glob("segments/*/indexes/dense-hnsw-*"))
    assert [spec.kind for spec in read_commit(collection).representations["dense"].indexes] == ["flat"]


def test_given_queries_are_used_and_said(collection, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("\n".join(dict.fromkeys(unseen(100))))
    report = tune(collection, hnsw(queries=path, dry_run=True))
    assert report.queries.endswith("queries of mine.txt")


def test_a_sample_stands_for_the_whole_collection(collection):
    report = tune(collection, TuneOptions(Target(0.9), kinds=("flat", "hnsw"), sample_rows=400))
    flat = next(point for point in report.points if point.kind == "flat")
    assert report.sample_rows == 400
    assert flat.memory_bytes == pytest.approx(N * 32 * 4, rel=0.01)
    assert report.installed is not None and report.installed.recall_at_least >= 0.9
    assert "estimated for all rows" in as_text(report)


def test_what_there_is_no_time_for_is_told(collection):
    report = tune(collection, hnsw(seconds=1e-9))
    assert report.points == () and "give it more time" in report.failed
    assert any("0 s are left" in why for why in report.skipped.values())


def test_a_build_that_cannot_be_is_told(collection):
    report = tune(collection, hnsw(build_memory=1000))
    assert any("--build-memory" in why for why in report.skipped.values())
    assert report.failed


def test_the_picture_is_drawn(collection, tmp_path):
    pytest.importorskip("matplotlib")
    report = tune(collection, TuneOptions(Target(0.9), kinds=("flat", "hnsw"), dry_run=True))
    save_picture(report, tmp_path / "frontier.png")
    assert (tmp_path / "frontier.png").read_bytes().startswith(b"\x89PNG")


def test_chunks_count_by_their_document(tmp_path):
    corpus = write_corpus(tmp_path / "a.jsonl", 0, 300)
    options = BuildOptions((representation_options("dense", model="hashing:32"),), Chunking(10, 2))
    build_collection(open_corpus(corpus), tmp_path / "c", options)
    report = tune(tmp_path / "c", hnsw(0.9))
    assert report.rows > 300 and report.installed is not None
    assert overlap(tmp_path / "c", unseen(100)) >= 0.89


def test_vectors_are_moved_where_no_text_can_be_encoded(tmp_path):
    path = tmp_path / "empty.jsonl"
    path.write_text("".join(json.dumps({"_id": str(n), "text": ""}) + "\n" for n in range(30)))
    options = BuildOptions((representation_options("dense", model="hashing:16"),), Chunking.none())
    build_collection(open_corpus(path), tmp_path / "c", options)
    report = tune(tmp_path / "c", TuneOptions(Target(0.9), kinds=("flat",)))
    assert "vectors of documents moved" in report.queries
    assert report.installed is not None and report.installed.recall == 1.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"using": "sparse"}, "no dense representation 'sparse'; it has: dense"),
        ({"target": Target(k=N)}, f"holds {N - 100} documents, fewer than the {N} results"),
    ],
)
def test_what_cannot_be_tuned_is_refused(collection, options, said):
    before = files(collection)
    with pytest.raises(ConfigError, match=said):
        tune(collection, TuneOptions(**options))
    assert files(collection) == before


def test_collections_without_dense_vectors_or_rows_are_refused(tmp_path):
    corpus = write_corpus(tmp_path / "a.jsonl", 0, 3)
    build_collection(
        open_corpus(corpus), tmp_path / "b", BuildOptions((representation_options("bm25"),), Chunking.none())
    )
    with pytest.raises(ConfigError, match="has no dense representation; add one"):
        tune(tmp_path / "b", TuneOptions())
    options = BuildOptions((representation_options("dense", model="hashing:16"),), Chunking.none())
    build_collection(open_corpus(corpus), tmp_path / "c", options)
    delete_documents(tmp_path / "c", ["d0", "d1", "d2"])
    compact(tmp_path / "c")
    with pytest.raises(ConfigError, match="holds 0 documents"):
        tune(tmp_path / "c", TuneOptions())


@pytest.mark.parametrize(
    "options", [{"sample_rows": 0}, {"sample_rows": 10**6}, {"sample_rows": 5}, {"kinds": ("x",)}]
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError):
        TuneOptions(**options)


def test_one_writer_at_a_time(collection):
    with writer_lock(collection), pytest.raises(LockedError):
        tune(collection, hnsw())


def test_commits_from_before_open(collection):
    raw = read_sealed(collection / "collection.json")
    for spec in raw["representations"]["dense"]["indexes"]:
        del spec["measured"]
    write_sealed(collection / "collection.json", raw)
    assert (
        Collection.open(collection).snapshot().info()["representations"]["dense"]["indexes"][0]["measured"]
        is None
    )


KILLED = """
import os, signal, sys
from pathlib import Path
from indexing.tuning import {module}
from indexing.tuning.frontier import Target
from indexing.tuning.options import TuneOptions
from indexing.tuning.tuning import tune
{module}.{function} = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
tune(sys.argv[1], TuneOptions(Target(0.9), kinds=("flat", "hnsw"), sample_rows=300))
"""


@pytest.mark.parametrize(("module", "function"), [("trials", "walk"), ("tuning", "write_commit")])
def test_a_kill_leaves_the_last_commit(collection, module, function):
    before = read_commit(collection)
    script = KILLED.format(module=module, function=function)
    killed = subprocess.run([sys.executable, "-c", script, collection], env=os.environ, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert read_commit(collection) == before
    assert Collection.open(collection).snapshot().info()["unfinished_builds"] == 0
    assert overlap(collection, unseen(5)) == 1.0
    tune(collection, TuneOptions(Target(1.0), kinds=("flat",)))  # sweeps what was left
    assert not (collection / "building").exists()
    assert not list(collection.glob("segments/*/indexes/dense-hnsw-*"))
    assert not verify(collection).problems
