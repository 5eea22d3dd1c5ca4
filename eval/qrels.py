"""Relevance judgements on disk: BEIR's TSV and TREC's four columns."""

from __future__ import annotations

from pathlib import Path

from eval.metrics import Qrels
from eval.text_lines import lines
from retrieval.errors import FormatError


def read_qrels(path: Path) -> Qrels:
    """Judgements in either form; the first line tells which.

    BEIR: a header line, then query id, document id and judgement, separated by tabs. TREC: query id, an
    unused column, document id and judgement, separated by white space.

    Returns:
        Query id -> document id -> judgement, queries in the order of their first appearance. Of a pair judged
        twice the later judgement counts, as in BEIR's loader.

    Raises:
        FormatError: names file and line: a missing column, a judgement that is no whole number, or no judgement
            at all.
    """
    qrels: dict[str, dict[str, int]] = {}
    tabs: bool | None = None
    for number, line in lines(path):
        if tabs is None:
            tabs = _is_beir(line)
            if tabs and _is_header(line):
                continue
        query, document, judgement = (
            _beir_columns(line, path, number) if tabs else _trec_columns(line, path, number)
        )
        try:
            value = int(judgement)
        except ValueError as error:
            raise FormatError(f"the judgement {judgement!r} is not a whole number", path, number) from error
        qrels.setdefault(query, {})[document] = value
    if not qrels:
        raise FormatError("holds no judgement; every line needs query id, document id and judgement", path)
    return qrels


def _is_header(line: str) -> bool:
    """Whether a first line names the columns: its third cell is no number."""
    cells = line.split("\t")
    return len(cells) == 3 and not _is_whole(cells[2])


def _is_beir(line: str) -> bool:
    return len(line.split("\t")) == 3 or len(line.split()) != 4


def _is_whole(cell: str) -> bool:
    try:
        int(cell)
    except ValueError:
        return False
    return True


def _beir_columns(line: str, path: Path, number: int) -> tuple[str, str, str]:
    cells = line.split("\t")
    if len(cells) != 3 or not cells[0] or not cells[1]:
        raise FormatError(
            f"{line!r} has {len(cells)} tab-separated cells; needed are three: query-id, corpus-id, score",
            path,
            number,
        )
    return cells[0], cells[1], cells[2]


def _trec_columns(line: str, path: Path, number: int) -> tuple[str, str, str]:
    cells = line.split()
    if len(cells) != 4:
        raise FormatError(
            f"{line!r} has {len(cells)} columns; needed are four: query id, 0, document id, judgement",
            path,
            number,
        )
    return cells[0], cells[2], cells[3]
