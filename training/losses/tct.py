"""The teacher's distribution over all documents of a batch."""

from __future__ import annotations

from torch import Tensor

from training.losses.distillation import divergence
from training.losses.options import Positive
from training.scored import Scored


def tct(
    scored: Scored, *, teacher_temperature: Positive = 0.25, student_temperature: Positive = 1.0
) -> Tensor:
    """KL(softmax(teacher / 0.25) || softmax(student)) over the documents of the whole batch.

    Lin et al., "Distilling Dense Representations for Ranking using Tightly-Coupled Teachers", 2020, arXiv:2010.11386
    (TCT-ColBERT): the teacher scores every query against every document of the batch, and the temperature is the
    teacher's alone. Documents that other queries share stay in: the teacher says what they are worth.

    Args:
        scored: a batch with the teacher's scores of all its documents, those of all devices where there are several.
        teacher_temperature: what the teacher's scores are divided by.
        student_temperature: what the student's scores are divided by, the loss times its square; a student of cosines
            wants about 0.05, the paper's student of unbounded dot products 1.
    """
    return divergence(scored.scores, scored.given("teacher_batch"), student_temperature, teacher_temperature)
