"""Late-interaction search by single vectors: candidates by fixed dimensional encodings, exact MaxSim of those."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from indexing.dense.scan import largest_norm
from indexing.fde.ball_carving import carved
from indexing.fde.encodings import Encodings
from indexing.fde.first_stage import build_first_stage, check_storage, open_first_stage
from indexing.fde.recipe import Recipe
from indexing.index_facts import read_norm, with_defaults, write_facts
from indexing.maxsim import allowed_rows, explain_maxsim
from indexing.planner import planned_search
from retrieval.errors import ConfigError
from retrieval.maxsim import best_rows, checked, likely_rows
from retrieval.protocols import Explanation, SearchRequest
from retrieval.values import Dense, Hits, MultiVector
from retrieval.values.storage import release_pages

DEFAULTS: dict[str, Any] = {
    **asdict(Recipe()),
    "storage": "int8",
    "first_stage": "flat",
    "rescored": 400,
    "ball_carving": None,
}
_FACTS = "fde.json"
_ROWS = 512  # rows encoded at a time, fewer where encodings are wide
_CARVED = 4  # rows scored with all query tokens for each result, where candidates were scored with fewer


@dataclass(frozen=True, eq=False)
class FdeIndex:
    """Finds ``rescored`` candidates by one inner product each, and ranks those by MaxSim.

    The first stage compares encodings (see ``indexing.fde.encodings``) of allowed rows only, so a filter costs no
    candidates. Scores are exact MaxSim over the stored vectors, those of ``MaxSimIndex``; a row without tokens scores
    0.

    Attributes:
        vectors: N rows, memory-mapped.
        norm: the largest norm of a token vector.
        encodings: how queries are encoded.
        first: an index over the documents' encodings.
        rescored: candidates a query; twice the results wanted where that is more.
        ball_carving: None, or the inner product from which on query tokens count as one while the best candidates are
            chosen (see ``indexing.fde.ball_carving``); those are scored with all tokens afterwards.
    """

    vectors: MultiVector
    norm: float
    encodings: Encodings
    first: Any
    rescored: int
    ball_carving: float | None

    kind: ClassVar[str] = "fde"
    exact: ClassVar[bool] = False
    value: ClassVar[type] = MultiVector

    def __post_init__(self) -> None:
        _check_search(self.rescored, self.ball_carving)

    @classmethod
    def parameters(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Those of ``Recipe``; ``storage`` (int8, pq, float16) and ``first_stage`` (flat, hnsw); those of a search.

        With pq an encoding takes an eighth of int8's bytes. Of the exact top 10 on SciFact 0.983 are then among the 400
        candidates, instead of 0.986, and these are found in half the time, among 100,000 documents in a quarter.

        Raises:
            ConfigError: an unknown parameter, or an impossible value.
        """
        full = with_defaults(cls.kind, given, DEFAULTS)
        Recipe.of(full)
        check_storage(full["storage"], full["first_stage"])
        _check_search(full["rescored"], full["ball_carving"])
        return full

    @classmethod
    def build(
        cls,
        vectors: MultiVector,
        folder: Path,
        parameters: Mapping[str, Any],
        *,
        memory_bytes: int,
        progress: Callable[[int], None],
    ) -> None:
        """Write the random numbers drawn, the encodings, what searches them, and fde.json.

        Raises:
            ConfigError: the encodings are too wide, or a graph needs more memory than it may take.
            FormatError: an encoding is too large for its storage.
        """
        encodings = Encodings.draw(Recipe.of(parameters), vectors.dim)
        encodings.save(folder)
        norm = 0.0

        step = max(16, min(_ROWS, memory_bytes // (32 * encodings.dim)))

        def encoded() -> Iterator[NDArray[np.float32]]:
            nonlocal norm
            for start in range(0, len(vectors), step):
                part = vectors[start : start + step]
                norm = max(norm, largest_norm(Dense(part.values)))
                yield encodings.documents(part)
                release_pages(vectors.values)
                progress(len(part))

        def sample(size: int) -> NDArray[np.float32]:
            size = min(size, len(vectors))
            rows = np.arange(size) * len(vectors) // max(1, size)  # spread evenly
            drawn = np.empty((size, encodings.dim), dtype=np.float32)
            for start in range(0, size, step):
                part = slice(start, start + step)
                drawn[part] = encodings.documents(vectors.take(rows[part]))
                release_pages(vectors.values)
            return drawn

        build_first_stage(encoded(), sample, encodings.dim, folder, parameters, memory_bytes=memory_bytes)
        write_facts(folder / _FACTS, {"n": len(vectors), "dim": vectors.dim, "norm": norm})

    @classmethod
    def load(cls, folder: Path, vectors: MultiVector, parameters: Mapping[str, Any]) -> Self:
        """Open what ``build`` wrote.

        Raises:
            CorruptError: a file is missing, damaged or about other vectors.
        """
        norm = read_norm(folder / _FACTS, vectors)
        encodings = Encodings.load(Recipe.of(parameters), vectors.dim, folder)
        first = open_first_stage(folder, (len(vectors), encodings.dim), parameters)
        return cls(vectors, norm, encodings, first, parameters["rescored"], parameters["ball_carving"])

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, queries: MultiVector, request: SearchRequest) -> Hits:
        """The k best rows among the candidates, and never fewer than min(k, allowed rows).

        Raises:
            CorruptError: a graph on disk is damaged.
            IncompatibleError: the queries have another width.
            ValueError: a query holds NaN or infinity, or the bitmap is for another number of rows.
        """
        asked, k = checked(queries, self.vectors.dim), request.k
        rows = allowed_rows(len(self), request.allowed)[None, :]
        count = self.candidates(k)
        if rows.shape[1] > count:
            encoded = Dense(self.encodings.queries(asked))
            found = planned_search(self.first, encoded, replace(request, k=count))
            rows = np.sort(found.rows, axis=1)  # read from the disk in order
        if self.ball_carving is not None:
            rows = likely_rows(self.vectors, carved(asked, self.ball_carving), rows, _CARVED * k)
        return best_rows(self.vectors, self.norm, asked, rows, k)

    def exact_search(self, queries: MultiVector, request: SearchRequest) -> Hits:
        """The same question answered by MaxSim with every allowed row."""
        rows = allowed_rows(len(self), request.allowed)[None, :]
        return best_rows(self.vectors, self.norm, queries, rows, request.k)

    def candidates(self, k: int) -> int:
        """How many rows a search scores by MaxSim for k results."""
        return max(self.rescored, 2 * k)

    def with_candidates(self, count: int) -> Self:
        """The index itself: what a filter denies is no candidate, so none need make up for it."""
        return self

    def scan_equivalent(self, candidates: int) -> float:
        """How many rows ``exact_search`` scores in the time of a search: as many as are rescored."""
        return float(min(candidates, self.rescored))

    def explain(self, queries: MultiVector, rows: NDArray[np.integer]) -> list[Explanation]:
        """What each token of the first query contributes; see ``indexing.maxsim.explain_maxsim``."""
        return explain_maxsim(self.vectors, queries, rows)


def _check_search(rescored: object, ball_carving: object) -> None:
    if not isinstance(rescored, int) or isinstance(rescored, bool) or not 1 <= rescored <= 1_000_000:
        raise ConfigError(f"fde parameter rescored is {rescored!r}; it must be an integer from 1 to 1000000")
    if ball_carving is None:
        return
    if (
        not isinstance(ball_carving, int | float)
        or isinstance(ball_carving, bool)
        or not 0 < ball_carving <= 1
    ):
        raise ConfigError(
            f"fde parameter ball_carving is {ball_carving!r}; it must be a number above 0, at most 1, or left out"
        )
