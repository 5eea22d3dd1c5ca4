"""Token vectors through sentence-transformers, for every checkpoint that is not run directly."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.compute import apply_threads
from retrieval.encoders.sparse_rows import row_offsets
from retrieval.encoders.tally import Tally
from retrieval.encoders.transformer.fallback import shown_text, tally_texts
from retrieval.encoders.transformer.late_recipe import PUNCTUATION, LateRecipe
from retrieval.encoders.transformer.tokens import Piece
from retrieval.errors import ConfigError
from retrieval.values import MultiVector

_GROUP = 64  # texts whose padded vectors exist at a time


@dataclass(frozen=True)
class LateFallbackEngine:
    """A MultiVectorEncoder; it keeps state while tokenising, so calls take turns.

    Attributes:
        model: the loaded MultiVectorEncoder, without pooling of tokens.
        lengths: by task the most tokens read; None where nothing says.
        keeps_empty: whether a text without a token of its own still has vectors.
        width: of the vectors.
    """

    model: Any
    lengths: Mapping[str, int | None]
    keeps_empty: bool
    width: int
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def encode(self, texts: Sequence[str], tally: Tally, task: str) -> MultiVector:
        """One row a text, of float32 vectors; prompts are already part of the texts."""
        parts: list[NDArray[np.float32]] = []
        with self.lock:
            apply_threads()
            for start in range(0, len(texts), _GROUP):
                group = [shown_text(text, self.lengths[task]) for text in texts[start : start + _GROUP]]
                tally_texts(self.model.tokenizer, group, self.lengths[task], tally)
                for found in self._features(group, task):
                    values = found["token_embeddings"].float().cpu().numpy()
                    parts.append(values[self._kept(found)])
        return MultiVector(row_offsets([len(part) for part in parts]), np.concatenate(parts))

    def pieces(self, text: str, task: str) -> list[Piece]:
        """What the vectors of a text stand for, one for each; runs the model."""
        shown, tokenizer = shown_text(text, self.lengths[task]), self.model.tokenizer
        with self.lock:
            (found,) = self._features([shown], task)
            ids = found["input_ids"].tolist()
            names = tokenizer.convert_ids_to_tokens(ids)
            places = [(0, 0)] * len(ids)
            if getattr(tokenizer, "is_fast", False):
                read = tokenizer(shown, truncation=True, max_length=len(ids), return_offsets_mapping=True)
                known = len(read["input_ids"])
                places[:known] = [tuple(place) for place in read["offset_mapping"]]
        pieces = [
            (shown[start:stop].strip() or name, start, stop) if start < stop else (name, -1, -1)
            for name, (start, stop) in zip(names, places, strict=True)
        ]
        return [piece for piece, keep in zip(pieces, self._kept(found), strict=True) if keep]

    def _features(self, texts: list[str], task: str) -> list[dict[str, Any]]:
        encode = self.model.encode_query if task == "query" else self.model.encode_document
        found: list[dict[str, Any]] = encode(texts, prompt="", output_value=None, show_progress_bar=False)
        return found

    def _kept(self, found: Mapping[str, Any]) -> NDArray[np.bool_]:
        keep: NDArray[np.bool_] = found["attention_mask"].bool().cpu().numpy()
        if not self.keeps_empty:
            ids = found["input_ids"].cpu().numpy()
            if np.isin(ids[keep], self.model.tokenizer.all_special_ids).all():
                return np.zeros_like(keep)
        return keep


def load_late_fallback(
    recipe: LateRecipe, options: Mapping[str, Any], *, device: str, dtype: str
) -> LateFallbackEngine:
    """Load a model from a local folder.

    Args:
        recipe: what its files say.
        options: ``max_length``, ``query_max_length``, ``augment``, ``skip_punctuation`` and
            ``trust_remote_code``; None leaves what sentence-transformers reads.
        device: torch device name.
        dtype: of the weights.

    Raises:
        ConfigError: sentence-transformers cannot run it, or it has no token vectors; the reason is in the message.
    """
    folder = recipe.checkpoint.folder
    try:
        model = _open(recipe, device, dtype, options["trust_remote_code"]).eval()
        transformer = model[0]
        _adjust(model, transformer, options)
        probe = model.encode_document(["a"], convert_to_numpy=True)[0]
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise ConfigError(f"sentence-transformers gets no token vectors from {folder}: {error}") from error
    expansion = transformer.query_expansion or {}
    fixed = expansion["length"] if expansion.get("strategy") == "fixed" else None
    lengths = {"query": fixed or transformer.query_length, "document": transformer.document_length}
    return LateFallbackEngine(
        model=model,
        lengths={task: length or model.max_seq_length for task, length in lengths.items()},
        keeps_empty=recipe.trained,
        width=int(probe.shape[1]),
    )


def _open(recipe: LateRecipe, device: str, dtype: str, trust_remote_code: bool) -> Any:
    import torch
    from sentence_transformers import MultiVectorEncoder, SentenceTransformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
    from sentence_transformers.sentence_transformer.modules import Normalize

    settings = {
        "device": device,
        "local_files_only": True,
        "trust_remote_code": trust_remote_code,
        "model_kwargs": {"dtype": getattr(torch, dtype)},
    }
    folder = str(recipe.checkpoint.folder)
    if not recipe.trained:
        transformer = SentenceTransformer(folder, **settings)[0]
        modules = [transformer, MultiVectorMask(), Normalize(module_input_name="token_embeddings")]
        return MultiVectorEncoder(modules=modules, device=device)
    model = MultiVectorEncoder(folder, **settings)
    if recipe.pooling is not None and type(model[-1]).__name__ == "HierarchicalTokenPooling":
        del model[-1]  # it is done behind the projection, here as on the direct path
    return model


def _adjust(model: Any, transformer: Any, options: Mapping[str, Any]) -> None:
    """What the options want instead of the checkpoint's own settings."""
    if options["max_length"] is not None:
        transformer.document_length = options["max_length"]
    expansion, augment = transformer.query_expansion, options["augment"]
    if options["query_max_length"] is not None:
        transformer.query_length = options["query_max_length"]
        expansion = {**expansion, "strategy": "min"} if expansion else None
    if augment is not None:
        expansion = {"strategy": "min", **(expansion or {}), "length": augment} if augment else None
    transformer.query_expansion = expansion
    if options["skip_punctuation"] is not None:
        for module in model:
            if type(module).__name__ == "MultiVectorMask":
                module.skiplist_tasks = ["document"]
                module.skiplist_words = list(PUNCTUATION) if options["skip_punctuation"] else []
                module.resolve_with_tokenizer(model.tokenizer)
