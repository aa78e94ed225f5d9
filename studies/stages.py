"""What progress on the terminal has in common: stages with their time, and a bar while something runs."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Stages:
    """Prints a line per stage, and a bar while it runs on a terminal.

    Parameters
    ----------
    total
        Of what the bar counts; ``None`` until it is known.
    width
        Of a log file, which does not wrap.
    console
        Standard output by default.
    """

    def __init__(self, total: int | None, *, width: int, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        if not self._console.is_terminal:
            self._console.width = width
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=total, note="")
        self._begin = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def stage(self, text: str) -> None:
        """A new stage begins."""
        self._bar.update(self._task, description=text)
        self._print(f"[dim]{self._elapsed:6.1f} s  {text}[/dim]")

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._begin

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)


def left_text(seconds: float) -> str:
    """Time left, in minutes and seconds."""
    return f"{int(seconds // 60)}:{int(seconds % 60):02d} left"
