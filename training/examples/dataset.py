"""Drawn examples as a Hugging Face data set, which is what trainers take."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexing.progress import Progress, Silent
from retrieval.errors import ConfigError, MissingExtraError, TercetError
from training.examples.drawing import Example, draw
from training.examples.training_set import TrainingSet

if TYPE_CHECKING:
    from datasets import Dataset  # type: ignore[import-untyped]


def examples_dataset(
    data: TrainingSet,
    *,
    seed: int,
    epoch: int,
    negatives: int,
    folder: Path,
    progress: Progress | None = None,
) -> Dataset:
    """An example of every query of a set, in their order, in an Arrow file that is mapped.

    Columns: ``query`` and ``document_0`` (which answers it) to ``document_n-1`` are texts; ``labels`` (n) are
    judgements; ``scores`` (n), a teacher's, are there where every list has them; ``keys`` (n) and ``relevant`` (any
    number) are as in ``Example``. A file that is there already for the same set and arguments is used.

    Args:
        data: the set.
        seed: see ``draw``.
        epoch: see ``draw``.
        negatives: of each example, n - 1.
        folder: of the Arrow files; they stay there.
        progress: hears how many examples are drawn.

    Raises:
        ConfigError: there is no query, some lists have scores and others have none, or see ``draw``.
    """
    try:
        from datasets import Dataset
        from datasets.exceptions import DatasetGenerationError  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError("datasets", "train") from error
    scored = are_scored([data])
    if not data.queries.height:
        raise ConfigError(
            "there is no query to train on; [[data]] names no set, or all queries were held out"
        )
    progress = progress or Silent()
    progress.start("drawing examples", data.queries.height, "queries")

    def rows() -> Iterator[dict[str, Any]]:
        for example in draw(data, seed, epoch, negatives):
            progress.advance(1)
            yield _row(example)

    facts = [seed, epoch, negatives, data.fingerprint]
    features = _features(negatives + 1, scored=scored)
    name = hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
    try:
        with _without_bars():
            return Dataset.from_generator(rows, features=features, cache_dir=str(folder), fingerprint=name)
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, TercetError):
            raise error.__cause__ from None
        raise


@contextmanager
def _without_bars() -> Iterator[None]:
    """The library's own bar off: progress is told already."""
    from datasets import utils

    shown = not utils.are_progress_bars_disabled()
    utils.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            utils.enable_progress_bars()


def are_scored(sets: Sequence[TrainingSet]) -> bool:
    """Whether lists have a teacher's scores: all of them, or none.

    Raises:
        ConfigError: some have, others have not.
    """
    missing = {one.name: one.lists["scores"].null_count() for one in sets}
    if any(missing.values()) and sum(missing.values()) < sum(one.lists.height for one in sets):
        shown = ", ".join(f"{n:,} of {name}" for name, n in missing.items() if n)
        raise ConfigError(
            f"some queries have a teacher's scores, others have none ({shown}); score all of them ([[teachers]])"
        )
    return not any(missing.values())


def _row(example: Example) -> dict[str, Any]:
    texts = {f"document_{place}": text for place, text in enumerate(example.documents)}
    scores = {} if example.scores is None else {"scores": example.scores}
    numbers = {"labels": example.labels, "keys": example.keys, "relevant": example.relevant}
    return {"query": example.query, **texts, **numbers, **scores}


def _features(n: int, *, scored: bool) -> Any:
    from datasets import Features, List, Value

    texts = ["query", *(f"document_{place}" for place in range(n))]
    numbers = {"labels": "float32", "keys": "int64"} | ({"scores": "float32"} if scored else {})
    return Features(
        {name: Value("string") for name in texts}
        | {name: List(Value(kind), length=n) for name, kind in numbers.items()}
        | {"relevant": List(Value("int64"))}
    )
