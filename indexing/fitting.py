"""What an index learns from the first vectors it sees and then keeps for the whole collection.

A kind with a class method ``fit(vectors, parameters)`` has parameters that it finds for itself, such as the scale of
8-bit impacts. One with ``train(vectors, parameters, folder, *, memory_bytes, progress)`` writes what is too large for
the commit, such as centroids, into a folder of ``indexing.shared_state``; its parameter ``state`` then names the
generation, and its ``build`` and ``load`` are given the folder as ``shared``. Both happen once, when the first segment
is built, and stand in the commit from then on, so that scores are comparable between segments and merging segments
changes none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from indexing.commit import Commit, IndexSpec
from indexing.kinds import kind_class
from indexing.progress import Progress
from indexing.shared_state import open_state, put_state
from indexing.vectors import Vectors


def fitted(
    collection: Path,
    name: str,
    specs: Sequence[IndexSpec],
    vectors: Vectors,
    *,
    memory_bytes: int,
    progress: Progress,
) -> tuple[IndexSpec, ...]:
    """The specs of a representation with all that their kinds learn from vectors; what is known already stays."""
    learned = []
    for spec in specs:
        kind = kind_class(spec.kind)
        if hasattr(kind, "fit"):
            spec = replace(spec, parameters=kind.fit(vectors, spec.parameters))
        if hasattr(kind, "train") and spec.state is None:
            spec = _trained(collection, name, spec, vectors, memory_bytes, progress)
        learned.append(spec)
    return tuple(learned)


def _trained(
    collection: Path, name: str, spec: IndexSpec, vectors: Vectors, memory_bytes: int, progress: Progress
) -> IndexSpec:
    progress.start(f"train {name} ({spec.kind})", None, "steps")

    def train(folder: Path) -> None:
        kind_class(spec.kind).train(
            vectors, spec.parameters, folder, memory_bytes=memory_bytes, progress=progress.advance
        )

    return IndexSpec(
        spec.kind, {**spec.parameters, "state": put_state(collection, f"{name}-{spec.kind}", train)}
    )


def shared_folder(collection: Path, name: str, spec: IndexSpec) -> dict[str, Path]:
    """What the ``build`` and ``load`` of an index are given besides: where its kind is trained, ``shared``.

    Raises:
        CorruptError: what it was trained to is damaged.
    """
    if spec.state is None:
        return {}
    return {"shared": open_state(collection, f"{name}-{spec.kind}", spec.state)}


def with_indexes(commit: Commit, name: str, specs: Sequence[IndexSpec]) -> Commit:
    """The commit with other index specs of a representation; its generation stays."""
    changed = replace(commit.representations[name], indexes=tuple(specs))
    return replace(commit, representations={**commit.representations, name: changed})


def same_index(have: IndexSpec | None, wanted: IndexSpec) -> bool:
    """Whether an index is the wanted one; what is to be learned may have been learned already."""
    if have is None or have.kind != wanted.kind:
        return False
    learned = {name: have.parameters.get(name) for name, value in wanted.parameters.items() if value is None}
    if have.state is not None:
        learned["state"] = have.state
    return dict(have.parameters) == {**wanted.parameters, **learned}
