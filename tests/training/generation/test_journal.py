"""Answers on disk: what is kept, what a kill leaves, what does not belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from retrieval.errors import CorruptError, IncompatibleError, LockedError
from retrieval.values import Document
from training.generation.generator import Answer
from training.generation.journal import open_journal

FACTS: dict[str, Any] = {"generator": "endpoint", "model": "m", "prompt": {"words": 3}, "pair": (1, 2)}
ANSWERS = [
    Answer(Document(f"d{i}", f"text {i}", "title \ud800 é\u2028"), (f"query {i}", "é \ud800\n"), i, 2 * i)
    for i in range(5)
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of five answers."""
    path = tmp_path / "answers.jsonl"
    with open_journal(path, FACTS) as journal:
        for answer in ANSWERS:
            journal.append(answer)
    return path


def test_answers_are_read_back(path: Path):
    with open_journal(path, FACTS) as journal:
        assert len(journal) == 5
        for answer in reversed(ANSWERS):
            found = journal.answer(answer.document)
            assert found is not None and answer.document in journal
            assert found.document is answer.document
            assert found.queries == (answer.queries[0], "é \ufffd\n")
            assert (found.prompt_tokens, found.completion_tokens) == (
                answer.prompt_tokens,
                answer.completion_tokens,
            )
        assert journal.answer(Document("d9", "text 9")) is None


def test_a_changed_document_has_no_answer_yet(path: Path):
    changed = Document("d1", "another text", ANSWERS[1].document.title)
    with open_journal(path, FACTS) as journal:
        assert changed not in journal
        journal.append(Answer(changed, ("new",)))
        for document, queries in ((changed, ("new",)), (ANSWERS[1].document, ("query 1", "é \ufffd\n"))):
            found = journal.answer(document)
            assert found is not None and found.queries == queries


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_line_cut_short_is_asked_for_again(path: Path, cut):
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with open_journal(path, FACTS) as journal:
        assert len(journal) == 4 and ANSWERS[4].document not in journal
        journal.append(ANSWERS[4])
    assert path.read_bytes() == whole


def test_a_header_cut_short_begins_anew(path: Path):
    path.write_bytes(path.read_bytes()[:20])
    with open_journal(path, FACTS) as journal:
        assert len(journal) == 0
        journal.append(ANSWERS[0])
    with open_journal(path, FACTS) as journal:
        assert len(journal) == 1


def test_a_cut_line_longer_than_a_block_is_taken_off_whole(path: Path):
    whole = path.read_bytes()
    path.write_bytes(whole + b"x" * 200_000)
    with open_journal(path, FACTS) as journal:
        assert len(journal) == 5
    assert path.read_bytes() == whole


def test_answers_of_other_facts_are_refused_and_named(path: Path):
    with pytest.raises(IncompatibleError, match=r'made differently: model \("m" there, "n" now\).*--fresh'):
        with open_journal(path, FACTS | {"model": "n"}):
            pass
    with open_journal(path, FACTS | {"model": "n"}, fresh=True) as journal:
        assert len(journal) == 0
    with open_journal(path, FACTS | {"model": "n"}) as journal:
        assert len(journal) == 0


@pytest.mark.parametrize("line", [b"{\n", b"7\n", b'{"document": 7, "content": "x"}\n', b"{}\n"])
def test_a_damaged_line_is_named(path: Path, line):
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = line
    path.write_bytes(b"".join(lines))
    with pytest.raises(CorruptError, match=r"answers\.jsonl: line 3 is .*--fresh"):
        with open_journal(path, FACTS):
            pass


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path):
    path = tmp_path / "answers.jsonl"
    for content in ('{"_id": "1"}\n', "[]\n", "x\n"):
        path.write_text(content)
        with pytest.raises(CorruptError, match="--fresh"):
            with open_journal(path, FACTS):
                pass


def test_only_one_writes(path: Path):
    with open_journal(path, FACTS):
        with pytest.raises(LockedError, match="another process is generating"):
            with open_journal(path, FACTS):
                pass
