"""What is measured of held-out queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest

from indexing.progress import Progress, Silent
from retrieval.errors import ConfigError
from retrieval.values import Hits
from training.examples.training_set import LISTS, TEXTS, TrainingSet
from training.families.dense import DenseFamily
from training.run.dev import Dev, qrels_of, run_of


@pytest.fixture
def data() -> TrainingSet:
    """Two queries over four documents; the second has a graded answer, a weak one and a judged negative."""
    return TrainingSet(
        "set",
        pl.DataFrame({"id": ["q0", "q1"], "text": ["river", "cat"]}, schema=TEXTS),
        pl.DataFrame({"id": ["d0", "d1", "d2", "d3"], "text": ["a", "b", "c", "d"]}, schema=TEXTS),
        pl.DataFrame(
            {
                "query": [0, 1],
                "documents": [[2], [0, 3, 1]],
                "labels": [[1.0], [2.0, 0.3, 0.0]],
                "scores": [None, None],
            },
            schema=LISTS,
        ),
    )


HITS = Hits(
    np.array([[1, 2, 0, -1], [3, 0, 1, 2]]),
    np.array([[4, 3, 2, -np.inf], [9, 8, 7, 6]], dtype=np.float32),
)


def test_judgements_are_whole_numbers_and_padding_is_left_out(data: TrainingSet) -> None:
    assert qrels_of(data) == {"q0": {"d2": 1}, "q1": {"d0": 2, "d3": 1, "d1": 0}}
    assert run_of(HITS, data)["q0"] == [("d1", 4.0), ("d2", 3.0), ("d0", 2.0)]


def test_a_model_is_measured_by_what_its_family_finds(data: TrainingSet) -> None:
    class Fixed(DenseFamily):
        def search(
            self, model: Any, queries: Sequence[str], documents: Sequence[str], k: int, progress: Progress
        ) -> tuple[Hits, dict[str, float]]:
            assert (list(queries), list(documents), k) == (["river", "cat"], ["a", "b", "c", "d"], 4)
            return HITS, {"terms": 7.0}

    figures = Dev(Fixed(), data, "mrr@5", Silent())(None)
    assert figures["MRR@5"] == figures["MRR@10"] == (1 / 2 + 1) / 2
    assert figures["Recall@100"] == 1.0
    second = (1 + 2 / np.log2(3)) / (2 + 1 / np.log2(3))
    assert figures["nDCG@10"] == pytest.approx((1 / np.log2(3) + second) / 2)
    assert figures["terms"] == 7.0


def test_a_metric_that_does_not_exist_is_refused(data: TrainingSet) -> None:
    with pytest.raises(ConfigError, match="unknown metric"):
        Dev(DenseFamily(), data, "accuracy", Silent())
