"""What identifies a checkpoint's output: a hash of weights, tokenizer and the settings that matter."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from retrieval.compute import cache_folder
from retrieval.encoders.transformer.checkpoint import Checkpoint

_VOLATILE = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}
_LARGE = 1 << 20


def checkpoint_digest(checkpoint: Checkpoint) -> str:
    """sha256 hex over the modules' order and settings and over the content of every file they read.

    Names, versions and the dtype the weights were saved from are left out; weights count as bytes, so the
    same model saved in another dtype is another model.
    """
    facts = [
        (kind, str(folder.relative_to(checkpoint.folder)), dict(config))
        for kind, folder, config in checkpoint.modules
    ]
    config = {name: value for name, value in checkpoint.config.items() if name not in _VOLATILE}
    digest = hashlib.sha256(json.dumps([facts, config], sort_keys=True).encode())
    for path in _content_files(checkpoint.folder):
        digest.update(f"{path.relative_to(checkpoint.folder)}\0{file_digest(path)}\n".encode())
    return digest.hexdigest()


def _content_files(folder: Path) -> list[Path]:
    """Weights, tokenizers and code below a folder, in a fixed order; the one form of several that is read."""
    found: list[Path] = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in ("onnx", "openvino", ".cache", ".git"))
        names = set(files)
        weights = {name for name in names if name.endswith(".safetensors")}
        if not weights:
            weights = {name for name in names if name.endswith(".bin")}
        tokenizer = {"tokenizer.json"} & names or {
            name
            for name in names
            if name in ("vocab.txt", "vocab.json", "merges.txt") or name.endswith(".model")
        }
        code = {name for name in names if name.endswith(".py")}
        found += [Path(place) / name for name in sorted(weights | tokenizer | code)]
    return found


def file_digest(path: Path) -> str:
    """sha256 hex of a file.

    For large files the answer is remembered by path, size, inode and times of change: opening a collection
    needs it, and hashing 90 MB takes 60 ms. A rewrite in place to the same size within one tick of the
    file system's clock would be missed.
    """
    facts = path.stat()
    if facts.st_size < _LARGE:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    key = [str(path.resolve()), facts.st_size, facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns]
    note = cache_folder("digests") / f"{hashlib.sha256(key[0].encode()).hexdigest()[:32]}.json"  # type: ignore[attr-defined]
    known = _recall(note)
    if known is not None and known.get("key") == key and isinstance(known.get("sha256"), str):
        return str(known["sha256"])
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    _remember(note, {"key": key, "sha256": found})
    return found


def _recall(note: Path) -> dict[str, Any] | None:
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) else None


def _remember(note: Path, facts: dict[str, Any]) -> None:
    try:
        handle, name = tempfile.mkstemp(dir=note.parent, suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(facts, file)
        os.replace(name, note)
    except OSError:
        pass  # a cache that cannot be written costs time only
