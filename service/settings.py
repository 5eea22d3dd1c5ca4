"""What a server can be told: command-line options and TERCET_* variables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


def _names(given: object) -> object:
    """A variable holds one string: names separated by commas."""
    return [name.strip() for name in given.split(",") if name.strip()] if isinstance(given, str) else given


class Settings(BaseSettings):
    """One server of one collection; every field is also read from ``TERCET_<NAME>``.

    The fields are named as the options of ``tercet serve``, so each option has a variable.

    Attributes:
        collection: folder of the collection.
        host: address to listen on; the default is reachable from this machine only.
        port: 0 takes a free one.
        using: what a search uses when it does not say; None is hybrid where the collection has several
            representations, the only one where it has not.
        rerank: rerankers that a request may ask for; others are refused, since a name may load a model. In the
            variable, names are separated by commas.
        max_queue: searches that may wait for a worker; one more is answered 503.
        workers: searches that run at once, each on a thread; those that wait are joined.
        max_batch: queries searched or encoded together.
        max_body_bytes: a longer request body is answered 413.
        drain: seconds that running requests get to finish at shutdown.
        reload: seconds between looks for a new commit of the collection.
    """

    model_config = SettingsConfigDict(
        env_prefix="TERCET_", env_ignore_empty=True, extra="forbid", frozen=True
    )

    collection: Path
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    using: str | None = None
    rerank: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)] = ()
    max_queue: int = Field(default=256, ge=0)
    workers: int = Field(default=4, ge=1, le=256)
    max_batch: int = Field(default=64, ge=1)
    max_body_bytes: int = Field(default=1 << 20, ge=1)
    drain: float = Field(default=10.0, ge=0)
    reload: float = Field(default=1.0, ge=0)
