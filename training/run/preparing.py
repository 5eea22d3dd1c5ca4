"""From a recipe's data to sets that can be trained on: read, held out, mined and scored, each once."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl

from indexing.durable import MANIFEST, open_manifest, write_manifest
from indexing.progress import Progress
from retrieval.errors import ConfigError
from training.examples.hold_out import hold_out, sampled
from training.examples.mapped import map_frame
from training.examples.reading import joined, limited, read_training_sets
from training.examples.training_set import TrainingSet, open_training_set
from training.families.family import SAMPLE, Sample
from training.mining.document_index import TextEncoder
from training.mining.negatives import mine, without_likely_answers
from training.mining.searchers import open_search
from training.recipe.options import DataOptions, Recipe, TeacherOptions
from training.teachers.asked import asks_of_lists
from training.teachers.scoring import add_scores
from training.teachers.store import texts_fingerprint
from training.trainer.processes import is_first, wait_for


def read_data(recipe: Recipe, root: Path, work: Path, progress: Progress) -> list[TrainingSet]:
    """The training sets of a recipe, without what is held out, then the one to measure on where there is one.

    Args:
        recipe: ``data``, ``dev`` and ``seed`` matter.
        root: where relative paths start.
        work: keeps them for the next call.
        progress: hears of what is read.

    Raises:
        ConfigError, FormatError: a source is missing, damaged or empty.
    """
    folder = work / "data"
    if not is_first():
        wait_for(folder / MANIFEST)
    elif not (folder / MANIFEST).exists():
        shutil.rmtree(folder, ignore_errors=True)
        sets = _read(recipe, root, progress)
        for number, one in enumerate(sets):
            one.save(folder / str(number))
        write_manifest(folder, {"kind": "training-sets", "sets": len(sets)})
    return [open_training_set(folder / str(number)) for number in range(open_manifest(folder)["sets"])]


def _read(recipe: Recipe, root: Path, progress: Progress) -> list[TrainingSet]:
    if not recipe.data:
        raise ConfigError("the recipe names no training set; add [[data]] with a source")
    sets = [_source(options, root, recipe.seed, progress) for options in recipe.data]
    dev = recipe.dev
    if not dev.queries:
        return sets
    if dev.source:
        (measured,) = read_training_sets((DataOptions(dev.source, dev.split),), root, recipe.seed, progress)
        return [*sets, sampled(measured, dev.queries, dev.documents, recipe.seed)]
    halves = [hold_out(one, dev.queries, dev.documents, recipe.seed) for one in sets]
    empty = [kept.name for kept, _ in halves if not kept.queries.height]
    if empty:
        raise ConfigError(
            f"no query of {empty[0]!r} is left to train on after holding out; lower dev.queries, or name dev.source"
        )
    dev_set = joined([held for _, held in halves])
    if not dev_set.queries.height:
        raise ConfigError(
            f"no query of {dev_set.name!r} can be held out, since at least half of them are trained on; set "
            "dev.queries = 0, or name dev.source"
        )
    return [*(kept for kept, _ in halves), dev_set]


def _source(options: DataOptions, root: Path, seed: int, progress: Progress) -> TrainingSet:
    (data,) = read_training_sets((replace(options, limit=None),), root, seed, progress)
    if options.generated is not None:
        from training.generation.generated_set import generated_set

        data = generated_set(data, options.generated, options.per_document, seed, progress)
    return data if options.limit is None else limited(data, options.limit, seed)


def prepare_round(
    sets: Sequence[TrainingSet],
    recipe: Recipe,
    number: int,
    work: Path,
    scores: Path,
    model: Callable[[], TextEncoder],
    progress: Progress,
    ranker: Callable[[Sequence[TrainingSet], int], TeacherOptions] | None = None,
) -> list[TrainingSet]:
    """The sets with negatives and teachers' scores, as the recipe wants them.

    Args:
        sets: as they were read.
        recipe: ``negatives`` and ``teachers`` matter.
        number: of the round, from 0; every round draws other random documents.
        work: keeps lists for the next call.
        scores: keeps teachers' scores, for other runs on the same texts too.
        model: opens what the searcher ``model`` searches with.
        progress: hears of mining and scoring.
        ranker: makes a teacher of the sets with negatives and the number of the round; all processes call it.

    Raises:
        ConfigError, FormatError, IncompatibleError: see ``mine`` and ``add_scores``.
    """
    finished, teachers, opened = work / f"round-{number}", recipe.teachers, cache(model)
    if not (finished / MANIFEST).exists():
        sets = _kept(
            work / f"mined-{number}", sets, lambda one: _with_negatives(one, recipe, number, opened, progress)
        )
        if ranker is not None:
            teachers = (ranker(sets, number), *teachers)
    return _kept(finished, sets, lambda one: _with_scores(one, recipe, teachers, number, scores, progress))


def _kept(
    folder: Path, sets: Sequence[TrainingSet], make: Callable[[TrainingSet], TrainingSet]
) -> list[TrainingSet]:
    """The sets with other lists, which the first process makes and a folder keeps."""
    if not is_first():
        wait_for(folder / MANIFEST)
    elif not (folder / MANIFEST).exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for place, one in enumerate(sets):
            make(one).lists.write_ipc(folder / f"{place}.arrow")
        write_manifest(folder, {"kind": "lists", "sets": len(sets)})
    open_manifest(folder)
    return [replace(one, lists=map_frame(folder / f"{place}.arrow")) for place, one in enumerate(sets)]


def _with_negatives(
    data: TrainingSet, recipe: Recipe, number: int, model: Callable[[], TextEncoder], progress: Progress
) -> TrainingSet:
    options = recipe.negatives
    if options.searcher == "none":
        return data
    encoder = model() if options.searcher == "model" else None
    with tempfile.TemporaryDirectory(prefix="tercet-") as temporary:
        search = open_search(
            options.searcher, data, encoder=encoder, folder=Path(temporary), progress=progress
        )
        return mine(data, search, options, recipe.seed + number, progress)


def _with_scores(
    data: TrainingSet,
    recipe: Recipe,
    teachers: Sequence[TeacherOptions],
    number: int,
    scores: Path,
    progress: Progress,
) -> TrainingSet:
    taught = teachers and asks_of_lists(recipe)
    store = scores / f"{data.name}-{texts_fingerprint(data)[:16]}"
    if taught:
        data = add_scores(data, teachers, store, progress)
    data = without_likely_answers(data, recipe.negatives, recipe.seed + number, progress)
    if taught and data.lists["scores"].null_count():
        data = add_scores(data, teachers, store, progress)  # of what replaced likely answers
    return data


def sample_texts(sets: Sequence[TrainingSet], seed: int) -> Sample:
    """Queries of all sets, in proportion to their size, each with the first document that answers it."""
    ends = np.cumsum([one.queries.height for one in sets])
    total = int(ends[-1])
    chosen = np.random.default_rng(seed).choice(total, min(SAMPLE, total), replace=False)
    queries: list[str] = []
    documents: list[str] = []
    for one, end in zip(sets, ends.tolist(), strict=True):
        own = chosen[(chosen >= end - one.queries.height) & (chosen < end)] - (end - one.queries.height)
        rows = pl.Series(own.astype(np.uint32))
        queries += one.queries["text"].gather(rows).to_list()
        answers = one.lists["documents"].gather(rows).list.first()
        documents += one.documents["text"].gather(answers).to_list()
    order = np.random.default_rng(seed).permutation(len(queries)).tolist()
    return Sample(tuple(queries[place] for place in order), tuple(documents[place] for place in order))
