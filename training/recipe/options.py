"""The values of a recipe; each attribute is a key of the TOML file, each class a table of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ModelOptions:
    """``[model]``: what is trained.

    Attributes:
        base: the checkpoint to start from (``default``, a folder, or a Hub id; see ``locate``).
        max_length: tokens of a document.
        query_length: tokens of a query; None is ``max_length``.
        training_length: tokens of a document while it is trained on; None is ``max_length``. The model that is written
            reads ``max_length``.
        lora_rank: rank of the low-rank updates of the encoder's linear layers (Hu et al. 2022); 0 trains all weights.
        lora_layers: the last so many layers are trained, the others stay as they are; None trains every layer, 0 only
            what is new, such as a projection.
        layers: layers that are kept of the base, spread evenly (Fan et al. 2020); None keeps all.
        query_layers: layers of a query encoder of its own, shallower than the documents'; None shares one encoder. Of
            dense and sparse models alone.
        options: what only the model's family knows (see ``training/families``).
    """

    base: str = "default"
    max_length: int = 256
    query_length: int | None = None
    training_length: int | None = None
    lora_rank: int = 0
    lora_layers: int | None = None
    layers: int | None = None
    query_layers: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataOptions:
    """``[[data]]``: one training set; relative paths start at ``--data`` or ``$TERCET_DATA/train``.

    Attributes:
        source: a BEIR folder, or a JSONL or Parquet file of pairs, triples or scored lists.
        split: judgements of a BEIR folder; all of them unless named.
        limit: queries that are used, chosen by the seed; None uses all.
        generated: queries that are made from the documents instead of those given: a name of ``GENERATORS``.
        per_document: queries that are made of each document, where they are.
    """

    source: str = ""
    split: str | None = None
    limit: int | None = None
    generated: str | None = None
    per_document: int = 2


@dataclass(frozen=True)
class DevOptions:
    """``[dev]``: held-out queries that decide when to stop and which checkpoint is kept.

    Attributes:
        source: a BEIR folder to measure on; empty holds out queries of every training set.
        split: judgements of that folder; all of them unless named.
        queries: queries that are held out, or used, of each set.
        documents: documents of each set that they are searched in; 0 takes all.
        metric: what is measured.
        every: steps between two measurements; 0 measures at the start and at the end.
        patience: measurements without improvement after which training stops; 0 never does.
    """

    source: str = ""
    split: str | None = None
    queries: int = 50
    documents: int = 500
    metric: str = "nDCG@10"
    every: int = 0
    patience: int = 0


@dataclass(frozen=True)
class NegativeOptions:
    """``[negatives]``: documents that do not answer a query, found by a searcher.

    Attributes:
        searcher: ``none``; ``bm25``, ``dense``, ``sparse`` or ``late``, with a checkpoint after a colon where it is not
            the default one (``sparse:FOLDER``), or several joined by "+"; ``hybrid`` for bm25, dense and late; the
            folder of a collection; or ``model`` for the one that is trained.
        first, last: ranks (from 1) that negatives are drawn from.
        per_query: negatives of each example.
        margin: with teacher scores, negatives that score above this share of the positive's score are left out.
        every: steps after which negatives are mined anew with the model as it is (ANCE, AR2); 0 mines once.
    """

    searcher: str = "bm25"
    first: int = 1
    last: int = 100
    per_query: int = 1
    margin: float | None = None
    every: int = 0


@dataclass(frozen=True)
class TeacherOptions:
    """``[[teachers]]``: whose scores are distilled.

    Attributes:
        name: ``bm25``, ``dense``, ``late``, ``sparse``, ``reranker`` or ``file``.
        model: the checkpoint, where the kind has one; the scores, where it is a file.
        weight: in the mean of several teachers.
    """

    name: str = ""
    model: str = "default"
    weight: float = 1.0


@dataclass(frozen=True)
class RankerOptions:
    """``[ranker]``: a cross-encoder that learns in turns with the model and teaches it (AR2, arXiv:2110.03611).

    Before each round of ``negatives.every`` steps, which ``searcher = "model"`` mines, the ranker learns to tell the
    positive from the mined negatives, and its scores of the lists are the teacher's of that round. What [optim] says
    of anything else, such as warm-up and precision, holds for the ranker as well.

    Attributes:
        base: the checkpoint to start from: a trained reranker, or any other, which gets a new head.
        steps: optimiser steps of each turn.
        lr: peak rate; falls to 0 over all turns.
        batch: queries of a step on each device.
        per_query: negatives that are told from one positive.
        max_length: tokens of query and document together.
    """

    base: str = "default"
    steps: int = 500
    lr: float = 1e-5
    batch: int = 16
    per_query: int = 15
    max_length: int = 256


@dataclass(frozen=True)
class LossOptions:
    """``[[losses]]``: a term of what is minimised.

    Attributes:
        name: in ``LOSSES``.
        weight: in the sum.
        warmup: share of the steps over which the weight rises quadratically to its value (SPLADE); 0 has it at once.
        matryoshka: prefixes of the vectors that the loss is taken of as well (Kusupati et al. 2022); dense alone.
        options: keyword arguments of the loss, such as ``temperature``.
    """

    name: str = ""
    weight: float = 1.0
    warmup: float = 0.0
    matryoshka: tuple[int, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OptimOptions:
    """``[optim]``: AdamW and its schedule.

    Attributes:
        lr: peak rate of the encoder, reached after ``warmup`` of the steps; falls linearly to 0.
        head_lr: of everything that is new (heads, tables, projections, low-rank updates); None is ``lr``.
        weight_decay: of AdamW.
        batch: queries of a step on each device.
        chunk: texts that the encoder reads at once with GradCache (Gao et al. 2021); 0 reads the batch at once.
        steps: optimiser steps; 0 follows from ``epochs``.
        epochs: times that every query is drawn.
        warmup: share of the steps.
        clip: largest norm of the gradient.
        average: share of the way from the base to the trained weights that is kept (Wortsman et al. 2022).
        precision: ``auto``, ``bfloat16`` or ``float32``.
        checkpointing: recompute activations on the way back, for less memory.
        save_every: steps between two checkpoints that a killed run resumes from; 0 keeps none.
    """

    lr: float = 2e-5
    head_lr: float | None = None
    weight_decay: float = 0.0
    batch: int = 32
    chunk: int = 0
    steps: int = 0
    epochs: float = 1.0
    warmup: float = 0.06
    clip: float = 1.0
    average: float = 1.0
    precision: str = "auto"
    checkpointing: bool = False
    save_every: int = 200


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a model is trained.

    Attributes:
        name: of the model.
        family: in ``FAMILIES`` or ``FITTED``: dense, sparse, late, reranker, hypencoder, multivariate, codes.
        seed: of every choice.
        ranker: trained beside the model, as its teacher; None where there is no such table.
    """

    name: str
    family: str
    seed: int = 0
    model: ModelOptions = field(default_factory=ModelOptions)
    data: tuple[DataOptions, ...] = ()
    dev: DevOptions = field(default_factory=DevOptions)
    negatives: NegativeOptions = field(default_factory=NegativeOptions)
    teachers: tuple[TeacherOptions, ...] = ()
    ranker: RankerOptions | None = None
    losses: tuple[LossOptions, ...] = ()
    optim: OptimOptions = field(default_factory=OptimOptions)
