"""BM25 search beside bm25s' numba backend and Lucene: one thread, queries in a batch and one call at a time.

    python benchmarks/bm25.py [--quick] [--json]

Data: SciFact (from $TERCET_DATA or ../shared/data; left out where absent) and generated documents, 1,000,000 of them
(--quick: 100,000). Tercet and bm25s index the same terms, analysed once. Tercet gets queries as strings of terms and
looks them up within the timing; bm25s gets numbers. Rounds are interleaved; `ms_p50` is the median over rounds of the
time a query (in a batch) or the median over calls. `recall` is the overlap with the exact top k by Lucene's formula,
equal scores counting as equal: bm25s uses exact lengths where Lucene, and so Tercet, rounds them to a byte. `speedup`
is how many times faster than bm25s an engine is, `speedup_lucene` than Lucene.

Lucene is Anserini's `SimpleSearcher.batch_search` in a process of its own (lucene_worker.py), on one processor, timed
in there around the one call into Java. That call also analyses the queries and reads the stored id of every hit, which
at large k takes most of its time; its build starts from text and so includes the analysis. It is left out where its
environment cannot be made, and with --quick where there is none yet.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["TERCET_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from benchmarks import lucene_worker
from benchmarks.corpora import Corpus, terms_of, word
from retrieval.encoders.terms import TermsEncoder
from retrieval.values import Document, Strings, Terms

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".bench" / "bm25"
PARAMETERS = {"k1": lucene_worker.K1, "b": lucene_worker.B}
OURS_AND_BM25S = ("tercet", "bm25s")
ROUNDS = 7
CALLS = 300
EXACT = 50  # queries that the exact ranking is worked out for


# --- data


def scifact_documents(source: Path) -> list[Document]:
    """Its documents in the order of the file."""
    records = map(json.loads, (source / "corpus.jsonl").open(encoding="utf-8"))
    return [Document(r["_id"], r["text"], r.get("title", "")) for r in records]


def scifact() -> tuple[Path, Path] | None:
    """The folder of its rows, and the data set's folder."""
    data = Path(os.environ.get("TERCET_DATA") or ROOT.parent / "shared" / "data")
    source = data / "eval" / "scifact"
    if not (source / "corpus.jsonl").exists():
        return None
    text = (source / "corpus.jsonl").read_bytes()
    folder = CACHE / f"scifact-{hashlib.sha256(text).hexdigest()[:12]}"
    shutil.rmtree(folder / "rows", ignore_errors=True)  # our analysis may have changed
    (folder / "rows").mkdir(parents=True)
    TermsEncoder().encode_documents(scifact_documents(source)).save(folder / "rows")
    return folder, source


def generated(n: int) -> Path:
    """The folder of the rows of n generated documents."""
    recipe = hashlib.sha256((ROOT / "benchmarks" / "corpora.py").read_bytes()).hexdigest()[:12]
    folder = CACHE / f"generated-{n}-{recipe}"
    if not (folder / "rows" / "value.json").exists():
        from indexing.bm25.inversion import unify_terms

        shutil.rmtree(folder, ignore_errors=True)
        words, parts = list(Corpus().vocabulary()), []
        for number, (tokens, indptr) in enumerate(Corpus().documents(n)):
            used, local = np.unique(tokens, return_inverse=True)
            parts.append(folder / "parts" / str(number))
            parts[-1].mkdir(parents=True)
            terms_of(local.astype(np.int32), indptr, Strings.of([words[t] for t in used])).save(parts[-1])
        (folder / "rows").mkdir()
        unify_terms(parts, folder / "rows")
        shutil.rmtree(folder / "parts")
    return folder


def generated_queries(n: int, n_documents: int) -> list[str]:
    """Queries as text."""
    return [" ".join(word(t) for t in query) for query in Corpus().queries(n, n_documents)]


# --- builds, each in a process of its own


def build(engine: str, folder: Path) -> None:
    """Index the rows; print what it took."""
    rows, target = Terms.load(folder / "rows"), folder / engine
    target.mkdir()
    start = time.perf_counter()
    if engine == "tercet":
        from indexing.bm25.index import Bm25Index

        filled = Bm25Index.parameters(PARAMETERS)
        Bm25Index.build(rows, target, filled, memory_bytes=256 << 20, progress=lambda n: None)
        seconds = time.perf_counter() - start
    else:
        import bm25s

        bounds = zip(rows.indptr[:-1], rows.indptr[1:], strict=True)
        tokens = [
            np.repeat(rows.indices[low:high], rows.frequencies[low:high]).tolist() for low, high in bounds
        ]
        vocabulary = {term: number for number, term in enumerate(rows.vocabulary)}
        start = time.perf_counter()
        peer = bm25s.BM25(method="lucene", backend="numba", **PARAMETERS)
        peer.index((tokens, vocabulary), show_progress=False)
        seconds = time.perf_counter() - start
        peer.save(str(target), show_progress=False)
    facts = {
        "build_s": round(seconds, 2),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "index_bytes": sum(file.stat().st_size for file in target.iterdir()),
    }
    (target / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


def build_apart(engine: str, folder: Path) -> None:
    """Build in a process of its own."""
    subprocess.run([sys.executable, __file__, "--build", engine, str(folder)], check=True, stdout=sys.stderr)


def built(engine: str, folder: Path, make: Callable[[], None]) -> dict[str, object]:
    """Figures of a build; a peer's is kept from run to run."""
    facts = folder / engine / "facts.json"
    cached = facts.exists() and engine != "tercet"
    if not cached:
        shutil.rmtree(folder / engine, ignore_errors=True)
        make()
    return json.loads(facts.read_text(encoding="utf-8")) | ({"cached": True} if cached else {})


# --- search


def exact_scores(rows: Terms, index: object, queries: Terms, query: int) -> np.ndarray:
    """(N,) float64 scores by the formula, from the postings."""
    from indexing.bm25.factors import unpack_keys

    files, found = index._files, index._look_up(queries)
    tf, _, length = unpack_keys(files.keys, 1)
    average = files.totals[1, 0] / files.totals[0, 0]
    factor = tf / (tf + PARAMETERS["k1"] * (1 - PARAMETERS["b"] + PARAMETERS["b"] * length / average))
    scores = np.zeros(len(rows))
    for position in range(queries.indptr[query], queries.indptr[query + 1]):
        term = found.terms[queries.indices[position]]
        if term >= 0:
            low, high = files.indptr[term], files.indptr[term + 1]
            idf = np.log1p((files.totals[0, 0] - (high - low) + 0.5) / (high - low + 0.5))
            scores[files.rows[low:high]] += (
                queries.frequencies[position] * idf * factor[files.codes[low:high]]
            )
    return scores


def overlap(found: np.ndarray, scores: list[np.ndarray], k: int) -> float:
    """Share of the exact top k that was found; a row that ties with the k-th counts."""
    shares = []
    for row, exact in zip(found, scores, strict=False):
        wanted = min(k, int((exact > 0).sum()))
        if wanted:
            cut = np.partition(exact, len(exact) - wanted)[len(exact) - wanted] * (1 - 1e-6)
            shares.append(min(wanted, int((exact[row[(row >= 0)][:k]] >= cut).sum())) / wanted)
    return round(float(np.mean(shares)), 4)


def ndcg10(found: np.ndarray, folder: Path, n_documents: int) -> float:
    """Of SciFact's test queries, ranks as they are."""
    import ir_measures

    ids = [json.loads(line)["_id"] for line in (folder / "corpus.jsonl").read_text("utf-8").splitlines()]
    qrels: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels" / "test.tsv").read_text("utf-8").splitlines()[1:]:
        query, document, grade = line.split()
        qrels.setdefault(query, {})[document] = int(grade)
    run = {
        query: {ids[row]: float(n_documents - rank) for rank, row in enumerate(rows) if row >= 0}
        for query, rows in zip(qrels, found, strict=True)
    }
    return round(ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run)[ir_measures.nDCG @ 10], 4)


def measure(
    data: str,
    folder: Path,
    documents: Iterable[str],
    texts: list[str],
    depths: list[int],
    source: Path | None,
    java: Path | None,
) -> list[dict[str, object]]:
    """Rows of all engines; without Lucene's where `java`, the Python of its environment, is None."""
    import bm25s

    from indexing.bm25.index import Bm25Index
    from retrieval.protocols import SearchRequest

    queries = TermsEncoder().encode_queries(texts)
    facts = {engine: built(engine, folder, partial(build_apart, engine, folder)) for engine in OURS_AND_BM25S}
    if java:
        make = partial(lucene_worker.index, java, folder / "lucene", documents)
        facts["lucene"] = built("lucene", folder, make)
    terms = Terms.load(folder / "rows")
    index = Bm25Index.load(folder / "tercet", terms, Bm25Index.parameters(PARAMETERS))
    peer = bm25s.BM25.load(str(folder / "bm25s"), backend="numba")
    numbers = index._look_up(queries).terms
    asked = [
        np.repeat(
            numbers[queries.indices[low:high]],
            queries.frequencies[low:high] * (numbers[queries.indices[low:high]] >= 0),
        ).tolist()
        for low, high in zip(queries.indptr[:-1], queries.indptr[1:], strict=True)
    ]
    n, calls = len(queries), min(CALLS, len(queries))
    exact = [exact_scores(terms, index, queries, query) for query in range(min(EXACT, n))]

    def batch(engine: str, k: int) -> tuple[float, np.ndarray]:
        value = queries[0:n]  # a value of its own, of which the index remembers nothing
        start = time.perf_counter()
        if engine == "tercet":
            found = index.search(value, SearchRequest(k=k)).rows
        else:
            found = peer.retrieve(asked, k=k, show_progress=False, n_threads=1).documents
        return (time.perf_counter() - start) / n, np.asarray(found)

    def single(engine: str, k: int) -> list[float]:
        request, taken = SearchRequest(k=k), []
        small = [encode_one(queries, i) for i in range(calls)]
        for position in range(calls):
            start = time.perf_counter()
            if engine == "tercet":
                index.search(small[position], request)
            else:
                peer.retrieve([asked[position]], k=k, show_progress=False, n_threads=1)
            taken.append(time.perf_counter() - start)
        return taken

    rows = []
    with lucene_worker.Worker(java, folder / "lucene", texts) if java else nullcontext() as lucene:
        for setting, k in [("batch", k) for k in depths] + [("single call", depths[0])]:
            times: dict[str, list[float]] = {engine: [] for engine in OURS_AND_BM25S}
            found: dict[str, np.ndarray] = {}
            if lucene and setting == "batch":
                times["lucene"], found["lucene"] = [], padded(lucene.warm_up(k), k)
            for round_ in range(ROUNDS + 1):  # the first warms up
                for engine, taken in times.items():
                    if engine == "lucene":
                        taken += [lucene.time(k) / n] * (round_ > 0)
                    elif setting == "batch":
                        seconds, found[engine] = batch(engine, k)
                        taken += [seconds] * (round_ > 0)
                    else:
                        taken += single(engine, k) if round_ > 0 else []
            for engine, taken in times.items():
                median = statistics.median(taken)
                p95 = sorted(taken)[int(0.95 * len(taken))] if setting != "batch" else None
                rows.append(
                    {
                        "bench": "bm25", "data": data, "engine": engine,
                        "setting": "batch_search, 1 thread" if engine == "lucene" else setting,
                        "k": k, "threads": 1,
                        "qps": round(1 / median), "ms_p50": round(1e3 * median, 5),
                        "ms_p95": None if p95 is None else round(1e3 * p95, 5),
                        "speedup": times_faster(median, times["bm25s"]),
                        "speedup_lucene": times_faster(median, times.get("lucene", [])),
                        "recall": overlap(found[engine], exact, k) if found else None,
                        "ndcg10": ndcg10(found[engine], source, len(terms)) if found and source and k == 10 else None,
                        **facts[engine],
                    }
                )  # fmt: skip
    return rows


def times_faster(seconds: float, others: list[float]) -> float | None:
    """Than the median of the others; None without any."""
    return round(statistics.median(others) / seconds, 2) if others else None


def padded(rows: list[list[int]], k: int) -> np.ndarray:
    """(Q, k) rows, -1 where there is none."""
    return np.array([found + [-1] * (k - len(found)) for found in rows])


def encode_one(queries: Terms, query: int) -> Terms:
    """One query with a vocabulary of its own, as a service gets it."""
    part = slice(int(queries.indptr[query]), int(queries.indptr[query + 1]))
    size = part.stop - part.start
    return Terms(
        np.array([0, size], dtype=np.int64),
        np.arange(size, dtype=np.int32),
        queries.frequencies[part].copy(),
        queries.lengths[query : query + 1],
        Strings.of(queries.vocabulary.take(queries.indices[part])),
        queries.term_fields[queries.indices[part]],
    )


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--build", nargs=2, metavar=("ENGINE", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.build:
        build(given.build[0], Path(given.build[1]))
        return
    rows, java = [], lucene_worker.environment(make=not given.quick)
    if (real := scifact()) is not None:
        folder, source = real
        texts = {
            r["_id"]: r["text"] for r in map(json.loads, (source / "queries.jsonl").open(encoding="utf-8"))
        }
        lines = (source / "qrels" / "test.tsv").read_text("utf-8").splitlines()[1:]
        asked = dict.fromkeys(line.split()[0] for line in lines)
        documents = (document.contents() for document in scifact_documents(source))
        rows += measure("scifact", folder, documents, [texts[q] for q in asked], [10, 1000], source, java)
    n = 100_000 if given.quick else 1_000_000
    documents, queries = Corpus().texts(n), generated_queries(300, n)
    rows += measure(f"generated-{n}", generated(n), documents, queries, [10, 100, 1000], None, java)
    for row in rows:
        if given.json:
            print(json.dumps(row))
    if not given.json:
        columns = (
            "data",
            "engine",
            "setting",
            "k",
            "qps",
            "ms_p50",
            "speedup",
            "speedup_lucene",
            "recall",
            "ndcg10",
            "build_s",
            "index_bytes",
        )
        table = [
            columns,
            *([str("" if row[name] is None else row[name]) for name in columns] for row in rows),
        ]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for line in table:
            print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


if __name__ == "__main__":
    main()
