"""The errors Tercet raises on bad input; each message names the place, the value and the remedy."""

from __future__ import annotations

from pathlib import Path


class TercetError(Exception):
    """Anything wrong with data, settings or files that the user can mend."""


class FormatError(TercetError):
    """Input that cannot be parsed, with the file and, where there is one, the line."""

    def __init__(self, message: str, path: str | Path | None = None, line: int | None = None) -> None:
        self.path = None if path is None else str(path)
        self.line = line
        place = ":".join(str(part) for part in (self.path, line) if part is not None)
        super().__init__(f"{place}: {message}" if place else message)


class ConfigError(TercetError):
    """A setting that does not exist or has an impossible value."""


class IncompatibleError(TercetError):
    """Two things that do not belong together: an encoder and a collection, two format versions."""


class CorruptError(TercetError):
    """A stored file that is truncated or whose content does not match its checksum."""

    def __init__(self, path: str | Path, message: str) -> None:
        self.path = str(path)
        super().__init__(f"{path}: {message}")


class LockedError(TercetError):
    """Another writer holds the collection."""


class MissingExtraError(TercetError, ImportError):
    """An optional package that is not installed, with the command that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; install it with: pip install 'tercet[{extra}]'")


def unknown_name(what: str, name: str, valid: object) -> ConfigError:
    """The one wording for a name that is not in a table."""
    names = ", ".join(sorted(str(item) for item in valid))  # type: ignore[attr-defined]
    return ConfigError(f"unknown {what} {name!r}; valid: {names}")
