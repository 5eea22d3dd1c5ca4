"""A run that fits a book of codes: data, fit, figures, record."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from indexing.progress import Progress
from retrieval.compute import apply_threads
from training.codes.fitting import CODES
from training.codes.measuring import AFTER, measured
from training.recipe.options import Recipe
from training.run.preparing import read_data
from training.run.quiet import quietly
from training.run.record import start_facts, write_card, write_record
from training.run.run_folder import WORK, begin
from training.trainer.memory import enough_memory
from training.trainer.processes import is_first


def fit_book(
    recipe: Recipe, output: Path, root: Path, progress: Progress, *, fresh: bool = False
) -> dict[str, Any]:
    """Fit the book that a recipe describes, with the first process alone.

    Args:
        recipe: how.
        output: the folder of the book; it gets the same records beside it as a trained model.
        root: where relative paths of training sets start.
        progress: hears of every stage.
        fresh: forget an earlier run.

    Returns:
        The content of run.json; nothing in other processes.

    Raises:
        ConfigError, FormatError, CorruptError, IncompatibleError: as ``training.run.running.train``.
    """
    if not is_first():
        return {}
    apply_threads()
    with quietly(), enough_memory():
        begin(recipe, output, fresh=fresh)
        started = time.perf_counter()
        sets = read_data(recipe, root, output / WORK, progress)
        held = sets.pop() if recipe.dev.queries else None
        book, curve = CODES.fit(recipe.model, sets, recipe.seed, progress)
        book.save(output)
        figures = measured(output, held, recipe.dev.metric, recipe.model.max_length, progress) if held else {}
        if figures:
            told = ", ".join(f"{name} {value:.4g}" for name, value in figures[AFTER].items())
            progress.note(f"held-out queries: {told}")
        facts = start_facts(recipe, sets) | {
            "figures": figures,
            "steps": int(curve[-1]["step"]) if curve else 0,
            "seconds": round(time.perf_counter() - started, 1),
        }
        write_card(output, recipe, figures)
        write_record(output, facts, curve, progress)
        shutil.rmtree(output / WORK)
    return facts
