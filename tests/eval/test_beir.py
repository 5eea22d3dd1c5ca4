"""Data sets by path and by name, and downloads from a local server that stands in for the official one."""

from __future__ import annotations

import hashlib
import http.server
import io
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from eval.archives import ARCHIVES, Archive, DownloadError, fetch
from eval.beir import open_dataset, open_datasets, override_self, read_queries
from indexing.progress import Silent
from retrieval.errors import ConfigError, FormatError

CORPUS = '{"_id": "d1", "title": "A", "text": "first"}\n{"_id": "d2", "title": "", "text": "second"}\n'
QUERIES = '{"_id": "q1", "text": "one"}\n{"_id": "q2", "text": "two"}\n{"_id": "q3", "text": "three"}\n'
QRELS = "query-id\tcorpus-id\tscore\nq3\td1\t1\nq1\td2\t2\n"


def write_dataset(folder, split="test"):
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(CORPUS)
    (folder / "queries.jsonl").write_text(QUERIES)
    (folder / "qrels" / f"{split}.tsv").write_text(QRELS)
    return folder


def zipped(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


SMALL = zipped(
    {
        f"small/{n}": t
        for n, t in {"corpus.jsonl": CORPUS, "queries.jsonl": QUERIES, "qrels/test.tsv": QRELS}.items()
    }
)


class Bytes(Silent):
    total, here = None, 0

    def start(self, stage, total, unit):
        self.total = total

    def advance(self, amount):
        self.here += amount


@dataclass
class Server:
    """Serves bytes, with ranges, and cuts the connection after ``cut`` bytes of the first answer."""

    files: dict[str, bytes] = field(default_factory=dict)
    cut: int | None = None
    ranges: bool = True
    requests: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server(monkeypatch, tmp_path) -> Iterator[Server]:
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            state.requests.append(wanted)
            body = state.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and state.ranges else 0
            if start and start >= len(body):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            part = body[start:]
            if state.cut is not None:
                part, state.cut = part[: state.cut], None
                self.close_connection = True
            self.wfile.write(part)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        thread = threading.Thread(target=http_server.serve_forever, args=(0.01,))
        thread.start()
        state.url = f"http://127.0.0.1:{http_server.server_port}"
        state.files["/small.zip"] = SMALL
        monkeypatch.setenv("TERCET_BEIR_URL", state.url)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.delenv("TERCET_DATA", raising=False)
        monkeypatch.setitem(ARCHIVES, "small", Archive(hashlib.md5(SMALL).hexdigest()))
        yield state
        http_server.shutdown()
        thread.join()


def test_queries_are_those_that_the_split_judges(tmp_path):
    dataset = open_dataset(write_dataset(tmp_path / "mine"))
    assert dataset.name == "mine" and dataset.split == "test" and not dataset.drop_self
    assert [query.id for query in dataset.queries()] == ["q1", "q3"]
    assert dataset.qrels() == {"q3": {"d1": 1}, "q1": {"d2": 2}}


def test_compressed_files_are_found(tmp_path):
    import gzip

    folder = write_dataset(tmp_path / "mine")
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()
    dataset = open_dataset(folder)
    assert dataset.corpus_path.name == "corpus.jsonl.gz"
    assert len(dataset.queries()) == 2 and dataset.splits() == ["test"]


@pytest.mark.parametrize("place", ["named", "named/eval", "variable", "variable/eval"])
def test_a_name_is_looked_up_under_the_data_folders(tmp_path, monkeypatch, place):
    write_dataset(tmp_path / place / "scifact")
    monkeypatch.setenv("TERCET_DATA", str(tmp_path / "variable"))
    assert open_dataset("scifact", data_dir=tmp_path / "named").folder == tmp_path / place / "scifact"


def test_a_missing_split_lists_those_there_are(tmp_path):
    folder = write_dataset(tmp_path / "mine", split="dev")
    with pytest.raises(ConfigError, match=r"no split 'test'; it has: dev"):
        open_dataset(folder).qrels()


def test_unknown_names_list_what_was_tried_and_what_there_is(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"no data set 'scifcat'.*tried also .*beir/scifcat.*scifact"):
        open_dataset("scifcat")
    with pytest.raises(ConfigError, match="may not be redistributed"):
        open_dataset("robust04", data_dir=tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="it is no BEIR data set"):
        open_dataset(tmp_path / "empty")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        open_dataset(tmp_path / "file")


def test_a_group_opens_as_its_parts(tmp_path):
    for part in ("android", "english"):
        write_dataset(tmp_path / "cqadupstack" / part)
    parts = open_datasets("cqadupstack", data_dir=tmp_path)
    assert [part.name for part in parts] == ["cqadupstack/android", "cqadupstack/english"]
    assert open_dataset("cqadupstack/android", data_dir=tmp_path).name == "cqadupstack/android"
    assert open_dataset(tmp_path / "cqadupstack" / "english").name == "cqadupstack/english"
    with pytest.raises(ConfigError, match="holds 2 data sets; name one of them, such as cqadupstack/android"):
        open_dataset("cqadupstack", data_dir=tmp_path)


def test_a_querys_own_document_is_dropped_where_the_set_asks_for_it(tmp_path):
    write_dataset(tmp_path / "arguana")
    write_dataset(tmp_path / "scifact")
    assert open_dataset("arguana", data_dir=tmp_path).drop_self
    assert not open_dataset("scifact", data_dir=tmp_path).drop_self
    kept = override_self(open_dataset(tmp_path / "arguana"), False)
    assert not kept.drop_self and override_self(kept, None) == kept


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"_id": "q1", "text": "a"}\n{"_id": ', r":2: malformed JSON"),
        ('{"text": "a"}\n', r':1: "_id" is missing'),
        ('{"_id": "", "text": "a"}\n', r':1: "_id" is missing, empty'),
        ('{"_id": "q1"}\n', r':1: "text" is missing'),
        ('["q1"]\n', r":1: .* every line is one JSON object"),
        (
            '{"_id": "q1", "text": "a"}\n{"_id": "q1", "text": "b"}\n',
            r":2: query 'q1' stands in line 1 already",
        ),
    ],
)
def test_damaged_queries_name_file_and_line(tmp_path, text, message):
    (tmp_path / "queries.jsonl").write_text(text)
    with pytest.raises(FormatError, match=r"queries\.jsonl" + message):
        list(read_queries(tmp_path / "queries.jsonl"))


def test_whole_numbers_as_ids_become_strings(tmp_path):
    (tmp_path / "queries.jsonl").write_text('{"_id": 7, "text": "a"}\n')
    assert [query.id for query in read_queries(tmp_path / "queries.jsonl")] == ["7"]


def test_a_judged_query_without_text_is_an_error(tmp_path):
    folder = write_dataset(tmp_path / "mine")
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "one"}\n')
    with pytest.raises(FormatError, match=r"no text for 1 judged queries of 'test', such as 'q3'"):
        open_dataset(folder).queries()


def test_a_name_is_downloaded_checked_and_unpacked(server, tmp_path):
    bytes_seen = Bytes()
    dataset = open_dataset("small", progress=bytes_seen)
    assert dataset.folder == tmp_path / "cache" / "tercet" / "beir" / "small"
    assert [query.text for query in dataset.queries()] == ["one", "three"]
    assert (bytes_seen.total, bytes_seen.here) == (len(SMALL), len(SMALL))
    assert [path.name for path in dataset.folder.parent.iterdir() if not path.name.startswith(".")] == [
        "small"
    ]
    assert open_dataset("small") == dataset
    assert len(server.requests) == 1


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_was_cut_goes_on_where_it_stopped(server, tmp_path, ranges):
    server.cut, server.ranges = 100, ranges
    with pytest.raises(DownloadError, match="the next try goes on from there"):
        open_dataset("small")
    part = tmp_path / "cache" / "tercet" / "beir" / "small.zip.part"
    assert part.stat().st_size == 100
    assert len(open_dataset("small").queries()) == 2
    assert server.requests == [None, "bytes=100-"]


def test_a_complete_part_is_not_fetched_again(server, tmp_path):
    folder = tmp_path / "cache" / "tercet" / "beir"
    folder.mkdir(parents=True)
    (folder / "small.zip.part").write_bytes(SMALL)
    assert len(open_dataset("small").queries()) == 2


def test_a_wrong_checksum_drops_the_file_and_says_so(server, tmp_path):
    server.files["/small.zip"] = SMALL[:-1] + b"?"
    with pytest.raises(DownloadError, match=r"the MD5 is [0-9a-f]{32}, BEIR's is .*dropped, try again"):
        open_dataset("small")
    assert not list((tmp_path / "cache").rglob("*.part")) and not list((tmp_path / "cache").rglob("small"))


def test_a_server_without_the_file_and_no_server_at_all_say_where_to_put_it(server, tmp_path, monkeypatch):
    del server.files["/small.zip"]
    place = tmp_path / "cache" / "tercet" / "beir" / "small"
    with pytest.raises(
        DownloadError, match=f"answers 404; to go without the network put the folder .* at {place}"
    ):
        open_dataset("small")
    monkeypatch.setenv("TERCET_BEIR_URL", "http://127.0.0.1:1")
    with pytest.raises(
        DownloadError, match=rf"cannot be downloaded .*at {place}, or .*--data-dir or TERCET_DATA"
    ):
        open_dataset("small")


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/evil.txt", "small/../../evil.txt", "small\\..\\..\\evil.txt"]
)
def test_an_archive_that_points_outside_its_folder_is_refused(server, tmp_path, monkeypatch, name):
    evil = zipped({"small/corpus.jsonl": CORPUS, name: "gotcha"})
    server.files["/small.zip"] = evil
    monkeypatch.setitem(ARCHIVES, "small", Archive(hashlib.md5(evil).hexdigest()))
    with pytest.raises(DownloadError, match="points outside its folder"):
        open_dataset("small")
    assert not list(tmp_path.rglob("evil.txt")) and not list(tmp_path.rglob("small"))


def test_what_is_no_archive_is_refused(server, monkeypatch):
    server.files["/small.zip"] = b"<html>maintenance</html>"
    monkeypatch.setitem(ARCHIVES, "small", Archive(hashlib.md5(b"<html>maintenance</html>").hexdigest()))
    with pytest.raises(DownloadError, match="not a sound zip archive"):
        open_dataset("small")


def test_a_group_is_downloaded_for_one_of_its_parts(server, monkeypatch):
    files = {
        f"cqadupstack/{part}/{n}": t
        for part in ("android", "gis")
        for n, t in {"corpus.jsonl": CORPUS, "queries.jsonl": QUERIES, "qrels/test.tsv": QRELS}.items()
    }
    server.files["/cqadupstack.zip"] = zipped(files)
    monkeypatch.setitem(
        ARCHIVES, "cqadupstack", Archive(hashlib.md5(server.files["/cqadupstack.zip"]).hexdigest())
    )
    assert open_dataset("cqadupstack/gis").name == "cqadupstack/gis"
    with pytest.raises(ConfigError, match="cqadupstack"):
        open_dataset("cqadupstack/cooking")
    assert len(open_datasets("cqadupstack")) == 2


def test_eight_threads_asking_for_one_set_get_it_once(server, tmp_path):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch("small", tmp_path / "x"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tmp_path / "x" / "small"] * 8 and len(server.requests) == 1


def test_every_set_that_can_be_downloaded_has_a_checksum():
    for name, archive in ARCHIVES.items():
        assert (len(archive.md5) == 32) == archive.public, name
