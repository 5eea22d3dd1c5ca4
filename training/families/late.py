"""Late-interaction models: a vector a token, a score a sum of maxima."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from indexing.progress import Progress
from retrieval.encoders.late import DIM
from retrieval.encoders.options import Option, read_options
from retrieval.encoders.sparse_rows import row_offsets
from retrieval.encoders.token_pooling import unit_rows
from retrieval.encoders.token_projection import TokenProjection
from retrieval.encoders.transformer.architectures import QUERY_WEIGHTS
from retrieval.encoders.transformer.checkpoint import read_checkpoint
from retrieval.encoders.transformer.location import locate
from retrieval.encoders.transformer.query_weights import QueryTokenWeights
from retrieval.errors import ConfigError
from retrieval.maxsim import best_rows
from retrieval.values import Hits, MultiVector
from training.families.encoding import BATCH, encoded, read
from training.families.family import Features, Sample, Task
from training.families.layers import transformers_of, with_modules
from training.families.opening import (
    drop_layers,
    is_low_rank,
    limit_length,
    load,
    restrict,
    save_merged,
)
from training.recipe.options import ModelOptions
from training.scored import Representation

OPTIONS: dict[str, Option] = {
    "dim": Option(int, least=1),
    "fit_texts": Option(int, default=1000, least=1),
    "query_weights": Option(bool, default=False),
}
"""``dim``: width of a vector, by default 128, or what a ``MultiVectorEncoder`` has; ``fit_texts``: documents that a
projection starts from; ``query_weights``: learn a weight for each word piece of queries."""

_WEIGHTS = re.compile(r"[0-9]+\.weight")  # of ``QueryTokenWeights``, which has no module inside


class LateFamily:
    """A ``MultiVectorEncoder`` (ColBERT, Khattab & Zaharia, arXiv:2004.12832), or any model that becomes one.

    The projection of a model that has none starts as the one that ``LateEncoder`` fits for untrained models (a whitened
    SVD of token vectors), so training begins where the untrained encoder stands and not at random.
    """

    joint = False

    def open(self, options: ModelOptions, seed: int, sample: Sample, progress: Progress) -> Any:
        """See ``Family``; ``OPTIONS`` are its own."""
        chosen = read_options("late", options.options, OPTIONS)
        if options.query_layers is not None:
            raise ConfigError(
                "the late encoder reads queries and documents by one transformer; leave model.query_layers out"
            )
        torch.manual_seed(seed)
        folder = locate(options.base)
        model = _loaded(folder)
        limit_length(model, folder, options)
        drop_layers(model, options)
        if not _projects(model):
            _add_projection(model, chosen, sample, progress)
        elif chosen["dim"] not in (None, model.get_embedding_dimension()):
            width = model.get_embedding_dimension()
            raise ConfigError(f"model.options.dim is {chosen['dim']}; {folder} already projects to {width}")
        if chosen["query_weights"] and not any(
            isinstance(part, QueryTokenWeights) for part in model.modules()
        ):
            size = next(transformers_of(model)).config.vocab_size
            model = with_modules(model, [*model.children(), QueryTokenWeights(size)])
        return restrict(model, options, self.is_new)

    def features(self, model: Any, texts: Sequence[Any], task: Task) -> Features:
        """See ``Family``."""
        return read(model, texts, task)

    def represent(self, model: Any, features: Features, task: Task) -> Representation:
        """``(vectors (M, L, D), mask (M, L))``."""
        found = model(dict(features), task=task)
        mask = found["attention_mask"].bool()
        return found["token_embeddings"] * mask.unsqueeze(-1), mask

    def score(self, queries: Representation, documents: Representation) -> Tensor:
        """MaxSim."""
        from sentence_transformers.util import maxsim

        scores: Tensor = maxsim(queries[0], documents[0], a_mask=queries[1], b_mask=documents[1])
        return scores

    def is_new(self, parameter: str) -> bool:
        """The projection, weights of query tokens, and low-rank updates."""
        return ".linear." in parameter or is_low_rank(parameter) or bool(_WEIGHTS.fullmatch(parameter))

    def search(
        self, model: Any, queries: Sequence[str], documents: Sequence[str], k: int, progress: Progress
    ) -> tuple[Hits, dict[str, float]]:
        """See ``Family``."""
        asked = _vectors(encoded(model, queries, "query", progress, convert_to_numpy=True))
        stored = _vectors(encoded(model, documents, "document", progress, convert_to_numpy=True))
        norm = float(np.linalg.norm(stored.values.astype(np.float32), axis=1).max(initial=1.0)) + 1e-3
        rows = np.arange(len(stored), dtype=np.int64)[None, :]
        figures = {"document_vectors": len(stored.values) / max(1, len(documents))}
        return best_rows(stored, norm, asked, rows, k), figures

    def finish(self, model: Any, options: ModelOptions, sample: Sample, progress: Progress) -> None:
        """Weights of query tokens that are below 0 become 0."""
        with torch.no_grad():
            for part in model.modules():
                if isinstance(part, QueryTokenWeights):
                    part.weight.clamp_(min=0)

    def save(self, model: Any, folder: Path) -> None:
        """See ``Family``."""
        save_merged(model, folder)


def _loaded(folder: Path) -> Any:
    """The checkpoint as a ``MultiVectorEncoder``; of any other model the transformer alone, without a projection."""
    from sentence_transformers import MultiVectorEncoder, SentenceTransformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
    from sentence_transformers.sentence_transformer.modules import Normalize

    checkpoint = read_checkpoint(folder)
    legacy = checkpoint.model_type == "ColBERT" or "HF_ColBERT" in (
        checkpoint.config.get("architectures") or ()
    )
    if legacy or checkpoint.model_type == "MultiVectorEncoder":
        return load(MultiVectorEncoder, folder, trust_remote_code=_ours(checkpoint.types))
    transformer = load(SentenceTransformer, folder)[0]
    modules = [transformer, MultiVectorMask(), Normalize(module_input_name="token_embeddings")]
    return MultiVectorEncoder(modules=modules, device="cpu")


def _ours(types: Sequence[str]) -> bool:
    """Whether all modules that are not sentence-transformers' own are of this package."""
    foreign = [kind for kind in types if "." in kind]
    return bool(foreign) and all(kind == QUERY_WEIGHTS for kind in foreign)


def _projects(model: Any) -> bool:
    from sentence_transformers.base.modules import Dense

    return any(isinstance(part, Dense) for part in model.modules())


def _add_projection(model: Any, chosen: dict[str, Any], sample: Sample, progress: Progress) -> None:
    """Put a projection behind the transformer, in place, fitted on documents of the sample.

    Raises:
        ConfigError: it would be wider than the model.
    """
    from sentence_transformers.base.modules import Dense

    width = model[0].get_embedding_dimension()
    dim = min(DIM, width) if chosen["dim"] is None else chosen["dim"]
    if dim > width:
        raise ConfigError(f"model.options.dim is {dim}; the model's vectors have {width} dimensions")
    documents = sample.documents[: chosen["fit_texts"]]
    progress.start("fitting", len(documents), "texts")
    fitted = TokenProjection.fit(_token_vectors(model, documents, progress), width, dim, whiten=True)
    projection = Dense(
        width, dim, bias=False, activation_function=nn.Identity(), module_input_name="token_embeddings"
    )
    with torch.no_grad():
        projection.linear.weight.copy_(torch.from_numpy(fitted.matrix.T.copy()))
    model.insert(1, projection)


def _token_vectors(model: Any, texts: Sequence[str], progress: Progress) -> Iterator[NDArray[np.float32]]:
    """(T, D) unit vectors of all tokens of the texts, a batch at a time."""
    for start in range(0, len(texts), BATCH):
        part = list(texts[start : start + BATCH])
        features = model.preprocess(part, task="document")
        with torch.no_grad():
            vectors = model[0](features)["token_embeddings"][features["attention_mask"].bool()]
        progress.advance(len(part))
        yield unit_rows(vectors.numpy())


def _vectors(parts: Sequence[Sequence[NDArray[Any]]]) -> MultiVector:
    """The vectors of all texts, in the precision in which they are stored."""
    texts = [text for part in parts for text in part]
    return MultiVector(row_offsets([len(text) for text in texts]), np.concatenate(texts).astype(np.float16))


LATE = LateFamily()
"""The family."""
