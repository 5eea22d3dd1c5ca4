"""A training set as a folder in BEIR's form, which can be read only once it is whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from indexing.corpora.corpus import Corpus
from indexing.corpora.fields import FieldNames
from indexing.corpora.jsonl import JsonlCorpus
from indexing.corpora.lines import COMPRESSIONS
from retrieval.encoders.surrogates import valid_text
from training.examples.lists import pairs_of
from training.examples.training_set import TrainingSet

FACTS = "generation.json"
"""How the queries came about; written last."""
SPLIT = "train"

_CORPUS = "corpus.jsonl"


def write_corpus(corpus: Corpus, folder: Path, *, with_titles: bool) -> None:
    """The corpus under BEIR's name: a hard link or copy where it has that form already, else written anew.

    What judgements and facts the folder holds are removed first: they belong to what was there before.

    Args:
        corpus: of files.
        folder: exists.
        with_titles: whether documents keep their titles.
    """
    for name in (FACTS, f"qrels/{SPLIT}.tsv", *(_CORPUS + end for end in ("", *COMPRESSIONS))):
        (folder / name).unlink(missing_ok=True)
    if with_titles and isinstance(corpus, JsonlCorpus) and corpus.names == FieldNames():
        end = corpus.path.suffix.lower()
        _link(corpus.path.resolve(), folder / (_CORPUS + (end if end in COMPRESSIONS else "")))
        return
    documents = (record.document for record in corpus.read())
    _write_lines(
        folder / _CORPUS,
        ({"_id": one.id, "title": one.title if with_titles else "", "text": one.text} for one in documents),
    )


def write_queries(data: TrainingSet, folder: Path, facts: Mapping[str, Any]) -> None:
    """Queries, then judgements, then how they came about.

    Args:
        data: over the documents of the folder's corpus.
        folder: with its corpus.
        facts: JSON.
    """
    ids, texts = (data.queries[name] for name in ("id", "text"))
    _write_lines(
        folder / "queries.jsonl", ({"_id": id_, "text": text} for id_, text in zip(ids, texts, strict=True))
    )
    (folder / "qrels").mkdir(exist_ok=True)
    pairs = pairs_of(data.lists)
    judged = zip(ids.gather(pairs["query"]), data.documents["id"].gather(pairs["document"]), strict=True)
    lines = (f"{query}\t{document}\t1" for query, document in judged)
    _write(folder / "qrels" / f"{SPLIT}.tsv", chain(["query-id\tcorpus-id\tscore"], lines))
    _write(folder / FACTS, [json.dumps(facts, indent=1, ensure_ascii=False)])


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without hard links
        shutil.copyfile(source, target)


def _write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    _write(path, (json.dumps(line, ensure_ascii=False) for line in lines))


def _write(path: Path, lines: Iterable[str]) -> None:
    """Replace a text file whole."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(valid_text(line) + "\n" for line in lines)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
