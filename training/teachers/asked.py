"""Which scores of teachers a recipe asks for."""

from __future__ import annotations

from training.recipe.options import Recipe

OF_BATCHES = frozenset({"tct"})
"""Losses that ask what a teacher says of every document of the batch."""

OF_LISTS = frozenset({"margin-mse", "distillation", "diff-kendall", "rank-distillation", "adversarial"})
"""Losses that ask what teachers say of each query's own candidates."""


def asks_of_batches(recipe: Recipe) -> bool:
    """Whether a loss wants the teacher's scores of every document of a batch."""
    return any(options.name in OF_BATCHES for options in recipe.losses)


def asks_of_lists(recipe: Recipe) -> bool:
    """Whether a loss, or the choice of negatives, wants the teachers' scores of each query's list."""
    return recipe.negatives.margin is not None or any(options.name in OF_LISTS for options in recipe.losses)
