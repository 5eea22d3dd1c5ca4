from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from indexing.corpora import Record, open_corpus
from indexing.corpora.python_docs.definitions import METHOD, PROPERTY
from indexing.corpora.python_docs.modules import ModuleFile
from indexing.corpora.python_docs.source import read_source
from retrieval.errors import ConfigError


@pytest.fixture(scope="session")
def records() -> list[Record]:
    return list(open_corpus("python-docs").read())


def test_well_known_names_are_there_under_the_name_programs_use(records: list[Record]) -> None:
    kinds = {record.document.id: record.document.metadata["kind"] for record in records}
    expected = {
        "json": "module",
        "os.path": "module",
        "collections.abc": "module",
        "json.loads": "function",
        "json.JSONDecoder": "class",
        "json.JSONDecoder.decode": "method",
        "os.getcwd": "function",
        "os.path.join": "function",
        "math.sqrt": "function",
        "builtins.str.join": "method",
        "collections.abc.Mapping": "class",
        "collections.deque.append": "method",
        "random.randint": "function",
        "asyncio.run": "function",
        "socket.socket.recv": "method",
        "ssl.SSLContext.load_verify_locations": "method",
        "concurrent.futures.ProcessPoolExecutor": "class",
        "threading.Lock": "function" if sys.version_info < (3, 13) else "class",
        "functools.partial": "class",
        "pathlib.PurePath.suffix": "property",
        "xml.etree.ElementTree.fromstring": "function",
    }
    assert {name: kinds.get(name) for name in expected} == expected
    for private in ("json.decoder.JSONDecoder", "posix.getcwd", "posixpath.join", "asyncio.runners.run"):
        assert private not in kinds


def test_documents_are_many_unique_public_and_typed(records: list[Record]) -> None:
    ids = [record.document.id for record in records]
    assert len(ids) == len(set(ids)) > 8000
    for record in records:
        document = record.document
        assert document.title == document.id
        assert set(document.metadata) == {"module", "kind"}
        assert document.id.startswith(document.metadata["module"])
        assert not any(part.startswith("_") for part in document.id.split(".") if part != "__future__")
        assert not {"test", "tests", "idlelib"} & set(document.metadata["module"].split("."))
        assert document.text
    with_docstring = sum("\n\n" in record.document.text for record in records)
    assert with_docstring > 0.6 * len(records)


def test_the_text_is_signature_place_and_docstring(records: list[Record]) -> None:
    texts = {record.document.id: record.document.text for record in records}
    assert texts["os.path.join"].startswith(
        "join(a, *p)\nfunction in os.path\n\nJoin two or more pathname components"
    )
    assert texts["builtins.str.join"].startswith(
        "join(iterable, /)\nmethod of str in builtins\n\nConcatenate"
    )
    assert texts["json"].startswith("module json\n\nJSON (JavaScript Object Notation)")


def test_reading_resumes_and_is_deterministic(records: list[Record]) -> None:
    corpus = open_corpus("python-docs")
    assert corpus.resumable
    assert corpus.fingerprint() == open_corpus("python-docs").fingerprint()
    half = records[len(records) // 2]
    rest = list(corpus.read(json.loads(json.dumps(half.position))))
    assert rest == records[len(records) // 2 + 1 :]
    assert records[-1].bytes_read == corpus.n_bytes


def test_places_name_source_files_and_lines(records: list[Record]) -> None:
    by_id = {record.document.id: record for record in records}
    record = by_id["json.JSONDecoder.decode"]
    lines = Path(record.file).read_text(encoding="utf-8").splitlines()
    assert "def decode(" in lines[record.line - 1]
    assert by_id["math.sqrt"].place == "math"


def test_no_source_module_is_executed() -> None:
    code = """
import sys, sysconfig
from indexing.corpora import open_corpus
import indexing.corpora.python_docs.corpus
sysconfig.get_config_vars()
before = set(sys.modules)
sum(1 for _ in open_corpus("python-docs").read())
new = {name: getattr(sys.modules[name], "__file__", None) or "" for name in set(sys.modules) - before}
sources = [name for name, file in new.items() if file.endswith(".py") and not name.startswith("encodings.")]
assert not sources, sources
assert "math" in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""


def test_fields_cannot_be_chosen() -> None:
    with pytest.raises(ConfigError, match="has fields of its own"):
        open_corpus("python-docs", text_field="doc")


def test_a_source_module_is_read_without_running_it(tmp_path: Path) -> None:
    path = tmp_path / "sample.py"
    path.write_text(
        '''"""A module."""
import os as system
from .near import thing
from far import *
__all__ = ["f", "C"] + near.__all__
__all__ += ["late"]
__all__.extend(computed())
raise SystemExit("executed")
alias = f
if system.name == "posix":
    def f(a, b=1, *, c): "First."
else:
    def f(): "Second."
# ---------
# Comment before.
async def late(x: int) -> str:
    pass
def inside():
    # Comment inside.
    return 1
class C(thing.Base):
    """The class."""
    def __init__(self, size): "Made with a size."
    @property
    def p(self): "A property."
    @p.setter
    def p(self, value): "Set it."
    @staticmethod
    def s(a): "Static."
    def m(self, a, /, b): "Method."
    def _hidden(self): "Hidden."
    class Inner:
        def deep(self): "Deep."
if __name__ == "__main__":
    def main(): "Not part of it."
''',
        encoding="utf-8",
    )
    content = read_source(ModuleFile("package.sample", path, package=False))
    assert content is not None
    assert (content.doc, content.complete, content.stars) == ("A module.", False, ("far",))
    assert [part if isinstance(part, str) else part.module for part in content.exported] == [
        "f",
        "C",
        "near",
        "late",
    ]
    assert content.imports == {"system": [("os", None)], "thing": [("package.near", "thing")]}
    assert content.aliases == {"alias": "f"}
    assert list(content.definitions) == ["f", "late", "inside", "C"]
    (f,) = content.definitions["f"].items
    assert (f.signature, f.doc, f.line) == ("f(a, b=1, *, c)", "First.", 11)
    (late,) = content.definitions["late"].items
    assert (late.signature, late.doc, late.documented) == ("late(x: int) -> str", "Comment before.", False)
    assert content.definitions["inside"].items[0].doc == "Comment inside."
    described = [(item.name, item.kind, item.signature, item.doc) for item in content.definitions["C"].items]
    assert described == [
        ("", "class", "C(size), based on thing.Base", "The class.\n\nMade with a size."),
        ("p", PROPERTY, "p", "A property."),
        ("s", METHOD, "s(a)", "Static."),
        ("m", METHOD, "m(a, /, b)", "Method."),
        ("Inner", "class", "Inner", ""),
        ("Inner.deep", METHOD, "deep()", "Deep."),
    ]
    path.write_text("def broken(:", encoding="utf-8")
    assert read_source(ModuleFile("package.sample", path, package=False)) is None
