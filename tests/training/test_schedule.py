"""Which queries make which batch."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from training.recipe.options import OptimOptions
from training.trainer.schedule import Schedule, planned_steps


def places(schedule: Schedule) -> list[tuple[int, int, int]]:
    return [schedule.place(example) for example in range(len(schedule))]


def test_every_query_is_drawn_once_an_epoch() -> None:
    schedule = Schedule((10, 6), 4, 12, seed=3)
    for number, size in ((0, 10), (1, 6)):
        epochs = Counter((epoch, row) for one, epoch, row in places(schedule) if one == number)
        assert max(epochs.values()) == 1
        whole = max(epoch for epoch, _ in epochs)
        for epoch in range(whole):
            assert sum(one == epoch for one, _ in epochs) == size


def test_a_step_is_of_one_set_and_sets_have_their_share() -> None:
    schedule = Schedule((30, 10), 4, 20, seed=0)
    drawn = np.array([number for number, _, _ in places(schedule)]).reshape(20, 4)
    assert (drawn == drawn[:, :1]).all()
    assert Counter(drawn[:, 0].tolist()) == {0: 15, 1: 5}
    assert [schedule.set_of(step) for step in range(20)] == drawn[:, 0].tolist()


def test_orders_differ_between_epochs_and_seeds() -> None:
    first, second = (places(Schedule((8,), 4, 4, seed)) for seed in (0, 1))
    assert first != second
    assert [row for _, epoch, row in first if epoch == 0] != [row for _, epoch, row in first if epoch == 1]
    assert first == places(Schedule((8,), 4, 4, 0))


def test_a_set_smaller_than_a_batch_fills_it() -> None:
    assert Counter(row for _, _, row in places(Schedule((3,), 6, 1, 0))) == {0: 2, 1: 2, 2: 2}


@pytest.mark.parametrize(
    ("options", "devices", "steps"),
    [({"epochs": 1.0}, 1, 4), ({"epochs": 2.5}, 1, 8), ({"epochs": 1.0}, 2, 2), ({"steps": 7}, 2, 7)],
)
def test_steps_follow_from_epochs(options: dict[str, float], devices: int, steps: int) -> None:
    assert planned_steps(OptimOptions(batch=10, **options), (20, 12), devices) == steps  # type: ignore[arg-type]
