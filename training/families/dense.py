"""Dense models: one vector a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from indexing.progress import Progress
from retrieval.encoders.options import Option, read_options
from retrieval.encoders.transformer.location import locate
from retrieval.errors import ConfigError
from retrieval.exact import dense_scores
from retrieval.topk import top_k
from retrieval.values import Dense, Hits
from training.families.encoding import encoded, read
from training.families.family import Features, Sample, Task
from training.families.layers import two_towers, with_modules
from training.families.opening import drop_layers, is_low_rank, limit_length, load, restrict, save_even
from training.recipe.options import ModelOptions
from training.scored import Representation

OPTIONS: dict[str, Option] = {
    "head": Option(str),
    "fit_texts": Option(int, default=3000, least=1),
}
"""``head``: ``linear`` puts a linear layer as wide as the vectors behind pooling, so that they can be cut short;
``fit_texts``: documents that it starts from."""

HEADS = ("linear",)

DAMPING = 4.0
"""What is added to the variance of every axis before whitening, in means of it: the first axes are damped, the many
weak ones keep their proportion."""


class DenseFamily:
    """Any checkpoint of sentence-transformers with one vector a text; cosine where the checkpoint says so.

    A linear head starts as a whitening of a sample's vectors (Su et al., arXiv:2103.15316), strongest axis first, that
    is damped, so that whole vectors change little (0.005 is lost on SciFact). Prefixes keep more from there on, and
    training (``matryoshka`` of a loss) improves them.
    """

    joint = False

    def open(self, options: ModelOptions, seed: int, sample: Sample, progress: Progress) -> Any:
        """See ``Family``; ``OPTIONS`` are its own."""
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Normalize

        chosen = read_options("dense", options.options, OPTIONS)
        if chosen["head"] not in (None, *HEADS):
            raise ConfigError(f"model.options.head is {chosen['head']!r}; valid: {', '.join(HEADS)}")
        torch.manual_seed(seed)
        folder = locate(options.base)
        model = load(SentenceTransformer, folder)
        modules = list(model.children())
        if model.similarity_fn_name == "cosine" and not isinstance(modules[-1], Normalize):
            model = with_modules(model, [*modules, Normalize()])
        limit_length(model, folder, options)
        drop_layers(model, options)
        if chosen["head"] is not None:
            model = _with_head(model, sample.documents[: chosen["fit_texts"]], progress)
        if options.query_layers is not None:
            model = two_towers(model, options.query_layers)
        return restrict(model, options, self.is_new)

    def features(self, model: Any, texts: Sequence[Any], task: Task) -> Features:
        """See ``Family``."""
        return read(model, texts, task)

    def represent(self, model: Any, features: Features, task: Task) -> Representation:
        """``(vectors (M, D),)``."""
        return (model(dict(features), task=task)["sentence_embedding"],)

    def score(self, queries: Representation, documents: Representation) -> Tensor:
        """Inner products."""
        return queries[0].float() @ documents[0].float().T

    def is_new(self, parameter: str) -> bool:
        """Linear layers behind pooling, also those that the base has, and low-rank updates."""
        return ".linear." in parameter or is_low_rank(parameter)

    def search(
        self, model: Any, queries: Sequence[str], documents: Sequence[str], k: int, progress: Progress
    ) -> tuple[Hits, dict[str, float]]:
        """See ``Family``."""
        rows = encoded(model, queries, "query", progress, convert_to_numpy=True)
        columns = encoded(model, documents, "document", progress, convert_to_numpy=True)
        return top_k(dense_scores(_dense(rows), _dense(columns)), k), {}

    def finish(self, model: Any, options: ModelOptions, sample: Sample, progress: Progress) -> None:
        """Nothing."""

    def save(self, model: Any, folder: Path) -> None:
        """See ``Family``."""
        save_even(model, folder)


def _with_head(model: Any, documents: Sequence[str], progress: Progress) -> Any:
    """The model with a linear layer before its vectors are brought to unit length.

    Raises:
        ConfigError: the model has a layer there, or unit length is not what it ends with.
    """
    from sentence_transformers.base.modules import Dense as Layer
    from sentence_transformers.sentence_transformer.modules import Normalize

    *modules, last = model.children()
    if not isinstance(last, Normalize) or isinstance(modules[-1], Layer):
        raise ConfigError(
            "model.options.head is for a model of cosines that has no linear layer behind pooling; leave it out"
        )
    progress.start("fitting", len(documents), "texts")
    vectors = _dense(encoded(model, documents, "document", progress, convert_to_numpy=True)).values
    width = vectors.shape[1]
    head = Layer(
        width,
        width,
        bias=False,
        activation_function=nn.Identity(),
        init_weight=torch.from_numpy(whitening(vectors)),
    )
    return with_modules(model, [*modules, head, last])


def whitening(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(D, D) the principal axes of (N, D) vectors as rows, not centred, the strongest first and shortest."""
    width = vectors.shape[1]
    moments = vectors.T.astype(np.float64) @ vectors
    moments += np.eye(width) * (DAMPING * np.trace(moments) / width)
    strengths, axes = np.linalg.eigh(moments)  # ascending
    scaled = (axes * np.sqrt(strengths[0] / strengths)).T[::-1]
    return np.ascontiguousarray(scaled, dtype=np.float32)


def _dense(parts: Sequence[NDArray[np.float32]]) -> Dense:
    return Dense(np.concatenate(parts).astype(np.float32))


DENSE = DenseFamily()
"""The family."""
