"""Texts on their way into a training set, in Arrow files of a batch each, so that they need not fit memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from indexing.corpora.fields import stable_id
from training.examples.mapped import map_frame
from training.examples.training_set import TEXTS

BATCH_CHARACTERS = 1 << 24
"""A batch is written once its texts have so many characters together."""


class StagedTexts:
    """Texts in the order they came, in numbered files of a folder.

    Attributes:
        n: how many there are.
    """

    def __init__(self, folder: Path) -> None:
        self.n = 0
        self._folder = folder
        self._sizes: list[int] = []
        folder.mkdir(parents=True)

    def append(self, ids: Sequence[str], texts: Sequence[str]) -> None:
        """Write a batch."""
        frame = pl.DataFrame({"id": ids, "text": texts}, schema=TEXTS)
        frame.write_ipc(self._folder / f"{len(self._sizes)}.arrow")
        self._sizes.append(len(ids))
        self.n += len(ids)

    def append_distinct(self, texts: Iterable[str]) -> NDArray[np.uint32]:
        """Write each text of a batch once, under an id made of it.

        Returns:
            The row of every text given.
        """
        rows: dict[str, int] = {}
        found = [rows.setdefault(text, self.n + len(rows)) for text in texts]
        self.append([stable_id("", text) for text in rows], list(rows))
        return np.array(found, dtype=np.uint32)

    def all(self) -> pl.DataFrame:
        """Every text, mapped; the files may be removed while the table is in use."""
        return pl.concat([pl.DataFrame(schema=TEXTS), *self._parts()], rechunk=False)

    def distinct(self) -> tuple[pl.DataFrame, pl.Series]:
        """Every id once, mapped, where it occurred first.

        Returns:
            The table, and for each row that was written its row in the table (uint32).
        """
        rows = self.all().select("id").with_row_index("row")
        first = rows.select(pl.col("row").min().over("id")).to_series()
        is_first = first == rows["row"]
        kept = self.all().filter(is_first)
        return kept, (is_first.cum_sum() - 1).cast(pl.UInt32).gather(first)

    def _parts(self) -> Iterator[pl.DataFrame]:
        for number in range(len(self._sizes)):
            yield map_frame(self._folder / f"{number}.arrow")
