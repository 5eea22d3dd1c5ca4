"""From a record of named values (a JSON object, a CSV or Parquet row) to a Document.

The rules, the same for every format:

- id: ``_id``, else ``id``; a non-empty string or an integer. A record without either gets a stable one, the first
  24 hex digits of the BLAKE2b hash of title and text, so the same document has the same id in every build.
- text: ``text``, else ``contents``, ``content`` or ``body``; a string, may be empty. title: ``title``, optional.
- Everything else is metadata: strings, integers, floats, booleans, times, lists of strings, null. The object under
  ``metadata`` (BEIR) is merged in; other nested objects are flattened with dots (``{"author": {"name": …}}`` is the
  field ``author.name``). Times with a zone become UTC without one; a date is its midnight; NaN is null.

An update of metadata names a document by its id and holds fields alone, by the same rules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from retrieval.errors import FormatError
from retrieval.values import Document
from retrieval.values.texts import MetadataValue

ID_FIELDS = ("_id", "id")
TEXT_FIELDS = ("text", "contents", "content", "body")
TITLE_FIELDS = ("title",)
_SCALARS = frozenset((str, int, bool, type(None)))
_MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class FieldNames:
    """Which fields of a record are what.

    Attributes:
        id: the field that holds the id; None looks for the usual names.
        text: the same for the text.
        title: the same for the title.
        ignore: fields that are left out altogether (dotted names for nested ones).
    """

    id: str | None = None
    text: str | None = None
    title: str | None = None
    ignore: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """JSON for fingerprints."""
        return asdict(self)


def stable_id(title: str, text: str) -> str:
    """The id of a document that has none: 24 hex digits that depend on title and text alone."""
    content = f"{title}\0{text}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=12).hexdigest()


def described(value: object) -> str:
    """A value and its type as an error shows them."""
    names = {
        str: "a string",
        bool: "a boolean",
        int: "an integer",
        float: "a number",
        list: "a list",
        dict: "an object",
        type(None): "null",
    }
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    name = names.get(type(value), f"of type {type(value).__name__}")
    return name if value is None else f"{shown}, {name}"


def to_document(values: dict[str, Any], names: FieldNames, file: str, line: int | None) -> Document:
    """Make the document; takes what it uses out of ``values``.

    Raises:
        FormatError: the text is missing, or a field has a type that cannot be held.
    """
    found_id = _take(values, names.id, ID_FIELDS)
    text = _take(values, names.text, TEXT_FIELDS)
    title = _take(values, names.title, TITLE_FIELDS)
    if type(text) is not str:
        raise FormatError(_text_problem(text, names), file, line)
    if title is _MISSING or title is None:
        title = ""
    elif type(title) is not str:
        wanted = names.title or "title"
        raise FormatError(f'"{wanted}" is {described(title)}; a title is a string', file, line)
    if found_id is _MISSING and names.id is None:
        identifier = stable_id(title, text)
    else:
        identifier = _identifier(found_id, names, file, line)
    if not values:
        return Document(identifier, text, title)
    metadata = _metadata(values, frozenset(names.ignore), file, line)
    return Document(identifier, text, title, metadata)


def to_update(
    values: dict[str, Any], names: FieldNames, schema: Mapping[str, str], file: str, line: int | None
) -> tuple[str, dict[str, MetadataValue]]:
    """A document's id and the metadata fields to set, null for one to remove.

    Args:
        schema: field name -> type name of the collection: its times may be given as ISO 8601 strings, and its fields
            may have names that elsewhere hold a text or title.

    Raises:
        FormatError: there is no id, a text or title is given, or a field has a type that cannot be held.
    """
    found_id = _take(values, names.id, ID_FIELDS)
    if found_id is _MISSING:
        raise FormatError(
            f'"{names.id or "_id"}" is missing; every line names the document to change', file, line
        )
    identifier = _identifier(found_id, names, file, line)
    for name in (*TEXT_FIELDS, *TITLE_FIELDS):
        if name in values and name not in schema:
            raise FormatError(
                f'"{name}" cannot change without encoding again; add the whole document with '
                "`tercet add --on-duplicate replace`",
                file,
                line,
            )
    fields = _metadata(values, frozenset(names.ignore), file, line)
    for name, value in fields.items():
        if schema.get(name) == "datetime" and isinstance(value, str):
            fields[name] = _time(name, value, file, line)
    return identifier, fields


def _identifier(found: object, names: FieldNames, file: str, line: int | None) -> str:
    if type(found) is int:
        return str(found)
    if type(found) is str and found:
        return found
    raise FormatError(_id_problem(found, names), file, line)


def _time(name: str, text: str, file: str, line: int | None) -> datetime:
    try:
        return _without_zone(datetime.fromisoformat(text))
    except (ValueError, OverflowError) as error:
        raise FormatError(
            f'the metadata field "{name}" is {described(text)}; it holds times in this collection, '
            "written like 2024-05-31T12:00:00",
            file,
            line,
        ) from error


def _without_zone(time: datetime) -> datetime:
    return time if time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None)


def _take(values: dict[str, Any], chosen: str | None, usual: Sequence[str]) -> Any:
    if chosen is not None:
        return values.pop(chosen, _MISSING)
    for name in usual:
        value = values.pop(name, _MISSING)
        if value is not _MISSING:
            return value
    return _MISSING


def _text_problem(text: object, names: FieldNames) -> str:
    wanted = names.text or "text"
    if text is not _MISSING:
        return f'"{wanted}" is {described(text)}; a text is a string, "" for an empty document'
    if names.text:
        return f'"{wanted}" is missing; every record needs the field given as text'
    return '"text" is missing; every record needs "text" (name another field with --text-field)'


def _id_problem(found: object, names: FieldNames) -> str:
    wanted = names.id or "_id"
    if found is _MISSING:
        return f'"{wanted}" is missing; every record needs the field given as id'
    shown = "empty" if found == "" else described(found)
    return (
        f'"{wanted}" is {shown}; an id is a non-empty string or an integer '
        "(leave the field out for an id made from title and text)"
    )


def _metadata(
    values: dict[str, Any], ignore: frozenset[str], file: str, line: int | None
) -> dict[str, MetadataValue]:
    fields: dict[str, MetadataValue] = {}
    if "" in values and "" not in ignore:
        raise _nameless("", file, line)
    for name, value in values.items():
        if name in ignore:
            continue
        if type(value) in _SCALARS and name not in fields:
            fields[name] = value
        elif name == "metadata" and type(value) is dict:
            _flatten(value, "", fields, ignore, file, line)
        else:
            _hold(name, value, fields, ignore, file, line)
    return fields


def _flatten(
    value: dict[str, Any],
    prefix: str,
    fields: dict[str, MetadataValue],
    ignore: frozenset[str],
    file: str,
    line: int | None,
) -> None:
    for name, inner in value.items():
        path = prefix + name
        if path not in ignore:
            if not name:
                raise _nameless(prefix, file, line)
            _hold(path, inner, fields, ignore, file, line)


def _nameless(prefix: str, file: str, line: int | None) -> FormatError:
    where = f' in "{prefix[:-1]}"' if prefix else ""
    return FormatError(f"a metadata field{where} has no name; name it or leave it out", file, line)


def _hold(
    name: str,
    value: Any,
    fields: dict[str, MetadataValue],
    ignore: frozenset[str],
    file: str,
    line: int | None,
) -> None:
    """Put one value, flattened and normalised, into ``fields``."""
    kind = type(value)
    if name in fields:
        raise FormatError(
            f'the metadata field "{name}" is given twice, as itself and inside "metadata" or another object; '
            "keep one of them",
            file,
            line,
        )
    if kind in _SCALARS:
        fields[name] = value
    elif kind is float:
        fields[name] = value if value == value else None
    elif kind is list and all(type(item) is str for item in value):
        fields[name] = value
    elif kind is dict:
        _flatten(value, f"{name}.", fields, ignore, file, line)
    elif isinstance(value, datetime):
        fields[name] = _without_zone(value)
    elif isinstance(value, date):
        fields[name] = datetime(value.year, value.month, value.day)
    elif isinstance(value, Decimal):
        fields[name] = float(value)
    else:
        held = "strings, numbers, booleans, times, lists of strings and null"
        raise FormatError(
            f'the metadata field "{name}" is {described(value)}; metadata holds {held} '
            f"(convert it, or leave it out with --ignore-field {name})",
            file,
            line,
        )
