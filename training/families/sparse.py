"""Sparse models: a weight for each term of the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from indexing.progress import Progress
from retrieval.encoders.options import Option, read_options
from retrieval.encoders.transformer.checkpoint import read_checkpoint
from retrieval.encoders.transformer.location import locate
from retrieval.errors import ConfigError
from retrieval.topk import top_k
from retrieval.values import Hits
from training.families.encoding import encoded, read
from training.families.family import Features, Sample, Task
from training.families.layers import two_towers
from training.families.opening import drop_layers, is_low_rank, limit_length, load, restrict, save_even
from training.recipe.options import ModelOptions
from training.scored import Representation
from training.splade.head import initialise_head, with_head
from training.splade.pooling import FusedPooling, fuse, plain
from training.splade.pruning import prune
from training.splade.query_table import with_query_table

OPTIONS: dict[str, Option] = {
    "queries": Option(str),
    "table": Option(str, default="trained"),
    "activation": Option(str, default="relu"),
    "fit_texts": Option(int, default=1200, least=1),
    "threshold": Option(float, default=5.0),
    "own_logit": Option(float, default=3.0, least=0.01),
    "document_terms": Option(float, default=0.0, least=0),
}
"""``queries``: ``model`` encodes them, or ``static`` looks weights up in a table (by default what the checkpoint does);
``table``: ``trained`` or ``fixed`` at the IDF; ``activation``: ``relu`` or ``log1p_relu``, of a new head;
``fit_texts``, ``threshold`` and ``own_logit``: of a new head's start (see ``initialise_head``);
``document_terms``: terms of a document, on average, that are left after training; 0 leaves all."""

_VALID = {
    "queries": (None, "model", "static"),
    "table": ("trained", "fixed"),
    "activation": ("relu", "log1p_relu"),
}
_PRUNED_BY = 1000  # documents


class SparseFamily:
    """A ``SparseEncoder`` (SPLADE, Formal et al., arXiv:2109.10086), or what becomes one.

    That is a masked language model, or a dense model, which gets a head. Queries may do without a model.
    """

    joint = False

    def open(self, options: ModelOptions, seed: int, sample: Sample, progress: Progress) -> Any:
        """See ``Family``; ``OPTIONS`` are its own."""
        chosen = _options(options)
        torch.manual_seed(seed)
        folder = locate(options.base)
        model = _loaded(folder, options, chosen, sample, progress)
        if chosen["queries"] == "static" and not _has_routes(model):
            if options.query_layers is not None:
                raise ConfigError("queries are static, so model.query_layers has no encoder to shorten")
            model = with_query_table(model, sample.documents, trained=chosen["table"] == "trained")
        elif chosen["queries"] == "model" and _has_routes(model):
            raise ConfigError(f"{folder} already treats queries apart; leave the option queries out")
        elif options.query_layers is not None:
            model = two_towers(model, options.query_layers)
        fuse(model)
        return restrict(model, options, self.is_new)

    def features(self, model: Any, texts: Sequence[Any], task: Task) -> Features:
        """See ``Family``."""
        return read(model, texts, task)

    def represent(self, model: Any, features: Features, task: Task) -> Representation:
        """``(weights (M, V),)``, none below 0: neither does a table's weight count that falls below it."""
        weights = model(dict(features), task=task)["sentence_embedding"]
        return (weights.float().relu(),)

    def score(self, queries: Representation, documents: Representation) -> Tensor:
        """Inner products."""
        return queries[0] @ documents[0].T

    def is_new(self, parameter: str) -> bool:
        """The head, a table of query weights, and low-rank updates."""
        table = parameter.endswith("sub_modules.query.0.weight")
        return table or ".cls.predictions." in parameter or is_low_rank(parameter)

    def search(
        self, model: Any, queries: Sequence[str], documents: Sequence[str], k: int, progress: Progress
    ) -> tuple[Hits, dict[str, float]]:
        """See ``Family``; a document without a term of the query is not found."""
        asked = torch.cat(encoded(model, queries, "query", progress)).float().coalesce()
        stored = torch.cat(encoded(model, documents, "document", progress)).float().coalesce()
        scores = torch.sparse.mm(stored, asked.to_dense().relu().T).T.cpu().numpy()
        figures = {
            "query_terms": asked.values().numel() / max(1, len(queries)),
            "document_terms": stored.values().numel() / max(1, len(documents)),
            "flops": float(_share(asked) @ _share(stored)),
        }
        return top_k(np.where(scores > 0, scores, -np.inf), k), figures

    def finish(self, model: Any, options: ModelOptions, sample: Sample, progress: Progress) -> None:
        """Prune terms of documents, and weights of a table that are below 0."""
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("sub_modules.query.0.weight"):
                    parameter.clamp_(min=0)
        n_terms = _options(options)["document_terms"]
        if n_terms:
            documents = sample.documents[:_PRUNED_BY]
            progress.start("pruning", len(documents), "texts")
            found = torch.cat(encoded(model, documents, "document", progress)).coalesce()
            twice = _pooling(model).activation_function == "log1p_relu"
            amount = prune(model, found.values(), n_terms, len(documents), twice=twice)
            progress.note(f"pruned by {amount:.3g} logits, to {n_terms:g} terms a document")

    def save(self, model: Any, folder: Path) -> None:
        """See ``Family``."""
        with plain(model):
            save_even(model, folder)


def _options(options: ModelOptions) -> dict[str, Any]:
    chosen = read_options("sparse", options.options, OPTIONS)
    for name, valid in _VALID.items():
        if chosen[name] not in valid:
            names = ", ".join(str(value) for value in valid if value is not None)
            raise ConfigError(f"model.options.{name} is {chosen[name]!r}; valid: {names}")
    return chosen


def _loaded(
    folder: Path, options: ModelOptions, chosen: dict[str, Any], sample: Sample, progress: Progress
) -> Any:
    """The ``SparseEncoder`` of a checkpoint, with a head made for it where it has none; no more layers than wanted."""
    from sentence_transformers import SparseEncoder

    checkpoint = read_checkpoint(folder)
    kinds = [str(kind) for kind in checkpoint.config.get("architectures") or ()]
    masked = checkpoint.model_type == "" and any(kind.endswith("ForMaskedLM") for kind in kinds)
    if masked or checkpoint.model_type == "SparseEncoder":
        model = load(SparseEncoder, folder)
        limit_length(model, folder, options)
        drop_layers(model, options)
        return model
    model = with_head(folder, chosen["activation"])
    limit_length(model, folder, options)
    drop_layers(model, options)
    pairs = zip(sample.queries, sample.documents, strict=False)
    texts = [text for pair in pairs for text in pair][: chosen["fit_texts"]]
    initialise_head(model, texts, chosen["threshold"], chosen["own_logit"], progress)
    return model


def _has_routes(model: Any) -> bool:
    from sentence_transformers.base.modules import Router

    return isinstance(model[0], Router)


def _pooling(model: Any) -> Any:
    """What pools documents."""
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    found = [part.plain if isinstance(part, FusedPooling) else part for part in model.modules()]
    return next(part for part in reversed(found) if isinstance(part, SpladePooling))


def _share(vectors: Tensor) -> Tensor:
    """(V,) in what share of the vectors a term is.

    Summed over terms, that of queries by that of documents is how many products a query and a document cost on average.
    """
    terms = vectors.indices()[1]
    return torch.bincount(terms, minlength=vectors.shape[1]).float() / max(1, vectors.shape[0])


SPARSE = SparseFamily()
"""The family."""
