"""What a language model is asked: an instruction, a few examples, a document (Promptagator: Dai et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.text_lines import lines
from indexing.chunking import Chunking
from indexing.corpora.jsonl import parsed
from retrieval.errors import FormatError
from retrieval.values import Document

MOST_EXAMPLES = 8
"""As in the paper: more hardly help, and every request pays for them."""

INSTRUCTION = (
    "Read the document and write one search query that it answers. Reply with the query alone, on one line."
)
_QUOTES = "\"'“”«»`"


@dataclass(frozen=True, slots=True)
class Example:
    """A document and a query that it answers, written by a person."""

    document: str
    query: str


@dataclass(frozen=True)
class Prompt:
    """A task, told by an instruction and examples.

    Attributes:
        instruction: what to write; what makes a query relevant differs from task to task.
        examples: shown before the document.
        document_label, query_label: what stands before documents and queries ("Argument", "Counter-argument").
        words: of a document that are shown; it ends with a sentence where one ends in the last third.
    """

    instruction: str = INSTRUCTION
    examples: tuple[Example, ...] = ()
    document_label: str = "Document"
    query_label: str = "Query"
    words: int = 350

    def shown(self, document: Document) -> str:
        """As much of a document as is shown."""
        return self._cut(document.contents())

    def text(self, shown: str) -> str:
        """For a model that continues text: everything, up to where the query begins."""
        turns = [self._turn(self._cut(one.document), one.query) for one in self.examples]
        return "\n\n".join([self.instruction, *turns, self._turn(shown, "")]).strip()

    def messages(self, shown: str) -> list[dict[str, str]]:
        """For a chat model: an example is a turn of both sides.

        The instruction opens the first turn, since not every model knows a system's role.
        """
        said = [(self._cut(one.document), one.query) for one in self.examples] + [(shown, "")]
        found: list[dict[str, str]] = []
        for place, (document, query) in enumerate(said):
            asked = f"{self.document_label}: {document}"
            asked = asked if place or not self.instruction else f"{self.instruction}\n\n{asked}"
            found.append({"role": "user", "content": asked})
            found.append({"role": "assistant", "content": query})
        return found[:-1]

    def query_of(self, answer: str) -> str:
        """The query in what a model wrote: its first line that is not blank, without label and quotes."""
        line = next((line.strip() for line in answer.splitlines() if line.strip()), "")
        label = f"{self.query_label}:"
        if line.casefold().startswith(label.casefold()):
            line = line[len(label) :]
        return line.strip().strip(_QUOTES).strip()

    def facts(self) -> dict[str, Any]:
        """JSON of all of it."""
        return {
            "instruction": self.instruction,
            "examples": [[one.document, one.query] for one in self.examples],
            "labels": [self.document_label, self.query_label],
            "words": self.words,
        }

    def _cut(self, text: str) -> str:
        start, end = Chunking(self.words).spans(text)[0]
        return text[start:end].strip()

    def _turn(self, document: str, query: str) -> str:
        return f"{self.document_label}: {document}\n{self.query_label}: {query}".rstrip()


def read_examples(path: Path) -> tuple[Example, ...]:
    """The examples of a JSON Lines file, ``{"document": ..., "query": ...}`` a line.

    Raises:
        FormatError: it cannot be read, a line is malformed, or there is no example or more than ``MOST_EXAMPLES``.
    """
    examples: list[Example] = []
    for number, line in lines(path):
        values = parsed(line.encode(), str(path), number)
        document, query = (_text(values, name, path, number) for name in ("document", "query"))
        if len(examples) == MOST_EXAMPLES:
            raise FormatError(
                f"there are more than {MOST_EXAMPLES} examples; keep those that differ most", path, number
            )
        examples.append(Example(document, query))
    if not examples:
        raise FormatError('there is no example; every line holds "document" and "query"', path)
    return tuple(examples)


def _text(values: dict[str, Any], name: str, path: Path, number: int) -> str:
    value = values.get(name)
    if not isinstance(value, str) or not value.strip():
        raise FormatError(
            f'"{name}" is missing, empty or no string; every line holds "document" and "query"', path, number
        )
    return " ".join(value.split()) if name == "query" else value
