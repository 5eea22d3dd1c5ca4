"""What an encoder is trained on: judged queries in BEIR's form, held-out ones apart, with negatives of BM25."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from eval.beir import BeirDataset
from eval.metrics import Qrels
from indexing.bm25.index import Bm25Index
from indexing.corpora import open_corpus
from retrieval.encoders.terms import TermsEncoder
from retrieval.errors import ConfigError, FormatError
from retrieval.protocols import SearchRequest
from retrieval.values import Document, Hits

_MINED = 20  # documents of BM25 a negative is drawn from

Triplet = tuple[str, str, str]
"""Texts of a query, of a document that answers it and of one that does not."""


@dataclass(frozen=True)
class TrainingSet:
    """Queries, documents and which belong together.

    Attributes:
        name: of the data set.
        queries: id -> text.
        documents: id -> title and text.
        qrels: query id -> document id -> judgement of at least 1, of judged queries alone.
    """

    name: str
    queries: Mapping[str, str]
    documents: Mapping[str, str]
    qrels: Qrels

    def triplets(self, seed: int) -> list[Triplet]:
        """One (query, document, negative) of texts a query, chosen by the seed.

        The negative is one of BM25's best documents for the query that is not judged relevant, by chance rather than
        the very best, which too often answers the query as well; without any, it is any other document.
        """
        rng = random.Random(seed)
        ids, found = list(self.documents), bm25_hits(self, _MINED).rows
        triplets = []
        for (query, judged), rows in zip(self.qrels.items(), found.tolist(), strict=True):
            positive = self.documents[rng.choice(sorted(judged))]
            relevant = {self.documents[document] for document in judged}
            best = (self.documents[ids[row]] for row in rows if row >= 0)
            candidates = [text for text in best if text not in relevant]
            negative = rng.choice(
                candidates or [text for text in self.documents.values() if text != positive]
            )
            triplets.append((self.queries[query], positive, negative))
        return triplets


def bm25_hits(data: TrainingSet, k: int) -> Hits:
    """BM25's best documents of each query; a row is a document's place in the set."""
    terms = TermsEncoder()
    documents = terms.encode_documents([Document(id_, text) for id_, text in data.documents.items()])
    with tempfile.TemporaryDirectory() as folder:
        parameters = Bm25Index.parameters({})
        Bm25Index.build(documents, Path(folder), parameters, memory_bytes=1 << 28, progress=lambda _: None)
        index = Bm25Index.load(Path(folder), documents, parameters)
        return index.search(terms.encode_queries(list(data.queries.values())), SearchRequest(k=k))


def read_training_set(folder: Path) -> TrainingSet:
    """A folder in BEIR's form, all its splits together.

    Raises:
        FormatError: names file and line; also when a judged document or query is missing.
        ConfigError: the folder has no judgements.
    """
    splits = BeirDataset(folder.name, folder).splits()
    if not splits:
        raise ConfigError(f"{folder}: no qrels/*.tsv there; training needs judged queries")
    documents = {record.document.id: record.document.contents() for record in open_corpus(folder).read()}
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    for split in splits:
        dataset = BeirDataset(folder.name, folder, split)
        queries |= {query.id: query.text for query in dataset.queries()}
        for query, judged in dataset.qrels().items():
            relevant = {document: value for document, value in judged.items() if value > 0}
            missing = relevant.keys() - documents.keys()
            if missing:
                raise FormatError(
                    f"the judged document {min(missing)!r} of {split!r} is not in the corpus", folder
                )
            if relevant:
                qrels.setdefault(query, {}).update(relevant)
    return TrainingSet(folder.name, {query: queries[query] for query in qrels}, documents, qrels)


def read_training_sets(folder: Path) -> list[TrainingSet]:
    """Every data set below a folder, by name.

    Raises:
        ConfigError: there is none.
        FormatError: one is damaged.
    """
    found = sorted(path.parent for path in folder.glob("*/corpus.jsonl*"))
    if not found:
        raise ConfigError(f"{folder}: no data set below it; one is a folder with corpus.jsonl and qrels/")
    return [read_training_set(path) for path in found]


def hold_out(
    data: TrainingSet, n_queries: int, n_documents: int, seed: int
) -> tuple[TrainingSet, TrainingSet]:
    """Split off queries to choose by, with a sample of the corpus to search them in.

    No training query shares its text or a relevant document with a held-out one.

    Args:
        data: the whole set.
        n_queries: to hold out; at most half of them are.
        n_documents: in the sample, which holds all their relevant ones even where those are more.
        seed: of the choice.

    Returns:
        What to train on and what to choose by.
    """
    rng = random.Random(seed)
    chosen = rng.sample(sorted(data.qrels), min(n_queries, len(data.qrels) // 2))
    texts = {data.queries[query] for query in chosen}
    relevant = {document for query in chosen for document in data.qrels[query]}
    others = sorted(data.documents.keys() - relevant)
    wanted = max(0, n_documents - len(relevant))
    searched = relevant.union(rng.sample(others, min(len(others), wanted)))
    kept = [
        query
        for query, judged in data.qrels.items()
        if data.queries[query] not in texts and relevant.isdisjoint(judged)
    ]
    return (
        _part(data, kept, (document for document in data.documents if document not in relevant)),
        _part(data, chosen, (document for document in data.documents if document in searched)),
    )


def _part(data: TrainingSet, queries: Sequence[str], documents: Iterable[str]) -> TrainingSet:
    return replace(
        data,
        queries={query: data.queries[query] for query in queries},
        documents={document: data.documents[document] for document in documents},
        qrels={query: data.qrels[query] for query in queries},
    )


def joined(sets: Sequence[TrainingSet]) -> TrainingSet:
    """All sets as one, each id behind the name of its set."""
    queries: dict[str, str] = {}
    documents: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    for one in sets:
        queries |= {f"{one.name}/{id_}": text for id_, text in one.queries.items()}
        documents |= {f"{one.name}/{id_}": text for id_, text in one.documents.items()}
        for id_, judged in one.qrels.items():
            qrels[f"{one.name}/{id_}"] = {f"{one.name}/{document}": 1 for document in judged}
    return TrainingSet("+".join(one.name for one in sets), queries, documents, qrels)
