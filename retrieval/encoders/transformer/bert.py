"""The forward pass of BERT and its relatives, straight from safetensors to token vectors."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from retrieval.encoders.transformer.architectures import MODELS
from retrieval.encoders.transformer.attention import TokenRun, attend
from retrieval.encoders.transformer.linear import (
    AddingLinear,
    Linear,
    adding_linear,
    even_height,
    linear,
    packs,
)
from retrieval.encoders.transformer.passes import PASSES
from retrieval.errors import CorruptError


@dataclass(frozen=True, slots=True)
class Norm:
    """Layer normalisation with its weights."""

    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """(T, D) to (T, D)."""
        return F.layer_norm(x, (x.shape[-1],), self.weight, self.bias, self.eps)


@dataclass(frozen=True, slots=True)
class Layer:
    """One block: attention and feed-forward, each added to its input and normalised."""

    qkv: Linear
    attended: AddingLinear
    attended_norm: Norm
    up: Linear
    down: AddingLinear
    norm: Norm


@dataclass(frozen=True)
class Bert:
    """Token ids to the last hidden states (Devlin et al., NAACL 2019, arXiv:1810.04805).

    Padding-free: texts lie one after another in one (T, D) matrix, so that linear layers see real tokens only.

    Attributes:
        words: (V, D) word vectors.
        positions: (P, D) position vectors with the vector of segment 0 added, from the first token's on.
        norm: normalisation of their sum.
        layers: the blocks.
        heads: attention heads.
        number: of this model in the process.
    """

    words: Tensor
    positions: Tensor
    norm: Norm
    layers: tuple[Layer, ...]
    heads: int
    number: int = field(default_factory=count().__next__, init=False)

    @property
    def width(self) -> int:
        """The width D of a token vector."""
        return int(self.words.shape[1])

    def __call__(self, ids: Tensor, runs: list[TokenRun]) -> Tensor:
        """Last hidden states.

        Args:
            ids: (T,) int64 token ids.
            runs: the texts they form.

        Returns:
            (T, D) in the dtype of the weights; shared with others (``PASSES``), so not to be written to.
        """
        if ids.device.type != "cpu":  # a key would have to wait for the device
            return self._forward(ids, runs)

        def key() -> tuple[int, bytes, tuple[tuple[int, int, bytes], ...]]:
            shapes = tuple(
                (run.n, run.length, b"" if run.lengths is None else run.lengths.numpy().tobytes())
                for run in runs
            )
            return self.number, ids.numpy().tobytes(), shapes

        found: Tensor = PASSES.recall(key, lambda: self._forward(ids, runs))
        return found

    def _forward(self, ids: Tensor, runs: list[TokenRun]) -> Tensor:
        n = len(ids)
        if ids.device.type == "cpu":
            ids = F.pad(ids, (0, even_height(n) - n))
        x = F.embedding(ids, self.words)
        for run in runs:
            run.of(x).add_(self.positions[: run.length])
        x = self.norm(x)
        composed = x.dtype == torch.bfloat16 and packs(self.words)
        for layer in self.layers:
            attended = attend(layer.qkv(x), runs, self.heads, composed)
            x = layer.attended_norm(layer.attended(attended, x))
            x = layer.norm(layer.down(layer.up(x), x))
        return x[:n]


_loaded: WeakValueDictionary[tuple[Any, ...], Bert] = WeakValueDictionary()
_loading = threading.Lock()


def load_bert(folder: Path, config: Mapping[str, Any], device: str, dtype: str) -> Bert:
    """Read config.json's model from model.safetensors; encoders of one file and dtype share it.

    Raises:
        CorruptError: the file is damaged or lacks a tensor.
    """
    path = folder / "model.safetensors"
    try:
        facts = path.stat()
    except FileNotFoundError as error:
        raise CorruptError(path, "the file is missing") from error
    identity = str(path.resolve()), facts.st_size, facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns
    key = (*identity, json.dumps(dict(config), sort_keys=True, default=str), device, dtype)
    with _loading:
        found = _loaded.get(key)
        if found is None:
            found = _loaded[key] = _load_bert(path, config, device, dtype)
        return found


def _load_bert(path: Path, config: Mapping[str, Any], device: str, dtype: str) -> Bert:
    tensors = _read(path)
    names = MODELS[config["model_type"]]
    kind = getattr(torch, dtype)
    eps = float(config.get("layer_norm_eps", 1e-12))
    prefix = next((p for p in names.prefixes if f"{p}embeddings.word_embeddings.weight" in tensors), "")

    def tensor(name: str) -> Tensor:
        try:
            return tensors[prefix + name]
        except KeyError:
            raise CorruptError(path, f"there is no tensor {prefix + name!r}") from None

    def placed(x: Tensor) -> Tensor:
        return x.to(device=device, dtype=kind).contiguous()

    def norm(name: str) -> Norm:
        return Norm(placed(tensor(f"{name}.weight")), placed(tensor(f"{name}.bias")), eps)

    heads = int(config[names.heads])
    scale = (int(config[names.width]) / heads) ** -0.5
    activation = str(config.get(names.activation, "gelu"))

    def layer(number: int) -> Layer:
        at = f"{names.layer}{number}."
        parts = [(names.query, scale), (names.key, 1.0), (names.value, 1.0)]
        weight, bias = (
            placed(torch.cat([tensor(f"{at}{name}.{kind}").float() * factor for name, factor in parts]))
            for kind in ("weight", "bias")
        )

        def affine(name: str, make: Callable[[Tensor, Tensor], Any]) -> Any:
            return make(placed(tensor(f"{at}{name}.weight")), placed(tensor(f"{at}{name}.bias")))

        return Layer(
            qkv=linear(weight, bias),
            attended=affine(names.attended, adding_linear),
            attended_norm=norm(at + names.attended_norm),
            up=affine(names.up, lambda w, b: linear(w, b, activation)),
            down=affine(names.down, adding_linear),
            norm=norm(at + names.norm),
        )

    positions = tensor("embeddings.position_embeddings.weight").float()[names.first_position(config) :]
    if prefix + "embeddings.token_type_embeddings.weight" in tensors:
        positions = positions + tensor("embeddings.token_type_embeddings.weight")[0].float()
    return Bert(
        words=placed(tensor("embeddings.word_embeddings.weight")),
        positions=placed(positions),
        norm=norm("embeddings.LayerNorm"),
        layers=tuple(layer(number) for number in range(int(config[names.n_layers]))),
        heads=heads,
    )


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CorruptError(path, f"not a complete safetensors file ({error})") from error
