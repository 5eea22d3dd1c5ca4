"""Anserini's JSON vectors: one ``{"id", "contents", "vector": {term: weight}}`` a line."""

from __future__ import annotations

import array
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from indexing.corpora.jsonl import BOM
from indexing.corpora.lines import line_batches
from indexing.exchange.impacts import check_weights, quantise
from indexing.exchange.output import whole_file
from retrieval.errors import FormatError
from retrieval.values import Sparse, Strings

_BEYOND = (2 - 2.0**-24) * 2.0**127  # rounds to infinity in float32; all below does not
_ROWS_AT_ONCE = 1_000


class NamedVectors(NamedTuple):
    """Sparse vectors with what their rows and columns are called.

    Attributes:
        ids: N.
        vocabulary: V terms.
        vectors: (N, V).
    """

    ids: list[str]
    vocabulary: Strings
    vectors: Sparse


def read_vectors(*paths: Path) -> NamedVectors:
    """Read one file or several that share a vocabulary; ``.gz`` and ``.zst`` are decompressed.

    Terms are numbered as they first occur; "contents" is passed over.

    Args:
        paths: in the order of the rows.

    Raises:
        FormatError: names the file and line that is no such object, repeats an id, or has a weight that is negative,
            no number or beyond float32.
    """
    numbers: dict[str, int] = {}
    places: dict[str, str] = {}
    indptr, indices, values = array.array("q", [0]), array.array("i"), array.array("f")
    for path, line, content in _lines(paths):
        identifier, vector = _parse(content, path, line)
        if identifier in places:
            raise FormatError(f"the id {identifier!r} is at {places[identifier]} already", path, line)
        places[identifier] = f"{path}:{line}"
        weights = {
            numbers.setdefault(term, len(numbers)): _weight(vector[term], term, path, line) for term in vector
        }
        for number in sorted(weights):
            indices.append(number)
            values.append(weights[number])
        indptr.append(len(indices))
    vectors = Sparse(
        np.frombuffer(indptr, dtype=np.int64),
        np.frombuffer(indices, dtype=np.int32),
        np.frombuffer(values, dtype=np.float32),
        len(numbers),
    )
    return NamedVectors(list(places), Strings.of(numbers), vectors)


def write_vectors(
    path: Path,
    ids: Iterable[str],
    vectors: Sparse,
    vocabulary: Strings,
    *,
    contents: Iterable[str] | None = None,
    scale: float | None = None,
) -> None:
    """Write a file, some thousand rows in memory at a time.

    Args:
        path: is replaced when all is written.
        ids: N.
        vectors: N rows over V terms.
        vocabulary: the V terms.
        contents: N texts; empty unless given.
        scale: writes round(weight / scale), 1 to 255, for Anserini's indexer, which cuts weights off to whole numbers;
            None writes the weights as they are.

    Raises:
        FormatError: a weight is negative or no number.
        ConfigError: a weight is too large for the scale.
        ValueError: ids, contents or vocabulary do not fit the vectors.
    """
    if len(vocabulary) != vectors.dim:
        raise ValueError(f"{len(vocabulary)} terms for vectors of {vectors.dim}")
    texts = itertools.repeat("", len(vectors)) if contents is None else contents
    rows = zip(ids, texts, _rows(vectors, vocabulary, scale), strict=True)
    with whole_file(path) as stream:
        for identifier, text, vector in rows:
            line = {"id": identifier, "contents": text, "vector": vector}
            stream.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))


def _rows(vectors: Sparse, vocabulary: Strings, scale: float | None) -> Iterator[dict[str, Any]]:
    """Each row as term -> weight."""
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        part = vectors[start : start + _ROWS_AT_ONCE]
        check_weights(part, start)
        used, positions = np.unique(part.indices, return_inverse=True)
        words = vocabulary.take(used)
        terms = [words[position] for position in positions]
        weights = list(part.values) if scale is None else quantise(part.values, scale).tolist()
        for low, high in itertools.pairwise(part.indptr.tolist()):
            yield dict(zip(terms[low:high], weights[low:high], strict=True))


def _lines(paths: Sequence[Path]) -> Iterator[tuple[Path, int, bytes]]:
    """File, number and content of every line that is not blank."""
    for path in paths:
        number = 0
        for lines, _ in line_batches(path):
            for line in lines:
                number += 1
                content = line.removeprefix(BOM) if number == 1 else line
                if content.strip():
                    yield path, number, content


def _parse(content: bytes, path: Path, line: int) -> tuple[str, dict[str, Any]]:
    try:
        record = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise FormatError(f"not valid JSON: {error}", path, line) from error
    if not isinstance(record, dict):
        raise FormatError(
            'not a JSON object; every line is {"id": ..., "contents": ..., "vector": {...}}', path, line
        )
    identifier, vector = record.get("id"), record.get("vector")
    if not isinstance(identifier, str) or not identifier:
        raise FormatError(f'"id" is {identifier!r}; it must be a string that is not empty', path, line)
    if not isinstance(vector, dict):
        raise FormatError('"vector" must be an object of terms and weights', path, line)
    return identifier, vector


def _weight(value: Any, term: str, path: Path, line: int) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _BEYOND:
        raise FormatError(f"the weight of {term!r} is {value!r}; it must be a number from 0 up", path, line)
    return float(value)
