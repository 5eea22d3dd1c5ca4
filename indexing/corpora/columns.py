"""Which columns of a table hold id, text and title."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from indexing.corpora.fields import ID_FIELDS, TEXT_FIELDS, TITLE_FIELDS, FieldNames
from retrieval.errors import FormatError


def resolve_columns(columns: Sequence[str], names: FieldNames, path: Path) -> FieldNames:
    """Names of actual columns: those given, else the usual ones in any case.

    Raises:
        FormatError: a column that was given, or any text column, is missing.
    """
    shown = ", ".join(columns)
    for what, given in (("id", names.id), ("text", names.text), ("title", names.title)):
        if given is not None and given not in columns:
            raise FormatError(f'there is no column "{given}" for the {what}; there are: {shown}', path)
    text = names.text or _usual(columns, TEXT_FIELDS)
    if text is None:
        raise FormatError(
            f'no column is named "text"; there are: {shown}; say which holds the text with --text-field', path
        )
    return replace(
        names,
        id=names.id or _usual(columns, ID_FIELDS),
        text=text,
        title=names.title or _usual(columns, TITLE_FIELDS),
    )


def _usual(columns: Sequence[str], usual: Sequence[str]) -> str | None:
    lowered = {name.lower(): name for name in reversed(columns)}
    return next((name if name in columns else lowered[name] for name in usual if name in lowered), None)
