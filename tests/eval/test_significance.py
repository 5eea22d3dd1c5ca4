"""The randomisation test against scipy, and what it must not do."""

from __future__ import annotations

import numpy as np
import pytest

from eval.significance import compare, paired_randomisation
from retrieval.errors import ConfigError


def systems(n, shift, seed=0):
    rng = np.random.default_rng(seed)
    first = rng.random((n, 2))
    return first, np.clip(first + rng.normal(shift, 0.2, (n, 2)), 0, 1)


def test_few_queries_are_tested_exactly_as_scipy_does():
    stats = pytest.importorskip("scipy.stats")
    first, second = systems(11, 0.1)
    ours = paired_randomisation(first, second)
    for metric in range(2):
        result = stats.permutation_test(
            (second[:, metric], first[:, metric]),
            lambda a, b: np.mean(a - b),
            permutation_type="samples",
            n_resamples=np.inf,
        )
        assert ours[metric] == pytest.approx(result.pvalue)


def test_many_queries_agree_with_the_t_test():
    stats = pytest.importorskip("scipy.stats")
    first, second = systems(300, 0.02)
    ours = paired_randomisation(first, second)
    for metric in range(2):
        assert ours[metric] == pytest.approx(
            stats.ttest_rel(first[:, metric], second[:, metric]).pvalue, abs=0.02
        )


def test_equal_systems_have_p_one_and_opposite_differences_the_same_p():
    first, second = systems(40, 0.05)
    assert paired_randomisation(first, first).tolist() == [1.0, 1.0]
    assert np.array_equal(paired_randomisation(first, second), paired_randomisation(second, first))


def test_a_seed_decides_the_draw():
    first, second = systems(100, 0.02)
    assert np.array_equal(
        paired_randomisation(first, second, seed=3), paired_randomisation(first, second, seed=3)
    )
    assert not np.array_equal(
        paired_randomisation(first, second, seed=3), paired_randomisation(first, second, seed=4)
    )


def test_under_the_null_hypothesis_small_p_values_are_as_rare_as_they_say():
    rng = np.random.default_rng(5)
    first, second = rng.random((60, 400)), rng.random((60, 400))
    p = paired_randomisation(first, second, permutations=1000)
    assert 0.01 < np.mean(p <= 0.05) < 0.1


def test_a_clear_difference_is_never_given_p_zero():
    first, second = np.zeros((200, 1)), np.ones((200, 1))
    assert paired_randomisation(first, second, permutations=99).tolist() == [0.01]


def test_one_query_and_no_query_prove_nothing():
    assert paired_randomisation(np.zeros((1, 1)), np.ones((1, 1))).tolist() == [1.0]
    assert paired_randomisation(np.zeros((0, 1)), np.ones((0, 1))).tolist() == [1.0]
    assert compare({}, {}) == {}


def test_systems_measured_on_other_queries_are_not_compared():
    with pytest.raises(ConfigError, match="same queries"):
        compare({"q1": {"MAP": 1.0}}, {"q2": {"MAP": 1.0}})
    with pytest.raises(ConfigError, match="same metrics"):
        compare({"q1": {"MAP": 1.0}}, {"q1": {"MRR": 1.0}})
    with pytest.raises(ValueError, match="equal"):
        paired_randomisation(np.zeros((2, 1)), np.zeros((3, 1)))
