"""What an index learns from the first vectors it sees and then keeps for the whole collection.

A kind with a class method ``fit(vectors, parameters)`` has parameters that it finds for itself, such as the scale of
8-bit impacts. They are found once, when its first segment is built, and stand in the commit from then on, so that
scores are comparable between segments and merging segments changes none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from indexing.commit import Commit, IndexSpec
from indexing.kinds import kind_class
from indexing.vectors import Vectors


def fitted(specs: Sequence[IndexSpec], vectors: Vectors) -> tuple[IndexSpec, ...]:
    """The specs with every parameter that their kinds learn from vectors; those already known stay."""
    return tuple(
        IndexSpec(spec.kind, kind.fit(vectors, spec.parameters)) if hasattr(kind, "fit") else spec
        for spec, kind in ((spec, kind_class(spec.kind)) for spec in specs)
    )


def with_indexes(commit: Commit, name: str, specs: Sequence[IndexSpec]) -> Commit:
    """The commit with other index specs of a representation; its generation stays."""
    changed = replace(commit.representations[name], indexes=tuple(specs))
    return replace(commit, representations={**commit.representations, name: changed})


def same_index(have: IndexSpec | None, wanted: IndexSpec) -> bool:
    """Whether an index is the wanted one; what is to be learned may have been learned already."""
    if have is None or have.kind != wanted.kind:
        return False
    learned = {name: have.parameters.get(name) for name, value in wanted.parameters.items() if value is None}
    return dict(have.parameters) == {**wanted.parameters, **learned}
