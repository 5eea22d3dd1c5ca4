"""The trainers that the training benchmarks compare: ours, as ``tercet train`` runs it, and sentence-transformers'.

Both start from one checkpoint, see the same texts in the same batches in the same order, and minimise the same loss
with the same optimiser in the same precision. Neither writes checkpoints or measures on held-out queries.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from indexing.progress import Silent
from retrieval.compute import choose_device
from training.auxiliaries.table import Sizes
from training.examples.training_set import TrainingSet, open_training_set
from training.families.family import Sample
from training.families.table import family
from training.recipe.options import LossOptions, ModelOptions, OptimOptions, Recipe
from training.run.preparing import sample_texts
from training.trainer.arguments import arguments
from training.trainer.batches import ScheduledExamples
from training.trainer.callbacks.reporting import Reporting
from training.trainer.callbacks.sealing import Sealing
from training.trainer.objective import Objective, open_terms
from training.trainer.objective_trainer import ObjectiveTrainer
from training.trainer.reach import freeze_unreached
from training.trainer.schedule import Schedule

OURS, PEER = "tercet", "sentence-transformers"
FAMILIES = ("dense", "sparse", "late")
FLOPS = {"documents": 3e-4, "queries": 5e-4}
"""Weights of the penalty of a sparse model."""
RISING = 1 / 3  # share of the steps over which the weights rise; sentence-transformers' default


@dataclass(frozen=True)
class Task:
    """What a trainer has to do.

    Attributes:
        family: of the model.
        base: its checkpoint.
        precision: ``float32`` or ``bfloat16``.
        batch: pairs of a step.
        steps: of the whole run.
        max_length: tokens of a text.
        chunk: texts that are encoded at once (GradCache, ours alone); 0 encodes the batch at once.
        negatives: documents of an example that do not answer (ours alone).
    """

    family: str
    base: str
    precision: str
    batch: int
    steps: int
    max_length: int
    chunk: int = 0
    negatives: int = 0

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Task:
        """What ``save`` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    @property
    def recipe(self) -> Recipe:
        """The task in our words."""
        return Recipe(
            name=self.family,
            family=self.family,
            model=ModelOptions(base=self.base, max_length=self.max_length),
            losses=losses(self.family),
            optim=OptimOptions(
                batch=self.batch,
                chunk=self.chunk,
                steps=self.steps,
                precision=self.precision,
                save_every=0,
            ),
        )


def losses(name: str) -> tuple[LossOptions, ...]:
    """In-batch ranking; a cosine is divided by 0.05, and sparse models have their penalty.

    A reranker compares a query's own candidates alone.
    """
    if name == "reranker":
        return (LossOptions("listwise"),)
    temperature = 0.05 if name == "dense" else 1.0
    ranking = LossOptions("ranking", options={"temperature": temperature})
    penalties = [LossOptions("flops", weight, RISING, options={"who": who}) for who, weight in FLOPS.items()]
    return (ranking, *(penalties if name == "sparse" else ()))


@dataclass(frozen=True)
class Engine:
    """A trainer that has not begun.

    Attributes:
        trainer: of transformers.
        loss: of a batch on the device.
    """

    trainer: Any
    loss: Callable[[Any], Tensor]

    def first_loss(self) -> float:
        """The loss of the first batch before training, without dropout."""
        trainer = self.trainer
        batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
        trainer.model.eval()
        with torch.no_grad(), trainer.compute_loss_context_manager():
            return float(self.loss(batch))


def save_base(name: str, options: ModelOptions, data: TrainingSet, folder: Path) -> None:
    """Write the checkpoint that both start from: the family's own start for the default model, heads included."""
    kind = family(name)
    kind.save(kind.open(options, 0, sample_texts([data], 0), Silent()), folder)


def ours(task: Task, folder: Path, callbacks: Sequence[Any]) -> Engine:
    """Our trainer on the training set in ``folder / "set"``, put together as ``training.run.running`` does."""
    recipe, data = task.recipe, open_training_set(folder / "set")
    kind = family(task.family)
    model = kind.open(recipe.model, recipe.seed, Sample((), ()), Silent())
    width = freeze_unreached(model, kind)
    objective = Objective(model, kind, open_terms(recipe.losses, Sizes(width, 0, 1)), chunk=task.chunk)
    objective.progress = 1.0  # until training sets it: every term at its full weight, as theirs are
    model.to(choose_device("auto"))
    trainer = ObjectiveTrainer(
        objective,
        arguments(recipe, task.steps, folder / OURS / "checkpoints"),
        _examples(task, data, folder / OURS),
        head_lr=recipe.optim.lr,
        callbacks=[Reporting(Silent(), task.steps), Sealing(), *callbacks],
    )
    return Engine(trainer, lambda batch: objective(batch)[0])


def theirs(task: Task, folder: Path, callbacks: Sequence[Any]) -> Engine:
    """sentence-transformers' trainer of that kind of model, logging as seldom as it does by default."""
    from datasets import Dataset

    optim = task.recipe.optim
    model, arguments_, trainer, loss = _peer(task)
    model.max_seq_length = task.max_length
    examples = _examples(task, open_training_set(folder / "set"), folder / PEER)
    columns = examples.__getitems__(range(len(examples)))
    device = choose_device("auto")
    made = trainer(
        model=model,
        args=arguments_(
            output_dir=str(folder / PEER),
            max_steps=task.steps,
            per_device_train_batch_size=task.batch,
            learning_rate=optim.lr,
            warmup_steps=round(optim.warmup * task.steps),
            bf16=task.precision == "bfloat16",
            use_cpu=device == "cpu",
            batch_sampler=in_order,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=device != "cpu",
        ),
        train_dataset=Dataset.from_dict({"query": columns["query"], "document": columns["document_0"]}),
        loss=loss,
        callbacks=list(callbacks),
    )
    return Engine(made, lambda batch: made.compute_loss(made.model, batch))


def in_order(dataset: Any, batch_size: int, drop_last: bool, **_: Any) -> Any:
    """Batches of the data set as it stands."""
    from torch.utils.data import BatchSampler, SequentialSampler

    return BatchSampler(SequentialSampler(dataset), batch_size, drop_last)


def _examples(task: Task, data: TrainingSet, folder: Path) -> ScheduledExamples:
    schedule = Schedule((data.queries.height,), task.batch, task.steps, task.recipe.seed)
    examples = ScheduledExamples([data], schedule, task.negatives, folder)
    examples.draw(0, Silent())
    return examples


def _peer(task: Task) -> tuple[Any, Any, Any, Any]:
    """(model, class of arguments, class of trainer, loss)."""
    import sentence_transformers as library

    if task.family == "dense":
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

        dense = library.SentenceTransformer(task.base, device="cpu")
        trainer, given = library.SentenceTransformerTrainer, library.SentenceTransformerTrainingArguments
        return dense, given, trainer, MultipleNegativesRankingLoss(dense)
    if task.family == "sparse":
        from sentence_transformers.sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss

        sparse = library.SparseEncoder(task.base, device="cpu")
        loss = SpladeLoss(
            sparse, SparseMultipleNegativesRankingLoss(sparse), FLOPS["documents"], FLOPS["queries"]
        )
        return sparse, library.SparseEncoderTrainingArguments, library.SparseEncoderTrainer, loss
    from sentence_transformers.multi_vector_encoder.losses import MultiVectorMultipleNegativesRankingLoss

    late = library.MultiVectorEncoder(task.base, device="cpu")
    trainer, given = library.MultiVectorEncoderTrainer, library.MultiVectorEncoderTrainingArguments
    return late, given, trainer, MultiVectorMultipleNegativesRankingLoss(late)


ENGINES: dict[str, Callable[[Task, Path, Sequence[Any]], Engine]] = {OURS: ours, PEER: theirs}
