"""BEIR's published archives: where they are, their checksums, and a download that can be resumed."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from indexing.progress import Progress, Silent
from retrieval.errors import ConfigError, TercetError

BASE_URL = "https://public.ukp.informatik.tu-darmstadt.de/thakur/BEIR/datasets"
URL_VARIABLE = "TERCET_BEIR_URL"
"""Environment variable that replaces BASE_URL, for a mirror."""


class DownloadError(TercetError):
    """A data set that could not be fetched; says where to put it by hand."""


@dataclass(frozen=True, slots=True)
class Archive:
    """One data set of BEIR.

    Attributes:
        md5: of NAME.zip, from BEIR's README; "" where the set cannot be downloaded.
        drop_self: whether a query's own document (the one with the same id) must not count as a result. The
            evaluator of BEIR drops equal ids for every set. That is right where queries and documents share
            one space of ids (ArguAna, Quora, SCIDOCS) and wrong where both are merely numbered from 1.
        public: False for the sets whose licence forbids redistribution.
    """

    md5: str
    drop_self: bool = False
    public: bool = True


ARCHIVES: dict[str, Archive] = {
    "msmarco": Archive("444067daf65d982533ea17ebd59501e4"),
    "trec-covid": Archive("ce62140cb23feb9becf6270d0d1fe6d1"),
    "nfcorpus": Archive("a89dba18a62ef92f7d323ec890a0d38d"),
    "bioasq": Archive("", public=False),
    "nq": Archive("d4d3d2e48787a744b6f6e691ff534307"),
    "hotpotqa": Archive("f412724f78b0d91183a0e86805e16114"),
    "fiqa": Archive("17918ed23cd04fb15047f73e6c3bd9d9"),
    "signal1m": Archive("", public=False),
    "trec-news": Archive("", public=False),
    "robust04": Archive("", public=False),
    "arguana": Archive("8ad3e3c2a5867cdced806d6503f29b99", drop_self=True),
    "webis-touche2020": Archive("46f650ba5a527fc69e0a6521c5a23563"),
    "cqadupstack": Archive("4e41456d7df8ee7760a7f866133bda78"),
    "quora": Archive("18fb154900ba42a600f84b839c173167", drop_self=True),
    "dbpedia-entity": Archive("c2a39eb420a3164af735795df012ac2c"),
    "scidocs": Archive("38121350fc3a4d2f48850f6aff52e4a9", drop_self=True),
    "fever": Archive("5a818580227bfb4b35bb6fa46d9b6c03"),
    "climate-fever": Archive("8b66f0a9126c521bae2bde127b4dc99d"),
    "scifact": Archive("5f7d1de60b170fc8027bb7898e2efca1"),
}


def fetch(name: str, parent: Path, progress: Progress | None = None) -> Path:
    """Download one archive and unpack it to ``parent/name``.

    The download goes to ``name.zip.part`` and goes on from there when it was cut off (HTTP Range); the folder
    appears under its name only when it is complete. Of two processes asking for the same set one waits.

    Raises:
        ConfigError: BEIR has no such set, or may not distribute it.
        DownloadError: it cannot be reached, its checksum is wrong, or it is no sound archive.
    """
    target = parent / name
    archive = _archive(name, target)
    parent.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(parent / f".{name}.lock"):
        if target.is_dir():
            return target
        url = f"{os.environ.get(URL_VARIABLE, BASE_URL).rstrip('/')}/{name}.zip"
        part = parent / f"{name}.zip.part"
        _download(url, part, target, progress or Silent())
        _check(part, archive.md5, url, target)
        _unpack(part, name, target)
        part.unlink()
    return target


def _archive(name: str, target: Path) -> Archive:
    archive = ARCHIVES.get(name)
    if archive is None:
        raise ConfigError(f"unknown data set {name!r}; BEIR's are: {', '.join(sorted(ARCHIVES))}")
    if not archive.public:
        raise ConfigError(
            f"{name!r} may not be redistributed; build it as BEIR's documentation says and put it at {target}"
        )
    return archive


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _by_hand(target: Path) -> str:
    return (
        f"to go without the network put the folder with corpus.jsonl, queries.jsonl and qrels/ at {target}, "
        "or name the folder that holds it with --data-dir or TERCET_DATA"
    )


def _download(url: str, part: Path, target: Path, progress: Progress) -> None:
    """Bring ``part`` to its full length, from whatever it has."""
    import httpx

    have = part.stat().st_size if part.exists() else 0
    headers = (
        {"Range": f"bytes={have}-", "Accept-Encoding": "identity"}
        if have
        else {"Accept-Encoding": "identity"}
    )
    try:
        with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=60.0) as answer:
            if (
                have and answer.status_code == 416
            ):  # nothing after what is here: complete, or not the same file
                return
            answer.raise_for_status()
            resumed = answer.status_code == 206
            here = have if resumed else 0
            length = answer.headers.get("Content-Length")
            progress.start(f"download {target.name}", None if length is None else here + int(length), "B")
            progress.advance(here)
            with part.open("ab" if resumed else "wb") as stream:
                for chunk in answer.iter_raw():  # with a chunk size httpx would lose a cut chunk
                    stream.write(chunk)
                    progress.advance(len(chunk))
    except httpx.HTTPStatusError as error:
        raise DownloadError(
            f"{url}: the server answers {error.response.status_code}; {_by_hand(target)}"
        ) from error
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        kept = ", what has come is kept and the next try goes on from there" if part.exists() else ""
        raise DownloadError(f"{url}: cannot be downloaded ({reason}){kept}; {_by_hand(target)}") from error
    except OSError as error:
        raise DownloadError(f"{part}: cannot be written ({error.strerror or error})") from error


def _check(part: Path, md5: str, url: str, target: Path) -> None:
    with part.open("rb") as stream:
        found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        part.unlink()
        raise DownloadError(
            f"{url}: the MD5 is {found}, BEIR's is {md5}; the file was dropped, try again; {_by_hand(target)}"
        )


def _unpack(part: Path, name: str, target: Path) -> None:
    """Unpack beside the target and rename, so that a folder under the name is a complete one."""
    staging = target.with_name(f".{name}.unpacking")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        with zipfile.ZipFile(part) as archive:
            for member in archive.infolist():
                _refuse_escape(member, part)
            archive.extractall(staging)
    except (zipfile.BadZipFile, EOFError) as error:
        part.unlink()
        raise DownloadError(f"{part}: not a sound zip archive ({error}); {_by_hand(target)}") from error
    inner = staging / name
    (inner if inner.is_dir() else staging).rename(target)
    shutil.rmtree(staging, ignore_errors=True)


def _refuse_escape(member: zipfile.ZipInfo, part: Path) -> None:
    parts = member.filename.replace("\\", "/").split("/")
    if member.filename.startswith(("/", "\\")) or ".." in parts or stat.S_ISLNK(member.external_attr >> 16):
        raise DownloadError(f"{part}: the archive holds {member.filename!r}, which points outside its folder")
