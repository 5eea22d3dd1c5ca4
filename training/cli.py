"""``tercet train``: a model from a recipe."""

from __future__ import annotations

import os
from pathlib import Path

import click

from eval.beir import DATA_VARIABLE
from indexing.cli_options import JSON, QUIET, show
from indexing.command_line import HELP, reading_options
from indexing.progress import progress_bars


@click.command("train", context_settings=HELP)
@click.argument("recipe")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="A value instead of the recipe's, such as optim.lr=2e-5 (repeatable).",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the model; new, or of a run that was interrupted.  [default: the recipe's name]",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help=f"Where relative paths of training sets start.  [default: ${DATA_VARIABLE}/train, else .]",
)
@click.option(
    "--resume/--fresh",
    default=True,
    show_default=True,
    help="Go on with an interrupted run, or forget an earlier one.",
)
@click.option(
    "--scores",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that keeps teachers' scores for other runs.  [default: they are not kept]",
)
@click.option("--threads", type=click.IntRange(min=1), help="Cores to use.  [default: all]")
@QUIET
@JSON
def train_command(
    recipe: str,
    overrides: tuple[str, ...],
    output: Path | None,
    data: Path | None,
    resume: bool,
    scores: Path | None,
    threads: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train a model by RECIPE, a TOML file or the name of a recipe that Tercet ships.

    The folder gets the model, in sentence-transformers' format, the resolved recipe, a record of the run and its
    curves. Run the same command again after an interruption. Several GPUs: torchrun --nproc-per-node N -m training
    RECIPE.
    """
    from retrieval.compute import set_threads
    from retrieval.encoders.transformer.location import is_shipped
    from training.recipe.reading import read_recipe
    from training.trainer.processes import is_first

    with reading_options():
        wanted = read_recipe(recipe, overrides)
    set_threads(threads)
    from training.run.running import train

    with progress_bars(quiet=quiet or not is_first()) as progress:
        folder = output or Path(wanted.name)
        facts = train(wanted, folder, data or _data_folder(), progress, fresh=not resume, scores=scores)
        if is_shipped(str(folder)):
            progress.note(
                f"write ./{folder} for this model; {folder} alone is the one that comes with Tercet"
            )
    if not is_first():
        return
    figures = facts["figures"].get("after", {})
    show(
        facts, as_json, ", ".join([str(folder), *(f"{name} {value:.4g}" for name, value in figures.items())])
    )


def _data_folder() -> Path:
    given = os.environ.get(DATA_VARIABLE)
    return Path(given) / "train" if given else Path()
