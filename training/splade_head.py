"""A SPLADE encoder out of a dense one: ``python -m training.splade_head -o FOLDER``.

A masked-language head is put on the model and trained on pairs of a query and a document that answers it (SPLADE v2:
Formal et al. 2021, max pooling; FLOPS: Paria et al. 2020, here only of texts with many terms, as in Shen et al.
2025). A dense model such as all-MiniLM-L6-v2 has lost its own head, and the pairs at hand are too few to teach a
random one what words mean, so the head starts from a closed form (``initialise_head``) that makes the model a lexical
encoder with some expansion before the first step. Training is sentence-transformers' own; what comes out is a
``SparseEncoder`` folder.
"""

from __future__ import annotations

import copy
import json
import os
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from eval.beir import DATA_VARIABLE, BeirDataset
from eval.metrics import Qrels, measure, parse_metrics
from eval.report import versions
from indexing.bm25 import Bm25Index
from indexing.command_line import run
from indexing.corpora import open_corpus
from indexing.durable import checksum
from indexing.progress import Progress, Silent, progress_bars
from retrieval.compute import cpu_has_bfloat16, set_threads
from retrieval.encoders.terms import TermsEncoder
from retrieval.encoders.transformer.location import locate
from retrieval.errors import ConfigError, FormatError, MissingExtraError
from retrieval.protocols import SearchRequest
from retrieval.values import Document, Hits

METRICS = parse_metrics(("nDCG@10", "MRR@10", "Recall@100"))
_LINEAR = 4.0  # GELU leaves what is above it (in standard deviations) all but unchanged
_RIDGE = 1e-2  # of the mean variance of the token vectors
_PROBE_STEPS = 8
_DEPTH = 100  # documents of a ranking that are measured
_TRAINED_WITH = ("sentence-transformers", "transformers", "accelerate", "datasets")
_COLUMNS = ("query", "document", "negative")
_MINED = 20  # documents of BM25 a negative is drawn from
_ENCODE_BATCH = 32


Triplet = tuple[str, str, str]
"""Texts of a query, of a document that answers it and of one that does not."""


@dataclass(frozen=True)
class Recipe:
    """How the head is made and trained.

    Attributes:
        model: the dense model (see ``locate``).
        max_length: tokens of a text.
        batch: triplets in a step; all other documents of a batch are negatives of a query.
        encoder_lr, head_lr: AdamW's peaks, reached after ``warmup`` of the steps and falling linearly to 0.
        warmup: share of the steps.
        document_flops, query_flops: weights of the FLOPS regularisers, rising quadratically over the first third.
        document_terms, query_terms: texts with no more terms than that are not regularised; the former is also how
            many terms documents are pruned to, on average.
        fit_pairs: pairs of a query and its document that the head is initialised from.
        threshold: standard deviations above its mean at which a term's logit becomes positive.
        own_logit: mean positive logit of a token for its own term after initialisation.
        dev_queries: queries of each data set that are held out.
        dev_documents: documents of each data set that the held-out queries are searched in.
        seed: of every choice.
    """

    model: str = "default"
    max_length: int = 96
    batch: int = 32
    encoder_lr: float = 5e-5
    head_lr: float = 5e-4
    warmup: float = 0.06
    document_flops: float = 3e-3
    query_flops: float = 5e-3
    document_terms: int = 120
    query_terms: int = 30
    fit_pairs: int = 600
    threshold: float = 5.0
    own_logit: float = 3.0
    dev_queries: int = 50
    dev_documents: int = 500
    seed: int = 0


# --- pairs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingSet:
    """Queries, documents and which belong together.

    Attributes:
        name: of the data set.
        queries: id -> text.
        documents: id -> title and text.
        qrels: query id -> document id -> judgement of at least 1, of judged queries alone.
    """

    name: str
    queries: Mapping[str, str]
    documents: Mapping[str, str]
    qrels: Qrels

    def triplets(self, seed: int) -> list[Triplet]:
        """One (query, document, negative) of texts a query, chosen by the seed.

        The negative is one of BM25's best documents for the query that is not judged relevant, by chance rather than
        the very best, which too often answers the query as well; without any, it is any other document.
        """
        rng = random.Random(seed)
        ids, found = list(self.documents), bm25_hits(self, _MINED).rows
        triplets = []
        for (query, judged), rows in zip(self.qrels.items(), found.tolist(), strict=True):
            positive = self.documents[rng.choice(sorted(judged))]
            relevant = {self.documents[document] for document in judged}
            best = (self.documents[ids[row]] for row in rows if row >= 0)
            candidates = [text for text in best if text not in relevant]
            negative = rng.choice(
                candidates or [text for text in self.documents.values() if text != positive]
            )
            triplets.append((self.queries[query], positive, negative))
        return triplets


def bm25_hits(data: TrainingSet, k: int) -> Hits:
    """BM25's best documents of each query; a row is a document's place in the set."""
    terms = TermsEncoder()
    documents = terms.encode_documents([Document(id_, text) for id_, text in data.documents.items()])
    with tempfile.TemporaryDirectory() as folder:
        parameters = Bm25Index.parameters({})
        Bm25Index.build(documents, Path(folder), parameters, memory_bytes=1 << 28, progress=lambda _: None)
        index = Bm25Index.load(Path(folder), documents, parameters)
        return index.search(terms.encode_queries(list(data.queries.values())), SearchRequest(k=k))


def read_training_set(folder: Path) -> TrainingSet:
    """A folder in BEIR's form, all its splits together.

    Raises:
        FormatError: names file and line; also when a judged document or query is missing.
        ConfigError: the folder has no judgements.
    """
    splits = BeirDataset(folder.name, folder).splits()
    if not splits:
        raise ConfigError(f"{folder}: no qrels/*.tsv there; training needs judged queries")
    documents = {record.document.id: record.document.contents() for record in open_corpus(folder).read()}
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    for split in splits:
        dataset = BeirDataset(folder.name, folder, split)
        queries |= {query.id: query.text for query in dataset.queries()}
        for query, judged in dataset.qrels().items():
            relevant = {document: value for document, value in judged.items() if value > 0}
            missing = relevant.keys() - documents.keys()
            if missing:
                raise FormatError(
                    f"the judged document {min(missing)!r} of {split!r} is not in the corpus", folder
                )
            if relevant:
                qrels.setdefault(query, {}).update(relevant)
    return TrainingSet(folder.name, {query: queries[query] for query in qrels}, documents, qrels)


def read_training_sets(folder: Path) -> list[TrainingSet]:
    """Every data set below a folder, by name.

    Raises:
        ConfigError: there is none.
        FormatError: one is damaged.
    """
    found = sorted(path.parent for path in folder.glob("*/corpus.jsonl*"))
    if not found:
        raise ConfigError(f"{folder}: no data set below it; one is a folder with corpus.jsonl and qrels/")
    return [read_training_set(path) for path in found]


def hold_out(data: TrainingSet, recipe: Recipe) -> tuple[TrainingSet, TrainingSet]:
    """Split off queries to choose by, with a sample of the corpus to search them in.

    No training query shares its text or a relevant document with a held-out one.

    Returns:
        What to train on and what to choose by.
    """
    rng = random.Random(recipe.seed)
    chosen = rng.sample(sorted(data.qrels), min(recipe.dev_queries, len(data.qrels) // 2))
    texts = {data.queries[query] for query in chosen}
    relevant = {document for query in chosen for document in data.qrels[query]}
    others = sorted(data.documents.keys() - relevant)
    wanted = max(0, recipe.dev_documents - len(relevant))
    searched = relevant.union(rng.sample(others, min(len(others), wanted)))
    kept = [
        query
        for query, judged in data.qrels.items()
        if data.queries[query] not in texts and relevant.isdisjoint(judged)
    ]
    return (
        _part(data, kept, (document for document in data.documents if document not in relevant)),
        _part(data, chosen, (document for document in data.documents if document in searched)),
    )


def _part(data: TrainingSet, queries: Sequence[str], documents: Any) -> TrainingSet:
    return replace(
        data,
        queries={query: data.queries[query] for query in queries},
        documents={document: data.documents[document] for document in documents},
        qrels={query: data.qrels[query] for query in queries},
    )


# --- the head --------------------------------------------------------------------------------------


def splade_encoder(folder: Path, max_length: int) -> Any:
    """A ``SparseEncoder`` whose encoder is the model's and whose head is random, tied to its word embeddings.

    Args:
        folder: a BERT checkpoint, of sentence-transformers or of transformers.
        max_length: tokens of a text.

    Raises:
        ConfigError: the model is no BERT.
    """
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.modules import SpladePooling, Transformer
    from transformers import BertForMaskedLM

    transformer = Transformer(str(folder), transformer_task="fill-mask", max_seq_length=max_length)
    if not isinstance(transformer.auto_model, BertForMaskedLM):
        raise ConfigError(f"{folder}: a {type(transformer.auto_model).__name__}; the head is made for BERT")
    vocabulary = transformer.auto_model.config.vocab_size
    pooling = SpladePooling(pooling_strategy="max", embedding_dimension=vocabulary)
    return SparseEncoder(modules=[transformer, pooling], similarity_fn_name="dot", device="cpu")


def initialise_head(encoder: Any, texts: Sequence[str], threshold: float, own_logit: float) -> None:
    """Make the head lexical in closed form, from the token vectors of some texts.

    The dense layer is the ridge regression from a token's final vector to its centred word embedding, so a
    position's logits are highest at its own word piece and then at its neighbours. A large bias keeps GELU in its
    linear part; LayerNorm, blind to a constant, takes the bias off again. The output bias puts each term's zero
    ``threshold`` standard deviations above its mean over the texts, which silences what is common everywhere
    (stop words among them) and leaves documents sparse from the first step. Special tokens are never terms.

    Args:
        encoder: what ``splade_encoder`` returned; changed in place.
        texts: a sample of queries and documents.
        threshold: in standard deviations of a term's logit.
        own_logit: what LayerNorm's gain makes the mean positive logit of a token for its own term.
    """
    model, special = encoder[0].auto_model, encoder.tokenizer.all_special_ids
    head = model.cls.predictions
    words = model.get_input_embeddings().weight.detach()
    vectors, tokens = _token_vectors(encoder, texts)
    ordinary = ~torch.isin(tokens, torch.tensor(special))
    weights, bias = _ridge(vectors[ordinary], (words - words.mean(0))[tokens[ordinary]])
    spread = (vectors @ weights.T + bias).std()
    with torch.no_grad():
        head.transform.dense.weight.copy_(weights / spread)
        head.transform.dense.bias.copy_(bias / spread + _LINEAR)
        head.transform.LayerNorm.weight.fill_(1.0)
        head.transform.LayerNorm.bias.zero_()
        outputs = head.transform(vectors)
        deviations = ((words @ torch.cov(outputs.T)) * words).sum(1).clamp(min=0).sqrt()
        zeros = words @ outputs.mean(0) + threshold * deviations
        own = (outputs * words[tokens]).sum(1) - zeros[tokens]
        gain = own_logit / own[ordinary & (own > 0)].mean().nan_to_num(own_logit)
        head.transform.LayerNorm.weight.fill_(gain)
        head.bias.copy_(-zeros * gain)
        head.bias[special] = -1e4


def _token_vectors(encoder: Any, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """(T, D) final vectors of every token of the texts and (T,) their word pieces."""
    vectors, tokens = [], []
    with torch.no_grad():
        for start in range(0, len(texts), _ENCODE_BATCH):
            features = encoder.preprocess(list(texts[start : start + _ENCODE_BATCH]))
            asked = {name: features[name] for name in ("input_ids", "attention_mask")}
            present = asked["attention_mask"].bool()
            vectors.append(encoder[0].auto_model.bert(**asked).last_hidden_state[present])
            tokens.append(asked["input_ids"][present])
    return torch.cat(vectors), torch.cat(tokens)


def _ridge(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (E, D) and bias (E,) of the regularised least squares from inputs (T, D) to targets (T, E)."""
    mean, target_mean = inputs.mean(0), targets.mean(0)
    centred = inputs - mean
    covariance = centred.T @ centred / len(inputs)
    covariance += _RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance))
    weights = torch.linalg.solve(covariance, centred.T @ (targets - target_mean) / len(inputs)).T
    return weights, target_mean - weights @ mean


class _PooledLogits(torch.autograd.Function):
    """ReLU of the largest logit of each term, text by text: the (B, L, V) logits never exist.

    Only the position of the maximum of an active term has a gradient, so going back costs next to nothing, where
    the plain way takes two more products with the vocabulary.
    """

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, lengths: Tensor, words: Tensor, bias: Tensor) -> Tensor:
        """(B, V) from vectors (B, L, D), numbers of tokens (B,), words (V, D) and bias (V,)."""
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else words.dtype
        table, texts = words.to(kind), vectors.to(kind)  # once, where autocast would do so for every text
        best = [
            (table @ text[:length].T).max(1) for text, length in zip(texts, lengths.tolist(), strict=True)
        ]
        pooled = (torch.stack([one.values for one in best]).float() + bias).relu()
        ctx.save_for_backward(vectors, words, pooled, torch.stack([one.indices for one in best]))
        return pooled

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        """The gradients of vectors, words and bias."""
        vectors, words, pooled, positions = ctx.saved_tensors
        gradient = gradients[0] * (pooled > 0)
        rows, terms = gradient.nonzero(as_tuple=True)
        active, places = gradient[rows, terms, None], (rows, positions[rows, terms])
        of_words = torch.zeros_like(words).index_add_(0, terms, active * vectors[places])
        of_vectors = torch.zeros_like(vectors, dtype=words.dtype)
        of_vectors.index_put_(places, active * words[terms], accumulate=True)
        return of_vectors.to(vectors.dtype), None, of_words, gradient.sum(0)


class _FusedPooling(torch.nn.Module):
    """``SpladePooling`` over the head's vectors instead of its logits."""

    def __init__(self, words: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.words, self.bias = words, bias

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Adds the (B, V) ``sentence_embedding``."""
        lengths = features["attention_mask"].sum(1)
        pooled = _PooledLogits.apply(  # type: ignore[no-untyped-call]
            features["token_embeddings"], lengths, self.words, self.bias
        )
        return features | {"sentence_embedding": pooled.log1p()}


@contextmanager
def fused(encoder: Any) -> Iterator[None]:
    """Let the encoder compute the same vectors without keeping logits, so that a step on a CPU is faster.

    Texts must be padded on the right.
    """
    head, pooling = encoder[0].auto_model.cls.predictions, encoder[1]
    decoder = head.decoder
    head.decoder, encoder[1] = torch.nn.Identity(), _FusedPooling(decoder.weight, head.bias)
    try:
        yield
    finally:
        head.decoder, encoder[1] = decoder, pooling


# --- training --------------------------------------------------------------------------------------


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
    _require_trainer()
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


def _require_trainer() -> None:
    """Raise MissingExtraError where sentence-transformers' trainer cannot run."""
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


def prune(encoder: Any, documents: Sequence[str], n_terms: int, progress: Progress | None = None) -> float:
    """Lower every term's bias by one amount, so that the documents have n_terms terms on average.

    FLOPS weights set the number of terms only roughly, and only after many steps. The terms that go are the
    lightest of all.

    Returns:
        The amount, in logits; 0 where the documents have no more terms than that already.
    """
    progress = progress or Silent()
    progress.start("pruning", len(documents), "texts")
    logits = _encode(encoder, documents, progress).values().expm1().sort(descending=True).values
    if len(logits) <= n_terms * len(documents):
        return 0.0
    amount = float(logits[n_terms * len(documents)])
    with torch.no_grad():
        encoder[0].auto_model.cls.predictions.bias -= amount
    return amount


# --- measuring -------------------------------------------------------------------------------------


def joined(sets: Sequence[TrainingSet]) -> TrainingSet:
    """All sets as one, each id behind the name of its set."""
    queries: dict[str, str] = {}
    documents: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    for one in sets:
        queries |= {f"{one.name}/{id_}": text for id_, text in one.queries.items()}
        documents |= {f"{one.name}/{id_}": text for id_, text in one.documents.items()}
        for id_, judged in one.qrels.items():
            qrels[f"{one.name}/{id_}"] = {f"{one.name}/{document}": 1 for document in judged}
    return TrainingSet("+".join(one.name for one in sets), queries, documents, qrels)


def effectiveness(data: TrainingSet, hits: Hits) -> dict[str, float]:
    """The metrics of each query's hits, whose rows count the documents; those that score 0 are not found."""
    ids = list(data.documents)
    found = {
        query: [(ids[row], score) for row, score in zip(rows, scores, strict=True) if row >= 0 and score > 0]
        for query, rows, scores in zip(data.queries, hits.rows.tolist(), hits.scores.tolist(), strict=True)
    }
    return measure(found, data.qrels, METRICS)


def splade_figures(encoder: Any, data: TrainingSet, progress: Progress) -> dict[str, float]:
    """Effectiveness of the encoder, the mean number of terms and how large their weights are."""
    progress.start("measuring", len(data.queries) + len(data.documents), "texts")
    queries = _encode(encoder, list(data.queries.values()), progress)
    documents = _encode(encoder, list(data.documents.values()), progress)
    scores = torch.sparse.mm(documents, queries.to_dense().T).T
    best, rows = scores.topk(min(_DEPTH, len(data.documents)), dim=1)
    weights = documents.values()
    return effectiveness(data, Hits(rows.numpy(), best.numpy())) | {
        "query_terms": queries.values().numel() / len(data.queries),
        "document_terms": weights.numel() / len(data.documents),
        "mean_weight": float(weights.mean()) if len(weights) else 0.0,
        "max_weight": float(weights.max()) if len(weights) else 0.0,
    }


def _encode(encoder: Any, texts: Sequence[str], progress: Progress) -> Tensor:
    """(N, V) sparse vectors."""
    parts = []
    for start in range(0, len(texts), 8 * _ENCODE_BATCH):  # sorted by length within, for less padding
        part = list(texts[start : start + 8 * _ENCODE_BATCH])
        with torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bfloat16()):
            found = encoder.encode(part, batch_size=_ENCODE_BATCH, show_progress_bar=False)
        parts.append(found.float())
        progress.advance(len(part))
    return torch.cat(parts).coalesce()


# --- the command -----------------------------------------------------------------------------------


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
    _require_trainer()
    with quietly():
        torch.manual_seed(recipe.seed)
        halves = [hold_out(one, recipe) for one in read_training_sets(data)]
        triplets = {kept.name: kept.triplets(recipe.seed) for kept, _ in halves}
        dev = joined([held for _, held in halves])
        encoder = splade_encoder(locate(recipe.model), recipe.max_length)
        initialise_head(encoder, _sample(triplets, recipe), recipe.threshold, recipe.own_logit)
        figures = {"bm25": effectiveness(dev, bm25_hits(dev, _DEPTH))}
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
