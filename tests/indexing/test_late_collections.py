"""Collections with token vectors: what an encoder and an index learn is kept, shared by all segments, and checked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import click
import numpy as np
import pytest
from click.testing import CliRunner

from indexing import builder, staging
from indexing.adding import add_representation
from indexing.assembly import index_spec
from indexing.builder import add_documents, build_collection
from indexing.chunking import Chunking
from indexing.cli import COMMANDS
from indexing.collection import Collection
from indexing.collection_encoder import _ENCODERS
from indexing.commit import read_commit, write_commit
from indexing.compaction import compact
from indexing.corpora import open_corpus
from indexing.deleting import delete_documents
from indexing.durable import read_sealed, write_sealed
from indexing.kinds import KINDS
from indexing.options import BuildOptions, RepresentationOptions, WriteOptions, representation_options
from indexing.shared_state import state_folder
from indexing.staging import unfinished_jobs
from indexing.verification import verify
from retrieval.bitmap import Bitmap
from retrieval.encoders.late import LateEncoder
from retrieval.errors import ConfigError, CorruptError, FormatError, IncompatibleError
from retrieval.exact import maxsim_scores
from retrieval.protocols import Explanation, SearchRequest
from retrieval.topk import top_k
from retrieval.values import Hits, MultiVector

GROUP = click.Group("t", commands=list(COMMANDS), context_settings={"help_option_names": ["-h", "--help"]})
WORDS = "cat dog bird fish red green blue fast slow old new river mountain search engine index vector".split()
QUERIES = ["old red fish", "search the river"]


@dataclass(frozen=True, eq=False)
class CentredIndex:
    """MaxSim of token vectors from which the mean of the first segment's is taken: a kind that is trained."""

    vectors: MultiVector
    mean: np.ndarray

    kind: ClassVar[str] = "centred"
    exact: ClassVar[bool] = True
    value: ClassVar[type] = MultiVector

    @classmethod
    def parameters(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        return {"scale": 1.0, **given}

    @classmethod
    def train(cls, vectors, parameters, folder, *, memory_bytes, progress) -> None:
        assert memory_bytes > 0 and "state" not in parameters
        mean = np.asarray(vectors.values, dtype=np.float32).mean(axis=0)
        np.save(folder / "mean.npy", parameters["scale"] * mean, allow_pickle=False)
        progress(1)

    @classmethod
    def build(cls, vectors, folder, parameters, *, memory_bytes, progress, shared) -> None:
        np.save(folder / "mean.npy", np.load(shared / "mean.npy"), allow_pickle=False)
        progress(len(vectors))

    @classmethod
    def load(cls, folder, vectors, parameters, *, shared) -> CentredIndex:
        mean = np.load(shared / "mean.npy")
        assert np.array_equal(mean, np.load(folder / "mean.npy"))
        return cls(vectors, mean)

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, queries: MultiVector, request: SearchRequest) -> Hits:
        values = np.asarray(self.vectors.values, dtype=np.float32) - self.mean
        scores = maxsim_scores(queries, MultiVector(np.asarray(self.vectors.indptr), values))
        if request.allowed is not None:
            scores = np.where(request.allowed.mask(), scores, -np.inf)
        return top_k(scores, request.k)

    def explain(self, queries: MultiVector, rows) -> list[Explanation]:
        explained = []
        for row in rows:
            low, high = self.vectors.indptr[row : row + 2]
            products = (
                queries.values[: queries.indptr[1]].astype(np.float32)
                @ (self.vectors.values[low:high].astype(np.float32) - self.mean).T
            )
            parts = [
                Explanation(f"token {n}", float(line.max()), facts={"position": int(line.argmax())})
                for n, line in enumerate(products)
            ]
            explained.append(Explanation("MaxSim", sum(part.value for part in parts), tuple(parts)))
        return explained


@pytest.fixture(autouse=True)
def centred(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "centred", f"{__name__}:CentredIndex")
    _ENCODERS.clear()


def write(path: Path, first: int, last: int, *more: str) -> Path:
    rng = np.random.default_rng(first)
    lines = [
        json.dumps(
            {
                "_id": f"d{number}",
                "title": str(rng.choice(WORDS)),
                "text": " ".join(rng.choice(WORDS, rng.integers(3, 12))),
            }
        )
        for number in range(first, last)
    ]
    path.write_text("\n".join([*lines, *more]) + "\n")
    return path


@pytest.fixture
def late(tiny_bert: Path) -> RepresentationOptions:
    """Token vectors of width 32 that a projection takes to 8."""
    return representation_options("late:centred", str(tiny_bert), {"dim": 8})


def build(path: Path, corpus: Path, *parts: RepresentationOptions, **how: Any):
    options = BuildOptions(parts, Chunking.none(), WriteOptions(**{"batch_rows": 10, **how}))
    return build_collection(open_corpus(corpus), path, options)


@pytest.fixture
def collection(tmp_path: Path, late: RepresentationOptions) -> Path:
    build(tmp_path / "c", write(tmp_path / "a.jsonl", 0, 40), late)
    return tmp_path / "c"


def states(path: Path) -> dict[str, list[str]]:
    return {
        owner.name: sorted(state.name for state in owner.iterdir()) for owner in (path / "shared").iterdir()
    }


def answers(path: Path, using: str = "late") -> list[tuple[str, float]]:
    snapshot = Collection.open(path).snapshot()
    hits = snapshot.searcher(using).search(QUERIES, SearchRequest(k=200))
    return [
        (snapshot.documents(np.array([row]))[0].id, float(score))
        for row, score in zip(hits.rows.ravel(), hits.scores.ravel(), strict=True)
        if row >= 0
    ]


def test_a_build_fits_the_encoder_and_trains_the_index_once(collection: Path, tmp_path: Path):
    representation = read_commit(collection).representations["late"]
    spec = representation.indexes[0]
    assert states(collection) == {"late": [representation.state], "late-centred": [spec.state]}
    assert representation.value == "multivector" and "state" not in representation.encoder
    snapshot = Collection.open(collection).snapshot()
    encoder = snapshot.encoder("late")
    assert not encoder.needs_fit and encoder.fingerprints.documents == representation.fingerprint
    stored = snapshot.segments[0].vectors("late")
    again = encoder.encode_documents(snapshot.passages(np.arange(40)))
    assert stored.dim == 8
    np.testing.assert_allclose(stored.values.astype(np.float32), again.values.astype(np.float32), atol=2e-3)
    before = answers(collection)
    add_documents(open_corpus(write(tmp_path / "b.jsonl", 40, 70)), collection, WriteOptions())
    delete_documents(collection, [f"d{number}" for number in range(0, 70, 9)])
    assert read_commit(collection).representations["late"] == representation
    live = answers(collection)
    assert len(live) == 2 * 62
    assert [hit for hit in live if int(hit[0][1:]) < 40] == [hit for hit in before if int(hit[0][1:]) % 9], (
        "scores of the first segment do not change"
    )
    compact(collection)
    assert answers(collection) == live
    assert read_commit(collection).representations["late"] == representation
    assert states(collection) == {"late": [representation.state], "late-centred": [spec.state]}
    assert not verify(collection).problems


def test_no_state_is_written_where_nothing_is_learned(tmp_path: Path, tiny_bert: Path):
    with_own_width = representation_options("late:centred", str(tiny_bert), {"projection": "none"})
    build(tmp_path / "c", write(tmp_path / "a.jsonl", 0, 12), with_own_width)
    assert read_commit(tmp_path / "c").representations["late"].state is None
    assert list(states(tmp_path / "c")) == ["late-centred"]
    build(tmp_path / "d", tmp_path / "a.jsonl", representation_options("bm25"))
    assert not (tmp_path / "d" / "shared").exists()


def interrupt_after(monkeypatch: pytest.MonkeyPatch, component: str, count: int) -> None:
    """End the process's next write like a signal would, when so many components of a kind are sealed."""
    real, left = staging.write_manifest, count

    def sealing(folder, facts):
        nonlocal left
        real(folder, facts)
        left -= facts["component"] == component
        if not left:
            monkeypatch.setattr(staging, "write_manifest", real)
            raise KeyboardInterrupt

    monkeypatch.setattr(staging, "write_manifest", sealing)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of documents of every fit from now on."""
    seen: list[int] = []
    real = LateEncoder.fit
    monkeypatch.setattr(
        LateEncoder, "fit", lambda self, documents: (seen.append(len(documents)), real(self, documents))[1]
    )
    return seen


@pytest.mark.parametrize(
    ("component", "count", "resumed"), [("state", 1, 0), ("batch", 1, 10), ("batch", 4, 40)]
)
def test_a_killed_build_goes_on_with_what_its_encoder_had_learned(
    tmp_path, late, monkeypatch, fits, component, count, resumed
):
    corpus = write(tmp_path / "a.jsonl", 0, 40)
    interrupt_after(monkeypatch, component, count)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "c", corpus, late)
    assert unfinished_jobs(tmp_path / "c") == 1
    assert build(tmp_path / "c", corpus, late).resumed_documents == resumed
    assert fits == [10], "the rows of the first batch, once"
    build(tmp_path / "whole", corpus, late)
    assert answers(tmp_path / "c") == answers(tmp_path / "whole")
    assert states(tmp_path / "c") == states(tmp_path / "whole")
    assert not (tmp_path / "c" / "building").exists()


def test_a_build_that_is_killed_before_its_commit_leaves_states_that_the_next_takes(
    tmp_path, late, monkeypatch, fits
):
    corpus = write(tmp_path / "a.jsonl", 0, 20)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(builder, "write_commit", killed)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "c", corpus, late)
    monkeypatch.setattr(builder, "write_commit", write_commit)
    before = states(tmp_path / "c")
    build(tmp_path / "c", corpus, late)
    assert states(tmp_path / "c") == before and fits == [10]


def test_a_damaged_state_of_an_interrupted_run_says_what_to_do_and_restarting_does_it(
    tmp_path, late, monkeypatch
):
    corpus = write(tmp_path / "a.jsonl", 0, 30)
    interrupt_after(monkeypatch, "batch", 1)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "c", corpus, late)
    (learned,) = (tmp_path / "c").glob("building/*/learned-late")
    (array,) = learned.glob("*.npy")
    array.write_bytes(array.read_bytes()[:-4])
    with pytest.raises(CorruptError, match=r"learned-late.*--restart"):
        build(tmp_path / "c", corpus, late)
    assert build(tmp_path / "c", corpus, late, restart=True).resumed_documents == 0


def test_bad_data_after_an_encoder_has_learned_leaves_nothing_behind(tmp_path, late, monkeypatch):
    def broken(self, documents):
        vectors = real(self, documents)
        vectors.values[0, 0] = np.nan
        return vectors

    real = LateEncoder.encode_documents
    monkeypatch.setattr(LateEncoder, "encode_documents", broken)
    with pytest.raises(FormatError, match="NaN"):
        build(tmp_path / "c", write(tmp_path / "a.jsonl", 0, 5), late)
    assert not (tmp_path / "c").exists()


def test_a_representation_is_added_with_a_state_from_all_over_the_collection(tmp_path, late, fits):
    path = tmp_path / "c"
    build(path, write(tmp_path / "a.jsonl", 0, 25), representation_options("bm25"))
    add_documents(open_corpus(write(tmp_path / "b.jsonl", 25, 40)), path, WriteOptions())
    delete_documents(path, ["d3", "d30"])
    add_representation(path, late)
    assert fits == [38], "live rows of both segments"
    representation = read_commit(path).representations["late"]
    assert states(path) == {"late": [representation.state], "late-centred": [representation.indexes[0].state]}
    assert len(answers(path)) == 2 * 38
    assert (
        Collection.open(path).snapshot().searcher("hybrid").search(QUERIES, SearchRequest()).rows[0, 0] >= 0
    )


def test_an_interrupted_addition_resumes_with_its_state(tmp_path, late, monkeypatch, fits):
    path = tmp_path / "c"
    build(path, write(tmp_path / "a.jsonl", 0, 25), representation_options("bm25"))
    add_documents(open_corpus(write(tmp_path / "b.jsonl", 25, 40)), path, WriteOptions())
    interrupt_after(monkeypatch, "batch", 1)
    with pytest.raises(KeyboardInterrupt):
        add_representation(path, late)
    assert unfinished_jobs(path) == 1
    add_representation(path, late)
    assert fits == [40]
    assert len(answers(path)) == 80


def test_an_index_of_a_trained_kind_is_added_and_replaced_and_the_old_state_swept(tmp_path, tiny_bert):
    plain = RepresentationOptions(
        "late",
        representation_options("late:centred", str(tiny_bert), {"dim": 8}).encoder,
        (index_spec("centred", {"scale": 0.0}),),
    )
    path = tmp_path / "c"
    build(path, write(tmp_path / "a.jsonl", 0, 20), plain)
    add_documents(open_corpus(write(tmp_path / "b.jsonl", 20, 30)), path, WriteOptions())
    before, first = answers(path), states(path)
    with pytest.raises(ConfigError, match="already has this index"):
        add_representation(path, plain)
    reader = Collection.open(path).snapshot()
    add_representation(path, replace(plain, indexes=(index_spec("centred", {}),)))
    assert answers(path) != before
    assert set(first["late-centred"]) < set(states(path)["late-centred"]), "a reader holds the old commit"
    held = reader.searcher("late").search(QUERIES, SearchRequest(k=5))
    assert held.scores[0, 0] == pytest.approx(before[0][1])
    reader.close()
    delete_documents(path, ["d1"])
    assert states(path)["late-centred"] == [read_commit(path).representations["late"].indexes[0].state]
    assert not verify(path).problems


def test_a_collection_without_documents_answers_before_its_encoder_is_fitted(tmp_path, late):
    path, corpus = tmp_path / "c", write(tmp_path / "a.jsonl", 0, 3)
    build(path, corpus, representation_options("bm25"))
    delete_documents(path, ["d0", "d1", "d2"])
    compact(path)
    add_representation(path, late)
    assert answers(path) == []
    add_documents(open_corpus(corpus), path, WriteOptions())
    assert len(answers(path)) == 3 * len(QUERIES)


@pytest.mark.parametrize("owner", ["late", "late-centred"])
def test_damage_to_a_state_shows_at_opening_and_in_verify(collection: Path, owner: str):
    (generation,) = states(collection)[owner]
    damaged = next(state_folder(collection, owner, generation).glob("*.npy"))
    raw = damaged.read_bytes()
    damaged.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(CorruptError, match=damaged.name):
        Collection.open(collection).snapshot()
    assert [problem for problem in verify(collection).problems if damaged.name in problem]
    shutil.rmtree(damaged.parent)
    with pytest.raises(CorruptError, match="missing"):
        Collection.open(collection).snapshot()
    assert "missing" in verify(collection).problems[0]


def test_the_state_of_another_collection_is_refused(collection: Path, tmp_path: Path, late):
    build(tmp_path / "other", write(tmp_path / "b.jsonl", 100, 140), late)
    other = read_commit(tmp_path / "other").representations["late"]
    shutil.copytree(
        state_folder(tmp_path / "other", "late", other.state), state_folder(collection, "late", other.state)
    )
    commit = read_commit(collection)
    changed = replace(commit.representations["late"], state=other.state)
    write_commit(collection, replace(commit, representations={"late": changed}))
    with pytest.raises(IncompatibleError, match=r"'late' was encoded with late .*fingerprint"):
        Collection.open(collection).snapshot().searcher("late")


def test_a_collection_written_before_there_were_states_opens(tmp_path: Path):
    path = tmp_path / "c"
    build(path, write(tmp_path / "a.jsonl", 0, 9), representation_options("bm25"))
    content = read_sealed(path / "collection.json")
    del content["representations"]["bm25"]["state"]
    write_sealed(path / "collection.json", content)
    assert len(answers(path, "bm25")) and not verify(path).problems
    add_documents(open_corpus(write(tmp_path / "b.jsonl", 9, 12)), path, WriteOptions())


def test_info_shows_what_states_take(collection: Path):
    info = Collection.open(collection).snapshot().info()
    assert info["bytes"]["shared/late"] > 8 * 32 and info["bytes"]["shared/late-centred"] > 0
    assert info["total_bytes"] == sum(info["bytes"].values())
    assert info["representations"]["late"]["state"] == states(collection)["late"][0]


def test_explanations_are_in_words_with_places_in_the_text(collection: Path):
    snapshot = Collection.open(collection).snapshot()
    searcher = snapshot.searcher("late")
    hits = searcher.search([QUERIES[0]], SearchRequest(k=4))
    rows = hits.rows[0]
    for row, score, explanation in zip(rows, hits.scores[0], searcher.explain(QUERIES[0], rows), strict=True):
        assert explanation.value == pytest.approx(float(score), rel=1e-5)
        assert [part.label for part in explanation.parts] == snapshot.encoder("late").query_tokens(QUERIES[0])
        assert {"old", "red", "fish"} <= {part.label for part in explanation.parts}
        passage = snapshot.passages(np.array([row]))[0]
        for part in explanation.parts:
            assert isinstance(part.facts["position"], int)
            if "start" in part.facts:
                assert passage.text[part.facts["start"] : part.facts["end"]] == part.facts["token"]
            else:
                assert part.facts["token"] in ("[CLS]", "[SEP]", passage.title)
    assert any("start" in part.facts for part in explanation.parts)


def test_the_command_adds_and_indexes_with_models_and_options_of_a_representation(
    tmp_path: Path, tiny_bert: Path
):
    corpus, target = str(write(tmp_path / "a.jsonl", 0, 20)), str(tmp_path / "c")

    def call(*arguments: str):
        return CliRunner().invoke(GROUP, ["index", *arguments, "-q"], catch_exceptions=False)

    encoder = ["--late-model", str(tiny_bert), "--late-option", "dim=8"]
    assert call(corpus, "-o", target, "--with", "bm25,late:centred", *encoder).exit_code == 0
    representation = read_commit(Path(target)).representations["late"]
    assert representation.encoder == {"family": "late", "model": str(tiny_bert), "options": {"dim": 8}}
    assert representation.state is not None
    assert call(target, "--add", "late-wide:centred", *encoder[:2]).exit_code == 0
    assert read_commit(Path(target)).representations["late-wide"].encoder["family"] == "late"
    refused = call(corpus, "-o", target + "2", "--with", "bm25", *encoder)
    assert refused.exit_code == 2 and "--late-model is for late, which --with leaves out" in refused.output
    refused = call(target, "--add", "other", "--late-model", str(tiny_bert), "--sparse-option", "x=1")
    assert refused.exit_code == 2 and "--sparse-option has no effect: 'other' is a late" in refused.output


@pytest.mark.parametrize("kind", ["centred", "plaid"])
def test_what_is_found_by_training_cannot_be_chosen(kind: str):
    with pytest.raises(ConfigError, match=r"state of index kind .* is found by training"):
        index_spec(kind, {"state": "0" * 16})


def test_plaid_is_the_kind_of_late_and_grows_shrinks_and_compacts(tmp_path: Path, tiny_bert: Path):
    path = tmp_path / "c"
    late = representation_options("late", str(tiny_bert), {"dim": 8})
    assert [spec.kind for spec in late.indexes] == ["plaid"]
    build(path, write(tmp_path / "a.jsonl", 0, 60), late, representation_options("bm25"))
    add_documents(open_corpus(write(tmp_path / "b.jsonl", 60, 90)), path, WriteOptions())
    delete_documents(path, [f"d{number}" for number in range(0, 90, 7)])
    before, kept = answers(path), states(path)
    assert len(before) == 2 * 77 and set(kept) == {"late", "late-plaid"}
    compact(path)
    assert answers(path) == before == answers(path, "plaid")
    assert states(path) == kept
    assert not verify(path).problems
    snapshot = Collection.open(path).snapshot()
    rows = snapshot.searcher("late").search(QUERIES[:1], SearchRequest(k=2)).rows[0]
    for explanation in snapshot.searcher("late").explain(QUERIES[0], rows):
        assert {"old", "red", "fish"} <= {part.label for part in explanation.parts}


def test_an_approximate_kind_is_added_by_its_name_and_exact_under_a_narrow_filter(
    tmp_path: Path, tiny_bert: Path
):
    path, allowed = tmp_path / "c", Bitmap.from_mask(np.arange(60) % 20 == 3)
    build(path, write(tmp_path / "a.jsonl", 0, 60), representation_options("late:maxsim", str(tiny_bert)))
    for kind in ("fde", "plaid"):
        add_representation(path, representation_options(f"late:{kind}", str(tiny_bert)))
    assert states(path).keys() == {"late-plaid"}
    snapshot = Collection.open(path).snapshot()
    exact = snapshot.searcher("late").search(QUERIES, SearchRequest(k=5, allowed=allowed))
    assert (exact.rows >= 0).sum() == 2 * 3
    for name in ("fde", "late-fde", "plaid", "late-maxsim"):
        found = snapshot.searcher(name).search(QUERIES, SearchRequest(k=5, allowed=allowed))
        assert np.array_equal(np.sort(found.rows), np.sort(exact.rows))
        if "plaid" not in name:  # which scores compressed vectors
            assert np.array_equal(found.scores, exact.scores)
