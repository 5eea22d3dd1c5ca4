"""Files that survive a crash: canonical JSON with a checksum, atomic replacement, component manifests.

A component is a folder (documents, vectors, an index). Its ``manifest.json`` is written last, after every other
file of the folder has reached the disk, and lists each file with size and SHA-256, so the manifest's presence
means the component is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrieval.errors import CorruptError

MANIFEST = "manifest.json"
SMALL_FILE = 1 << 16
"""Files up to this many bytes are checked whole when a component is opened; larger ones by size."""


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Make the file's content durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def checksum(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sealed(content: Mapping[str, Any]) -> bytes:
    body = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=True)
    seal = hashlib.sha256(body.encode()).hexdigest()
    return (
        json.dumps({"checksum": seal, "content": json.loads(body)}, indent=1, sort_keys=True).encode() + b"\n"
    )


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a JSON file atomically and durably; the file carries its own checksum.

    Temporary file, fsync, rename, fsync of the folder: after this returns the new content survives a power cut,
    and at no instant is there anything but the old or the new content under the name.
    """
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as stream:
        stream.write(_sealed(content))
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def read_sealed(path: Path) -> dict[str, Any]:
    """Read what ``write_sealed`` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        CorruptError: any bit differs from what was written.
    """
    raw = path.read_bytes()
    try:
        content = json.loads(raw)["content"]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptError(path, "not the JSON that was written (truncated or changed)") from error
    if _sealed(content) != raw:
        raise CorruptError(path, "its checksum does not match its content (changed since it was written)")
    return content


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Seal a component: sync every file in the folder, then write manifest.json with sizes and checksums."""
    files = {}
    for path in sorted(folder.iterdir()):
        if path.name in (MANIFEST, MANIFEST + ".tmp") or path.is_dir():
            continue  # a folder inside is a component of its own, sealed before
        sync_file(path)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": checksum(path)}
    write_sealed(folder / MANIFEST, {**facts, "files": files})
    sync_folder(folder.parent)


def open_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a component, after the checks that are cheap: presence, sizes, small files whole.

    Raises:
        CorruptError: names the file that is missing, of another size or changed.
    """
    try:
        manifest = read_sealed(folder / MANIFEST)
    except FileNotFoundError as error:
        raise CorruptError(folder / MANIFEST, "the file is missing") from error
    for name, facts in manifest["files"].items():
        _check_file(folder / name, facts, whole=facts["bytes"] <= SMALL_FILE)
    return manifest


def verify_component(folder: Path) -> tuple[int, list[str]]:
    """Read a component whole.

    Returns:
        Bytes read, and a message for every damaged file (empty when sound).
    """
    try:
        manifest = read_sealed(folder / MANIFEST)
    except FileNotFoundError:
        return 0, [f"{folder / MANIFEST}: the file is missing"]
    except CorruptError as error:
        return 0, [str(error)]
    problems, total = [], 0
    for name, facts in manifest["files"].items():
        try:
            _check_file(folder / name, facts, whole=True)
        except CorruptError as error:
            problems.append(str(error))
        total += facts["bytes"]
    return total, problems


def _check_file(path: Path, facts: Mapping[str, Any], *, whole: bool) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise CorruptError(path, "the file is missing") from error
    if size != facts["bytes"]:
        raise CorruptError(path, f"has {size} bytes, {facts['bytes']} were written (truncated or changed)")
    if whole and checksum(path) != facts["sha256"]:
        raise CorruptError(path, "its checksum does not match (changed since it was written)")
