"""The kinds of generators."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import cast

from indexing.progress import Progress
from retrieval.errors import ConfigError, unknown_name
from retrieval.values import Document
from training.generation.generator import Generator, GeneratorOptions

GENERATORS: dict[str, str] = {
    "keywords": "training.generation.keywords:Keywords",
    "crops": "training.generation.crops:Crops",
    "titles": "training.generation.titles:Titles",
    "endpoint": "training.generation.endpoint:EndpointGenerator",
    "local": "training.generation.local:LocalGenerator",
}
"""Name -> class with ``open(options, documents, progress) -> Generator``."""

LANGUAGE_MODELS = ("endpoint", "local")
"""Those that ask one."""


def open_generator(
    name: str, options: GeneratorOptions, documents: Iterable[Document], progress: Progress
) -> Generator:
    """The generator of that name.

    Args:
        name: in ``GENERATORS``.
        options: what it is opened with.
        documents: the whole collection, for what has to be known of it; read at most once.
        progress: hears of that.

    Raises:
        ConfigError: there is none of that name, or an impossible option.
    """
    if name not in GENERATORS:
        raise unknown_name("generator", name, GENERATORS)
    for what, value, least in (
        ("queries of a document", options.per_document, 1),
        ("temperature", options.temperature, 0),
        ("tokens of a query", options.max_tokens, 1),
        ("concurrency", options.concurrency, 1),
        ("batch", options.batch, 1),
    ):
        if value < least:
            raise ConfigError(f"{what}: {value}, at least {least} is needed")
    module, attribute = GENERATORS[name].split(":")
    return cast(Generator, getattr(import_module(module), attribute).open(options, documents, progress))
