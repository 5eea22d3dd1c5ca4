"""A SPLADE encoder out of a dense one: ``python -m training.splade_head -o FOLDER``.

A masked-language head is put on the model and trained on pairs of a query and a document that answers it (SPLADE v2:
Formal et al. 2021, max pooling; FLOPS: Paria et al. 2020, here only of texts with many terms, as in Shen et al.
2025). A dense model such as all-MiniLM-L6-v2 has lost its own head, and the pairs at hand are too few to teach a
random one what words mean, so the head starts from a closed form (``initialise_head``) that makes the model a lexical
encoder with some expansion before the first step. Training is sentence-transformers' own; what comes out is a
``SparseEncoder`` folder.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import torch

from eval.beir import DATA_VARIABLE
from eval.report import versions
from indexing.command_line import run
from indexing.durable import checksum
from indexing.progress import Progress, progress_bars
from retrieval.compute import cpu_has_bfloat16, set_threads
from retrieval.encoders.transformer.location import locate
from retrieval.errors import ConfigError
from training.splade_encoder import splade_encoder
from training.splade_figures import DEPTH, effectiveness, splade_figures
from training.splade_initial import initialise_head
from training.splade_pruning import prune
from training.splade_recipe import Recipe
from training.splade_trainer import fit, require_trainer, steps_within
from training.triplets import Triplet, bm25_hits, hold_out, joined, read_training_sets

_TRAINED_WITH = ("sentence-transformers", "transformers", "accelerate", "datasets")


def train(
    output: Path,
    data: Path,
    recipe: Recipe,
    *,
    minutes: float = 45.0,
    steps: int | None = None,
    progress: Progress,
) -> dict[str, Any]:
    """Make, train, measure and save an encoder; ``recipe.json`` beside it says how it came about.

    Args:
        output: the folder of the ``SparseEncoder``; made, or overwritten file by file.
        data: holds the data sets.
        recipe: how.
        minutes: of optimiser steps.
        steps: the number of steps instead, which makes a run repeatable.
        progress: told of every stage.

    Returns:
        The content of ``recipe.json``.

    Raises:
        ConfigError, FormatError: there is no usable training set below the folder, or the model is no BERT.
        MissingExtraError: what sentence-transformers trains with is not installed.
    """
    require_trainer()
    with quietly():
        torch.manual_seed(recipe.seed)
        halves = [
            hold_out(one, recipe.dev_queries, recipe.dev_documents, recipe.seed)
            for one in read_training_sets(data)
        ]
        triplets = {kept.name: kept.triplets(recipe.seed) for kept, _ in halves}
        dev = joined([held for _, held in halves])
        encoder = splade_encoder(locate(recipe.model), recipe.max_length)
        initialise_head(encoder, _sample(triplets, recipe), recipe.threshold, recipe.own_logit)
        figures = {"bm25": effectiveness(dev, bm25_hits(dev, DEPTH))}
        figures["before"] = splade_figures(encoder, dev, progress)
        steps = steps or steps_within(encoder, triplets, recipe, minutes)
        started = time.perf_counter()
        fit(encoder, triplets, recipe, steps, progress)
        seconds = time.perf_counter() - started
        figures["trained"] = splade_figures(encoder, dev, progress)
        amount = prune(encoder, _sample(triplets, recipe)[1::2], recipe.document_terms, progress)
        encoder.save(str(output), create_model_card=False)
        figures["pruned"] = splade_figures(encoder, dev, progress)
    for name, found in figures.items():
        progress.note(f"{name}: " + ", ".join(f"{what} {value:.4g}" for what, value in found.items()))
    facts = {
        "recipe": asdict(recipe),
        "steps": steps,
        "pruned_by": amount,
        "training_seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "bfloat16": cpu_has_bfloat16(),
        "triplets": {name: len(texts) for name, texts in triplets.items()},
        "dev": {"queries": len(dev.queries), "documents": len(dev.documents), **figures},
        "data": _checksums(data),
        "versions": versions() | {name: metadata.version(name) for name in _TRAINED_WITH},
    }
    (output / "recipe.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return facts


def _sample(triplets: Mapping[str, Sequence[Triplet]], recipe: Recipe) -> list[str]:
    """The texts that the head is fitted to: a query, its document, the next query, ..."""
    every = [triplet for texts in triplets.values() for triplet in texts]
    chosen = random.Random(recipe.seed).sample(every, min(recipe.fit_pairs, len(every)))
    return [text for triplet in chosen for text in triplet[:2]]


def _checksums(data: Path) -> dict[str, str]:
    """SHA-256 of every file of the data sets, by its path below the folder."""
    files = (*data.glob("*/*.jsonl*"), *data.glob("*/qrels/*.tsv*"))
    return {str(path.relative_to(data)): checksum(path) for path in sorted(files)}


@contextmanager
def quietly() -> Iterator[None]:
    """Only our own progress on stderr: no bars and no advice of the libraries underneath."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()


@click.command()
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder of the encoder.")
@click.option("--data", type=click.Path(path_type=Path), help="Training sets  [default: $TERCET_DATA/train]")
@click.option("--minutes", default=45.0, show_default=True, help="Time for the steps.")
@click.option("--steps", type=click.IntRange(min=1), help="Number of steps instead of a time.")
@click.option("--seed", default=0, show_default=True, help="Of every choice.")
@click.option("--threads", type=click.IntRange(min=1), help="Cores to use  [default: all]")
def command(
    output: Path, data: Path | None, minutes: float, steps: int | None, seed: int, threads: int | None
) -> None:
    """Put a SPLADE head on the default model and train it."""
    if data is None:
        if not os.environ.get(DATA_VARIABLE):
            raise ConfigError(f"no training data: give --data, or set {DATA_VARIABLE}")
        data = Path(os.environ[DATA_VARIABLE]) / "train"
    set_threads(threads)
    with progress_bars() as progress:
        train(output, data, Recipe(seed=seed), minutes=minutes, steps=steps, progress=progress)


if __name__ == "__main__":
    sys.exit(run(command, name="python -m training.splade_head"))
