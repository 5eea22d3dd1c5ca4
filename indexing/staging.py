"""building/JOB: the staged chunk batches of an unfinished write, each complete or absent.

A job's name is a hash of what it does, so that the same command resumes the same job. Every batch is a folder
sealed by its manifest, written after its documents and vectors; a batch without one is thrown away. The manifest
also says where in the corpus the next batch begins. What an encoder has to learn before it encodes the first batch is
sealed beside the batches. A job that is done with is renamed before it is removed, so that
a kill half way leaves nothing that looks resumable.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexing.documents import Documents
from indexing.durable import MANIFEST, open_manifest, read_sealed, sync_folder, write_manifest, write_sealed
from indexing.growing import map_strings, save_strings
from indexing.vectors import Vectors
from retrieval.errors import CorruptError, FormatError
from retrieval.values import Strings
from retrieval.values.storage import map_array

_JOURNAL = "journal.json"
_GONE = ".gone"


@dataclass(frozen=True)
class StagedBatch:
    """One sealed batch and what its manifest says."""

    folder: Path
    facts: Mapping[str, Any]

    def documents(self) -> Documents:
        """The staged documents, mapped."""
        chunked = self.facts["chunked"]
        ids = map_strings(self.folder, "ids")
        return Documents(
            ids,
            map_strings(self.folder, "titles"),
            map_strings(self.folder, "texts"),
            map_array(self.folder / "first_rows.npy") if chunked else np.arange(len(ids) + 1, dtype=np.int64),
            map_array(self.folder / "spans.npy") if chunked else None,
        )

    def metadata(self) -> Strings:
        """The staged metadata, packed."""
        return map_strings(self.folder, "metadata")

    def vectors_folder(self, name: str) -> Path:
        """Where the batch's vectors of a representation are."""
        return self.folder / f"vectors-{name}"


class Staging:
    """The batches of one job."""

    def __init__(self, collection: Path, plan: Mapping[str, Any], *, restart: bool = False) -> None:
        """Open the job that carries out a plan, resuming what is there.

        Args:
            plan: JSON that says everything the staged bytes depend on.
            restart: remove every unfinished job first.

        Raises:
            CorruptError: the job's journal is damaged.
        """
        if restart:
            for job in jobs(collection):
                self.remove(job)
        text = json.dumps(plan, sort_keys=True)
        self.folder = collection / "building" / hashlib.sha256(text.encode()).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        sync_folder(self.folder.parent)
        sync_folder(collection)
        journal = self.folder / _JOURNAL
        if not journal.exists():
            write_sealed(journal, {"plan": dict(plan)})
        elif plan_of(self.folder) != json.loads(text):
            raise CorruptError(
                journal, "this journal of an interrupted run is damaged; forget that run with --restart"
            )
        self.batches = self._load()

    def _load(self) -> list[StagedBatch]:
        batches: list[StagedBatch] = []
        for folder in sorted(self.folder.glob("batch-*")):
            whole = (folder / MANIFEST).exists()
            if whole and folder.name == _batch_name(len(batches)):
                with contextlib.suppress(CorruptError):
                    batches.append(StagedBatch(folder, open_manifest(folder)))
                    continue
            shutil.rmtree(folder)  # killed while it was written, or follows one that was
        return batches

    def add(
        self,
        documents: Documents,
        metadata: Strings,
        vectors: Mapping[str, Vectors],
        facts: Mapping[str, Any],
        extra: Mapping[str, Strings] | None = None,
    ) -> StagedBatch:
        """Write and seal the next batch; ``extra`` are strings by document that only the job needs."""
        folder = self.folder / _batch_name(len(self.batches))
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        save_strings(folder, "ids", documents.ids)
        save_strings(folder, "titles", documents.titles)
        save_strings(folder, "texts", documents.texts)
        save_strings(folder, "metadata", metadata)
        for name, strings in (extra or {}).items():
            save_strings(folder, name, strings)
        if documents.spans is not None:
            np.save(folder / "first_rows.npy", documents.first_rows, allow_pickle=False)
            np.save(folder / "spans.npy", documents.spans, allow_pickle=False)
        for name, value in vectors.items():
            part = folder / f"vectors-{name}"
            part.mkdir()
            value.save(part)
            write_manifest(part, {"component": "vectors", "n_rows": len(value)})
        described = {
            **facts,
            "component": "batch",
            "chunked": documents.spans is not None,
            "n_documents": len(documents),
            "n_rows": documents.n_rows,
        }
        write_manifest(folder, described)
        batch = StagedBatch(folder, read_sealed(folder / MANIFEST))
        self.batches.append(batch)
        return batch

    @contextlib.contextmanager
    def filling(self, *, resumable: bool) -> Iterator[None]:
        """Drop the job where bad data ends the block and there is no batch that the same command could resume after."""
        try:
            yield
        except FormatError:
            if not (resumable and self.batches):
                self.drop()
            raise

    def learn(self, name: str, write: Callable[[Path], None]) -> Path:
        """The folder of what a representation's encoder has learned for this job, sealed.

        Args:
            write: learns it and puts it as files into the folder it is given; called where no earlier run has.

        Raises:
            CorruptError: what an earlier run has learned is damaged.
        """
        folder = self._learned_folder(name)
        if self.learned(name) is None:
            if folder.exists():  # killed while it was written
                shutil.rmtree(folder)
            folder.mkdir()
            write(folder)
            write_manifest(folder, {"component": "state"})
        try:
            open_manifest(folder)
        except CorruptError as error:
            raise CorruptError(
                error.path, "changed since an interrupted run wrote it; forget that run with --restart"
            ) from error
        return folder

    def learned(self, name: str) -> Path | None:
        """Where what the encoder has learned is; None where it has learned nothing."""
        folder = self._learned_folder(name)
        return folder if (folder / MANIFEST).exists() else None

    def _learned_folder(self, name: str) -> Path:
        return self.folder / f"learned-{name}"

    def drop(self) -> None:
        """Remove the job."""
        self.remove(self.folder)

    @staticmethod
    def remove(job: Path) -> None:
        """Remove a job's folder at once: it is renamed first."""
        gone = job.with_suffix(_GONE)
        if job != gone:
            shutil.rmtree(gone, ignore_errors=True)  # an earlier removal of such a job that was killed
            job.replace(gone)
        shutil.rmtree(gone, ignore_errors=True)
        with contextlib.suppress(OSError):
            job.parent.rmdir()


def _batch_name(number: int) -> str:
    return f"batch-{number:06d}"


def jobs(collection: Path) -> list[Path]:
    """The folders under building/, those of unfinished jobs and the remains of removed ones."""
    return sorted(path for path in (collection / "building").glob("*") if path.is_dir())


def plan_of(job: Path) -> dict[str, Any] | None:
    """The plan of a job that can be resumed; None where the folder is not, or no longer, one."""
    if job.suffix == _GONE:
        return None
    try:
        plan: dict[str, Any] = read_sealed(job / _JOURNAL)["plan"]
    except (FileNotFoundError, CorruptError):
        return None
    return plan


def unfinished_jobs(collection: Path) -> int:
    """How many writes can be resumed."""
    return sum(plan_of(job) is not None for job in jobs(collection))
