"""The recipe's optimisation in the words of transformers."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from retrieval.compute import choose_device, cpu_has_bfloat16
from retrieval.errors import MissingExtraError
from training.recipe.options import Recipe

_LOGS = 40  # of a run, at least
_RARELY = 25  # steps between two, at most
_CHECKPOINTS = 2  # that are kept


def require_trainer() -> None:
    """Make sure that sentence-transformers' trainer can run.

    Raises:
        MissingExtraError: names the package that is not installed.
    """
    for package in ("accelerate", "datasets"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "train")


def uses_half(precision: str, device: str) -> bool:
    """Whether the model computes in bfloat16."""
    if precision != "auto":
        return precision == "bfloat16"
    if device == "cpu":
        return cpu_has_bfloat16()
    import torch

    return device.startswith("cuda") and torch.cuda.is_bf16_supported()


def log_every(steps: int, *stops: int) -> int:
    """Steps between two logs: few enough to see a curve, and a part of every interval at which a run may stop.

    A log is a mean over the steps since the one before, which a run that goes on from a checkpoint has not seen.
    """
    wanted = max(1, min(_RARELY, steps // _LOGS))
    whole = math.gcd(*stops)
    return next(every for every in range(wanted, 0, -1) if whole % every == 0)


def arguments(recipe: Recipe, steps: int, folder: Path) -> Any:
    """sentence-transformers' training arguments.

    Args:
        recipe: how it is trained.
        steps: optimiser steps.
        folder: of checkpoints.
    """
    from sentence_transformers.base.training_args import BaseTrainingArguments

    optim, device = recipe.optim, choose_device("auto")
    every = recipe.dev.every if recipe.dev.queries else 0
    return BaseTrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=optim.batch,
        learning_rate=optim.lr,
        weight_decay=optim.weight_decay,
        max_grad_norm=optim.clip,
        warmup_steps=round(optim.warmup * steps),
        lr_scheduler_type="linear",
        bf16=uses_half(optim.precision, device),
        use_cpu=device == "cpu",
        gradient_checkpointing=optim.checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if optim.checkpointing else None,
        seed=recipe.seed,
        logging_steps=log_every(steps, optim.save_every, recipe.negatives.every),
        logging_nan_inf_filter=False,
        eval_strategy="steps" if every else "no",
        eval_steps=every or None,
        save_strategy="steps" if optim.save_every else "no",
        save_steps=optim.save_every or steps,
        save_total_limit=_CHECKPOINTS,
        remove_unused_columns=False,
        dataloader_pin_memory=device != "cpu",
        report_to="none",
        disable_tqdm=True,
    )
