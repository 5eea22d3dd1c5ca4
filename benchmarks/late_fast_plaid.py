"""fast-plaid, in an environment and processes of its own: it needs one exact version of torch.

This file is both sides: late.py imports it, and the environment's Python runs it with ``build`` or ``search``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

VERSION = "1.7.0.2110"
TORCH = "2.11.0"
THREADS = "2"
HOME = Path(__file__).resolve().parent.parent / ".bench" / "fast-plaid"

DEFAULTS = {"n_full_scores": 4096, "n_ivf_probe": 8}
SETTINGS: dict[int, list[dict[str, int]]] = {
    4: [
        *({"n_full_scores": count, "n_ivf_probe": 8} for count in (4096, 1024, 512, 256, 128)),
        {"n_full_scores": 128, "n_ivf_probe": 4},
    ],
    2: [{"n_full_scores": count, "n_ivf_probe": 8} for count in (1024, 256, 128)],
}
"""Bits -> what is searched with; the first of all is fast-plaid's own choice."""

_WARM = 5  # queries answered before timing
_BATCH = 32  # queries of the batch


def peak_rss_mb() -> int:
    """Of this process; getrusage would count the one that started it too."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return round(int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024)


# --- this side


def environment(install: bool) -> Path | None:
    """Its Python, installed with pip where it is absent and may be; else None."""
    python = HOME / "bin" / "python"
    packages = next(HOME.glob("lib/python3*/site-packages"), HOME)
    there = (packages / f"fast_plaid-{VERSION}.dist-info").exists() and any(
        packages.glob(f"torch-{TORCH}*.dist-info")
    )
    if there:
        return python
    if not install:
        return None
    venv.create(HOME, with_pip=True, clear=True)
    command = [str(python), "-m", "pip", "install", "-q", f"fast-plaid=={VERSION}", f"torch=={TORCH}"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return python


def built(python: Path, folder: Path, bits: int) -> dict[str, Any]:
    """Figures of the index of a data set's folder, kept from run to run."""
    facts = _place(folder, bits) / "facts.json"
    cached = facts.exists()
    if not cached:
        _worker(python, "build", folder, bits)
    return json.loads(facts.read_text(encoding="utf-8")) | ({"cached": True} if cached else {})


def searched(python: Path, folder: Path, bits: int, k: int) -> list[dict[str, Any]]:
    """For each setting its ``name``, the ``rows`` found, ``ms`` of each query and ``qps`` of a batch."""
    out = _worker(python, "search", folder, bits, str(k))
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def _place(folder: Path, bits: int) -> Path:
    return folder / f"fast-plaid-{VERSION}-{bits}"


def _worker(python: Path, task: str, folder: Path, bits: int, *more: str) -> str:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "MKL_NUM_THREADS"), THREADS)
    command = [str(python), __file__, task, str(folder), str(bits), *more]
    done = subprocess.run(
        command, env={**os.environ, **threads}, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


# --- the environment's side


def tensors(folder: Path, part: str) -> tuple[list[Any], list[int]]:
    """The token vectors of every text that has some, and their rows."""
    import numpy as np
    import torch

    values = torch.from_numpy(np.load(folder / part / "values.npy").astype(np.float32))
    indptr = np.load(folder / part / "indptr.npy").tolist()
    rows = [row for row in range(len(indptr) - 1) if indptr[row] < indptr[row + 1]]
    return [values[indptr[row] : indptr[row + 1]] for row in rows], rows


def build(folder: Path, bits: int) -> None:
    """Build an index with fast-plaid's defaults; keep what it took."""
    from fast_plaid import search

    target = _place(folder, bits)
    shutil.rmtree(target, ignore_errors=True)
    documents, _ = tensors(folder, "documents")
    engine = search.FastPlaid(index=str(target / "index"), device="cpu")
    start = time.perf_counter()
    engine.create(documents_embeddings=documents, nbits=bits, start_from_scratch=0)  # 0: no copy for updates
    facts = {
        "build_s": round(time.perf_counter() - start, 2),
        "peak_rss_mb": peak_rss_mb(),
        "index_bytes": sum(file.stat().st_size for file in target.rglob("*") if file.is_file()),
    }
    (target / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


def search_all(folder: Path, bits: int, k: int) -> None:
    """Print a line for each setting: one call a query, then a batch of them in one call."""
    from fast_plaid import search

    engine = search.FastPlaid(index=str(_place(folder, bits) / "index"), device="cpu")
    _, rows = tensors(folder, "documents")
    queries, _ = tensors(folder, "queries")
    for setting in SETTINGS[bits]:

        def ask(asked: list[Any], setting: dict[str, int] = setting) -> list[list[tuple[int, float]]]:
            return engine.search(queries_embeddings=asked, top_k=k, show_progress=False, **setting)

        for query in queries[:_WARM]:
            ask([query])
        found, taken = [], []
        for query in queries:
            start = time.perf_counter()
            (hits,) = ask([query])
            taken.append(1e3 * (time.perf_counter() - start))
            found.append([rows[number] for number, _ in hits] + [-1] * (k - len(hits)))
        start = time.perf_counter()
        ask(queries[:_BATCH])
        qps = len(queries[:_BATCH]) / (time.perf_counter() - start)
        name = f"{bits} bits, n_full_scores {setting['n_full_scores']}, n_ivf_probe {setting['n_ivf_probe']}"
        name += " (defaults)" if bits == 4 and setting == DEFAULTS else ""
        print(json.dumps({"name": name, "rows": found, "ms": taken, "qps": round(qps, 1)}), flush=True)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(int(THREADS))
    if sys.argv[1] == "build":
        build(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        search_all(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
