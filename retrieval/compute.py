"""How much of the machine to use, decided in one place: threads, device, dtype, caches.

``TERCET_THREADS``, ``TERCET_DEVICE`` and ``TERCET_DTYPE`` override the choices made here; with
``TERCET_STRICT_DEVICE=1`` a GPU that runs out of memory is an error instead of a reason to go on with the CPU.
Importing this module imports neither torch nor numba.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from retrieval.errors import ConfigError

T = TypeVar("T")

DTYPES = ("float32", "bfloat16", "float16")
_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # x86 twice, then ARM

# GNU OpenMP reads this when torch or FAISS loads it. By default a thread that waits for another spins for
# milliseconds; on a busy machine it burns the core the other needs, and a 2 ms query takes 100 ms. 3,000 turns, some
# 10 us, bridge the gaps between operators (5% slower than endless spinning when idle) and then sleep.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")

_lock = threading.Lock()
_chosen: int | None = None
_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_torch_pool: ThreadPoolExecutor | None = None
_torch_pool_size = 0
_probed: bool | None = None
_blas: int | None = None


class _PerThread(threading.local):
    """What this thread has been told already (OpenMP keeps its thread count per calling thread)."""

    applied: tuple[int, bool, bool, bool] | None = None
    worker = False


_local = _PerThread()


# --- threads ---------------------------------------------------------------------------------------


def threads() -> int:
    """How many threads Tercet and the libraries under it may use.

    ``set_threads`` wins, then ``TERCET_THREADS``, then the cores this process may run on.

    Raises:
        ConfigError: TERCET_THREADS is no positive integer.
    """
    if _chosen is not None:
        return _chosen
    given = os.environ.get("TERCET_THREADS", "").strip()
    if not given:
        return _cores()
    if not given.isdigit() or int(given) < 1:
        raise ConfigError(
            f"TERCET_THREADS is {given!r}; it must be a positive integer, or unset for all cores"
        )
    return int(given)


def set_threads(n: int | None) -> None:
    """Use n threads from now on, in this process; None goes back to TERCET_THREADS or all cores.

    Raises:
        ConfigError: n is below 1.
    """
    global _chosen
    if n is not None and n < 1:
        raise ConfigError(f"threads is {n}; it must be at least 1")
    with _lock:
        _chosen = n
    apply_threads()


def apply_threads() -> None:
    """Hand the setting to torch, numba and FAISS as far as they are imported.

    Call it before work in a library that has threads of its own, in the thread that calls the library:
    OpenMP's count belongs to the calling thread. It costs a microsecond when nothing has changed. Inside
    ``parallel`` a library gets one thread, since the cores are taken by the other slices.
    """
    n = 1 if _local.worker else threads()
    torch, numba, faiss = (sys.modules.get(name) for name in ("torch", "numba", "faiss"))
    state = (n, torch is not None, numba is not None, faiss is not None)
    if _local.applied == state:
        return
    os.environ.setdefault("OMP_NUM_THREADS", str(threads()))  # for OpenMP libraries loaded later
    if faiss is not None and hasattr(faiss, "omp_set_num_threads"):
        faiss.omp_set_num_threads(n)
    if numba is not None and hasattr(numba, "set_num_threads"):
        numba.set_num_threads(min(n, numba.config.NUMBA_NUM_THREADS))
    if torch is not None and hasattr(torch, "set_num_threads") and not _local.worker:
        torch.set_num_threads(n)  # process-wide, so workers leave it alone
    if not _local.worker:
        _limit_blas(n)
    _local.applied = state


def parallel(fn: Callable[[slice], T], n: int, *, grain: int = 1) -> list[T]:
    """Run ``fn`` over contiguous slices of ``range(n)`` on the shared thread pool.

    Worth it only for work that releases the GIL (numba ``nogil``, numpy, FAISS). Serial with one thread, for
    few items, and when called from inside another ``parallel``.

    Args:
        fn: gets ``slice(start, stop)``; must not touch other slices' output.
        n: number of items; with 0, ``fn`` is not called.
        grain: the fewest items that are worth a slice of their own.

    Returns:
        The results, in order of the slices.
    """
    if n <= 0:
        return []
    size = threads()
    shares = 1 if _local.worker else max(1, min(size, n // max(1, grain)))
    if shares == 1:
        return [fn(slice(0, n))]
    bounds = [n * share // shares for share in range(shares + 1)]
    slices = [slice(start, stop) for start, stop in itertools.pairwise(bounds)]
    pool = _shared_pool(size)
    futures: list[Future[T]] = [pool.submit(_as_worker, fn, part) for part in slices[1:]]
    try:
        first = _as_worker(fn, slices[0])
    finally:
        for future in futures:  # nobody may still write into the caller's arrays once we leave
            future.exception()
    return [first, *(future.result() for future in futures)]


def torch_workers() -> ThreadPoolExecutor | None:
    """A pool for independent model batches whose torch operators run on one core each; None with one thread.

    Several batches side by side beat several threads inside each operator: nobody waits at the end of every
    operator, and each core keeps its batch in its own cache. Imports torch.
    """
    global _torch_pool, _torch_pool_size
    size = threads()
    if size == 1 or _local.worker:
        return None
    with _lock:
        if _torch_pool is None or _torch_pool_size != size:
            import torch

            _torch_pool = ThreadPoolExecutor(max_workers=size, thread_name_prefix="tercet-torch")
            _torch_pool_size = size
            ready = threading.Barrier(size + 1)
            for _ in range(size):
                _torch_pool.submit(_become_torch_worker, ready)
            ready.wait()
            torch.set_num_threads(size)  # the last worker left its own count as the default of new threads
        return _torch_pool


def _become_torch_worker(ready: threading.Barrier) -> None:
    """Torch's count is per thread once the thread has asked for it."""
    import torch

    _local.worker = True
    torch.set_num_threads(1)
    torch.get_num_threads()
    ready.wait()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def _limit_blas(n: int) -> None:
    """Tell numpy's BLAS, which is process-wide and takes every core unless told otherwise."""
    global _blas
    if n == (_blas or _cores()):
        return
    try:
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
    except ImportError:  # comes with scikit-learn; without it BLAS keeps its own OPENBLAS_NUM_THREADS
        return
    threadpool_limits(limits=n, user_api="blas")
    _blas = n


def _as_worker(fn: Callable[[slice], T], part: slice) -> T:
    before = _local.worker
    _local.worker = True
    try:
        return fn(part)
    finally:
        _local.worker = before


def _shared_pool(size: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    with _lock:
        if _pool is None or _pool_size < size:  # an outgrown pool ends by itself once idle and unreferenced
            _pool = ThreadPoolExecutor(max_workers=size, thread_name_prefix="tercet")
            _pool_size = size
        return _pool


def _forget_pool() -> None:
    """A forked child has none of its parent's threads."""
    global _pool, _pool_size, _torch_pool, _torch_pool_size, _lock
    _lock = threading.Lock()
    _pool, _pool_size = None, 0
    _torch_pool, _torch_pool_size = None, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


# --- caches ----------------------------------------------------------------------------------------


def cache_folder(name: str) -> Path:
    """A writable folder for what can be made again: ``$XDG_CACHE_HOME/tercet/name``, made when missing.

    Falls back to the system's temporary folder where the home folder cannot be written.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    user = os.getuid() if hasattr(os, "getuid") else 0
    for root in (Path(home) / "tercet", Path(tempfile.gettempdir()) / f"tercet-{user}"):
        folder = root / name
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.mkdtemp(prefix="tercet-"))


def kernel_cache() -> None:
    """Let numba keep compiled kernels where it can write; call it before importing numba.

    numba writes beside the source file. In a read-only installation it gets a folder of the user's instead,
    unless NUMBA_CACHE_DIR says otherwise.
    """
    if os.environ.get("NUMBA_CACHE_DIR"):
        return
    package = Path(__file__).parent
    beside = package / "__pycache__"
    if not os.access(beside if beside.exists() else package, os.W_OK):
        os.environ["NUMBA_CACHE_DIR"] = str(cache_folder("kernels"))


# --- device and dtype ------------------------------------------------------------------------------


def choose_device(device: str = "auto") -> str:
    """Where models run: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``. Imports torch unless it is the CPU.

    Args:
        device: a torch device name; ``auto`` takes TERCET_DEVICE, else a CUDA GPU if there is one, else the
            CPU.

    Raises:
        ConfigError: the device does not exist here.
    """
    if device == "auto":
        device = os.environ.get("TERCET_DEVICE", "").strip() or "auto"
    if device == "cpu":
        return device
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if kind not in ("cuda", "mps") or (number and not number.isdigit()):
        raise ConfigError(f"unknown device {device!r}; valid: auto, cpu, cuda, cuda:N, mps")
    if kind == "cuda":
        present = torch.cuda.is_available() and int(number or 0) < torch.cuda.device_count()
    else:
        present = torch.backends.mps.is_available()
    if not present:
        raise ConfigError(f"device {device!r} is not available to torch {torch.__version__}; use auto or cpu")
    return device


def choose_search_device(device: str = "auto") -> str:
    """Where stored vectors are scored: a CUDA GPU if it is asked for, here or by TERCET_DEVICE, else the CPU.

    A GPU that is merely there is left to the models, since what is searched on it stays in its memory.

    Raises:
        ConfigError: the device does not exist here.
    """
    if device == "auto":
        device = os.environ.get("TERCET_DEVICE", "").strip() or "cpu"
    chosen = choose_device(device)
    return chosen if chosen.startswith("cuda") else "cpu"


def choose_dtype(device: str, dtype: str = "auto") -> str:
    """The dtype models compute in on a device: ``"float32"``, ``"bfloat16"`` or ``"float16"``.

    Args:
        device: what ``choose_device`` returned.
        dtype: ``auto`` takes TERCET_DTYPE; else bfloat16 on a CPU only where it has the instructions (without
            them half precision is about five times slower than float32), bfloat16 or float16 on a GPU.

    Raises:
        ConfigError: no such dtype.
    """
    if dtype == "auto":
        dtype = os.environ.get("TERCET_DTYPE", "").strip() or "auto"
    if dtype != "auto":
        if dtype not in DTYPES:
            raise ConfigError(f"unknown dtype {dtype!r}; valid: auto, {', '.join(DTYPES)}")
        return dtype
    if device == "cpu":
        return "bfloat16" if cpu_has_bfloat16() else "float32"
    if device.startswith("cuda"):
        import torch

        major, _ = torch.cuda.get_device_capability(device)
        return "bfloat16" if major >= 8 else "float16"
    return "float32"


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware (AVX512-BF16, AMX, ARM's BF16)."""
    global _probed
    if _probed is None:
        flags = _cpu_flags()
        _probed = _bfloat16_is_faster() if flags is None else bool(flags & _BFLOAT16_FLAGS)
    return _probed


def _cpu_flags(path: str = "/proc/cpuinfo") -> frozenset[str] | None:
    """The flags of the first processor that lists any; None where the system does not say."""
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() in ("flags", "Features"):
                    return frozenset(value.split())
    except OSError:
        return None
    return None


def _bfloat16_is_faster() -> bool:
    """A probe for systems without /proc/cpuinfo: is a bfloat16 product faster than a float32 one?"""
    import torch

    def best_of(dtype: torch.dtype) -> float:
        left, right = torch.ones(256, 384, dtype=dtype), torch.ones(384, 1536, dtype=dtype)
        taken = []
        for _ in range(4):
            start = time.perf_counter()
            torch.mm(left, right)
            taken.append(time.perf_counter() - start)
        return min(taken)

    return best_of(torch.bfloat16) < best_of(torch.float32)
