"""What a checkpoint says about its token vectors: lengths, query augmentation, skipped tokens; reads JSON only."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from retrieval.encoders.token_pooling import TokenPooling
from retrieval.encoders.transformer.architectures import length_limit, runs_token_vectors
from retrieval.encoders.transformer.checkpoint import Checkpoint, read_checkpoint, read_json
from retrieval.encoders.transformer.windows import reading
from retrieval.errors import ConfigError, FormatError

PUNCTUATION = tuple(string.punctuation)
"""What ``skip_punctuation`` leaves out, as ColBERT does."""

_LEGACY = ("config_sentence_transformers.json", "artifact.metadata")
_POOLING = "HierarchicalTokenPooling"


@dataclass(frozen=True, slots=True)
class TokenRules:
    """Which tokens of a query, or of a document, get a vector.

    Attributes:
        prompt: put before the text.
        length: most tokens read, special tokens included; None where nothing says.
        window: most tokens the model reads at a time, so that a longer text is read in several windows; None for all.
        pad_to: a shorter text is filled up to so many tokens; 0 for no filling.
        filler: the token it is filled with; "" where the tokenizer has none for that.
        attends: whether the fillers are attended to; they always get vectors of their own.
        skipped: tokens that get none.
        keeps_empty: whether a text without a token of its own still has those of [CLS] and [SEP].
    """

    prompt: str
    length: int | None
    window: int | None = None
    pad_to: int = 0
    filler: str = ""
    attends: bool = False
    skipped: tuple[str, ...] = ()
    keeps_empty: bool = True


@dataclass(frozen=True)
class LateRecipe:
    """How a checkpoint makes token vectors.

    Attributes:
        checkpoint: its files.
        trained: whether it was trained for late interaction; of any other model the last hidden states are used.
        known: whether the rules below are all there is to know; older formats only sentence-transformers can read.
        query: rules of queries.
        document: rules of documents.
        pooling: what becomes of a document's vectors; None to keep them.
    """

    checkpoint: Checkpoint
    trained: bool
    known: bool
    query: TokenRules
    document: TokenRules
    pooling: TokenPooling | None

    @property
    def runs_directly(self) -> bool:
        """Whether the vectors are computed without sentence-transformers."""
        return self.known and runs_token_vectors(self.checkpoint, self.trained)

    @property
    def width(self) -> int | None:
        """The width of the model's token vectors as far as a setting says it."""
        dense = [config for kind, _, config in self.checkpoint.modules if kind == "Dense"]
        if self.trained and (dense or not self.known):
            found = dense[-1].get("out_features") if dense else None
        else:
            names = ("hidden_size", "dim", "d_model", "n_embd")
            found = next(
                (self.checkpoint.config[name] for name in names if name in self.checkpoint.config), None
            )
        return None if found is None else int(found)

    @property
    def unread_settings(self) -> list[str]:
        """Files whose settings matter and are not part of the rules."""
        if self.known:
            return []
        places = [self.checkpoint.folder / name for name in _LEGACY]
        return [place.read_text(encoding="utf-8") for place in places if place.is_file()]


def read_recipe(folder: Path, options: Mapping[str, Any]) -> LateRecipe:
    """Read what a folder's JSON files say, and change it as the options want.

    Args:
        folder: a MultiVectorEncoder, or any other model with token vectors.
        options: ``max_length``, ``query_max_length``, ``window``, ``augment``, ``skip_punctuation``, ``pool_factor``,
            ``query_prompt`` and ``document_prompt``; None leaves what the checkpoint says.

    Raises:
        ConfigError: the folder holds no model or one without token vectors, or an option does not suit it.
        FormatError: a JSON file cannot be parsed, or has other content than it should.
    """
    checkpoint = read_checkpoint(folder)
    if checkpoint.model_type in ("SparseEncoder", "CrossEncoder"):
        raise ConfigError(
            f"{folder} is a {checkpoint.model_type}; the late encoder needs a model with token vectors"
        )
    legacy = checkpoint.model_type == "ColBERT" or "HF_ColBERT" in (
        checkpoint.config.get("architectures") or ()
    )
    trained = legacy or checkpoint.model_type == "MultiVectorEncoder"
    mask = _config_of(checkpoint, "MultiVectorMask") if trained else {}
    pooling, pooling_known = _pooling(checkpoint) if trained else (None, True)
    wanted = options["window"]
    if trained or not runs_token_vectors(checkpoint, trained):
        if wanted:
            raise ConfigError(
                f"window is {wanted}; {folder} reads texts as its own settings say. Windows are for BERT-like "
                "models that were not trained for late interaction"
            )
        wanted = 0
    query = _query_rules(checkpoint, options, mask, trained, wanted)
    length, window = _read_of(checkpoint, "max_length", options, "document_length", wanted)
    document = TokenRules(
        prompt=_given(options["document_prompt"], checkpoint.document_prompt),
        length=length,
        window=window,
        skipped=_skipped(options, mask, "document"),
        keeps_empty=trained,
    )
    factor = options["pool_factor"]
    if factor is not None:
        pooling = replace(pooling or TokenPooling(factor), factor=factor) if factor > 1 else None
    unmasked = trained and query.pad_to and "MultiVectorMask" not in checkpoint.types
    known = not legacy and pooling_known and not unmasked and not mask.get("keep_only_token_ids")
    return LateRecipe(checkpoint, trained, known, query, document, pooling)


def _query_rules(
    checkpoint: Checkpoint,
    options: Mapping[str, Any],
    mask: Mapping[str, Any],
    trained: bool,
    wanted: int | None,
) -> TokenRules:
    expansion = checkpoint.wrapper.get("query_expansion") or {}
    try:
        own, fixed = int(expansion.get("length", 0)), expansion.get("strategy") == "fixed"
    except (AttributeError, TypeError, ValueError) as error:
        path = checkpoint.transformer / "sentence_bert_config.json"
        raise FormatError(
            f"query_expansion is {expansion!r}; it must name a strategy and a length", path
        ) from error
    pad_to = _given(options["augment"], own)
    length, window = _read_of(
        checkpoint, "query_max_length", options, "query_length", 0 if pad_to else wanted
    )
    if fixed and options["query_max_length"] is None:
        length = pad_to or own
    limit = length if length is not None else length_limit(checkpoint)
    if limit is not None and pad_to > limit:
        raise ConfigError(
            f"augment is {pad_to}; {checkpoint.folder.name} reads at most {limit} tokens of a query"
        )
    return TokenRules(
        prompt=_given(options["query_prompt"], checkpoint.query_prompt),
        length=length,
        window=window,
        pad_to=pad_to,
        filler=expansion.get("token") or (_mask_token(checkpoint) if pad_to else ""),
        attends=bool(expansion.get("attend", False)),
        skipped=_skipped(options, mask, "query"),
        keeps_empty=trained,
    )


def _read_of(
    checkpoint: Checkpoint, option: str, options: Mapping[str, Any], setting: str, window: int | None
) -> tuple[int | None, int | None]:
    """How much of a text is read, and at a time: as the options say, else the checkpoint, else the model."""
    return reading(checkpoint, _given(options[option], checkpoint.wrapper.get(setting)), window)


def _skipped(options: Mapping[str, Any], mask: Mapping[str, Any], task: str) -> tuple[str, ...]:
    wanted = options["skip_punctuation"]
    if wanted is not None:
        return PUNCTUATION if wanted and task == "document" else ()
    tasks = mask.get("skiplist_tasks") or ["document"]
    return tuple(mask.get("skiplist_words") or ()) if task in tasks else ()


def _pooling(checkpoint: Checkpoint) -> tuple[TokenPooling | None, bool]:
    """The checkpoint's own pooling, and whether it is of a kind that is computed here."""
    config = _config_of(checkpoint, _POOLING)
    if _POOLING not in checkpoint.types:
        return None, True
    known = checkpoint.types.index(_POOLING) == len(checkpoint.types) - 1
    known = known and config.get("tasks", ["document"]) == ["document"]
    pooling = TokenPooling(
        factor=float(config.get("pool_factor", 1.0)),
        protected=int(config.get("num_protected_tokens", 1)),
        normalize=bool(config.get("normalize_embeddings", False)),
    )
    return (pooling if known else None), known


def _config_of(checkpoint: Checkpoint, kind: str) -> Mapping[str, Any]:
    return next((config for name, _, config in checkpoint.modules if name == kind), {})


def _mask_token(checkpoint: Checkpoint) -> str:
    settings = read_json(checkpoint.transformer / "tokenizer_config.json", missing={})
    found = settings.get("mask_token") or settings.get("eos_token") or ""
    return str(found["content"]) if isinstance(found, dict) else str(found)


def _given(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value
