"""TREC run files and judgements out and in."""

from __future__ import annotations

import gzip
import itertools

import numpy as np
import pytest
import pytrec_eval
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from eval.metrics import measure, parse_metrics, per_query
from eval.qrels import read_qrels
from eval.runs import read_run, strictly_decreasing, write_run
from retrieval.errors import ConfigError, FormatError

IDS = st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=5).filter(
    lambda s: s.split() == [s]
)
RUNS = st.dictionaries(
    IDS, st.dictionaries(IDS, st.floats(-100, 100, width=32), min_size=1, max_size=8), min_size=1, max_size=3
)


@given(scores=RUNS)
def test_a_run_read_back_has_the_same_order_even_with_ties(tmp_path_factory, scores):
    run = {query: sorted(hits.items(), key=lambda hit: -hit[1]) for query, hits in scores.items()}
    path = tmp_path_factory.mktemp("runs") / "a.trec"
    write_run(run, path)
    again = read_run(path)
    assert {q: [d for d, _ in hits] for q, hits in again.items()} == {
        q: [d for d, _ in h] for q, h in run.items()
    }
    for query, hits in again.items():
        for (_, written), (_, score) in zip(hits, run[query], strict=True):
            assert written == pytest.approx(score, rel=1e-5, abs=1e-30)


def test_trec_eval_sees_our_order_in_a_written_run(tmp_path):
    run = {"q": [("a", 1.0), ("z", 1.0), ("m", 1.0), ("b", 1.0)]}
    write_run(run, tmp_path / "a.trec")
    with (tmp_path / "a.trec").open() as stream:
        parsed = pytrec_eval.parse_run(stream)
    for rank, (document, _) in enumerate(run["q"], start=1):
        evaluator = pytrec_eval.RelevanceEvaluator({"q": {document: 1}}, {"recip_rank"})
        assert evaluator.evaluate(parsed)["q"]["recip_rank"] == 1 / rank


def test_a_run_file_of_others_gives_the_metrics_that_trec_eval_gives(tmp_path):
    rng = np.random.default_rng(1)
    rows = [
        f"q{query} Q0 d{document} 0 {rng.integers(0, 5) / 4} other"
        for query in range(5)
        for document in rng.permutation(40)
    ]
    (tmp_path / "other.trec").write_text("\n".join(rows))
    qrels = {f"q{query}": {f"d{d}": 1 for d in rng.choice(40, 6, replace=False)} for query in range(5)}
    with (tmp_path / "other.trec").open() as stream:
        direct = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "map"}).evaluate(
            pytrec_eval.parse_run(stream)
        )
    ours = per_query(read_run(tmp_path / "other.trec"), qrels, parse_metrics(["nDCG@10", "MAP"]))
    assert ours == {q: {"nDCG@10": v["ndcg_cut_10"], "MAP": v["map"]} for q, v in direct.items()}


@given(st.lists(st.floats(allow_nan=False, width=32, min_value=-(2.0**99), max_value=2.0**99)))
def test_written_scores_decrease_strictly_and_change_little(scores):
    ordered = sorted(scores, reverse=True)
    lowered = strictly_decreasing(ordered)
    assert all(a > b for a, b in itertools.pairwise(lowered))
    assert lowered == pytest.approx(ordered, rel=1e-4, abs=1e-37)


@pytest.mark.parametrize("end", [".gz", ".zst"])
def test_compressed_runs_are_read(tmp_path, end):
    run = {"q1": [("a", 2.0), ("b", 1.0)]}
    write_run(run, tmp_path / "run.trec.gz")
    raw = gzip.decompress((tmp_path / "run.trec.gz").read_bytes())
    (tmp_path / "run.trec.zst").write_bytes(zstandard.compress(raw[:9]) + zstandard.compress(raw[9:]))
    assert read_run(tmp_path / f"run.trec{end}") == run


def test_equal_runs_are_equal_files(tmp_path):
    run = {"q1": [("a", 2.0), ("b", 1.0)]}
    for name in ("one.gz", "two.gz"):
        write_run(run, tmp_path / name)
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()


@pytest.mark.parametrize("run", [{"a query": [("d", 1.0)]}, {"q": [("a document", 1.0)]}, {"q": [("", 1.0)]}])
def test_an_id_that_the_format_cannot_express_is_refused_and_leaves_no_file(tmp_path, run):
    with pytest.raises(ConfigError, match="empty or holds white space"):
        write_run(run, tmp_path / "run.trec")
    assert not (tmp_path / "run.trec").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q Q0 d 1 0.5 t\nq Q0 e 2 0.4\n", r"run\.trec:2: .* has 5 columns; needed are six"),
        ("q Q0 d 1 high t\n", r"run\.trec:1: the score 'high' is not a finite number"),
        ("q Q0 d 1 nan t\n", r"run\.trec:1: the score 'nan'"),
        ("q Q0 d 1 2 t\n\nq Q0 d 2 1 t\n", r"run\.trec:3: document 'd' occurs twice"),
        ("", r"run\.trec: holds no ranking"),
    ],
)
def test_a_damaged_run_names_file_and_line(tmp_path, text, message):
    (tmp_path / "run.trec").write_text(text)
    with pytest.raises(FormatError, match=message):
        read_run(tmp_path / "run.trec")


def test_what_is_no_text_or_no_archive_is_named(tmp_path):
    (tmp_path / "a.trec").write_bytes(b"q Q0 d 1 0.5 t\nq Q0 \xff 1 0.5 t\n")
    (tmp_path / "b.trec.gz").write_bytes(b"plain")
    (tmp_path / "c.trec.zst").write_bytes(b"plain text here")
    many = b"".join(b"q Q0 d%d 1 0.5 t\n" % i for i in range(5000))
    (tmp_path / "d.trec.gz").write_bytes(gzip.compress(many)[:-12])
    (tmp_path / "e.trec.zst").write_bytes(zstandard.compress(many)[:-12])
    for name, message in {
        "a.trec": r"a\.trec:2: invalid UTF-8: byte 0xff",
        "b.trec.gz": "not a valid gzip file",
        "c.trec.zst": "not a valid zstd file",
        "d.trec.gz": r"d\.trec\.gz: the gzip file is truncated",
        "e.trec.zst": "the zstd file is truncated",
        "missing": "missing: cannot be read .No such file",
    }.items():
        with pytest.raises(FormatError, match=message):
            read_run(tmp_path / name)


def test_judgements_are_read_in_both_forms(tmp_path):
    (tmp_path / "beir.tsv").write_text("query-id\tcorpus-id\tscore\nq 1\td 1\t2\nq 1\td2\t0\nq2\td1\t-1\n")
    (tmp_path / "trec.txt").write_text("q1 0 d1 2\nq1 0\td2 0\nq2 0 d1 -1\n")
    assert read_qrels(tmp_path / "beir.tsv") == {"q 1": {"d 1": 2, "d2": 0}, "q2": {"d1": -1}}
    assert read_qrels(tmp_path / "trec.txt") == {"q1": {"d1": 2, "d2": 0}, "q2": {"d1": -1}}


def test_of_a_pair_judged_twice_the_later_judgement_counts(tmp_path):
    (tmp_path / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td1\t2\n")
    assert read_qrels(tmp_path / "test.tsv") == {"q1": {"d1": 2}}


def test_a_tsv_without_a_header_keeps_its_first_line(tmp_path):
    (tmp_path / "test.tsv").write_text("q1\td1\t1\nq1\td1\t1\n")
    assert read_qrels(tmp_path / "test.tsv") == {"q1": {"d1": 1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "query-id\tcorpus-id\tscore\nq1\td1\n",
            r"test\.tsv:2: .* has 2 tab-separated cells; needed are three",
        ),
        (
            "query-id\tcorpus-id\tscore\nq1\td1\tyes\n",
            r"test\.tsv:2: the judgement 'yes' is not a whole number",
        ),
        ("q1 0 d1 1\nq1 0 d1\n", r"test\.tsv:2: .* has 3 columns; needed are four"),
        ("query-id\tcorpus-id\tscore\n", "holds no judgement"),
        ("one line of text without any table\n", r"test\.tsv:1: .* needed are three"),
    ],
)
def test_damaged_judgements_name_file_and_line(tmp_path, text, message):
    (tmp_path / "test.tsv").write_text(text)
    with pytest.raises(FormatError, match=message):
        read_qrels(tmp_path / "test.tsv")


def test_a_run_survives_the_disk_with_its_metrics(tmp_path):
    rng = np.random.default_rng(2)
    run = {
        f"q{q}": [(f"d{d}", float(s)) for d, s in enumerate(np.sort(rng.integers(0, 9, 50))[::-1])]
        for q in range(8)
    }
    qrels = {query: {f"d{d}": 1 for d in rng.choice(50, 5)} for query in run}
    metrics = parse_metrics(["nDCG@10", "MAP", "MRR@10"])
    write_run(run, tmp_path / "a.trec")
    assert measure(read_run(tmp_path / "a.trec"), qrels, metrics) == measure(run, qrels, metrics)
