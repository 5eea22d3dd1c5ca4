"""Finding the standard library's modules without importing any."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

SKIPPED_TOPS = frozenset(
    (
        "test",  # the test suite
        "idlelib",  # the editor's internals
        "lib2to3",  # deprecated, gone since Python 3.13
        "distutils",  # deprecated, gone since Python 3.12; its twins of shutil's functions would crowd those out
        "turtledemo",
        "pydoc_data",
        "readline",  # importing it writes to the terminal
        "xxlimited",  # examples of C code
        "xxlimited_35",
        "xxsubtype",
    )
)
SKIPPED_PARTS = frozenset(("test", "tests", "idle_test", "site-packages", "__pycache__"))
_KEPT_ENCODINGS = frozenset(("aliases", "idna", "punycode", "utf_8_sig", "mbcs", "oem"))


@dataclass(frozen=True, slots=True)
class ModuleFile:
    """A module of the library.

    Attributes:
        name: dotted.
        path: its source, or None for a compiled module.
        package: whether it is a package.
    """

    name: str
    path: Path | None
    package: bool


def find_modules() -> dict[str, ModuleFile]:
    """All modules, private ones included, by name; tests and examples are left out."""
    library = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, ModuleFile] = {}
    for name in sorted(sys.stdlib_module_names):
        if name not in SKIPPED_TOPS:
            found.update((module.name, module) for module in _below(library, name, name))
            if name not in found and _is_compiled(name):
                found[name] = ModuleFile(name, None, package=False)
    if (
        "_collections_abc" in found
    ):  # collections.abc has no content of its own, or puts this in its place (3.13)
        found["collections.abc"] = replace(found["_collections_abc"], name="collections.abc")
    return found


def _below(folder: Path, stem: str, name: str) -> Iterator[ModuleFile]:
    """The module ``folder/stem`` and, where it is a package, everything in it."""
    source = folder / f"{stem}.py"
    if source.is_file():
        yield ModuleFile(name, source, package=False)
        return
    package = folder / stem
    source = package / "__init__.py"
    if not source.is_file():
        return
    yield ModuleFile(name, source, package=True)
    stems = {path.stem for path in package.glob("*.py")} | {
        path.name for path in package.iterdir() if path.is_dir()
    }
    for inner in sorted(stems - {"__init__", "__main__"} - SKIPPED_PARTS):
        # A hundred character maps with the same undocumented classes would only drown the rest.
        if inner.isidentifier() and (name != "encodings" or inner in _KEPT_ENCODINGS):
            yield from _below(package, inner, f"{name}.{inner}")


def _is_compiled(name: str) -> bool:
    return name in sys.builtin_module_names or extension_path(name) is not None


def extension_path(name: str) -> Path | None:
    """The shared library of a compiled module of the standard library."""
    library = Path(sysconfig.get_paths()["stdlib"])  # platstdlib is inside the environment in a venv
    shared = sysconfig.get_config_var("DESTSHARED")
    folders = [library / "lib-dynload", library, Path(sys.base_prefix) / "DLLs"]
    for folder in [Path(shared), *folders] if shared else folders:
        for suffix in EXTENSION_SUFFIXES:
            path = folder / f"{name}{suffix}"
            if path.is_file():
                return path
    return None
