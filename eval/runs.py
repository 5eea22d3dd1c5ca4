"""Rankings as TREC run files, ``query Q0 document rank score tag``, out and in."""

from __future__ import annotations

import gzip
import io
import math
import os
from pathlib import Path
from typing import IO

import numpy as np

from eval.text_lines import lines
from retrieval.errors import ConfigError, FormatError
from retrieval.values import Run


def write_run(run: Run, path: Path, tag: str = "tercet") -> None:
    """Write a run file (gzip when the name ends in .gz), replacing one that is there.

    Evaluation tools sort a run file by score and break ties by document id, whatever the rank column says. So
    that they all see our order, scores are written as strictly decreasing float32: a tied score becomes the
    next smaller number. Reading the file back gives the same order.

    Raises:
        ConfigError: an id or the tag is empty or holds white space, which the format cannot express.
    """
    _check_word(tag, "the tag", path)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file, _text(file, path) as stream:
        for query, hits in run.items():
            _check_word(query, "query id", path)
            scores = strictly_decreasing([score for _, score in hits])
            for rank, ((document, _), score) in enumerate(zip(hits, scores, strict=True), start=1):
                _check_word(document, "document id", path)
                stream.write(f"{query} Q0 {document} {rank} {score:.9g} {tag}\n")
    os.replace(temporary, path)


def strictly_decreasing(scores: list[float]) -> list[float]:
    """The scores as float32 values of which each is smaller than the one before."""
    lowered: list[float] = []
    ceiling = np.float32(np.inf)
    for score in scores:
        value = np.float32(score)
        if not value < ceiling:
            value = np.nextafter(ceiling, np.float32(-np.inf), dtype=np.float32)
        ceiling = value
        lowered.append(float(value))
    return lowered


def read_run(path: Path) -> Run:
    """Read a run file (also .gz and .zst).

    Hits are ordered as trec_eval orders them, by score (as float32) and then by document id from last to
    first, whatever the rank column and the order of lines: the metrics of a run file are trec_eval's.

    Raises:
        FormatError: names file and line: not six columns, a score that is no finite number, a document twice
            in one ranking, or no line at all.
    """
    found: dict[str, dict[str, float]] = {}
    for number, line in lines(path):
        cells = line.split()
        if len(cells) != 6:
            raise FormatError(
                f"{line!r} has {len(cells)} columns; needed are six: query, Q0, document, rank, score, tag",
                path,
                number,
            )
        query, _, document, _, score, _ = cells
        value = _score(score, path, number)
        if document in found.setdefault(query, {}):
            raise FormatError(f"document {document!r} occurs twice in the ranking of {query!r}", path, number)
        found[query][document] = value
    if not found:
        raise FormatError("holds no ranking; a line is: query id, Q0, document id, rank, score, tag", path)
    return {query: _trec_order(hits) for query, hits in found.items()}


def _trec_order(hits: dict[str, float]) -> list[tuple[str, float]]:
    by_id = sorted(hits.items(), key=lambda hit: hit[0].encode(), reverse=True)
    return sorted(by_id, key=lambda hit: -hit[1])


def _score(cell: str, path: Path, number: int) -> float:
    try:
        value = float(np.float32(cell))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise FormatError(f"the score {cell!r} is not a finite number", path, number)
    return value


def _check_word(word: str, what: str, path: Path) -> None:
    if not word or word.split() != [word]:
        raise ConfigError(
            f"{path}: {what} {word!r} is empty or holds white space, which a TREC run file cannot express; "
            "write JSON instead or change the id"
        )


def _text(file: IO[bytes], path: Path) -> io.TextIOWrapper:
    if path.suffix == ".gz":  # no name or time stamp, so that equal runs are equal files
        return io.TextIOWrapper(
            gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0), encoding="utf-8"
        )
    return io.TextIOWrapper(file, encoding="utf-8")
