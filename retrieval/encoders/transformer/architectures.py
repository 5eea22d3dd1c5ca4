"""Which checkpoints are run without transformers, and where each kind of model keeps its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from retrieval.encoders.transformer.checkpoint import Checkpoint, read_json
from retrieval.errors import ConfigError

ACTIVATIONS = frozenset({"gelu", "gelu_new", "gelu_pytorch_tanh", "relu"})
"""Activations inside the transformer, by config.json's names."""

POOLINGS = frozenset({"cls", "lasttoken", "max", "mean", "mean_sqrt_len_tokens", "weightedmean"})
"""Pooling modes, by sentence-transformers' names."""

PROJECTION_ACTIVATIONS = {
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.GELU": "gelu",
}
"""Activations of a Dense module."""


@dataclass(frozen=True, slots=True)
class Names:
    """Where a kind of model keeps its tensors and its sizes."""

    prefixes: tuple[str, ...]
    layer: str
    query: str
    key: str
    value: str
    attended: str
    attended_norm: str
    up: str
    down: str
    norm: str
    width: str = "hidden_size"
    n_layers: str = "num_hidden_layers"
    heads: str = "num_attention_heads"
    activation: str = "hidden_act"
    shifted: bool = False  # positions start behind the padding token's id

    def first_position(self, config: Mapping[str, Any]) -> int:
        """The row of the position table that the first token uses."""
        return int(config.get("pad_token_id") or 0) + 1 if self.shifted else 0

    def positions(self, config: Mapping[str, Any]) -> int:
        """The most tokens the position table has rows for."""
        return int(config["max_position_embeddings"]) - self.first_position(config)


_BERT = Names(
    prefixes=("", "bert.", "roberta.", "distilbert."),
    layer="encoder.layer.",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attended="attention.output.dense",
    attended_norm="attention.output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    norm="output.LayerNorm",
)
_ROBERTA = replace(_BERT, shifted=True)
_DISTILBERT = Names(
    prefixes=_BERT.prefixes,
    layer="transformer.layer.",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attended="attention.out_lin",
    attended_norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    norm="output_layer_norm",
    width="dim",
    n_layers="n_layers",
    heads="n_heads",
    activation="activation",
)
MODELS: dict[str, Names] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": _DISTILBERT,
}
"""``model_type`` in config.json -> names; other kinds of models run through sentence-transformers."""


@dataclass(frozen=True, slots=True)
class HeadNames:
    """Where a kind of model keeps the tensors of its head; GELU where no setting names the activation."""

    dense: str
    norm: str
    decoder: str
    bias: str
    activation: str = ""


_BERT_HEAD = HeadNames(
    dense="cls.predictions.transform.dense",
    norm="cls.predictions.transform.LayerNorm",
    decoder="cls.predictions.decoder",
    bias="cls.predictions.bias",
    activation="hidden_act",
)
_ROBERTA_HEAD = HeadNames("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head.bias")
_DISTILBERT_HEAD = HeadNames(
    "vocab_transform", "vocab_layer_norm", "vocab_projector", "vocab_projector.bias", "activation"
)
HEADS: dict[str, HeadNames] = {
    "bert": _BERT_HEAD,
    "roberta": _ROBERTA_HEAD,
    "xlm-roberta": _ROBERTA_HEAD,
    "camembert": _ROBERTA_HEAD,
    "distilbert": _DISTILBERT_HEAD,
}
"""``model_type`` in config.json -> where a masked language model of that kind keeps its head."""

QUERY_WEIGHTS = "retrieval.encoders.transformer.query_weights.QueryTokenWeights"
"""The module of a late-interaction model that weights the tokens of queries, as modules.json names it."""

_TASKS = {"Transformer": "feature-extraction", "MLMTransformer": "fill-mask"}
"""What a transformer module computes where its config does not say."""

_SPLADE = {"pooling_strategy": ("max", "sum"), "activation_function": ("relu", "log1p_relu")}
_PER_TASK = frozenset({"query_length", "document_length", "query_expansion", "processing_kwargs"})


def runs_directly(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint is of a kind that is computed here exactly as sentence-transformers does."""
    return (
        _known_modules(checkpoint)
        and _known_transformer(checkpoint)
        and all(_known_projection(part) for part in checkpoint.modules[2:])
    )


def runs_masked_language(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint is a masked language model with SPLADE pooling of a kind that is computed here."""
    kinds = checkpoint.types
    if len(kinds) != 2 or kinds[0] not in _TASKS or kinds[1] != "SpladePooling":
        return False
    pooling = checkpoint.modules[1][2]
    return (
        all(pooling.get(name, valid[0]) in valid for name, valid in _SPLADE.items())
        and not _PER_TASK & set(checkpoint.wrapper)
        and checkpoint.config.get("model_type") in HEADS
        and _known_transformer(checkpoint, "fill-mask")
    )


def runs_token_vectors(checkpoint: Checkpoint, trained: bool) -> bool:
    """Whether the token vectors of a checkpoint are computed here.

    Args:
        checkpoint: the model.
        trained: whether it is a late-interaction model, whose modules behind the transformer count; of any other
            only the transformer is used.
    """
    if checkpoint.types[0] != "Transformer" or checkpoint.wrapper.get("processing_kwargs"):
        return False
    behind = checkpoint.modules[1:] if trained else ()
    return _known_transformer(checkpoint) and all(
        module[0] in ("MultiVectorMask", "HierarchicalTokenPooling", QUERY_WEIGHTS)
        or (module[0] in ("Dense", "Normalize") and _known_projection(module, "token_embeddings"))
        for module in behind
    )


def runs_without_model(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint is a table of term weights that is looked up here."""
    return (
        checkpoint.types == ("SparseStaticEmbedding",)
        and "path" not in checkpoint.wrapper
        and (checkpoint.transformer / "model.safetensors").is_file()
        and (checkpoint.transformer / "tokenizer.json").is_file()
    )


def _known_modules(checkpoint: Checkpoint) -> bool:
    """Transformer, Pooling, any number of Dense, then perhaps Normalize."""
    kinds = checkpoint.types
    if kinds[:2] != ("Transformer", "Pooling"):
        return False
    dense = kinds[2:-1] if kinds[2:] and kinds[-1] == "Normalize" else kinds[2:]
    pooling = checkpoint.modules[1][2]
    return (
        set(dense) <= {"Dense"}
        and set(checkpoint.pooling) <= POOLINGS
        and pooling.get("include_prompt", True)
    )


def _known_transformer(checkpoint: Checkpoint, task: str = "feature-extraction") -> bool:
    config, wrapper, folder = checkpoint.config, checkpoint.wrapper, checkpoint.transformer
    names = MODELS.get(str(config.get("model_type")))
    if names is None or config.get(names.activation, "gelu") not in ACTIVATIONS:
        return False
    tokenizer = read_json(folder / "tokenizer_config.json", missing={})
    usual_task = _TASKS[checkpoint.types[0]]
    return (
        config.get("position_embedding_type", "absolute") == "absolute"
        and not config.get("is_decoder")
        and not {"auto_map", "quantization_config"} & set(config)
        and wrapper.get("transformer_task", usual_task) == task
        and wrapper.get("module_output_name") in (None, "token_embeddings")
        and tokenizer.get("truncation_side", "right") == "right"
        and (folder / "model.safetensors").is_file()
        and (folder / "tokenizer.json").is_file()
    )


def _known_projection(
    module: tuple[str, Path, Mapping[str, Any]], vectors: str = "sentence_embedding"
) -> bool:
    """Whether a module maps vectors of that name to vectors of the same name in a way that is known here."""
    kind, folder, config = module
    default = "sentence_embedding" if kind == "Normalize" else vectors
    usual = config.get("module_input_name", default) == vectors and config.get("module_output_name") in (
        None,
        vectors,
    )
    if kind == "Normalize":
        return usual
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    return (
        usual
        and not config.get("use_residual")
        and activation in PROJECTION_ACTIVATIONS
        and (folder / "model.safetensors").is_file()
    )


def length_limit(checkpoint: Checkpoint) -> int | None:
    """The most tokens a checkpoint's position table allows; None where the kind of model is not known here."""
    names = MODELS.get(str(checkpoint.config.get("model_type")))
    if names is None or "max_position_embeddings" not in checkpoint.config:
        return None
    return names.positions(checkpoint.config)


def reading_length(checkpoint: Checkpoint, wanted: int | None, option: str = "max_length") -> int | None:
    """The maximum length in force: the wanted one if the model can read so much, else the checkpoint's.

    Args:
        checkpoint: the model.
        wanted: tokens, or None.
        option: what the wanted length is called.

    Raises:
        ConfigError: the model's position table is shorter than what is wanted.
    """
    limit = length_limit(checkpoint)
    if wanted is None:
        known = [length for length in (checkpoint.max_length, limit) if length is not None]
        return min(known, default=None)
    if limit is not None and wanted > limit:
        raise ConfigError(f"{option} is {wanted}; {checkpoint.folder.name} reads at most {limit} tokens")
    return wanted
