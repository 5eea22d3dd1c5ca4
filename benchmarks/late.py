"""Late-interaction search beside fast-plaid and a plain scan in torch: two threads, the same vectors and queries.

    python benchmarks/late.py [--quick] [--shares | --curve] [--json]

Data: SciFact and NFCorpus (from $TERCET_DATA or ../shared/data; left out where absent) as the default late encoder
makes them, 128 dimensions in float16, and their test queries. fast-plaid runs in an environment of its own, which is
made where it is absent, and its builds are kept (`cached`). --quick takes all of SciFact for the others, and for
fast-plaid its first 500 documents, on which all engines run once more; it installs nothing.

A row is one engine with all its knobs set. `ms_p50` and `ms_p95` are over all queries, one call each, in interleaved
rounds (of fast-plaid, in its own process, one round). `qps` is all queries in one call, of fast-plaid 32. `recall` is
the overlap with the exact top 10, `below_exact` how far nDCG@10 lies below that of the exact ranking. `index_bytes`
is what a search reads: the float16 vectors for maxsim and fde, codes and what was trained for plaid. `x_torch`,
`x_fast_plaid` and `x_fast_plaid_fastest` are how many times faster a call is than that of the scan, of fast-plaid's
defaults and of its fastest setting, `build_x` a build than fast-plaid's with 4 bits. torch-exhaustive multiplies all
tokens with the query in bfloat16 and takes the largest product of a document by the faster of two ways:
numpy.maximum.reduceat, or amax over documents filled up to one length.

--shares: how many of the exact top 10 are among the first candidates of fixed dimensional encodings (see
late_studies.py). --curve: nDCG@10 of exact MaxSim over narrower and compressed vectors.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["TERCET_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "2"

import numpy as np

from benchmarks import late_fast_plaid, late_studies
from benchmarks.late_data import NAMES, K, LateData, late_data
from indexing.kinds import kind_class
from retrieval.protocols import SearchRequest
from retrieval.values import MultiVector

ROOT = Path(__file__).resolve().parent.parent
THREADS = 2
ROUNDS = 2  # 1 with --quick
SLICE = (500, 100)  # documents and queries for fast-plaid with --quick

Row = dict[str, Any]

INDEXES: dict[str, tuple[str, dict[str, Any]]] = {
    "maxsim": ("maxsim", {}),
    "plaid-4": ("plaid", {"bits": 4}),
    "plaid-2": ("plaid", {"bits": 2}),
    "fde": ("fde", {}),
}
"""Name -> index kind and parameters."""

SWEPT: dict[str, list[dict[str, int]]] = {
    "maxsim": [{}],
    "plaid-4": [{}, {"nprobe": 8}, {"nprobe": 32, "ndocs": 128}, {"ndocs": 256}, {"nprobe": 64, "ndocs": 1024}],
    "plaid-2": [{}, {"nprobe": 32, "ndocs": 128}, {"ndocs": 256}],
    "fde": [{}, {"rescored": 50}, {"rescored": 100}, {"rescored": 400}, {"rescored": 1000}],
}  # fmt: skip
"""Name -> what is searched with, beside the defaults."""


# --- builds, each in a process of its own


def build(name: str, folder: Path) -> None:
    """Build one index; keep what it took."""
    target, documents = folder / name, MultiVector.load(folder / "documents")
    target.mkdir()
    _build_into(name, documents[:200], target / "warm")  # compiled before it is timed, as fast-plaid is
    shutil.rmtree(target / "warm")
    start = time.perf_counter()
    _build_into(name, documents, target)
    facts = {
        "build_s": round(time.perf_counter() - start, 2),
        "peak_rss_mb": late_fast_plaid.peak_rss_mb(),
    }
    (target / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


def _build_into(name: str, documents: MultiVector, target: Path) -> None:
    kind, given = INDEXES[name]
    index_class = kind_class(kind)
    build_index(index_class, index_class.parameters(given), documents, target)


def build_index(index_class: Any, parameters: dict[str, Any], documents: MultiVector, target: Path) -> None:
    """Train an index where its kind learns something, and build it, in folders of their own."""
    asked: dict[str, Any] = {"memory_bytes": 1 << 30, "progress": lambda rows: None}
    (target / "index").mkdir(parents=True)
    if hasattr(index_class, "train"):
        (target / "shared").mkdir()
        index_class.train(documents, parameters, target / "shared", **asked)
        asked["shared"] = target / "shared"
    index_class.build(documents, target / "index", parameters, **asked)


def built(name: str, data: LateData) -> Row:
    """Figures of one of Tercet's builds, made anew."""
    target = data.folder / name
    shutil.rmtree(target, ignore_errors=True)
    command = [sys.executable, __file__, "--build", name, str(data.folder)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    facts = json.loads((target / "facts.json").read_text("utf-8"))
    read = _bytes(target / "index") + _bytes(target / "shared")
    vectors = data.folder / "documents"
    read += _bytes(vectors) if not name.startswith("plaid") else (vectors / "indptr.npy").stat().st_size
    return facts | {"index_bytes": read}


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


# --- engines


@dataclass
class Setting:
    """One engine with all its knobs set; searches give (Q, K) rows."""

    engine: str
    name: str
    index: str
    one: Callable[[int], np.ndarray]
    batch: Callable[[], np.ndarray] | None = None


def tercet_settings(data: LateData) -> Iterator[Setting]:
    queries, request = data.queries, SearchRequest(k=K)
    single = [queries[query : query + 1] for query in range(len(queries))]
    for name, (kind, given) in INDEXES.items():
        index_class, folder = kind_class(kind), data.folder / name
        shared = {"shared": folder / "shared"} if hasattr(index_class, "train") else {}
        parameters = index_class.parameters(given)
        index = index_class.load(folder / "index", data.documents, parameters, **shared)
        for knobs in SWEPT[name]:
            view = replace(index, **knobs) if knobs else index
            label = name.replace("plaid-4", "plaid, 4 bits").replace("plaid-2", "plaid, 2 bits")
            shown = ", ".join(f"{knob} {value}" for knob, value in knobs.items())
            yield Setting(
                "tercet",
                f"{label}, {shown}" if shown else label if name == "maxsim" else f"{label} (defaults)",
                name,
                lambda query, view=view: view.search(single[query], request).rows,
                lambda view=view: view.search(queries, request).rows,
            )


# --- measuring


def measure(data: LateData, python: Path | None, facts: dict[str, Row], rounds: int) -> list[Row]:
    """A row for each setting; Tercet's maxsim, the first, is the exact ranking."""
    from benchmarks.late_torch import plain_scan  # not where indexes are built, whose memory is measured

    peer = []
    for bits in widths_of_peer(data) if python else ():
        facts[f"fast-plaid-{bits}"] = late_fast_plaid.built(python, data.folder, bits)
        answers = late_fast_plaid.searched(python, data.folder, bits, K)
        peer += [(f"fast-plaid-{bits}", answer) for answer in answers]
    way, scan = plain_scan(data.documents, data.queries, K, THREADS)
    settings = [*tercet_settings(data), Setting("torch-exhaustive", f"bfloat16, {way}", "torch", scan)]
    facts["torch"] = {"index_bytes": 2 * data.documents.values.size}
    n = len(data.queries)
    taken = np.zeros((len(settings), rounds, n))
    batches = np.full((len(settings), rounds), np.nan)
    found = np.full((len(settings), n, K), -1)
    for setting in settings:  # not timed: compiles and reads
        for query in range(min(5, n)):
            setting.one(query)
    for round_ in range(rounds):
        for number, setting in enumerate(settings):
            for query in range(n):
                start = time.perf_counter()
                hits = setting.one(query)
                taken[number, round_, query] = time.perf_counter() - start
                found[number, query, : hits.shape[1]] = hits
            if setting.batch:
                start = time.perf_counter()
                setting.batch()
                batches[number, round_] = time.perf_counter() - start
    rows = []
    for number, setting in enumerate(settings):
        ms = 1e3 * taken[number].ravel()
        qps = round(n / float(np.median(batches[number])), 1) if setting.batch else None
        rows.append(
            _row(data, setting.engine, setting.name, ms, qps, found[number], found[0], facts[setting.index])
        )
    for index, answers in peer:
        ms, hits = np.array(answers["ms"]), np.array(answers["rows"])
        rows.append(
            _row(data, "fast-plaid", answers["name"], ms, answers["qps"], hits, found[0], facts[index])
        )
    return _compared(data, rows)


def widths_of_peer(data: LateData) -> tuple[int, ...]:
    """Bits of fast-plaid's indexes; 4 alone on SciFact, since each takes ten minutes to build there."""
    return (4,) if data.name == "scifact" else tuple(late_fast_plaid.SETTINGS)


def _row(
    data: LateData, engine: str, setting: str, ms: np.ndarray, qps: float | None, found: np.ndarray,
    exact: np.ndarray, facts: Row,
) -> Row:  # fmt: skip
    shares = [
        len(np.intersect1d(mine, best[best >= 0])) / (best >= 0).sum()
        for mine, best in zip(found, exact, strict=True)
    ]
    return {
        **_empty(data.name, engine, setting),
        "qps": qps,
        "ms_p50": round(float(np.percentile(ms, 50)), 4),
        "ms_p95": round(float(np.percentile(ms, 95)), 4),
        "recall": round(float(np.mean(shares)), 4),
        "ndcg10": data.ndcg(found),
        **facts,
        "bytes_per_token": round(facts["index_bytes"] / len(data.documents.values), 1),
    }


def _empty(data: str, engine: str, setting: str) -> Row:
    """The columns of every row."""
    known = {"bench": "late", "data": data, "engine": engine, "setting": setting, "k": K, "threads": THREADS}
    names = ("qps", "ms_p50", "ms_p95", "recall", "ndcg10", "index_bytes", "build_s", "peak_rss_mb")
    return known | dict.fromkeys(names)


def _compared(data: LateData, rows: list[Row]) -> list[Row]:
    """The rows with how they stand to the exact ranking and to the peers."""
    theirs = [row for row in rows if row["engine"] == "fast-plaid"]
    against = {"x_torch": next(row["ms_p50"] for row in rows if row["engine"] == "torch-exhaustive")}
    if theirs:
        against["x_fast_plaid"] = theirs[0]["ms_p50"]
        against["x_fast_plaid_fastest"] = min(row["ms_p50"] for row in theirs)
    for row in rows:
        if data.whole:
            row["below_exact"] = round(rows[0]["ndcg10"] - row["ndcg10"], 4)
        row |= {name: round(ms / row["ms_p50"], 2) for name, ms in against.items()}
        if theirs and row["build_s"]:
            row["build_x"] = round(theirs[0]["build_s"] / row["build_s"], 2)
    return rows


def encoder_row(data: LateData, exact: Row) -> Row:
    """How fast documents become vectors, and what exact search over these is worth."""
    facts = data.facts
    return {
        **_empty(data.name, "tercet", f"late encoder, {data.documents.dim} dimensions, exact search"),
        "ndcg10": exact["ndcg10"],
        "docs_per_s": round(facts["n_docs"] / facts["encode_s"], 1),
        "tokens": facts["n_tokens"],
        **({"cached": True} if facts["cached"] else {}),
    }


def encoding_row(data: LateData, tokens: int = 240) -> Row:
    """How many documents of 240 tokens a second become fixed dimensional encodings of 2,560 dimensions."""
    from indexing.fde.encodings import Encodings
    from indexing.fde.recipe import Recipe

    recipe = Recipe(repetitions=20, bits=4, width=8)
    n = min(4000, len(data.documents.values) // tokens)
    texts = MultiVector(np.arange(n + 1) * tokens, np.array(data.documents.values[: n * tokens]))
    encodings = Encodings.draw(recipe, texts.dim)
    encodings.documents(texts[:64])
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        encodings.documents(texts)
        taken.append(time.perf_counter() - start)
    return {
        **_empty(data.name, "tercet", f"fde encoding of {tokens} tokens, 20 x 2^4 x 8"),
        "docs_per_s": round(n / statistics.median(taken), 1),
    }


# --- the script


def data_sets(quick: bool, limit: int | None) -> Iterator[tuple[LateData, bool]]:
    """The data, and whether fast-plaid runs on them."""
    if limit:
        wanted = [("scifact", limit, max(20, limit // 10), True)]
    elif quick:
        wanted = [("scifact", None, None, False), ("scifact", *SLICE, True)]
    else:
        wanted = [(name, None, None, True) for name in NAMES]
    for name, most, n_queries, peer in wanted:
        data = late_data(name, most, n_queries)
        if data is None:
            print(f"{name} is not there; left out", file=sys.stderr)
        else:
            yield data, peer


def table(rows: Iterator[Row]) -> None:
    """Print the columns that say something."""
    lines = list(rows)
    names = [
        name
        for name in dict.fromkeys(n for row in lines for n in row)
        if name not in ("bench", "k", "threads")
    ]
    cells = [names, *([str("" if row.get(name) is None else row[name]) for name in names] for row in lines)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def compared_engines(quick: bool, limit: int | None) -> Iterator[Row]:
    """The rows of the comparison."""
    python = late_fast_plaid.environment(install=not quick)
    if python is None:
        print("fast-plaid is not installed; left out", file=sys.stderr)
    for data, peer in data_sets(quick, limit):
        facts = {name: built(name, data) for name in INDEXES}
        rows = measure(data, python if peer else None, facts, 1 if quick else ROUNDS)
        yield from [*rows, encoder_row(data, rows[0]), encoding_row(data)]


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    study = parser.add_mutually_exclusive_group()
    study.add_argument(
        "--shares", action="store_true", help="candidates found by fixed dimensional encodings"
    )
    study.add_argument("--curve", action="store_true", help="nDCG@10 against bytes a token")
    parser.add_argument("--plots", type=Path, default=ROOT / "docs" / "benchmarks", help="folder")
    parser.add_argument("--slice", type=int, metavar="DOCUMENTS", help=argparse.SUPPRESS)
    parser.add_argument("--build", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.build:
        build(given.build[0], Path(given.build[1]))
        return
    if given.shares:
        rows = late_studies.shares(given.quick, given.slice, given.plots / "fde.png")
    elif given.curve:
        rows = late_studies.curve(given.quick, given.slice, given.plots / "late.png")
    else:
        rows = compared_engines(given.quick, given.slice)
    if given.json:
        for row in rows:
            print(json.dumps(row), flush=True)
    else:
        table(rows)


if __name__ == "__main__":
    main()
