"""Progress of a study on the terminal: runs done, loss of each run that trains, time left; then the table."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.progress import TaskID
from rich.table import Table

from studies.precision.table import TWIN
from studies.stages import Stages, left_text

if TYPE_CHECKING:
    from studies.precision.run import Active, Result
    from studies.precision.trainer import Outcome, Run

_LOG_WIDTH = 140  # of a log file, which does not wrap


class Progress(Stages):
    """Prints one line per finished run, and bars while runs train on a terminal.

    Parameters
    ----------
    steps
        Of each run.
    metric
        Name of the task's metric.
    console
        Standard output by default.

    Attributes
    ----------
    note
        Time left, as the bar shows it.
    """

    def __init__(self, steps: int, metric: str, *, console: Console | None = None) -> None:
        super().__init__(None, width=_LOG_WIDTH, console=console)
        self._steps, self._metric = steps, metric
        self.note = ""
        self._bars: dict[Any, TaskID] = {}
        self._first: dict[Any, int] = {}  # steps that a run had done when it was first seen here
        self._ended = 0
        self._total = 0
        self._here = 0  # steps of finished runs that were trained here
        self._training: float | None = None

    def begin(self, runs: Sequence[Run], finished: Sequence[Outcome]) -> None:
        """Training begins."""
        self._total, self._ended = len(runs), len(finished)
        self._training = time.monotonic()
        self._bar.update(self._task, description="runs", total=len(runs), completed=len(finished))
        if finished:
            self._print(f"[dim]resumed: {len(finished)} of {len(runs)} runs were finished before[/dim]")

    def active(self, runs: Sequence[Active]) -> None:
        """Show the runs that are being trained."""
        running = 0
        for run, steps, loss in runs:
            key = run.folder
            if key not in self._bars:
                name = escape(f"{run.name}, seed {run.seed}")
                self._bars[key] = self._bar.add_task(name, total=self._steps, note="")
                self._first[key] = steps - 1
            running += steps - self._first[key]
            self._bar.update(self._bars[key], completed=steps, note=f"loss {loss:.4g}")
        for key in [key for key in self._bars if key not in {active.run.folder for active in runs}]:
            self._here += self._steps - self._first[key]
            self._bar.remove_task(self._bars.pop(key))
        self.note = self._left(running, runs)
        self._bar.update(self._task, note=self.note)

    def done(self, outcome: Outcome) -> None:
        """A run is finished."""
        self._ended += 1
        self._bar.update(self._task, completed=self._ended)
        what = (
            f"[red]diverged: {escape(outcome.diverged)}[/red]"
            if outcome.diverged
            else f"loss {outcome.training_loss:8.4g}  {self._metric} {outcome.metric:.4g}"
        )
        skipped = f"  {outcome.skipped_steps} steps skipped" if outcome.skipped_steps else ""
        self._print(
            f"{self._ended:3d}/{self._total}  {escape(outcome.policy):<28}  seed {outcome.seed}  "
            f"{what}{skipped}  {outcome.seconds:.1f} s"
        )

    def finish(self, result: Result) -> None:
        """Print the table and where everything is."""
        self._console.print(shown(result.table, self._metric))
        self._console.print(f"{len(result.runs)} runs; {self._elapsed:.0f} s")
        for name in ("table.parquet", "table.csv", "runs.parquet", "config.toml", "report.html"):
            self._console.print(f"  {result.folder / name}", soft_wrap=True)

    def _left(self, running: int, runs: Sequence[Active]) -> str:
        """Time left if the other steps take as long as those of this session did on average."""
        done = self._here + running
        if self._training is None or done < 1:
            return ""
        waiting = (self._total - self._ended) * self._steps - sum(active.steps for active in runs)
        seconds = (time.monotonic() - self._training) / done * max(0, waiting)
        return left_text(seconds)


def shown(table: pd.DataFrame, metric: str) -> Table:
    """The table of a study as the terminal shows it."""
    view = Table(title="95 % intervals over the seeds; differences from the float32 twin, paired by seed")
    view.add_column("policy")
    for heading in ("training loss", metric, "loss difference", f"{metric} difference", "skipped", "time"):
        view.add_column(heading, justify="right")
    view.add_column("verdict")
    for _, row in table.iterrows():
        cells = {str(name): value for name, value in row.items()}
        view.add_row(
            escape(cells["policy"]),
            mean_text(cells["training_loss"], cells["training_loss_interval"]),
            mean_text(cells["metric"], cells["metric_interval"]),
            mean_text(cells["loss_difference"], cells["loss_difference_interval"], sign="+"),
            mean_text(cells["metric_difference"], cells["metric_difference_interval"], sign="+"),
            str(cells["skipped_steps"]) if cells["skipped_steps"] else "",
            f"x{cells['relative_step_time']:.2f}",
            escape(cells["verdict"]),
            end_section=cells["policy"] == TWIN,
        )
    return view


def mean_text(mean: float, half: float, *, sign: str = "") -> str:
    """A mean and its interval, with two digits of the interval's; empty where there is no mean."""
    if math.isnan(mean):
        return ""
    if math.isnan(half):
        return f"{mean:{sign}.4g}"
    digits = min(8, max(0, 1 - math.floor(math.log10(half)))) if half > 0 else 4
    return f"{mean:{sign}.{digits}f} ± {half:.{digits}f}"
