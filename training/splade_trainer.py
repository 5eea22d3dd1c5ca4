"""Training a SPLADE encoder with sentence-transformers' own trainer, for a number of steps or a time."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from indexing.progress import Progress, Silent
from retrieval.compute import cpu_has_bfloat16
from retrieval.errors import MissingExtraError
from training.splade_pooling import fused
from training.splade_recipe import Recipe
from training.triplets import Triplet

_PROBE_STEPS = 8
_COLUMNS = ("query", "document", "negative")


def fit(
    encoder: Any,
    triplets: Mapping[str, Sequence[Triplet]],
    recipe: Recipe,
    steps: int,
    progress: Progress | None = None,
) -> float:
    """Train in place: ranking against the batch, which is of one data set, and FLOPS regularisers.

    Args:
        encoder: a ``SparseEncoder``.
        triplets: data set -> texts; sets are drawn in proportion to their size.
        recipe: rates and weights.
        steps: optimiser steps.
        progress: told of every step.

    Returns:
        Seconds a step took, the first (which sets up) left out.

    Raises:
        MissingExtraError: what sentence-transformers trains with is not installed.
    """
    require_trainer()
    from datasets import Dataset  # type: ignore[import-untyped]
    from sentence_transformers.sparse_encoder import (
        SparseEncoderTrainer,
        SparseEncoderTrainingArguments,
        losses,
    )
    from sentence_transformers.sparse_encoder.callbacks import SpladeRegularizerWeightSchedulerCallback
    from transformers import PrinterCallback

    class Trainer(SparseEncoderTrainer):  # type: ignore[misc]
        def add_model_card_callback(self, _: Any) -> None:
            """None: the card's examples are made under a bar of their own."""

    loss = losses.SpladeLoss(
        encoder,
        losses.SparseMultipleNegativesRankingLoss(encoder),
        document_regularizer_weight=recipe.document_flops,
        query_regularizer_weight=recipe.query_flops,
        document_regularizer_threshold=recipe.document_terms,
        query_regularizer_threshold=recipe.query_terms,
    )
    with tempfile.TemporaryDirectory() as scratch:
        arguments = SparseEncoderTrainingArguments(
            output_dir=scratch,
            max_steps=steps,
            per_device_train_batch_size=recipe.batch,
            learning_rate=recipe.encoder_lr,
            learning_rate_mapping={r"\.cls\.": recipe.head_lr},
            warmup_steps=round(recipe.warmup * steps),
            bf16=cpu_has_bfloat16(),
            use_cpu=True,
            batch_sampler="no_duplicates",
            multi_dataset_batch_sampler="proportional",
            seed=recipe.seed,
            logging_steps=25,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        sets = {
            name: Dataset.from_dict(dict(zip(_COLUMNS, zip(*texts, strict=True), strict=True)))
            for name, texts in triplets.items()
        }
        reporter = _reporter(progress or Silent(), steps)
        trainer = Trainer(
            model=encoder,
            args=arguments,
            train_dataset=sets,
            loss=loss,
            callbacks=[SpladeRegularizerWeightSchedulerCallback(loss), reporter],
        )
        trainer.remove_callback(PrinterCallback)
        with fused(encoder):
            trainer.train()
        trainer.accelerator.unwrap_model(encoder, keep_fp32_wrapper=False)  # no autocast from here on
    encoder.eval()
    ends: list[float] = reporter.ends
    return (ends[-1] - ends[0]) / max(1, len(ends) - 1)


def require_trainer() -> None:
    """Make sure that sentence-transformers' trainer can run.

    Raises:
        MissingExtraError: names the package that is not installed.
    """
    for package in ("accelerate", "datasets"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "train")


def _reporter(progress: Progress, steps: int) -> Any:
    """A callback of the trainer that moves the bar, and says how it goes every few steps."""
    from transformers import TrainerCallback

    class Reporter(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.started = time.perf_counter()
            self.ends: list[float] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.perf_counter())
            progress.advance(1)

        def on_log(
            self, _arguments: Any, state: Any, _control: Any, logs: dict[str, float], **_: Any
        ) -> None:
            if "loss" not in logs:
                return  # the summary at the end
            pace = (time.perf_counter() - self.started) / max(1, state.global_step)
            parts = [f"{name} {logs[name]:.4g}" for name in logs if name.endswith("loss")]
            left = (steps - state.global_step) * pace / 60
            progress.note(
                f"step {state.global_step}/{steps}: {', '.join(parts)}; {pace:.2f} s/step, {left:.1f} min left"
            )

    progress.start("training", steps, "steps")
    return Reporter()


def steps_within(
    encoder: Any, triplets: Mapping[str, Sequence[Triplet]], recipe: Recipe, minutes: float
) -> int:
    """How many steps fit into the time on this machine, by a few steps of a copy."""
    pace = fit(copy.deepcopy(encoder), triplets, recipe, _PROBE_STEPS)
    return max(1, int(minutes * 60 / pace))
