"""Teachers' scores of every document of every list: computed once, kept in a store, and made one for each document."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from indexing.progress import Progress
from retrieval.errors import ConfigError, FormatError
from training.examples.training_set import TrainingSet
from training.recipe.options import TeacherOptions
from training.teachers.ensemble import blend
from training.teachers.pairs import key_rows, listed_pairs, pair_keys, parts
from training.teachers.store import ScoreStore
from training.teachers.teacher import Teacher, open_teacher


def add_scores(
    data: TrainingSet, teachers: Sequence[TeacherOptions], store: Path, progress: Progress
) -> TrainingSet:
    """The set with what teachers say about the documents of its lists.

    One teacher's scores are kept as they are, since MarginMSE is about their differences; those of several are
    blended (``training.teachers.ensemble``). A pair that the store has is not scored again, whatever list it is in: a
    killed run goes on after its last part, and lists that are mined anew cost what is new in them.

    Args:
        data: the set; scores that it has are replaced.
        teachers: at least one.
        store: the folder that keeps the scores of this set, one folder a teacher below it.
        progress: hears of pairs.

    Raises:
        ConfigError: no teacher, an unknown one or one without its checkpoint, or weights that are not above 0.
        IncompatibleError: the store has the scores of another set or of a checkpoint that has changed, or a file of
            scores is for another set.
        CorruptError: a part of the store is damaged.
        FormatError: a pair has no score in a file, or a teacher gives a number that is not finite.
    """
    if not teachers:
        raise ConfigError("there is no teacher; name at least one in [[teachers]]")
    for options in teachers:
        if not 0 < options.weight < np.inf:
            raise ConfigError(
                f"the weight of the teacher {options.name!r} is {options.weight:g}; it is above 0"
            )
    pairs = listed_pairs(data)
    columns = [_scores(data, options, pairs, store, progress) for options in teachers]
    lengths = data.lists["documents"].list.len().cast(pl.Int64).to_numpy()
    scores = columns[0]
    if len(columns) > 1:
        scores = blend(np.stack(columns), lengths, [options.weight for options in teachers])
    ragged = pl.DataFrame({"query": np.repeat(np.arange(len(lengths)), lengths), "scores": scores})
    listed = ragged.group_by("query", maintain_order=True).agg("scores")["scores"]
    return replace(data, lists=data.lists.with_columns(listed))


def _scores(
    data: TrainingSet,
    options: TeacherOptions,
    pairs: NDArray[np.uint64],
    store: Path,
    progress: Progress,
) -> NDArray[np.float32]:
    """(P,) one teacher's scores of the pairs; those that the store lacks are computed first."""
    teacher, name = open_teacher(options), f"{options.name} {options.model}"
    kept = ScoreStore.open(store / re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-"), name, teacher, data)
    keys, scores = kept.read()
    missing = np.setdiff1d(pairs, keys)
    if len(missing):
        _extend(kept, teacher, name, data, missing, progress)
        keys, scores = kept.read()
    return scores[np.searchsorted(keys, pairs)]


def _extend(
    kept: ScoreStore,
    teacher: Teacher,
    name: str,
    data: TrainingSet,
    missing: NDArray[np.uint64],
    progress: Progress,
) -> None:
    """Score pairs part by part."""
    work = kept.folder / "work"
    try:
        score = teacher.scorer(data, np.unique(key_rows(missing)[0]), work, progress)
        progress.start(f"score with {name}", len(missing), "pairs")
        for queries, documents in parts(missing, teacher.by, teacher.together):
            scores = score(queries, documents)
            _check_finite(name, data, queries, documents, scores)
            kept.append(pair_keys(queries, documents), scores)
            progress.advance(len(scores))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _check_finite(
    name: str,
    data: TrainingSet,
    queries: NDArray[np.int64],
    documents: NDArray[np.int64],
    scores: NDArray[np.float32],
) -> None:
    """Refuse NaN, infinities, and the largest numbers of float32, which rerankers give instead of them."""
    wrong = np.flatnonzero(~(np.abs(scores) < np.finfo(np.float32).max))
    if len(wrong):
        place = wrong[0]
        raise FormatError(
            f"the teacher {name!r} scores the query {data.queries['id'][int(queries[place])]!r} with the document "
            f"{data.documents['id'][int(documents[place])]!r} {scores[place]}; nothing of this part was kept"
        )
