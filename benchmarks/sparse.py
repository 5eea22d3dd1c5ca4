"""Learned-sparse search beside bmp, Seismic and kANNolo: one thread, the same impacts, queries and document order.

    python benchmarks/sparse.py [--quick] [--large] [--json]

Data: BM25 vectors of SciFact and NFCorpus (from $TERCET_DATA or ../shared/data; left out where absent), vectors of the
same from Tercet's default sparse encoder and from a SPLADE encoder (`tercet train splade-minilm -o
.bench/models/splade-minilm`; left out where it was not trained), and 100,000 generated ones (see corpora.SparseCorpus);
--large takes 1,000,000 generated ones instead of all these. --quick leaves out SciFact's learned vectors, and of the
generated ones kANNolo's graph and most of bmp's settings, as --large does with one of Seismic's builds as well. Terms
that no document has are left out and the others numbered anew. Documents are rounded to 8-bit impacts and brought into
Tercet's order before any engine sees them; query weights are whole numbers up to 32 with a largest of 32, to which bmp
rounds any others.

Settings are swept for everyone: block size and compression, alpha and beta for bmp; postings kept, summary energy,
query cut and heap factor for Seismic; ef for kANNolo; alpha, beta and bound terms for Tercet. Each row is one setting:
`qps` from the median of interleaved rounds over all queries, each right after the same unmeasured, one call a query for
bmp, which has no other, a batch with one thread for the rest, and for Tercet both. `recall` is the overlap with the
exact top k, equal scores counting as equal. Tercet's exact rows are compared with the exact list score by score; bmp's
are its own alpha = beta = 1, which misses some hits (`recall` below 1).
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["TERCET_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
os.environ["RAYON_NUM_THREADS"] = "1"

import numpy as np

from benchmarks.corpora import SparseCorpus
from indexing.inverted.index import InvertedIndex
from indexing.inverted.ordering import order_rows
from retrieval.protocols import SearchRequest
from retrieval.values import Document, Sparse

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".bench" / "sparse"
MODEL = ROOT / ".bench" / "models" / "splade-minilm"
ROUNDS = 5
N_QUERIES = 200

Found = tuple[np.ndarray, np.ndarray]  # rows and scores, (Q, k), -1 and 0 where there is none


# --- data


def beir(name: str) -> tuple[list[Document], list[str]] | None:
    """Documents and test queries of a collection."""
    folder = Path(os.environ.get("TERCET_DATA") or ROOT.parent / "shared" / "data") / "eval" / name
    if not (folder / "corpus.jsonl").exists():
        return None
    records = [json.loads(line) for line in (folder / "corpus.jsonl").open(encoding="utf-8")]
    texts = {r["_id"]: r["text"] for r in map(json.loads, (folder / "queries.jsonl").open(encoding="utf-8"))}
    asked = dict.fromkeys(
        line.split("\t")[0] for line in (folder / "qrels" / "test.tsv").read_text("utf-8").splitlines()[1:]
    )
    return [Document(r["_id"], r["text"], r.get("title", "")) for r in records], [texts[q] for q in asked]


def bm25_vectors(documents: list[Document], queries: list[str]) -> tuple[Sparse, Sparse]:
    """Lucene's BM25 as an inner product: saturated frequencies, and inverse document frequencies in the query."""
    from indexing.bm25.factors import term_factors
    from retrieval.analysis.lengths import length_bytes
    from retrieval.encoders.terms import TermsEncoder

    encoder = TermsEncoder()
    rows, asked = encoder.encode_documents(documents), encoder.encode_queries(queries)
    n, lengths = len(rows), rows.lengths[:, 0]
    per_entry = np.repeat(length_bytes(lengths).astype(np.int64), np.diff(rows.indptr))
    keys = (rows.frequencies.astype(np.int64) << 8) | per_entry
    totals = np.array([int((lengths > 0).sum())]), np.array([int(lengths.sum())])
    values = term_factors(keys, 0.9, 0.4, *totals)
    df = np.bincount(rows.indices, minlength=len(rows.vocabulary))
    idf = np.log1p((n - df + 0.5) / (df + 0.5))
    number = {term: i for i, term in enumerate(rows.vocabulary)}
    numbers = np.array([number.get(term, -1) for term in asked.vocabulary])
    made = []
    for query in range(len(asked)):
        mine = slice(asked.indptr[query], asked.indptr[query + 1])
        terms, counts = numbers[asked.indices[mine]], asked.frequencies[mine]
        order = np.argsort(terms)[(terms[np.argsort(terms)] >= 0)]
        made.append((terms[order], idf[terms[order]] * counts[order]))
    return sorted_rows(rows.indptr, rows.indices, values, len(number)), joined(made, len(number))


def sorted_rows(indptr: np.ndarray, indices: np.ndarray, values: np.ndarray, dim: int) -> Sparse:
    """Terms of each row in ascending order."""
    rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    order = np.lexsort((indices, rows))
    return Sparse(indptr, indices[order].astype(np.int32), values[order].astype(np.float32), dim)


def joined(rows: list[tuple[np.ndarray, np.ndarray]], dim: int) -> Sparse:
    """Rows given one by one."""
    return Sparse(
        np.cumsum([0] + [len(terms) for terms, _ in rows]).astype(np.int64),
        np.concatenate([terms for terms, _ in rows]).astype(np.int32),
        np.concatenate([values for _, values in rows]).astype(np.float32),
        dim,
    )


def splade_vectors(documents: list[Document], queries: list[str]) -> tuple[Sparse, Sparse]:
    """Of the first SPLADE encoder."""
    from retrieval.encoders import open_encoder

    encoder = open_encoder({"family": "sparse", "model": str(MODEL)})
    return encoder.encode_documents(documents), encoder.encode_queries(queries)


def codes_vectors(documents: list[Document], queries: list[str]) -> tuple[Sparse, Sparse]:
    """Of words and codes, the default encoder; bmp can have no more than 65,536 terms."""
    from retrieval.encoders import open_encoder

    encoder = open_encoder({"family": "codes"}).fit(documents)
    return of_used_terms(encoder.encode_documents(documents), encoder.encode_queries(queries))


def of_used_terms(documents: Sparse, queries: Sparse) -> tuple[Sparse, Sparse]:
    """The same over the terms that documents have."""
    used = np.unique(documents.indices)
    rows = []
    for query in range(len(queries)):
        mine = slice(int(queries.indptr[query]), int(queries.indptr[query + 1]))
        known = np.isin(queries.indices[mine], used)
        rows.append((np.searchsorted(used, queries.indices[mine][known]), queries.values[mine][known]))
    numbers = np.searchsorted(used, documents.indices).astype(np.int32)
    return Sparse(documents.indptr, numbers, documents.values, len(used)), joined(rows, len(used))


def rounded(vectors: Sparse) -> Sparse:
    """Weights as whole numbers from 1 to 255."""
    scale = float(vectors.values.max()) / 255
    values = np.clip(np.floor(vectors.values / scale + 0.5), 1, 255).astype(np.float32)
    return Sparse(vectors.indptr, vectors.indices, values, vectors.dim)


def steps_of_32(queries: Sparse) -> Sparse:
    """Weights as whole numbers from 1 to 32, each query's largest 32."""
    rows = np.repeat(np.arange(len(queries)), np.diff(queries.indptr))
    largest = np.zeros(len(queries), dtype=np.float32)
    np.maximum.at(largest, rows, queries.values)
    values = np.maximum(1, np.rint(queries.values / largest[rows] * 32)).astype(np.float32)
    return Sparse(queries.indptr, queries.indices, values, queries.dim)


def prepared(name: str, make: Callable[[], tuple[Sparse, Sparse]]) -> tuple[Path, Sparse, Sparse]:
    """The folder of a data set, its documents and queries: rounded, in order, and kept from run to run."""
    folder = CACHE / name
    if not (folder / "queries" / "value.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        documents, queries = make()
        documents = rounded(documents)
        asked = queries.take(
            np.flatnonzero(np.diff(queries.indptr))[:N_QUERIES]
        )  # bmp stops at one without terms
        order = order_rows(documents, np.bincount(documents.indices, minlength=documents.dim))
        for part, value in (
            ("documents", documents.take(order)),
            ("queries", steps_of_32(asked)),
        ):
            (folder / part).mkdir(parents=True)
            value.save(folder / part)
    return folder, Sparse.load(folder / "documents"), Sparse.load(folder / "queries")


def data_sets(quick: bool, large: bool) -> Iterator[tuple[str, Path, Sparse, Sparse]]:
    """Name, folder, documents and queries of each."""
    for name in () if large else ("scifact", "nfcorpus"):
        if (read := beir(name)) is None:
            continue
        for kind, (encode, weights) in VECTORS.items():
            if kind != "bm25" and (not weights.exists() or (quick and name == "scifact")):
                continue
            key = f"{name}-{kind}" + ("" if kind == "bm25" else f"-{model_key(weights)}")
            yield f"{name}-{kind}", *prepared(key, lambda encode=encode, read=read: encode(*read))
    recipe = hashlib.sha256((ROOT / "benchmarks" / "corpora.py").read_bytes()).hexdigest()[:8]
    n = 1_000_000 if large else 100_000
    corpus = SparseCorpus.of_size(n)
    yield (
        f"generated-{n}",
        *prepared(f"generated-{n}-{recipe}", lambda: (corpus.documents(n), corpus.queries(N_QUERIES, n))),
    )


VECTORS = {
    "bm25": (bm25_vectors, ROOT),
    "codes": (codes_vectors, ROOT / "retrieval" / "models" / "default-sparse"),
    "splade": (splade_vectors, MODEL),
}
"""Kind of vectors -> what makes them, and the folder of its weights."""


def model_key(folder: Path) -> str:
    """Changes with the weights of the encoder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


# --- engines: build into a folder (in a process of its own), open, and search for all queries


def build_tercet(documents: Sparse, target: Path) -> None:
    parameters = InvertedIndex.parameters({"scale": 1.0})
    InvertedIndex.build(documents, target, parameters, memory_bytes=1 << 30, progress=lambda rows: None)


def build_bmp(documents: Sparse, target: Path, block: int, compress: bool) -> None:
    import bmp

    names = [str(term) for term in range(documents.dim)]
    indexer = bmp.Indexer(str(target / "index.bmp"), block, compress)
    for row in range(len(documents)):
        mine = slice(int(documents.indptr[row]), int(documents.indptr[row + 1]))
        terms = [names[term] for term in documents.indices[mine].tolist()]
        indexer.add_document(
            str(row), dict(zip(terms, map(int, documents.values[mine].tolist()), strict=True))
        )
    indexer.finish()


def build_seismic(documents: Sparse, target: Path, postings: int, energy: float) -> None:
    import seismic

    dataset = seismic.SeismicDataset(dim=documents.dim)
    dataset.add_documents_by_id(
        [str(row) for row in np.flatnonzero(np.diff(documents.indptr))],
        documents.indices.astype(np.int64),
        np.asarray(documents.values),
        np.concatenate([[0], documents.indptr[1:][np.diff(documents.indptr) > 0]]).astype(np.int64),
    )
    index = seismic.SeismicIndex.build_from_dataset(
        dataset, n_postings=postings, summary_energy=energy, num_threads=1
    )
    index.save(str(target / "index"))


def build_kannolo(documents: Sparse, target: Path) -> None:
    import kannolo

    index = kannolo.SparsePlainHNSW.build_from_arrays(
        np.asarray(documents.indices), np.asarray(documents.values), np.asarray(documents.indptr),
        m=16, ef_construction=150,
    )  # fmt: skip
    index.save(str(target / "index"))


BUILDS: dict[str, Callable[[Sparse, Path], None]] = {
    "tercet": build_tercet,
    **{
        f"bmp-{block}-{'compressed' if compress else 'raw'}": (
            lambda documents, target, block=block, compress=compress: build_bmp(
                documents, target, block, compress
            )
        )
        for block in (8, 16, 32, 64)
        for compress in (False, True)
    },
    **{
        f"pyseismic-lsr-{postings}-{energy}": (
            lambda documents, target, postings=postings, energy=energy: build_seismic(
                documents, target, postings, energy
            )
        )
        for postings, energy in ((3_500, 0.4), (8_000, 0.5))
    },
    "kannolo": build_kannolo,
}


def build(name: str, folder: Path) -> None:
    """Build one index; keep what it took."""
    target = folder / name
    target.mkdir()
    documents = Sparse.load(folder / "documents")
    if name == "tercet":  # compiled before it is timed, as the others are
        small = Sparse.load(folder / "documents")[:300]
        (target / "warm").mkdir()
        build_tercet(small, target / "warm")
        shutil.rmtree(target / "warm")
    start = time.perf_counter()
    BUILDS[name](documents, target)
    facts = {
        "build_s": round(time.perf_counter() - start, 2),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "index_bytes": sum(file.stat().st_size for file in target.rglob("*") if file.is_file()),
    }
    (target / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


def built(name: str, folder: Path) -> dict[str, object]:
    """Figures of a build; a peer's is kept from run to run."""
    facts = folder / name / "facts.json"
    cached = facts.exists() and name != "tercet"
    if not cached:
        shutil.rmtree(folder / name, ignore_errors=True)
        command = [sys.executable, __file__, "--build", name, str(folder)]
        subprocess.run(command, check=True, stdout=sys.stderr, stderr=subprocess.DEVNULL)
    return json.loads(facts.read_text(encoding="utf-8")) | ({"cached": True} if cached else {})


@dataclass
class Setting:
    """One engine with all its knobs set."""

    engine: str
    name: str
    index: str
    search: Callable[[int], Found]
    exact: bool = False


def padded(lists: list[list[tuple[int, float]]], k: int) -> Found:
    """Lists of (row, score) as arrays."""
    rows, scores = np.full((len(lists), k), -1), np.zeros((len(lists), k), dtype=np.float64)
    for query, hits in enumerate(lists):
        for rank, (row, score) in enumerate(hits[:k]):
            rows[query, rank], scores[query, rank] = row, score
    return rows, scores


def tercet_settings(folder: Path, documents: Sparse, queries: Sparse, k: int) -> Iterator[Setting]:
    index = InvertedIndex.load(folder / "tercet", documents, InvertedIndex.parameters({"scale": 1.0}))

    def batch(view: InvertedIndex) -> Callable[[int], Found]:
        def search(k: int) -> Found:
            hits = view.search(queries, SearchRequest(k=k))
            return hits.rows, hits.scores

        return search

    def calls(k: int) -> Found:
        parts = [index.search(queries[i : i + 1], SearchRequest(k=k)) for i in range(len(queries))]
        return np.concatenate([p.rows for p in parts]), np.concatenate([p.scores for p in parts])

    yield Setting("tercet", "exact, batch", "tercet", batch(index), exact=True)
    yield Setting("tercet", "exact, single calls", "tercet", calls, exact=True)
    yield Setting(
        "tercet", "exact, every posting added", "tercet", batch(replace(index, bound_terms=0)), exact=True
    )
    if k > 10:
        return
    for alpha in (1.0, 0.9, 0.8, 0.7, 0.6):
        for beta in (1.0, 0.8, 0.6):
            for terms in (None, 12, 6):
                if (alpha, beta, terms) != (1.0, 1.0, None):
                    view = replace(index, alpha=alpha, beta=beta, bound_terms=terms)
                    yield Setting(
                        "tercet",
                        f"alpha {alpha} beta {beta} bound terms {terms or 'all'}",
                        "tercet",
                        batch(view),
                    )


def bmp_settings(folder: Path, queries: Sparse, k: int, names: list[str]) -> Iterator[Setting]:
    import bmp

    bounds = list(zip(queries.indptr[:-1].tolist(), queries.indptr[1:].tolist(), strict=True))
    asked = [
        {
            str(t): int(v)
            for t, v in zip(queries.indices[a:b].tolist(), queries.values[a:b].tolist(), strict=True)
        }
        for a, b in bounds
    ]
    for name in names:
        searcher = bmp.Searcher(str(folder / name / "index.bmp"))
        for alpha, beta in ((1.0, 1.0), *(((0.9, 1.0), (0.8, 1.0), (0.7, 0.8)) if k == 10 else ())):

            def search(k: int, searcher=searcher, alpha=alpha, beta=beta) -> Found:
                found = [searcher.search(query, k, alpha, beta) for query in asked]
                return padded([list(zip(map(int, ids), scores, strict=True)) for ids, scores in found], k)

            exact = alpha == beta == 1.0
            label = f"{'exact, ' if exact else ''}{name[4:].replace('-', ' ')}" + (
                "" if exact else f" alpha {alpha} beta {beta}"
            )
            yield Setting("bmp", label, name, search, exact)


def seismic_settings(folder: Path, queries: Sparse, names: list[str]) -> Iterator[Setting]:
    import seismic

    text = seismic.get_seismic_string()
    bounds = list(zip(queries.indptr[:-1].tolist(), queries.indptr[1:].tolist(), strict=True))
    ids = np.array([str(query) for query in range(len(queries))], dtype=text)
    terms = [np.array([str(t) for t in queries.indices[a:b]], dtype=text) for a, b in bounds]
    weights = [np.asarray(queries.values[a:b]) for a, b in bounds]
    for name in names:
        index = seismic.SeismicIndex.load(str(folder / name / "index.index.seismic"))
        for cut in (6, 10, 16, 60):
            for factor in (0.7, 0.8, 0.9, 1.0):

                def search(k: int, index=index, cut=cut, factor=factor) -> Found:
                    found = index.batch_search(ids, terms, weights, k, cut, factor, num_threads=1)
                    ordered: list[list[tuple[int, float]]] = [[] for _ in range(len(ids))]
                    for hits in found:
                        for query, score, document in hits:
                            ordered[int(query)].append((int(document), float(score)))
                    return padded(ordered, k)

                yield Setting(
                    "pyseismic-lsr", f"{name[14:]} query cut {cut} heap factor {factor}", name, search
                )


def kannolo_settings(folder: Path, queries: Sparse) -> Iterator[Setting]:
    import kannolo

    index = kannolo.SparsePlainHNSW.load(str(folder / "kannolo" / "index"))
    arrays = (np.asarray(queries.indices), np.asarray(queries.values), np.asarray(queries.indptr))
    for ef in (10, 20, 40, 80, 160, 320):

        def search(k: int, ef=ef) -> Found:
            scores, rows = index.batch_search(*arrays, k, ef_search=max(ef, k), num_threads=1)
            return np.asarray(rows).reshape(-1, k).astype(np.int64), np.asarray(scores).reshape(-1, k)

        yield Setting("kannolo", f"m 16 ef {ef}", "kannolo", search)


# --- measuring


def exact_scores(documents: Sparse, queries: Sparse) -> list[np.ndarray]:
    """Every document's score for each query, by postings in NumPy."""
    rows = np.repeat(np.arange(len(documents)), np.diff(documents.indptr))
    order = np.argsort(documents.indices, kind="stable")
    starts = np.searchsorted(documents.indices[order], np.arange(documents.dim + 1))
    out = []
    for query in range(len(queries)):
        scores = np.zeros(len(documents))
        for position in range(queries.indptr[query], queries.indptr[query + 1]):
            term = queries.indices[position]
            mine = order[starts[term] : starts[term + 1]]
            scores[rows[mine]] += float(queries.values[position]) * documents.values[mine]
        out.append(scores)
    return out


def measure(
    data: str, folder: Path, documents: Sparse, queries: Sparse, k: int, peers: dict[str, list[str]]
) -> list[dict[str, object]]:
    """A row for each setting."""
    settings = list(tercet_settings(folder, documents, queries, k))
    settings += bmp_settings(folder, queries, k, peers["bmp"])
    if k == 10:
        settings += seismic_settings(folder, queries, peers["pyseismic-lsr"])
        settings += kannolo_settings(folder, queries) if peers["kannolo"] else []
    best = []
    for scores in exact_scores(documents, queries):
        wanted = min(k, int((scores > 0).sum()))
        best.append((np.sort(scores)[::-1][:wanted], scores))
    times: list[list[float]] = [[] for _ in settings]
    found: list[Found] = []
    for round_ in range(ROUNDS + 1):  # the first warms up
        for number, setting in enumerate(settings):
            answer = setting.search(k)  # brings back into the caches what the other engines have driven out
            if round_ == 0:
                found.append(answer)
                continue
            start = time.perf_counter()
            setting.search(k)
            times[number].append((time.perf_counter() - start) / len(queries))
    rows = []
    for setting, taken, (hits, scores) in zip(settings, times, found, strict=True):
        shares = []
        for query, (top, everything) in enumerate(best):
            if len(top):
                mine = hits[query][hits[query] >= 0]
                shares.append(min(len(top), int((everything[mine] >= top[-1]).sum())) / len(top))
                if setting.exact and setting.engine == "tercet":
                    # sums are fixed point in 32 bits of what the query can reach, so long queries have coarser ones
                    np.testing.assert_allclose(
                        scores[query][: len(top)], top, rtol=1e-5, atol=3e-6 * top[0], err_msg=setting.name
                    )
        seconds = statistics.median(taken)
        rows.append(
            {
                "bench": "sparse", "data": data, "engine": setting.engine, "setting": setting.name, "k": k,
                "threads": 1, "qps": round(1 / seconds, 1), "ms_p50": round(1e3 * seconds, 4), "ms_p95": None,
                "recall": round(float(np.mean(shares)), 4), "ndcg10": None, **built_facts(folder, setting.index),
            }
        )  # fmt: skip
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def built_facts(folder: Path, name: str) -> dict[str, object]:
    return json.loads((folder / name / "facts.json").read_text(encoding="utf-8"))


def work_of(documents: Sparse, folder: Path, queries: Sparse, k: int) -> str:
    """What a query touches, in words."""
    index = InvertedIndex.load(folder / "tercet", documents, InvertedIndex.parameters({"scale": 1.0}))
    _, counts = index.search_counted(queries, SearchRequest(k=k))
    postings, blocks, _, scored, added = counts.mean(0)
    return (
        f"{postings:,.0f} postings of its terms; bounds of {blocks:,.0f} blocks, {scored:,.0f} scored; "
        f"{added:.0%} of queries add up every posting"
    )


def summary(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """For each data set, k and engine the fastest setting that is exact, and that reaches 0.99 and 0.95."""
    out = []
    for data, k, engine in dict.fromkeys((r["data"], r["k"], r["engine"]) for r in rows):
        mine = [r for r in rows if (r["data"], r["k"], r["engine"]) == (data, k, engine)]
        for label, keeps in (
            ("exact", lambda r: r["setting"].startswith("exact")),
            ("overlap 0.99", lambda r: r["recall"] >= 0.99),
            ("overlap 0.95", lambda r: r["recall"] >= 0.95),
        ):
            good = [r for r in mine if keeps(r)]
            if good:
                row = max(good, key=lambda r: r["qps"])
                setting = row["setting"] if label == "exact" else f"{label}: {row['setting']}"
                out.append(row | {"setting": setting})
        out += [
            r for r in mine if r["engine"] == "tercet" and r["setting"].startswith("exact") and r not in out
        ]
    return out


def plot(rows: list[dict[str, object]], path: Path) -> None:
    """Overlap against queries a second, a panel for each data set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(r["data"] for r in rows))
    figure, panels = pyplot.subplots(1, len(names), figsize=(5 * len(names), 4), squeeze=False)
    for panel, name in zip(panels[0], names, strict=True):
        for engine in ("tercet", "bmp", "pyseismic-lsr", "kannolo"):
            points = sorted(
                (r["recall"], r["qps"])
                for r in rows
                if (r["data"], r["k"], r["engine"]) == (name, 10, engine)
            )
            front = [p for p in points if not any(q[0] >= p[0] and q[1] > p[1] for q in points)]
            if front:
                panel.plot(*zip(*front, strict=True), marker="o", markersize=3, label=engine)
        panel.set(title=name, xlabel="overlap with the exact top 10", ylabel="queries a second", yscale="log")
        panel.set_xlim(left=0.8)
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--large", action="store_true", help="a million generated documents instead")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--plot", type=Path, help="docs/benchmarks/sparse.png, or sparse_large.png with --large"
    )
    parser.add_argument("--build", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.build:
        build(given.build[0], Path(given.build[1]))
        return
    rows: list[dict[str, object]] = []
    for data, folder, documents, queries in data_sets(given.quick, given.large):
        few = given.large or (given.quick and len(documents) > 50_000)
        bmps = ["bmp-16-raw", "bmp-32-compressed"] if few else [n for n in BUILDS if n.startswith("bmp")]
        seismics = [n for n in BUILDS if n.startswith("pyseismic")]
        peers = {
            "bmp": bmps,
            "pyseismic-lsr": seismics[:1] if given.large else seismics,
            "kannolo": [] if few else ["kannolo"],
        }
        for name in ("tercet", *(n for group in peers.values() for n in group)):
            built(name, folder)
        for k in (10, 1000):
            rows += measure(data, folder, documents, queries, k, peers)
            print(f"{data} k={k}: a query touches {work_of(documents, folder, queries, k)}", file=sys.stderr)
    name = "sparse_large" if given.large else "sparse"
    plot(rows, given.plot or ROOT / "docs" / "benchmarks" / f"{name}.png")
    for row in summary(rows):
        if given.json:
            print(json.dumps(row))
        else:
            shown = ("data", "k", "engine", "setting", "qps", "recall", "index_bytes", "build_s")
            print("  ".join(str(row.get(name, "")) for name in shown))


if __name__ == "__main__":
    main()
