"""Explanations of token matches say which passage their places count from."""

from __future__ import annotations

from indexing.token_names import with_passages
from retrieval.protocols import Explanation


def test_every_explanation_names_its_own_passage_and_keeps_the_rest():
    part = Explanation("cat", 0.5, (), {"position": 3})
    first, second = Explanation("MaxSim", 0.5, (part,), {"bits": 2}), Explanation("MaxSim", 0.0)
    placed, empty = with_passages([first, second], [(10, 40), (0, 9)])
    assert placed.facts == {"bits": 2, "passage start": 10, "passage end": 40}
    assert (placed.label, placed.value, placed.parts) == ("MaxSim", 0.5, (part,))
    assert empty.facts == {"passage start": 0, "passage end": 9}
    assert first.facts == {"bits": 2}
