"""Which documents become negatives, and which of them a teacher takes away again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.errors import ConfigError
from retrieval.values import Hits
from training.examples.training_set import TrainingSet
from training.mining.negatives import mine, without_likely_answers
from training.mining.searchers import open_search
from training.recipe.options import NegativeOptions

N = 12


@dataclass
class Ranking:
    """A search that returns given rows for each query text, and remembers what it was asked."""

    rows: Mapping[str, Sequence[int]]
    asked: list[tuple[list[str], int]] = field(default_factory=list)

    def __call__(self, queries: Sequence[str], k: int) -> Hits:
        self.asked.append((list(queries), k))
        hits = Hits.none(len(queries), k)
        for line, query in enumerate(queries):
            found = self.rows[query][:k]
            hits.rows[line, : len(found)] = found
            hits.scores[line, : len(found)] = -np.arange(len(found))
        return hits


def lists(data: TrainingSet) -> list[list[int]]:
    return data.lists["documents"].to_list()


def test_a_list_has_its_answers_and_then_the_window_in_order(
    make_set: Callable[..., TrainingSet], heard: Any
) -> None:
    data = make_set(queries=["a", "b"], answers={0: [4, 1], 1: [2]}, scores=[[0.5, 0.4], [0.3]])
    search = Ranking({"a": [4, 0, 2, 5, 1, 7, 8, 9], "b": [0, 1, 2, 4, 5, 7, 8]})
    mined = mine(data, search, NegativeOptions(first=2, last=4), 0, heard)
    assert search.asked == [(["a", "b"], 6)]
    assert lists(mined) == [[4, 1, 2, 5, 7], [2, 1, 4, 5]]  # ranks count what is no answer
    assert mined.lists["labels"].to_list() == [[1.0, 1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
    assert mined.lists["scores"].to_list() == [None, None]
    assert not heard.notes


def test_no_negative_has_the_text_of_an_answer_or_of_another_negative(
    make_set: Callable[..., TrainingSet], heard: Any
) -> None:
    # d3 and d6 have one text
    data = make_set(queries=["a", "b", "c"], answers={0: [3], 1: [6], 2: [0]})
    everything = [6, 3, 0, 1]
    mined = mine(data, Ranking(dict.fromkeys("abc", everything)), NegativeOptions(last=9), 0, heard)
    assert lists(mined) == [[3, 0, 1], [6, 0, 1], [0, 6, 1]]


def test_what_answers_a_query_of_the_same_text_is_no_negative(
    make_set: Callable[..., TrainingSet], heard: Any
) -> None:
    data = make_set(queries=["a", "b", "a"], answers={0: [0], 1: [1], 2: [2]})
    mined = mine(data, Ranking({"a": [0, 1, 2, 4], "b": [0, 1, 2, 4]}), NegativeOptions(last=9), 0, heard)
    assert lists(mined) == [[0, 1, 4], [1, 0, 2, 4], [2, 1, 4]]


def test_given_negatives_stay_and_are_not_repeated(make_set: Callable[..., TrainingSet], heard: Any) -> None:
    data = make_set(queries=["a"], answers={0: [0]}, others={0: [8, 4]})
    mined = mine(data, Ranking({"a": [4, 1, 5, 7]}), NegativeOptions(first=1, last=3), 0, heard)
    assert lists(mined) == [[0, 8, 4, 1, 5]]


def test_lists_without_enough_negatives_are_filled_at_random(
    make_set: Callable[..., TrainingSet], heard: Any
) -> None:
    data = make_set(queries=["a", "b", "c"], answers={0: [3], 1: [1], 2: [2]}, others={2: [0, 1]})
    search = Ranking({"a": [], "b": [1, 5, 7], "c": []})
    options = NegativeOptions(first=1, last=5, per_query=2)
    draws = [lists(mine(data, search, options, seed, heard)) for seed in range(40)]
    for first, second, third in draws:
        assert first[0] == 3 and len(set(first)) == 3 and 6 not in first  # d6 has the text of d3
        assert second == [1, 5, 7] and third == [2, 0, 1]
    assert {row for first, _, _ in draws for row in first[1:]} == set(range(N)) - {3, 6}
    assert draws[0] == lists(mine(data, search, options, 0, heard))
    assert heard.notes[0] == "little: 1 of 3 queries lacked negatives and were given random documents"


def test_mining_with_bm25_finds_near_documents(
    make_set: Callable[..., TrainingSet], tmp_path: Path, heard: Any
) -> None:
    data = make_set()
    search = open_search("bm25", data, folder=tmp_path, progress=heard)
    mined = lists(mine(data, search, NegativeOptions(first=1, last=3), 0, heard))
    assert mined[0] == [0, 1, 11, 5]  # "river mountain": d0 and d1 have both, mountain is the rarer
    assert mined[2] == [3, 10, 4]
    again = open_search("bm25", data, folder=tmp_path, progress=heard)
    assert lists(mine(data, again, NegativeOptions(first=1, last=3), 0, heard)) == mined


def test_a_set_in_which_everything_answers_has_no_negatives(
    make_set: Callable[..., TrainingSet], heard: Any
) -> None:
    data = make_set(documents=["x", "x"], queries=["a"], answers={0: [0]})
    with pytest.raises(ConfigError, match="every document of 'little' answers the query 'q0'"):
        mine(data, Ranking({"a": [0, 1]}), NegativeOptions(), 0, heard)
    assert lists(mine(data, Ranking({"a": [0, 1]}), NegativeOptions(per_query=0), 0, heard)) == [[0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (NegativeOptions(first=0), "negatives.first is 0"),
        (NegativeOptions(first=5, last=4), "negatives.last is 4"),
        (NegativeOptions(per_query=-1), "negatives.per_query is -1"),
        (NegativeOptions(margin=1.2), "negatives.margin is 1.2"),
        (NegativeOptions(margin=0.0), "negatives.margin is 0"),
    ],
)
def test_impossible_options_are_refused(
    options: NegativeOptions, message: str, make_set: Callable[..., TrainingSet], heard: Any
) -> None:
    with pytest.raises(ConfigError, match=message):
        mine(make_set(), Ranking({}), options, 0, heard)


def test_negatives_that_score_like_the_answer_are_left_out(
    make_set: Callable[..., TrainingSet], heard: Any
) -> None:
    data = make_set(
        queries=["a", "b", "c"],
        answers={0: [0], 1: [1], 2: [2, 3]},
        others={0: [4, 5, 7], 1: [4, 5, 7], 2: [4, 5, 7]},
        # limits: 0.9 * 10; -2 - 0.1 * 2 for logits; 0.9 * (8 + 4) / 2
        scores=[[10.0, 8.9, 9.1, 0.0], [-2.0, -2.1, -2.3, 3.0], [8.0, 4.0, 5.5, 5.3, 5.39]],
    )
    kept = without_likely_answers(data, NegativeOptions(margin=0.9), 0, heard)
    assert lists(kept) == [[0, 4, 7], [1, 5], [2, 3, 5, 7]]
    assert kept.lists["scores"].to_list() == [
        pytest.approx([10.0, 8.9, 0.0]),
        pytest.approx([-2.0, -2.3]),
        pytest.approx([8.0, 4.0, 5.3, 5.39]),
    ]
    assert kept.lists["labels"].to_list() == [[1.0, 0.0, 0.0], [1.0, 0.0], [1.0, 1.0, 0.0, 0.0]]
    assert heard.notes == ["little: 4 negatives left out that score above 0.9 of the positive"]
    assert without_likely_answers(data, NegativeOptions(), 0, heard) is data


def test_a_list_that_lost_its_negatives_is_filled_and_has_to_be_scored_again(
    make_set: Callable[..., TrainingSet], heard: Any
) -> None:
    data = make_set(
        queries=["a", "b"],
        answers={0: [0], 1: [1]},
        others={0: [4], 1: [5]},
        scores=[[1.0, 0.99], [1.0, 0.5]],
    )
    kept = without_likely_answers(data, NegativeOptions(margin=0.95), 0, heard)
    first, second = lists(kept)
    assert first[0] == 0 and len(first) == 2 and first[1] not in (0, 4)
    assert second == [1, 5]
    assert kept.lists["scores"].to_list() == [None, [1.0, 0.5]]
    assert heard.notes[1] == "little: 1 of 2 queries lacked negatives and were given random documents"


def test_a_margin_without_scores_says_what_to_do(make_set: Callable[..., TrainingSet], heard: Any) -> None:
    with pytest.raises(ConfigError, match=r"negatives.margin needs a teacher's scores.*'q0' of 'little'"):
        without_likely_answers(make_set(), NegativeOptions(margin=0.95), 0, heard)
