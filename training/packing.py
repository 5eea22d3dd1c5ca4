"""Making the small form of a trained model that ``retrieval.encoders.transformer.packed`` puts together again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.transformer.identity import file_digest
from retrieval.encoders.transformer.packed import FACTS, TENSORS, factored, product, write_tensors
from retrieval.errors import ConfigError

RANK = 16
"""Of the updates of matrices, unless told otherwise."""

_LEFT_OUT = ("README.md", "recipe.toml", "run.json", "curve.json")


def pack(trained: Path, base: Path, output: Path, rank: int = RANK) -> dict[str, float]:
    """Write what training changed of a base checkpoint.

    Of a tensor that the base has in the same shape nothing is stored where it did not change, two integer factors
    where it is a matrix, and the whole in float16 where it is not; new tensors are stored in float16. A model that was
    trained with low-rank updates of at most ``rank`` loses only the rounding to 16 bits.

    Args:
        trained: a folder of sentence-transformers' format.
        base: the folder it was trained from.
        output: of the pack; made, files of the same names are replaced.
        rank: of the updates.

    Returns:
        For each changed matrix, by file and tensor, the norm of what the pack misses as a share of the change's.

    Raises:
        ConfigError: the base has no model.safetensors, or a folder has weights in another form.
    """
    from safetensors.numpy import load_file

    originals = load_file(_weights(base))
    facts: dict[str, Any] = {"base": file_digest(_weights(base)), "texts": {}, "copies": {}, "weights": {}}
    stored: dict[str, NDArray[Any]] = {}
    missed: dict[str, float] = {}
    for path in sorted(path for path in trained.rglob("*") if path.is_file()):
        name = path.relative_to(trained).as_posix()
        if path.suffix == ".safetensors":
            tensors = {key: _single(array) for key, array in sorted(load_file(path).items())}
            facts["weights"][name] = {
                key: _origin(f"{name}:{key}", array, originals, stored, missed, rank)
                for key, array in tensors.items()
            }
        elif (base / path.name).is_file() and path.read_bytes() == (base / path.name).read_bytes():
            facts["copies"][name] = path.name
        elif path.suffix in (".json", ".txt"):
            if path.name not in _LEFT_OUT:
                facts["texts"][name] = path.read_text(encoding="utf-8")
        elif path.suffix in (".bin", ".pt", ".model"):
            raise ConfigError(f"{path}: a pack holds safetensors and JSON files; save the model in that form")
    output.mkdir(parents=True, exist_ok=True)
    write_tensors(output / TENSORS, stored)
    facts["tensors"] = file_digest(output / TENSORS)
    (output / FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return missed


def _origin(
    name: str,
    array: NDArray[np.float32],
    originals: Mapping[str, NDArray[Any]],
    stored: dict[str, NDArray[Any]],
    missed: dict[str, float],
    rank: int,
) -> dict[str, Any]:
    """Where the tensor comes from; what has to be stored for it is put into ``stored``."""
    tensor = name.partition(":")[2]
    source = next(
        (key for key in originals if _same(key, tensor) and originals[key].shape == array.shape), None
    )
    if source is None:
        stored[name] = _half(array)
        return {}
    change = array - originals[source]
    if not change.any():
        return {"base": source}
    if array.ndim != 2 or min(array.shape) <= rank:
        stored[name] = _half(array)
        return {}
    left, right, scale = factored(change, rank)
    stored[f"{name}:left"], stored[f"{name}:right"] = left, right
    missed[name] = float(np.linalg.norm(change - product(left, right, scale)) / np.linalg.norm(change))
    return {"base": source, "scale": scale}


def _same(original: str, tensor: str) -> bool:
    """Whether two names mean one tensor: a class puts a name such as ``bert.`` before those of its encoder."""
    return original == tensor or tensor.endswith(f".{original}") or original.endswith(f".{tensor}")


def _single(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float32) if array.dtype in (np.float16, np.float64) else array


def _half(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float16) if array.dtype == np.float32 else array


def _weights(folder: Path) -> Path:
    path = folder / "model.safetensors"
    if not path.is_file():
        raise ConfigError(f"{folder}: there is no model.safetensors; a pack is an update of one")
    return path
