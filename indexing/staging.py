"""building/JOB: the staged chunk batches of an unfinished write, each complete or absent.

A job's name is a hash of what it does, so that the same command resumes the same job. Every batch is a folder
sealed by its manifest, written after its documents and vectors; a batch without one is thrown away. The manifest
also says where in the corpus the next batch begins.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexing.documents import Documents
from indexing.durable import MANIFEST, open_manifest, read_sealed, sync_folder, write_manifest, write_sealed
from indexing.growing import map_strings, save_strings
from indexing.vectors import Vectors
from retrieval.errors import CorruptError, IncompatibleError
from retrieval.values import Strings
from retrieval.values.storage import map_array


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

    def __init__(self, collection: Path, plan: Mapping[str, Any]) -> None:
        """Open the job that carries out a plan, resuming what is there.

        Args:
            plan: JSON that says everything the staged bytes depend on.
        """
        text = json.dumps(plan, sort_keys=True)
        self.folder = collection / "building" / hashlib.sha256(text.encode()).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        sync_folder(self.folder.parent)
        sync_folder(collection)
        journal = self.folder / "journal.json"
        if not journal.exists():
            write_sealed(journal, {"plan": dict(plan)})
        elif read_sealed(journal)["plan"] != json.loads(text):
            raise IncompatibleError(
                f"{self.folder}: belongs to another build; remove it or repeat that build"
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

    def drop(self) -> None:
        """Remove the job."""
        self.remove(self.folder)

    @staticmethod
    def remove(job: Path) -> None:
        """Remove a job's folder, journal first, so that a kill half way leaves nothing that looks resumable."""
        (job / "journal.json").unlink(missing_ok=True)
        shutil.rmtree(job, ignore_errors=True)
        with contextlib.suppress(OSError):
            job.parent.rmdir()


def _batch_name(number: int) -> str:
    return f"batch-{number:06d}"


def unfinished_jobs(collection: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The jobs under building/ with their plans."""
    for journal in sorted((collection / "building").glob("*/journal.json")):
        with contextlib.suppress(CorruptError):
            yield journal.parent, read_sealed(journal)["plan"]
