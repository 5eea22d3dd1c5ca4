"""sentence-transformers' trainer with our objective: one for every family."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.base.trainer import BaseTrainer
from torch import Tensor
from transformers import PrinterCallback, Trainer

from retrieval.errors import ConfigError
from training.trainer.batches import Reader, ScheduledExamples
from training.trainer.objective import Objective
from training.trainer.processes import average_gradients
from training.trainer.weights import load_trained, save_trained


class ObjectiveTrainer(BaseTrainer):  # type: ignore[misc]
    """Runs an objective over scheduled examples.

    Batches come in the order of the schedule, checkpoints hold the weights that are trained (of the objective's own
    modules too), and what is new in a model learns at a rate of its own.
    """

    def __init__(
        self,
        objective: Objective,
        arguments: Any,
        examples: ScheduledExamples,
        *,
        head_lr: float,
        callbacks: Sequence[Any] = (),
        evaluator: Any = None,
    ) -> None:
        """Put it together.

        Args:
            objective: its model is the one that is trained.
            arguments: ``BaseTrainingArguments``.
            examples: as many as the arguments have steps.
            head_lr: peak rate of what is new.
            callbacks: of transformers.
            evaluator: of sentence-transformers, or None.
        """
        self.head_lr = head_lr
        self.objective = objective
        super().__init__(
            model=objective.model,
            args=arguments,
            train_dataset=examples,
            loss=objective,
            evaluator=evaluator,
            data_collator=Reader(objective.family, objective.model),
            callbacks=list(callbacks),
        )
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> Any:
        """Batches in the order of the schedule, those of one step side by side on the devices."""
        loader = torch.utils.data.DataLoader(
            self.train_dataset,
            batch_size=self.args.per_device_train_batch_size,
            shuffle=False,
            collate_fn=self.data_collator,
            drop_last=True,
        )
        return self.accelerator.prepare(loader)

    def compute_loss(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor:
        """The objective of a batch; every term is logged by its name.

        Raises:
            ConfigError: the loss is not finite; the batch is kept in a file.
        """
        self.objective.progress = self.state.global_step / self.state.max_steps
        loss, parts = self.objective(inputs)
        if not math.isfinite(loss):
            raise self._not_finite(inputs, parts)
        self.track_loss_components(parts)
        return loss

    def create_accelerator_and_postprocess(self) -> None:
        """Accelerate's preparations without DistributedDataParallel.

        It expects every parameter to have a part in the one pass that it synchronises. Of a model with two towers, or
        with GradCache, which passes a batch in pieces, that is not so, and a loss's own parameters it does not know.
        """
        super().create_accelerator_and_postprocess()
        self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)

    def training_step(self, model: Any, inputs: Mapping[str, Any], *arguments: Any, **named: Any) -> Tensor:
        """Forward and back, then the mean of all processes' gradients."""
        loss: Tensor = super().training_step(model, inputs, *arguments, **named)
        average_gradients(self.objective)
        self._batch = inputs
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        """Of the objective's own parameters too, which are not the model's."""
        return self.accelerator.clip_grad_norm_(self.objective.parameters(), self.args.max_grad_norm)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The norm of the gradient, known before any weight changes.

        Raises:
            ConfigError: it is not finite, which a finite loss does not exclude; the batch is kept in a file.
        """
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if not math.isfinite(norm):
            raise self._not_finite(self._batch, {"norm of the gradient": norm})
        return norm

    def _not_finite(self, inputs: Mapping[str, Any], parts: Mapping[str, Tensor]) -> ConfigError:
        path = Path(self.args.output_dir).parent / f"not-finite-{self.state.global_step + 1}.json"
        path.write_text(json.dumps(inputs["origin"].columns, indent=1) + "\n", encoding="utf-8")
        terms = ", ".join(f"{name} {float(part):.4g}" for name, part in parts.items())
        return ConfigError(
            f"training diverged: step {self.state.global_step + 1} is not finite ({terms}); the texts of its batch are "
            f'in {path}; lower optim.lr or raise optim.warmup, or try optim.precision = "float32"'
        )

    # --- the optimiser ---

    def get_optimizer_cls_and_kwargs(self, args: Any, model: Any = None) -> tuple[Any, dict[str, Any]]:
        """AdamW over four groups: what is new or not, with weight decay or without."""
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(args, self.objective)
        decaying = set(self.get_decay_parameter_names(self.objective))
        groups: dict[tuple[bool, bool], list[Any]] = {}
        for name, parameter in self.objective.named_parameters():
            if parameter.requires_grad:
                place, _, inside = name.partition(".")
                new = place != "model" or self.objective.family.is_new(inside)
                groups.setdefault((new, name in decaying), []).append(parameter)
        settings["optimizer_dict"] = [
            {
                "params": parameters,
                "lr": self.head_lr if new else args.learning_rate,
                "weight_decay": args.weight_decay if decays else 0.0,
            }
            for (new, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
        ]
        return kind, settings

    # --- checkpoints ---

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        save_trained(self.objective, Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:
        load_trained(self.objective, Path(checkpoint_path))

    # --- what sentence-transformers does for its own data sets and cards ---

    def preprocess_dataset(self, dataset: Any = None, dataset_name: str | None = None) -> Any:
        """As it is."""
        return dataset

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """None: the card is written from the run's record."""

    def get_default_loss(self, model: Any) -> Any:
        """None: there is always an objective."""
        raise NotImplementedError
