"""From a data set in BEIR's form to its collection in the cache and back to scores, with the hashing encoder."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from eval.beir import open_dataset
from eval.cli import command
from eval.collection_cache import cached_collection, open_retrievers, required_representations
from eval.evaluate import Conditions, evaluate
from eval.runs import read_run
from indexing.builder import build_collection
from indexing.chunking import Chunking
from indexing.collection import Collection
from indexing.command_line import run
from indexing.corpora import open_corpus
from indexing.options import BuildOptions, representation_options
from retrieval.errors import ConfigError, FormatError, IncompatibleError
from retrieval.protocols import SearchRequest

TOPICS = [
    "glacier ice melt",
    "copper mine ore",
    "violin string bow",
    "sourdough bread oven",
    "orbit rocket launch",
]
ENCODER = "hashing"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sixty documents on five topics, named so that a query's id is also a document's."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("data") / "arguana"
    (folder / "qrels").mkdir(parents=True)
    documents, qrels = [], ["query-id\tcorpus-id\tscore"]
    for number in range(60):
        topic = TOPICS[number % 5].split()
        words = [*rng.choice(topic, 4), *(f"filler{n}" for n in rng.integers(0, 30, 4))]
        documents.append({"_id": f"t{number}", "title": topic[0], "text": " ".join(words)})
        if number >= 5:
            qrels.append(f"t{number % 5}\tt{number}\t1")
    (folder / "corpus.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
    queries = [{"_id": f"t{number}", "text": documents[number]["text"]} for number in range(5)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    (folder / "qrels" / "test.tsv").write_text("\n".join(qrels) + "\n")
    return folder


def test_what_the_retrievers_need_is_built_and_nothing_else():
    def shape(*using):
        return [(part.name, [spec.kind for spec in part.indexes]) for part in required_representations(using)]

    assert shape("bm25") == [("bm25", ["bm25"])]
    assert shape("hybrid") == [("bm25", ["bm25"]), ("dense", ["flat"])]
    assert shape("rrf:hybrid") == shape("hybrid")
    assert shape("dense", "dense-hnsw", "bm25+dense") == [("dense", ["flat", "hnsw"]), ("bm25", ["bm25"])]
    assert shape("dense-hnsw", "dense") == [("dense", ["flat", "hnsw"])], "what dense means comes first"
    assert shape("plaid", "late", "late-plaid") == [("late", ["plaid"])]
    with pytest.raises(ConfigError, match="slim needs a model: --slim-model"):
        required_representations(["slim"])
    with pytest.raises(ConfigError, match="unknown representation 'bm52'"):
        required_representations(["bm52"])
    with pytest.raises(ConfigError, match="no retriever given"):
        required_representations([])


def test_a_collection_is_built_once_and_again_when_the_corpus_changes(folder, tmp_path):
    first = cached_collection(open_dataset(folder), ["bm25"], cache=tmp_path)
    written = (first / "collection.json").stat().st_mtime_ns
    assert cached_collection(open_dataset(folder), ["bm25"], cache=tmp_path) == first
    assert (first / "collection.json").stat().st_mtime_ns == written
    assert (
        cached_collection(open_dataset(folder), ["bm25", "dense"], {"dense": ENCODER}, cache=tmp_path)
        != first
    )
    copy = tmp_path / "arguana"
    (copy / "qrels").mkdir(parents=True)
    (copy / "corpus.jsonl").write_text(
        (folder / "corpus.jsonl").read_text() + '{"_id": "new", "text": "more"}\n'
    )
    assert cached_collection(open_dataset(copy), ["bm25"], cache=tmp_path) != first


def test_a_damaged_corpus_is_named(tmp_path):
    (tmp_path / "toy" / "qrels").mkdir(parents=True)
    (tmp_path / "toy" / "corpus.jsonl").write_text('{"_id": "a", "text": "b"}\n{"_id": \n')
    with pytest.raises(FormatError, match=r"corpus\.jsonl:2: "):
        cached_collection(open_dataset(tmp_path / "toy"), ["bm25"], cache=tmp_path)


def test_real_retrievers_are_measured_and_self_documents_dropped(folder, tmp_path):
    dataset = open_dataset(folder)
    assert dataset.drop_self
    using = ["bm25", "dense", "hybrid", "bm25+dense", "rrf:hybrid"]
    path = cached_collection(dataset, using, {"dense": ENCODER}, cache=tmp_path)
    found = evaluate(dataset, open_retrievers(path, using), Conditions(k=100, depth=50))
    assert [one.retriever for one in found] == using
    for one in found:
        assert one.n_docs == 60 and one.n_queries == 5 and one.index_bytes > 0
        assert one.n_dropped == 5 and all(query not in dict(hits) for query, hits in one.run.items())
        assert one.metrics["nDCG@10"] > 0.8
    assert found[2].metrics == found[3].metrics
    assert found[2].index_bytes == found[0].index_bytes + found[1].index_bytes


def test_words_and_codes_are_measured_with_and_without_the_model_for_queries(folder, tmp_path, tiny_codes):
    dataset, models = open_dataset(folder), {"sparse": str(tiny_codes)}
    paths = [
        cached_collection(dataset, ["sparse"], models, options, cache=tmp_path)
        for options in (None, {"sparse": {"queries": "static"}})
    ]
    assert paths[0] != paths[1]
    both = [
        evaluate(dataset, open_retrievers(path, ["sparse"]), Conditions(k=100, depth=50))[0] for path in paths
    ]
    assert all(one.metrics["nDCG@10"] > 0.3 for one in both), "more than chance, by its words"
    assert both[0].run != both[1].run
    documents = [Collection.open(path).snapshot().store("sparse").take(np.arange(60)) for path in paths]
    assert np.array_equal(documents[0].indices, documents[1].indices)


def test_late_interaction_is_measured_and_takes_part_in_hybrid(folder, tmp_path, tiny_bert):
    dataset = open_dataset(folder)
    using = ["late", "plaid", "bm25", "dense", "hybrid", "bm25+dense+late"]
    models = {"dense": ENCODER, "late": str(tiny_bert)}
    path = cached_collection(dataset, using, models, cache=tmp_path)
    found = {
        one.retriever: one
        for one in evaluate(dataset, open_retrievers(path, using), Conditions(k=100, depth=50))
    }
    assert found["late"].metrics["nDCG@10"] > 0.25, "more than chance, 11 of 59, with random weights"
    assert found["late"].run == found["plaid"].run
    assert found["hybrid"].metrics == found["bm25+dense+late"].metrics
    assert found["hybrid"].index_bytes == sum(found[name].index_bytes for name in ("bm25", "dense", "late"))
    snapshot = Collection.open(path).snapshot()
    (state,) = [folder for folder in (path / "shared").iterdir()]
    sizes = snapshot.info()["bytes"]
    trained = sizes[f"shared/{state.name}"]
    assert trained > 0
    assert found["late"].index_bytes == trained + sizes["vectors/late"] + sizes["indexes/late-plaid"]


def test_the_command_goes_from_a_folder_to_json_and_run_files(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    arguments = [
        str(folder),
        "--encoder",
        ENCODER,
        "--json",
        "-q",
        "-o",
        str(tmp_path / "out"),
        "--keep-self",
    ]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["retriever"] for line in lines] == ["bm25", "dense", "hybrid"]
    assert all(not line["drop_self"] and line["MRR@10"] < 1 and line["ms_per_query"] > 0 for line in lines)
    run = read_run(tmp_path / "out" / "arguana.test.bm25.trec")
    assert all(hits[0][0] == query for query, hits in run.items()), "kept, its own document comes first"
    [collection] = (tmp_path / "cache" / "tercet" / "collections").iterdir()
    again = CliRunner().invoke(
        command,
        [str(folder), "--collection", str(collection), "--using", "bm25", "--json", "-q"],
        catch_exceptions=False,
    )
    assert json.loads(again.stdout)["drop_self"]


def test_documents_can_be_split_and_count_by_their_best_chunk(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def measured(*chunk):
        arguments = [str(folder), "--using", "bm25", "--json", "-q", *chunk]
        return json.loads(CliRunner().invoke(command, arguments, catch_exceptions=False).stdout)

    whole, split = measured(), measured("--chunk", "4")
    assert measured("--chunk", "none")["nDCG@10"] == whole["nDCG@10"]
    places = list((tmp_path / "cache" / "tercet" / "collections").iterdir())
    rows = sorted(Collection.open(place).snapshot().n_rows for place in places)
    assert len(places) == 2 and rows[0] == 60 < rows[1], "one collection whole, one in chunks"
    assert whole["n_docs"] == split["n_docs"] == 60 and whole["nDCG@10"] != split["nDCG@10"]
    snapshot = next(one for one in (Collection.open(p).snapshot() for p in places) if one.n_rows == rows[1])
    texts = [query.text for query in open_dataset(folder).queries()]
    hits = snapshot.searcher("bm25").search(texts, SearchRequest(k=rows[1]))
    best = {}
    for name, score in zip(snapshot.ids(hits.rows)[0], hits.scores[0][hits.rows[0] >= 0], strict=True):
        best[name] = max(score, best.get(name, -np.inf))
    del best["t0"]  # the query itself
    run_file = tmp_path / "out" / "arguana.test.bm25.trec"
    arguments = [str(folder), "--using", "bm25", "--chunk", "4", "-q", "-o", str(tmp_path / "out")]
    CliRunner().invoke(command, arguments, catch_exceptions=False)
    found = dict(read_run(run_file)["t0"])
    assert found == pytest.approx({name: score for name, score in best.items() if score > 0}, rel=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--chunk", "many"], "chunking 'many' is not understood"),
        (["--chunk", "9", "--collection", "."], "--chunk"),
    ],
)
def test_chunking_that_cannot_be_is_refused(folder, capsys, given, message):
    assert run(command, [str(folder), "--using", "bm25", "-q", *given]) == 2
    assert message in capsys.readouterr().err


def collection_of(ids, folder, tmp_path):
    """A collection of some of a data set's documents, and one of nobody's."""
    corpus = tmp_path / "corpus.jsonl"
    kept = [
        line for line in (folder / "corpus.jsonl").read_text().splitlines() if json.loads(line)["_id"] in ids
    ]
    corpus.write_text("\n".join([*kept, '{"_id": "stranger", "text": "glacier"}']) + "\n")
    options = BuildOptions((representation_options("bm25"),), chunking=Chunking.none())
    build_collection(open_corpus(corpus), tmp_path / "other", options)
    return tmp_path / "other"


def test_a_collection_without_any_judged_document_is_refused(folder, tmp_path):
    other = collection_of({"t0"}, folder, tmp_path)  # t0 is a query's own document, which nobody judges
    arguments = [str(folder), "--collection", str(other), "--using", "bm25", "-q"]
    with pytest.raises(IncompatibleError, match=r"other has none of the 55 documents that arguana judges"):
        CliRunner().invoke(command, arguments, catch_exceptions=False)


def test_a_collection_is_asked_only_for_what_it_has(folder, tmp_path, capsys):
    path = cached_collection(open_dataset(folder), ["bm25"], cache=tmp_path)
    for using, message in [("dense", "cannot search using 'dense'"), (",", "no retriever given")]:
        assert run(command, [str(folder), "--collection", str(path), "--using", using, "-q"]) == 2
        assert message in capsys.readouterr().err


def test_a_collection_that_lacks_judged_documents_is_measured_with_a_warning(folder, tmp_path):
    other = collection_of({f"t{number}" for number in range(16)}, folder, tmp_path)
    arguments = [str(folder), "--collection", str(other), "--using", "bm25", "--json", "-q"]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert "lacks 44 of the 55 documents that arguana judges (80.0%)" in result.stderr
    assert json.loads(result.stdout)["n_docs"] == 17


def test_a_retriever_that_the_collection_lacks_is_an_error(folder, tmp_path):
    path = cached_collection(open_dataset(folder), ["bm25"], cache=tmp_path)
    with pytest.raises(ConfigError, match="cannot search using 'dense'; this collection has: bm25"):
        open_retrievers(path, ["dense"])
