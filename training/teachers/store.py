"""What a teacher has said about pairs of a set, on disk: parts that are added, each complete or absent."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from indexing.durable import (
    MANIFEST,
    read_sealed,
    verify_component,
    write_manifest,
    write_sealed,
)
from retrieval.errors import CorruptError, IncompatibleError
from retrieval.values.storage import map_array
from training.examples.training_set import LISTS, TrainingSet
from training.teachers.teacher import Teacher

_HEADER = "store.json"


@dataclass(frozen=True)
class ScoreStore:
    """A folder with ``store.json``, which says whose scores of what, and a folder a part with keys and scores.

    A part's manifest is written last and has the checksums of its files; a part without one was being written when the
    process was killed, and is removed.

    Attributes:
        folder: of this teacher and set alone.
    """

    folder: Path

    @classmethod
    def open(cls, folder: Path, name: str, teacher: Teacher, data: TrainingSet) -> ScoreStore:
        """The store of a teacher's scores of a set, made where there is none.

        Args:
            folder: where.
            name: of the teacher, for messages.
            teacher: whose fingerprint is kept.
            data: whose ids and texts are; lists may change.

        Raises:
            IncompatibleError: it holds the scores of another teacher or of another set.
            CorruptError: store.json is damaged.
        """
        wanted = {
            "teacher": name,
            "teacher_fingerprint": teacher.fingerprint,
            "data": data.name,
            "data_fingerprint": texts_fingerprint(data),
        }
        if not (folder / _HEADER).exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_sealed(folder / _HEADER, wanted)
        _check_same(folder, read_sealed(folder / _HEADER), wanted)
        for part in folder.glob("part-*"):
            if not (part / MANIFEST).exists():
                shutil.rmtree(part)
        return cls(folder)

    def read(self) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """(P,) keys of all pairs, ascending, and their scores.

        Raises:
            CorruptError: a part is damaged.
        """
        keys, scores = [np.zeros(0, dtype=np.uint64)], [np.zeros(0, dtype=np.float32)]
        for part in self._parts():
            _, problems = verify_component(part)
            if problems:
                raise CorruptError(
                    part, f"{problems[0]}; remove this folder to have its scores computed again"
                )
            keys.append(map_array(part / "keys.npy"))
            scores.append(map_array(part / "scores.npy"))
        joined = np.concatenate(keys)
        order = np.argsort(joined)
        return joined[order], np.concatenate(scores)[order]

    def append(self, keys: NDArray[np.uint64], scores: NDArray[np.float32]) -> None:
        """Add the scores of pairs that it has not, durably."""
        known = self._parts()
        number = int(known[-1].name.removeprefix("part-")) + 1 if known else 0
        part = self.folder / f"part-{number:06d}"
        part.mkdir()
        np.save(part / "keys.npy", keys, allow_pickle=False)
        np.save(part / "scores.npy", scores, allow_pickle=False)
        write_manifest(part, {"component": "scores", "pairs": len(keys)})

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("part-*"))


def texts_fingerprint(data: TrainingSet) -> str:
    """SHA-256 of the ids and texts of a set, whatever its lists are."""
    plain = {
        "query": pl.int_range(data.queries.height, dtype=pl.UInt32, eager=True),
        "documents": [[0]] * data.queries.height,
        "labels": [[1.0]] * data.queries.height,
        "scores": [None] * data.queries.height,
    }
    return replace(data, lists=pl.DataFrame(plain, schema=LISTS)).fingerprint


def _check_same(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for what in ("teacher", "data"):
        key = f"{what}_fingerprint"
        if found[key] != wanted[key]:
            label = {"teacher": "teacher", "data": "data set"}[what]
            raise IncompatibleError(
                f"{folder} has scores for the {label} {found[what]!r} (fingerprint {found[key][:12]}), not for "
                f"{wanted[what]!r} (fingerprint {wanted[key][:12]}); choose another folder, or remove this one"
            )
