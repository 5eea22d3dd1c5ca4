"""Threads, device and dtype are chosen in one place."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval import compute
from retrieval.errors import ConfigError


@pytest.fixture(autouse=True)
def _restore():
    yield
    compute.set_threads(None)


def run(code: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | env,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout.strip()


def test_threads_follow_the_call_then_the_variable_then_the_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TERCET_THREADS", raising=False)
    assert compute.threads() == len(os.sched_getaffinity(0))
    monkeypatch.setenv("TERCET_THREADS", "3")
    assert compute.threads() == 3
    compute.set_threads(5)
    assert compute.threads() == 5
    compute.set_threads(None)
    monkeypatch.setenv("TERCET_THREADS", "many")
    with pytest.raises(ConfigError, match="'many'"):
        compute.threads()
    monkeypatch.setenv("TERCET_THREADS", "")
    with pytest.raises(ConfigError, match="at least 1"):
        compute.set_threads(0)


def test_one_setting_reaches_every_library():
    code = """
import faiss, numba, torch
from retrieval.compute import apply_threads
apply_threads()
print(torch.get_num_threads(), numba.get_num_threads(), faiss.omp_get_max_threads())
"""
    assert run(code, TERCET_THREADS="1") == "1 1 1"


def test_importing_this_module_imports_no_heavy_package():
    code = "import sys, retrieval.compute as c; c.choose_dtype(c.choose_device('cpu')); c.kernel_cache();"
    code += "print(sorted({'torch', 'numba', 'faiss', 'transformers'} & set(sys.modules)))"
    assert run(code) == "[]"


@settings(max_examples=50, deadline=None)
@given(n=st.integers(0, 200), threads=st.integers(1, 5), grain=st.integers(1, 40))
def test_slices_cover_the_range_once_and_in_order(n, threads, grain):
    compute.set_threads(threads)
    parts = compute.parallel(lambda part: list(range(part.start, part.stop)), n, grain=grain)
    assert [item for part in parts for item in part] == list(range(n))
    assert all(parts) and len(parts) <= threads
    if len(parts) > 1:
        assert min(len(part) for part in parts) >= grain


def test_work_runs_side_by_side_and_nests_without_deadlock():
    compute.set_threads(2)
    meet = threading.Barrier(2, timeout=20)

    def work(part: slice) -> list[str]:
        meet.wait()  # would time out were the slices run one after another
        return compute.parallel(lambda inner: threading.current_thread().name, 100)

    names = compute.parallel(work, 2)
    assert all(len(inner) == 1 for inner in names) and names[0] != names[1]


def test_an_error_in_one_slice_is_raised_after_the_others_have_ended():
    compute.set_threads(2)
    done = np.zeros(10, dtype=bool)

    def work(part: slice) -> None:
        if part.start == 0:
            raise ValueError("first slice")
        done[part] = True

    with pytest.raises(ValueError, match="first slice"):
        compute.parallel(work, 10)
    assert done[5:].all()


def test_the_pool_survives_a_fork():
    code = """
import os
from retrieval import compute
compute.set_threads(2)
compute.parallel(lambda part: part.start, 10)
child = os.fork()
if child == 0:
    ok = compute.parallel(lambda part: part.stop, 10) == [5, 10]
    os._exit(0 if ok else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run(code) == "0"


def test_torch_workers_run_on_one_core_each_and_leave_the_caller_alone():
    code = """
import torch
from retrieval import compute
compute.set_threads(2)
compute.apply_threads()
pool = compute.torch_workers()
print(set(pool.map(lambda _: torch.get_num_threads(), range(8))), torch.get_num_threads())
import threading
seen = []
thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
thread.start(); thread.join()
print(seen)
compute.set_threads(1)
print(compute.torch_workers())
"""
    assert run(code).splitlines() == ["{1} 2", "[2]", "None"]


def test_bfloat16_needs_the_cpu_flag(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TERCET_DTYPE", raising=False)
    cases = {
        "avx2 avx512f": "float32",
        "avx512f avx512_bf16": "bfloat16",
        "amx_bf16": "bfloat16",
        "asimd bf16": "bfloat16",
    }
    for flags, want in cases.items():
        monkeypatch.setattr(compute, "_probed", None)
        monkeypatch.setattr(compute, "_cpu_flags", lambda flags=flags: frozenset(flags.split()))
        assert compute.choose_dtype("cpu") == want
    monkeypatch.setattr(compute, "_probed", None)
    monkeypatch.setattr(compute, "_cpu_flags", lambda: None)
    monkeypatch.setattr(compute, "_bfloat16_is_faster", lambda: True)
    assert compute.choose_dtype("cpu") == "bfloat16"
    monkeypatch.setattr(compute, "_probed", None)  # nothing of this may outlive the test


def test_cpu_flags_are_read_from_cpuinfo(tmp_path: Path):
    for name in ("flags", "Features"):
        path = tmp_path / name
        path.write_text(f"processor\t: 0\nmodel name\t: a CPU\n{name}\t\t: fpu bf16 sse\n")
        assert compute._cpu_flags(str(path)) == {"fpu", "bf16", "sse"}
    assert compute._cpu_flags(str(tmp_path / "absent")) is None
    assert isinstance(compute._bfloat16_is_faster(), bool)


def test_explicit_choices_win_over_variables_and_nonsense_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERCET_DTYPE", "float32")
    monkeypatch.setenv("TERCET_DEVICE", "cpu")
    assert compute.choose_dtype("cpu") == "float32"
    assert compute.choose_dtype("cpu", "bfloat16") == "bfloat16"
    assert compute.choose_device() == "cpu"
    with pytest.raises(ConfigError, match="'float8'"):
        compute.choose_dtype("cpu", "float8")
    for name in ("tpu", "cuda:x"):
        with pytest.raises(ConfigError, match=name):
            compute.choose_device(name)
    with pytest.raises(ConfigError, match="not available"):
        compute.choose_device("cuda:99")


def test_kernels_are_cached_elsewhere_when_the_package_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("NUMBA_CACHE_DIR", "chosen")
    compute.kernel_cache()
    assert os.environ["NUMBA_CACHE_DIR"] == "chosen"
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    package = Path(compute.__file__).parent
    allowed = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: not str(path).startswith(str(package)) and allowed(path, mode)
    )
    compute.kernel_cache()
    assert os.environ.pop("NUMBA_CACHE_DIR") == str(tmp_path / "tercet" / "kernels")


def test_a_cache_folder_is_found_even_where_home_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    monkeypatch.setattr(compute.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    folder = compute.cache_folder("things")
    assert folder.is_dir() and folder.is_relative_to(tmp_path / "temporary")


def test_openmp_threads_wait_briefly_unless_told_otherwise():
    code = "import os, retrieval.compute; print(os.environ.get('GOMP_SPINCOUNT'))"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP_", "OMP_"))}

    def spins(**env: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", code], env=clean | env, check=True, capture_output=True, text=True
        ).stdout.strip()

    assert spins() == "3000"
    assert spins(GOMP_SPINCOUNT="7") == "7"
    assert spins(OMP_WAIT_POLICY="active") == "None"
