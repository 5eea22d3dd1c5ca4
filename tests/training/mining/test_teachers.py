"""What each kind of teacher says about pairs, and what they say together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from indexing.progress import Silent
from retrieval.encoders import open_encoder
from retrieval.encoders.terms import TermsEncoder
from retrieval.errors import ConfigError, FormatError, IncompatibleError
from retrieval.exact import dense_scores, maxsim_scores
from retrieval.exact_terms import bm25_scores
from retrieval.rerank import CrossEncoderReranker
from training.examples.training_set import TrainingSet
from training.mining.stored_vectors import as_documents
from training.recipe.options import TeacherOptions
from training.teachers.ensemble import blend
from training.teachers.in_batch import InBatchTeacher
from training.teachers.scoring import add_scores

OTHERS = {0: [5, 11, 1], 1: [1, 8], 2: [6], 3: [0, 1], 4: []}


def scored(data: TrainingSet, store: Path, *teachers: TeacherOptions) -> list[list[float]]:
    return add_scores(data, teachers, store, Silent()).lists["scores"].to_list()


def listed(data: TrainingSet, matrix: Any) -> list[Any]:
    """The entries of a (queries, documents) matrix that the lists have."""
    return [
        pytest.approx(matrix[query, rows].tolist(), rel=1e-5)
        for query, rows in enumerate(data.lists["documents"].to_list())
    ]


def test_bm25_scores_by_the_statistics_of_the_set(
    make_set: Callable[..., TrainingSet], tmp_path: Path
) -> None:
    data, terms = make_set(others=OTHERS), TermsEncoder()
    queries = terms.encode_queries(data.queries["text"].to_list())
    expected = bm25_scores(queries, terms.encode_documents(as_documents(data.documents)))
    found = scored(data, tmp_path, TeacherOptions("bm25"))
    assert found == listed(data, expected)
    assert found[1][2] == 0.0  # "cat" has no word of "old dog"


@pytest.mark.parametrize(
    ("name", "options", "exact"),
    [("dense", {}, dense_scores), ("late", {"projection": "none"}, maxsim_scores)],
)
def test_vectors_score_like_the_encoder_s_own(
    name: str,
    options: dict[str, Any],
    exact: Callable[..., Any],
    make_set: Callable[..., TrainingSet],
    tiny_bert: Path,
    tmp_path: Path,
) -> None:
    data = make_set(others=OTHERS)
    encoder = open_encoder({"family": name, "model": str(tiny_bert), "options": options})
    queries = encoder.encode_queries(data.queries["text"].to_list())
    expected = exact(queries, encoder.encode_documents(as_documents(data.documents)))
    teacher = TeacherOptions(name, str(tiny_bert))
    assert scored(data, tmp_path / "store", teacher) == listed(data, expected)

    batch = InBatchTeacher.open(teacher, data.queries, data.documents, tmp_path / "batch", Silent())
    asked, shown = data.queries["text"][[3, 0]].to_list(), data.documents["text"][[6, 1, 5]].to_list()
    np.testing.assert_allclose(
        batch.scores(asked, shown), expected[[3, 0]][:, [6, 1, 5]], rtol=1e-5, atol=1e-6
    )
    with pytest.raises(ConfigError, match="has not read the text 'elsewhere'"):
        batch.scores(asked, ["elsewhere"])


def test_a_cross_encoder_reads_query_and_document(
    make_set: Callable[..., TrainingSet], tiny_cross_encoder: Path, tmp_path: Path
) -> None:
    data = make_set(others=OTHERS)
    model = CrossEncoderReranker.open(str(tiny_cross_encoder))
    matrix = np.array([model.scores([(q, d) for d in data.documents["text"]]) for q in data.queries["text"]])
    assert scored(data, tmp_path, TeacherOptions("reranker", str(tiny_cross_encoder))) == listed(data, matrix)
    with pytest.raises(ConfigError, match="'reranker' cannot score all documents"):
        InBatchTeacher.open(
            TeacherOptions("reranker", str(tiny_cross_encoder)),
            data.queries,
            data.documents,
            tmp_path / "batch",
            Silent(),
        )


def _lines(data: TrainingSet) -> list[dict[str, Any]]:
    return [
        {"query": f"q{query}", "document": f"d{row}", "score": query + row / 100}
        for query, rows in enumerate(data.lists["documents"].to_list())
        for row in rows
    ]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_file_of_scores_is_read_by_id(
    suffix: str, make_set: Callable[..., TrainingSet], tmp_path: Path
) -> None:
    data, path = make_set(others=OTHERS), tmp_path / f"scores.{suffix}"
    lines = [
        {"query": "q0", "document": "d0", "score": 9.0},  # replaced below
        {"query": "elsewhere", "document": "d0", "score": 1.0},
        *_lines(data)[::-1],
    ]
    if suffix == "jsonl":
        path.write_text("\n".join(map(json.dumps, lines)))
    else:
        pl.DataFrame(lines).write_parquet(path)
    matrix = np.arange(5)[:, None] + np.arange(12) / 100
    assert scored(data, tmp_path / "store", TeacherOptions("file", str(path))) == listed(data, matrix)


def test_a_file_may_begin_with_whole_numbers(make_set: Callable[..., TrainingSet], tmp_path: Path) -> None:
    data, path = make_set(others=OTHERS), tmp_path / "scores.jsonl"
    whole = [{"query": f"elsewhere-{number}", "document": "d0", "score": 1} for number in range(200)]
    path.write_text("\n".join(map(json.dumps, [*whole, *_lines(data)])))
    matrix = np.arange(5)[:, None] + np.arange(12) / 100
    assert scored(data, tmp_path / "store", TeacherOptions("file", str(path))) == listed(data, matrix)


def test_a_file_that_does_not_suit_says_what_is_missing(
    make_set: Callable[..., TrainingSet], tmp_path: Path
) -> None:
    data, path = make_set(others=OTHERS), tmp_path / "scores.jsonl"

    def ask(lines: list[dict[str, Any]]) -> None:
        path.write_text("\n".join(map(json.dumps, lines)))
        scored(data, tmp_path / str(len(list(tmp_path.iterdir()))), TeacherOptions("file", str(path)))

    lines = _lines(data)
    with pytest.raises(
        FormatError, match=r"scores.jsonl: has no score for the query 'q3' and the document 'd1'"
    ):
        ask([line for line in lines if (line["query"], line["document"]) != ("q3", "d1")])
    with pytest.raises(
        IncompatibleError, match=r"scores for another data set.*'little', such as 'q0' and 'd0'"
    ):
        ask([{**line, "query": f"other-{line['query']}"} for line in lines])
    with pytest.raises(FormatError, match="has no column 'score'; needed are query, document, score"):
        ask([{"query": "q0", "document": "d0", "value": 1.0}])
    with pytest.raises(FormatError, match="scores the query 'q0' with the document 'd0' nan"):
        ask([{**line, "score": None} if line is lines[0] else line for line in lines])
    path.write_text('{"query": "q0"')
    with pytest.raises(FormatError, match=r"scores.jsonl: cannot be read"):
        scored(data, tmp_path / "torn", TeacherOptions("file", str(path)))
    with pytest.raises(FormatError, match="no such file"):
        scored(data, tmp_path / "none", TeacherOptions("file", str(tmp_path / "nowhere.parquet")))
    with pytest.raises(FormatError, match=r"ends in .jsonl or .parquet"):
        scored(data, tmp_path / "none", TeacherOptions("file", str(tmp_path / "scores.txt")))


@pytest.mark.parametrize(
    ("teachers", "message"),
    [
        ([], "there is no teacher"),
        (
            [TeacherOptions("oracle")],
            "unknown teacher 'oracle'; valid: bm25, dense, file, late, reranker, sparse",
        ),
        ([TeacherOptions("bm25", weight=0.0)], "the weight of the teacher 'bm25' is 0"),
        ([TeacherOptions("bm25", "minilm")], "bm25 has no models"),
        ([TeacherOptions("reranker")], "needs a model"),
    ],
)
def test_teachers_that_cannot_be_asked_are_refused(
    teachers: list[TeacherOptions], message: str, make_set: Callable[..., TrainingSet], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        add_scores(make_set(), teachers, tmp_path, Silent())


def test_an_ensemble_stretches_each_list_and_takes_the_weighted_mean() -> None:
    scores = np.array([[1.0, 3.0, 2.0, 7.0, -5.0, -1.0], [10.0, 20.0, 40.0, 7.0, 0.0, 1.0]], dtype=np.float32)
    blended = blend(scores, np.array([3, 1, 2]), [3.0, 1.0])
    first, second = np.array([0, 1, 0.5, 0, 0, 1]), np.array([0, 1 / 3, 1, 0, 0, 1])
    np.testing.assert_allclose(blended, (3 * first + second) / 4, atol=1e-5)


def test_several_teachers_are_blended_and_one_is_left_as_it_is(
    make_set: Callable[..., TrainingSet], tiny_bert: Path, tmp_path: Path
) -> None:
    data = make_set(others=OTHERS)
    both = (TeacherOptions("bm25", weight=2.0), TeacherOptions("dense", str(tiny_bert)))
    each = [scored(data, tmp_path, teacher) for teacher in both]
    found = scored(data, tmp_path, *both)
    for line, lists in enumerate(zip(*each, strict=True)):
        stretched = [(np.array(s) - min(s)) / (max(s) - min(s) + 1e-6) for s in lists]
        assert found[line] == pytest.approx(((2 * stretched[0] + stretched[1]) / 3).tolist(), abs=1e-5)
