"""What is kept beside a trained model: how it came about, its curves and a card."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from eval.report import versions
from indexing.progress import Progress
from retrieval.compute import choose_device, threads
from training.examples.training_set import TrainingSet
from training.families.table import FITTED
from training.recipe.options import Recipe
from training.recipe.writing import recipe_toml
from training.run.run_folder import RECIPE
from training.trainer.processes import n_processes

_TRAINED_WITH = ("sentence-transformers", "transformers", "accelerate", "datasets", "peft")
_USE = {
    "codes": "tercet index CORPUS -o COLLECTION --with sparse --sparse-model {folder}",
    "dense": "tercet index CORPUS -o COLLECTION --with dense -m {folder}",
    "reranker": 'tercet search COLLECTION "query" --rerank {folder}',
}

_REPEATED = "`recipe.toml` says how it was trained, `run.json` what came of it; `tercet train recipe.toml` repeats it."
_BESIDE = "It was trained in turns with the model of the folder above, whose `recipe.toml` says how."


def all_versions() -> dict[str, str]:
    """What was installed that can change a number."""
    found = dict(versions())
    for package in _TRAINED_WITH:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit of the source tree that this runs from; None outside one."""
    try:
        told = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return told.stdout.strip()


def start_facts(recipe: Recipe, sets: Sequence[TrainingSet]) -> dict[str, Any]:
    """What is known of a run before its first step."""
    return {
        "name": recipe.name,
        "family": recipe.family,
        "seed": recipe.seed,
        "commit": commit(),
        "data": [
            {
                "name": one.name,
                "fingerprint": one.fingerprint,
                "queries": one.queries.height,
                "documents": one.documents.height,
            }
            for one in sets
        ],
        "device": choose_device("auto"),
        "processes": n_processes(),
        "threads": threads(),
        "versions": all_versions(),
    }


def write_start(folder: Path, recipe: Recipe, sets: Sequence[TrainingSet]) -> None:
    """Write recipe.toml and run.json beside the checkpoints of a run that is not done yet."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(recipe_toml(recipe), encoding="utf-8")
    _write(folder / "run.json", start_facts(recipe, sets))


def write_record(
    folder: Path, facts: Mapping[str, Any], history: Sequence[Mapping[str, float]], progress: Progress
) -> None:
    """Write run.json, curve.json and, where matplotlib is installed, curves.png."""
    _write(folder / "run.json", facts)
    _write(folder / "curve.json", list(history))
    try:
        _plot(history, folder / "curves.png")
    except ImportError:
        progress.note("no curves.png: matplotlib is not installed (pip install 'tercet[plot]')")


def write_card(folder: Path, recipe: Recipe, figures: Mapping[str, Mapping[str, float]]) -> None:
    """Write README.md: what the model is, how it is used, how good it was on held-out queries."""
    kind = {"codes": "sparse", "late": "late-interaction"}.get(recipe.family, recipe.family)
    data = ", ".join(f"`{one.source}`" for one in recipe.data)
    learnt = "trained" if recipe.losses else "fitted"
    losses = " with " + ", ".join(one.name for one in recipe.losses) if recipe.losses else ""
    own = "tercet index CORPUS -o COLLECTION --with {family} --{family}-model {folder}"
    use = _USE.get(recipe.family, own)
    names = list(dict.fromkeys(name for found in figures.values() for name in found))
    rows = [
        f"| {when} | " + " | ".join(f"{found[name]:.4g}" if name in found else "" for name in names) + " |"
        for when, found in figures.items()
    ]
    table = (
        [f"| held-out queries | {' | '.join(names)} |", "|" + "---|" * (len(names) + 1), *rows, ""]
        if names
        else []
    )
    lines = [
        "---",
        *([] if recipe.family in FITTED else ["library_name: sentence-transformers"]),
        f"tags: [{kind}, tercet]",
        "---",
        f"# {recipe.name}",
        "",
        f"A {kind} model, {learnt} from `{recipe.model.base}` on {data}{losses}.",
        "",
        "```",
        use.format(family=recipe.family, folder="FOLDER"),
        "```",
        "",
        *table,
        _REPEATED if (folder / RECIPE).exists() else _BESIDE,
    ]
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _plot(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """One line a term of the loss, and below them the measurements."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    left_out = {"step", "epoch", "grad_norm", "learning_rate"}
    losses = [entry for entry in history if "loss" in entry]
    measured = [entry for entry in history if any(name.startswith("eval_") for name in entry)]
    figure, axes = pyplot.subplots(2, 1, figsize=(8, 8), sharex=True)
    for axis, entries in zip(axes, (losses, measured), strict=True):
        for name in dict.fromkeys(name for entry in entries for name in entry):
            if name in left_out or name.endswith(("runtime", "per_second")):
                continue
            points = [(entry["step"], entry[name]) for entry in entries if name in entry]
            axis.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else None, label=name)
        if axis.lines:
            axis.legend()
    axes[0].set_ylabel("loss")
    axes[1].set_ylabel("held-out queries")
    axes[1].set_xlabel("step")
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
