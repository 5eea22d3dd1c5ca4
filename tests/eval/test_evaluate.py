"""Evaluation over fake retrievers, the reports it writes, and the command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import pytrec_eval
from click.testing import CliRunner

from eval.beir import BeirDataset
from eval.cli import command
from eval.evaluate import Conditions, Retriever, evaluate, evaluate_run, group_mean, make_run, without_self
from eval.metrics import parse_metrics
from eval.report import as_json, markdown, notes, table_rows, write_reports
from eval.runs import read_run, write_run
from indexing.command_line import run as run_command
from retrieval.protocols import SearchRequest
from retrieval.values import Hits

WORDS = "ant bee cat dog eel fox gnu hen ibis jay".split()


@dataclass
class Overlap:
    """Ranks documents by the words they share with the query; counts what it is asked."""

    texts: list[str]
    weight: float = 1.0
    calls: list[tuple[int, SearchRequest]] = field(default_factory=list)

    def search(self, queries, request):
        self.calls.append((len(queries), request))
        hits = Hits.none(len(queries), request.k, "token")
        for number, query in enumerate(queries):
            words = set(query.split())
            scores = np.array(
                [self.weight * len(words & set(text.split())) for text in self.texts], dtype=np.float32
            )
            rows = np.flatnonzero(scores)[np.argsort(-scores[scores != 0], kind="stable")][: request.k]
            hits.rows[number, : len(rows)] = rows
            hits.scores[number, : len(rows)] = scores[rows]
        return hits

    def explain(self, query, rows):
        raise NotImplementedError


@pytest.fixture
def dataset(tmp_path) -> BeirDataset:
    """Twelve documents; six judged queries, one of them without a known word; ids of both overlap."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "toy"
    (folder / "qrels").mkdir(parents=True)
    texts = [" ".join(rng.choice(WORDS, 4, replace=False)) for _ in range(12)]
    queries = [*(" ".join(rng.choice(WORDS, 4, replace=False)) for _ in range(7)), "zebra"]
    (folder / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": str(i), "title": "", "text": text}) + "\n" for i, text in enumerate(texts))
    )
    (folder / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": str(i), "text": text}) + "\n" for i, text in enumerate(queries))
    )
    rows = [
        f"{query}\t{document}\t{grade}\n"
        for query in (0, 1, 2, 3, 4, 7)
        for document, grade in ((query + 3, 2), (9, 1))
    ]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(sorted(set(rows))))
    return BeirDataset("toy", folder)


def retriever(dataset: BeirDataset, name="overlap", weight=1.0) -> Retriever:
    documents = [json.loads(line) for line in dataset.corpus_path.read_text().splitlines()]
    ids = [document["_id"] for document in documents]
    return Retriever(
        name,
        Overlap([document["text"] for document in documents], weight),
        lambda rows: [[ids[row] for row in line if row >= 0] for line in rows.tolist()],
        len(ids),
        1234,
    )


def test_metrics_are_trec_evals_over_the_judged_queries(dataset):
    one = retriever(dataset)
    [found] = evaluate(dataset, [one], Conditions(batch=2))
    assert (found.n_queries, found.n_docs, found.n_unanswered, found.index_bytes) == (6, 12, 1, 1234)
    assert list(found.per_query) == list(dataset.qrels())
    strictly = {q: {d: -float(r) for r, (d, _) in enumerate(hits)} for q, hits in found.run.items()}
    direct = pytrec_eval.RelevanceEvaluator(dataset.qrels(), {"ndcg_cut.10"}).evaluate(strictly)
    expected = sum(values["ndcg_cut_10"] for values in direct.values()) / 6
    assert found.metrics["nDCG@10"] == pytest.approx(expected)
    assert found.metrics["nDCG@10"] > 0


def test_batches_do_not_change_the_run_and_depth_reaches_the_searcher(dataset):
    queries = dataset.queries()
    runs = []
    for batch in (1, 4, 100):
        one = retriever(dataset)
        runs.append(make_run(one, queries, Conditions(batch=batch, k=200, depth=77))[0])
        assert {(request.k, request.depth) for _, request in one.searcher.calls} == {(200, 77)}
        assert sum(size for size, _ in one.searcher.calls) == len(queries)
    assert runs[0] == runs[1] == runs[2]


def test_rankings_are_as_long_as_the_largest_cutoff():
    assert Conditions(metrics=parse_metrics(["Recall@5000", "MAP"]), k=10).run_length == 5000
    assert Conditions(k=1000).run_length == 1000


def test_single_queries_are_timed_on_a_seeded_sample(dataset):
    one = retriever(dataset)
    [found] = evaluate(dataset, [one], Conditions(timed_queries=3, batch=100))
    singles = [request.k for size, request in one.searcher.calls if size == 1 and request.k > 1]
    assert len(found.latency.milliseconds) == 3 and found.latency.mean > 0
    assert singles == [10] * 6, "three to warm up, three timed"
    [untimed] = evaluate(dataset, [retriever(dataset)], Conditions(timed_queries=0))
    assert untimed.latency is None and as_json(untimed)["ms_per_query"] is None


def test_a_querys_own_document_is_dropped_and_replaced_by_one_more_hit(dataset):
    dropping = replace(dataset, drop_self=True)
    conditions = Conditions(metrics=parse_metrics(["nDCG@3"]), k=3)
    kept, [dropped] = retriever(dataset), evaluate(dropping, [retriever(dataset)], conditions)
    whole, _ = make_run(kept, dataset.queries(), replace(conditions, k=12))
    for query, hits in dropped.run.items():
        assert [d for d, _ in hits] == [d for d, _ in whole[query] if d != query][:3]
    expected = sum(query in [d for d, _ in whole[query]][:4] for query in whole)
    assert dropped.n_dropped == expected > 0
    assert any("own document" in line and f"overlap {expected}" in line for line in notes([dropped]))
    [kept_self] = evaluate(dataset, [retriever(dataset)], conditions)
    assert kept_self.n_dropped == 0 and not any("own document" in line for line in notes([kept_self]))


def test_without_self_leaves_its_input_alone():
    run = {"a": [("a", 2.0), ("b", 1.0)], "b": [("a", 1.0)]}
    assert without_self(run) == {"a": [("b", 1.0)], "b": [("a", 1.0)]}
    assert run["a"] == [("a", 2.0), ("b", 1.0)]


def test_every_retriever_is_compared_with_the_first(dataset):
    first, same, inverse = evaluate(
        dataset, [retriever(dataset), retriever(dataset, "same", 2.0), retriever(dataset, "inverse", -1.0)]
    )
    assert first.p_values == {} and first.baseline == ""
    assert same.baseline == inverse.baseline == "overlap"
    assert same.p_values["nDCG@10"] == 1.0
    assert 0 < inverse.p_values["MRR@10"] < 1.0


def test_the_json_object_holds_what_the_design_names(dataset):
    [found] = evaluate(
        dataset,
        [retriever(dataset)],
        Conditions(metrics=parse_metrics(["nDCG@10", "Recall@100", "MRR@10", "P@3"])),
    )
    line = json.loads(json.dumps(as_json(found)))
    named = "dataset split retriever n_docs n_queries nDCG@10 Recall@100 MRR@10 ms_per_query index_bytes seed versions"
    assert set(named.split()) <= line.keys()
    assert line["versions"]["numpy"] == np.__version__ and line["timed_queries"] == 6


def test_reports_are_written_and_the_run_file_gives_the_same_numbers(dataset, tmp_path):
    found = evaluate(dataset, [retriever(dataset), retriever(dataset, "inverse", -1.0)])
    names = sorted(path.name for path in write_reports(tmp_path / "out", found))
    assert names[:2] == ["results.json", "results.md"]
    assert names[2:] == [
        f"toy.test.{n}.{end}" for n in ("inverse", "overlap") for end in ("queries.jsonl", "trec")
    ]
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == [as_json(one) for one in found]
    again = evaluate_run(dataset, read_run(tmp_path / "out" / "toy.test.overlap.trec"), "again")
    assert again.metrics == found[0].metrics and again.per_query == found[0].per_query
    lines = (tmp_path / "out" / "toy.test.overlap.queries.jsonl").read_text().splitlines()
    assert {json.loads(line)["query"] for line in lines} == set(dataset.qrels())
    assert "| toy | overlap |" in (tmp_path / "out" / "results.md").read_text()


def test_the_mean_of_a_group_weighs_its_parts_alike(dataset):
    [found] = evaluate(dataset, [retriever(dataset)])
    parts = [
        replace(found, dataset="g/a", metrics={"MAP": 1.0}, n_queries=10),
        replace(found, dataset="g/b", metrics={"MAP": 0.0}, n_queries=990),
    ]
    whole = group_mean("g", parts)
    assert (
        whole.metrics == {"MAP": 0.5} and whole.n_queries == 1000 and whole.parts == 2 and whole.n_docs == 24
    )
    assert table_rows([whole])[1][0][0] == "g (mean of 2)"
    assert as_json(whole)["mean_of"] == 2
    assert "mean of 2" in markdown([*parts, whole])


def run_file(dataset, tmp_path, name="mine.trec", weight=1.0):
    run, _ = make_run(retriever(dataset, weight=weight), dataset.queries(), Conditions())
    write_run(run, tmp_path / name)
    return str(tmp_path / name)


def test_the_command_measures_run_files(dataset, tmp_path):
    path = run_file(dataset, tmp_path)
    other = run_file(dataset, tmp_path, "other.trec", -1.0)
    arguments = [
        str(dataset.folder),
        "--run",
        path,
        "--run",
        other,
        "--metrics",
        "MAP,P@3",
        "--json",
        "-o",
        str(tmp_path / "out"),
    ]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    first, second = (json.loads(line) for line in result.stdout.splitlines())
    expected = evaluate(dataset, [retriever(dataset)])[0]
    assert first["retriever"] == "mine.trec" and first["nDCG@10"] == pytest.approx(
        expected.metrics["nDCG@10"], abs=1e-6
    )
    assert {"MAP", "P@3", "Recall@100"} <= first.keys() and first["ms_per_query"] is None
    assert second["baseline"] == "mine.trec"
    assert (tmp_path / "out" / "results.md").exists()


def test_the_table_of_the_command_is_whole_in_a_pipe(dataset, tmp_path):
    result = CliRunner().invoke(
        command, [str(dataset.folder), "--run", run_file(dataset, tmp_path)], catch_exceptions=False
    )
    assert re.search(r"toy +│ mine\.trec +│ +0\.\d{4}", result.stdout)
    assert "1 of 6 queries found nothing and count 0" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics", "nDGC@10"], "unknown metric 'nDGC@10'; valid: nDCG"),
        (["--metrics", "P"], "'P' needs a cutoff"),
        (["--split", "dev", "--run", "RUN"], "no split 'dev'; it has: test"),
        (["--split", "dev"], "no split 'dev'; it has: test"),
        (["DATASET", "--run", "RUN"], "belong to one data set"),
        (["--using", "bm52"], "unknown representation 'bm52'"),
        (["--using", ","], "no retriever given"),
        (["--using", "best:hybrid"], "unknown fusion method 'best'"),
        (["--encoder", "hashing:wide"], "hashing:256"),
        (["--run", "RUN", "--sparse-option", "queries=static"], "--sparse-option has no effect with"),
        (["--run", "RUN", "--encoder", "hashing:8"], "--encoder has no effect with"),
    ],
)
def test_the_command_refuses_what_does_not_fit_as_wrong_usage(dataset, tmp_path, capsys, arguments, message):
    named = {"DATASET": str(dataset.folder), "RUN": run_file(dataset, tmp_path)}
    given = [named.get(argument, argument) for argument in arguments]
    assert run_command(command, [str(dataset.folder), *given]) == 2
    said = capsys.readouterr()
    assert message in said.err and not said.out


def test_help_is_quick_and_imports_no_heavy_package():
    code = (
        "import sys; from eval.cli import command\n"
        "command(['--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'polars', 'rich', 'numba', 'pytrec_eval', 'httpx', 'faiss'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "--drop-self / --keep-self" in result.stdout


def test_python_dash_m_eval_ends_with_one_line_for_an_error(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "eval", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and done.stdout == ""
    message = f"tercet: {tmp_path}: no corpus.jsonl there, nor in a folder below; it is no BEIR data set"
    assert done.stderr.strip() == message
