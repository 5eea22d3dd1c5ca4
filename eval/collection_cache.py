"""The collection a data set is searched in: built once into the cache, or one that is there already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.beir import BeirDataset, cache_folder
from eval.evaluate import Retriever
from indexing.progress import Progress
from retrieval.errors import ConfigError, IncompatibleError

if TYPE_CHECKING:
    from indexing.chunking import Chunking
    from indexing.collection import CollectionSnapshot
    from indexing.commit import IndexSpec
    from indexing.options import RepresentationOptions


def cached_collection(
    dataset: BeirDataset,
    using: Sequence[str],
    models: Mapping[str, str] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    progress: Progress | None = None,
    cache: Path | None = None,
    chunking: Chunking | None = None,
) -> Path:
    """The collection of a data set's corpus with what the retrievers need, built when it is not there yet.

    Documents stay whole, as in BEIR's own runs, unless something else is asked for. The folder's name holds a hash of
    the corpus and of the options, so a changed corpus, encoder or release gives another collection. A build that was
    interrupted goes on where it stopped.

    Args:
        dataset: whose corpus.
        using: names of retrievers, as ``CollectionSnapshot.searcher`` takes them.
        models: representation -> its encoder's model, as ``tercet index`` takes it; defaults for others.
        options: representation -> options of its encoder.
        progress: told of the build.
        cache: the parent folder; ``cache_folder()/collections`` where None.
        chunking: how documents become rows; whole where None.

    Raises:
        TercetError: the corpus is damaged or the encoder cannot be opened.
    """
    from indexing.builder import build_collection
    from indexing.chunking import Chunking
    from indexing.commit import COMMIT_FILE, FORMAT
    from indexing.corpora import open_corpus
    from indexing.options import BuildOptions

    parts = required_representations(using, models, options)
    described = [[part.name, dict(part.encoder), [repr(spec) for spec in part.indexes]] for part in parts]
    version = metadata.version("tercet")  # another release may analyse, encode or lay out indexes otherwise
    chunking = chunking or Chunking.none()
    wanted = json.dumps([version, FORMAT, described, str(chunking)], sort_keys=True, default=str)
    key = hashlib.sha256(f"{_corpus_hash(dataset.corpus_path)} {wanted}".encode()).hexdigest()[:16]
    path = (cache or cache_folder() / "collections") / f"{dataset.name.replace('/', '-')}-{key}"
    if not (path / COMMIT_FILE).exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        build = BuildOptions(parts, chunking=chunking)
        report = build_collection(open_corpus(dataset.corpus_path), path, build, progress)
        if progress is not None:
            for name, count in report.truncated.items():
                if count:
                    progress.note(f"{dataset.name}: {name} read only the beginning of {count:,} documents")
    return path


def required_representations(
    using: Sequence[str],
    models: Mapping[str, str] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[RepresentationOptions, ...]:
    """What a collection must hold for the named retrievers.

    "hybrid" needs all default representations, "dense-hnsw" the representation dense with an hnsw index, and
    "lucene-bm25" the representation bm25 with an index of that kind. The index that a representation's own name means
    comes first.

    Raises:
        ConfigError: a name that no collection can have.
    """
    from indexing.options import DEFAULT_REPRESENTATIONS, representation_options
    from indexing.searching import OWN_NAMES, split_using

    wanted: dict[str, RepresentationOptions] = {}
    for name in using:
        _, names = split_using(name)
        for part in DEFAULT_REPRESENTATIONS if names == "hybrid" else names.split("+"):
            base, _, kind = part.partition("-")
            if part in OWN_NAMES:
                base, kind = OWN_NAMES[part], part
            text = f"{base}:{kind}" if kind else base
            made = representation_options(text, (models or {}).get(base), (options or {}).get(base))
            known = wanted.get(base, made)
            both = (*known.indexes, *made.indexes) if kind else (*made.indexes, *known.indexes)
            wanted[base] = replace(known, indexes=_distinct(both))
    if not wanted:
        raise ConfigError("no retriever given; name at least one, such as --using bm25,dense,hybrid")
    return tuple(wanted.values())


def _distinct(specs: Iterable[IndexSpec]) -> tuple[IndexSpec, ...]:
    return tuple({repr(spec): spec for spec in specs}.values())


def missing_documents(snapshot: CollectionSnapshot, dataset: BeirDataset) -> tuple[int, int]:
    """How many judged documents of a data set a collection lacks, and how many are judged.

    Raises:
        IncompatibleError: it has none of them, so every score would be 0.
    """
    judged = {document for documents in dataset.qrels().values() for document in documents}
    missing = [document for document in judged if snapshot.find(document) is None]
    if len(missing) == len(judged):
        raise IncompatibleError(
            f"{snapshot.path} has none of the {len(judged):,} documents that {dataset.name} judges, such as "
            f"{min(judged)!r}; give the collection of {dataset.corpus_path}, or leave --collection out to have it built"
        )
    return len(missing), len(judged)


def open_retrievers(path: Path, using: Sequence[str], *, query_bank: bool = False) -> list[Retriever]:
    """The named retrievers of a collection, all over one snapshot.

    Args:
        query_bank: whether those with a query bank follow once more with hubs held back, called NAME-query-bank.

    Raises:
        ConfigError: there is no collection, it has nothing of that name, or no query bank where one is to be used.
    """
    from indexing.collection import Collection

    snapshot = Collection.open(path).snapshot()

    def retriever(name: str, *, banked: bool) -> Retriever:
        shown = f"{name}-query-bank" if banked else name
        searcher = snapshot.searcher(name, query_bank=banked)
        return Retriever(
            shown, searcher, snapshot.ids, snapshot.n_documents, index_bytes(snapshot, name, banked=banked)
        )

    plain = [retriever(name, banked=False) for name in using]
    if not query_bank:
        return plain
    with_bank = [name for name in using if _banked(snapshot, name)] or list(using)[
        :1
    ]  # which says what is missing
    return [*plain, *(retriever(name, banked=True) for name in with_bank)]


def _banked(snapshot: CollectionSnapshot, using: str) -> bool:
    from indexing.searching import index_names, parse_using

    known = index_names(snapshot.representations)
    parts = parse_using(snapshot.representations, using)[1]
    return any(snapshot.representations[known[part][0]].query_bank is not None for part in parts)


def index_bytes(snapshot: CollectionSnapshot, using: str, *, banked: bool = False) -> int:
    """Bytes on disk of the vectors and indexes that a retriever reads, over all segments, and of what was trained.

    Args:
        banked: whether it uses query banks.
    """
    from indexing.searching import index_names, parse_using
    from indexing.shared_state import bank_name, named_states, state_bytes

    known = index_names(snapshot.representations)
    _, parts = parse_using(snapshot.representations, using)
    used = {name for part in parts for name in (known[part][0], "-".join(known[part]))}
    if banked:
        used |= {bank_name(known[part][0]) for part in parts}
    total = sum(
        state_bytes(snapshot.path, name, generation)
        for name, generation in named_states(snapshot.commit)
        if name in used
    )
    for segment, entry in zip(snapshot.segments, snapshot.commit.segments, strict=True):
        sizes = segment.bytes_on_disk()
        for name in {known[part][0] for part in parts}:
            total += sizes[f"vectors/{name}"]
        for name, kind in {known[part] for part in parts}:
            total += sizes[f"indexes/{name}-{kind}-{entry.indexes[f'{name}-{kind}']}"]
    return total


def _corpus_hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
