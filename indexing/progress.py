"""How a long task tells how far it is: one small protocol, and the bar that people see on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


class Progress(Protocol):
    """Receives the stages of a task."""

    def start(self, stage: str, total: int | None, unit: str) -> None:
        """A stage begins; total in units, None where it is not known."""
        ...

    def expect(self, total: int) -> None:
        """A better estimate of the running stage's total."""
        ...

    def advance(self, amount: int) -> None:
        """So many units more are done."""
        ...

    def note(self, text: str) -> None:
        """Something worth reading that is no failure."""
        ...


class Silent:
    """Reports nothing."""

    def start(self, stage: str, total: int | None, unit: str) -> None:
        """Nothing."""

    def expect(self, total: int) -> None:
        """Nothing."""

    def advance(self, amount: int) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


class Bars:
    """One bar a stage with rate, time spent and time left."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def start(self, stage: str, total: int | None, unit: str) -> None:
        """Close the running bar and open the next."""
        self.finish()
        self._task = self._bars.add_task(stage, total=total, unit=unit)

    def expect(self, total: int) -> None:
        """Stretch the bar."""
        if self._task is not None:
            self._bars.update(self._task, total=total)

    def advance(self, amount: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bars.advance(self._task, amount)

    def note(self, text: str) -> None:
        """A line above the bars."""
        self._bars.console.print(text, highlight=False, markup=False)

    def finish(self) -> None:
        """The running stage is done."""
        if self._task is not None:
            task = self._bars.tasks[-1]
            self._bars.update(self._task, total=task.completed)
            self._task = None


@contextmanager
def progress_bars(*, quiet: bool = False) -> Iterator[Progress]:
    """Bars on stderr; where that is no terminal, one line a stage when it is done."""
    if quiet:
        yield Silent()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            """Done of total, and units a second."""
            unit = task.fields.get("unit", "")
            done = f"{task.completed:,.0f}" + ("" if task.total is None else f"/{task.total:,.0f}")
            speed = task.finished_speed or task.speed
            return Text(f"{done} {unit}" + (f", {speed:,.0f}/s" if speed else ""), no_wrap=True)

    console = Console(file=sys.stderr, width=None if sys.stderr.isatty() else 110)
    columns = (
        TextColumn("{task.description:<20}"),
        BarColumn(bar_width=24),
        Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=console, refresh_per_second=4) as bars:
        shown = Bars(bars)
        yield shown
        shown.finish()
