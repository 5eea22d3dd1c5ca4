"""What the trainer asks of a kind of model, so that one objective, one loop and one measurement serve all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor

from indexing.progress import Progress
from retrieval.values import Hits
from training.recipe.options import ModelOptions
from training.scored import Representation

Task = Literal["query", "document"]
"""Which side of a search a text is on."""

Features = Mapping[str, Any]
"""What the tokenizer made of texts: tensors of one row a text, and facts such as the task."""


@dataclass(frozen=True)
class Sample:
    """Texts of the training sets, chosen by the seed, which a model may be initialised from.

    Attributes:
        queries, documents: at most ``SAMPLE`` of each; document i answers query i as far as there are as many.
    """

    queries: tuple[str, ...]
    documents: tuple[str, ...]


SAMPLE = 10_000
"""Texts of a sample, at most."""


class Family(Protocol):
    """A kind of model.

    The model itself is a ``BaseModel`` of sentence-transformers (modules in sequence, ``preprocess``,
    ``save_pretrained``); a kind that it lacks derives from one that it has.
    """

    @property
    def joint(self) -> bool:
        """Whether query and document are read together, as a reranker does.

        Then texts are pairs of them, a representation is one score of each pair, ``(scores (M,),)``, ``score`` is
        never called, and only a query's own candidates are scored.
        """
        ...

    def open(self, options: ModelOptions, seed: int, sample: Sample, progress: Progress) -> Any:
        """The model that training starts from, on the CPU, in float32; ``progress`` hears of stages that take long.

        The same arguments give the same weights.

        Raises:
            ConfigError: an option that the family does not know or that does not suit the checkpoint.
        """
        ...

    def features(self, model: Any, texts: Sequence[Any], task: Task) -> Features:
        """What ``represent`` needs of the texts, each cut to its maximum length; the row of a text comes first."""
        ...

    def represent(self, model: Any, features: Features, task: Task) -> Representation:
        """The texts as the model sees them, one row each; rows are padded in their second dimension only, with zeros.

        Tensors of floats carry the gradient, others (masks) do not.
        """
        ...

    def score(self, queries: Representation, documents: Representation) -> Tensor:
        """(B, M) scores of every query against every document, float32."""
        ...

    def is_new(self, parameter: str) -> bool:
        """Whether a parameter, by its name in the model, is none of the base's, and learns at ``head_lr``."""
        ...

    def search(
        self, model: Any, queries: Sequence[str], documents: Sequence[str], k: int, progress: Progress
    ) -> tuple[Hits, dict[str, float]]:
        """The best k documents of each query by exact search, and figures of the vectors, such as terms of a document.

        Leaves the model in the mode (training or not) that it was in. Progress advances by one for each text.
        """
        ...

    def finish(self, model: Any, options: ModelOptions, sample: Sample, progress: Progress) -> None:
        """What is left to do to the trained model, in place, where the options ask for it."""
        ...

    def save(self, model: Any, folder: Path) -> None:
        """Write the model so that sentence-transformers and Tercet's encoders open it; the model stays as it is.

        Low-rank updates are merged into the weights that they update.
        """
        ...
