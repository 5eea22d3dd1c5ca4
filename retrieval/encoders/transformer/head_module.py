"""Modules behind pooling that sentence-transformers runs and saves, and that are run here without it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from retrieval.errors import CorruptError, FormatError

_WEIGHTS = "model.safetensors"
_CONFIG = "config.json"


class HeadModule(nn.Module):
    """A module of a checkpoint with a config.json of its arguments and a model.safetensors of its weights.

    It has what sentence-transformers calls of a module, without deriving from its class, whose import takes seconds.
    sentence-transformers opens a checkpoint with one of these only with ``trust_remote_code=True``, as any module that
    is not its own.

    Attributes:
        forward_kwargs: what sentence-transformers hands to ``forward`` besides features.
    """

    forward_kwargs: ClassVar[frozenset[str]] = frozenset({"task"})

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that make a module like this one, as JSON."""
        raise NotImplementedError

    def save(self, output_path: str, **_: Any) -> None:
        """Write config and weights into an existing folder."""
        from safetensors.torch import save_file

        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, Path(output_path) / _WEIGHTS)
        (Path(output_path) / _CONFIG).write_text(json.dumps(self.config, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **_: Any) -> Self:
        """Read what ``save`` wrote, in float32 on the CPU.

        Raises:
            FormatError: config.json is missing or does not describe such a module.
            CorruptError: the weights are missing, damaged, or those of another module.
        """
        folder = Path(model_name_or_path) / subfolder
        try:
            config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
            made = cls(**config)
        except (OSError, ValueError, TypeError) as error:
            raise FormatError(f"does not describe a {cls.__name__} ({error})", folder / _CONFIG) from error
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            made.load_state_dict(
                {name: tensor.float() for name, tensor in load_file(folder / _WEIGHTS).items()}
            )
        except (SafetensorError, OSError, RuntimeError) as error:
            raise CorruptError(folder / _WEIGHTS, f"not the weights of a {cls.__name__} ({error})") from error
        return made


def in_float32(features: Mapping[str, Tensor], name: str) -> Tensor:
    """A feature in the precision that heads compute in, whatever the encoder before them did."""
    return features[name].float()


def without_autocast(device: torch.device) -> torch.autocast:
    """Within it nothing is computed in half precision."""
    return torch.autocast(device.type, enabled=False)


def type_name(module: type[HeadModule]) -> str:
    """What modules.json calls a module of this class."""
    return f"{module.__module__}.{module.__qualname__}"
