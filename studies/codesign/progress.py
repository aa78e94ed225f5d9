"""Progress of a campaign on the terminal: stage, evaluation, front so far, time left."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.table import Table

from dse import Campaign, Done, Event, Failed, Started
from studies.codesign.config import CampaignConfig
from studies.codesign.describe import design_text, numerics_text
from studies.codesign.quality import Quality
from studies.stages import Stages, left_text

if TYPE_CHECKING:
    from studies.codesign.campaign import Result

_LOG_WIDTH = 120  # of a log file, which does not wrap


class Progress(Stages):
    """Prints one line per evaluation, and a bar while it runs on a terminal."""

    def __init__(self, config: CampaignConfig) -> None:
        super().__init__(config.evaluations, width=_LOG_WIDTH)
        self._config = config
        self._searching: float | None = None
        self._earlier = 0.0

    def event(self, event: Event, campaign: Campaign) -> None:
        """A trial was asked, started, done, or failed."""
        if self._searching is None:
            self._searching, self._earlier = time.monotonic(), event.spent
            self._bar.update(self._task, completed=event.spent)
            if event.finished:
                self._print(f"[dim]resumed: {event.finished} evaluations were finished before[/dim]")
        if isinstance(event, Started):
            what = numerics_text(event.trial.parameters)
            self._bar.update(self._task, description=f"evaluation {event.finished + 1}: {what}")
        elif isinstance(event, Done | Failed):
            left = self._left(event.spent)
            self._bar.update(self._task, completed=event.spent, note=left)
            place = f"{event.spent:3g}/{event.budget}"
            if isinstance(event, Done):
                row = {**event.trial.parameters, **event.trial.values, **event.trial.metrics}
                front = campaign.pareto()
                on_front = "*" if (front["id"] == event.trial.id).any() else " "
                again = row["trained_in"]
                note = "" if again == event.trial.id else f"  trained in {again}"
                if event.trial.fidelity not in (None, self._config.training.steps):
                    note = f"  after {event.trial.fidelity} steps{note}"
                self._print(
                    f"{place}{on_front} {numerics_text(row):<28} {design_text(row):<30} {_metric(row)}  "
                    f"{row['energy_pj'] / 1e6:7.2f} uJ  front {len(front):2d}  {left}{note}"
                )
            else:
                what = numerics_text(event.trial.parameters)
                self._print(f"{place}  {what:<28} [red]{event.trial.state}: {event.trial.error}[/red]")

    def finish(self, result: Result, folder: Path) -> None:
        """Print the front and where everything is."""
        table = Table(title=f"Pareto front ({', '.join(result.config.search.objectives)})")
        table.add_column("trial", justify="right")
        for heading in ("numerics", "accelerator"):
            table.add_column(heading, no_wrap=True)
        for heading in (result.quality.short, "loss", "uJ", "ms", "mm2"):
            table.add_column(heading, justify="right", no_wrap=True)
        for _, row in result.front.iterrows():
            table.add_row(*_cells(row, str(row["id"]), result.quality))
        table.add_section()
        table.add_row(*_cells(result.reference, "float32", result.quality))
        self._console.print(table)
        brief = f"{len(result.brief)} more trained briefly, " if result.brief else ""
        self._console.print(
            f"{len(result.trials)} evaluations, {len(result.trained)} of them trained "
            f"({result.config.training.replicates} replicates each), {brief}{len(result.failed)} failed; "
            f"{self._elapsed:.0f} s"
        )
        for name in ("report.html", "report.md", "evaluations.parquet", "campaign.sqlite", "config.toml"):
            self._console.print(f"  {folder / name}", soft_wrap=True)

    def _left(self, spent: float) -> str:
        here = spent - self._earlier
        if self._searching is None or here < 1:
            return ""
        seconds = (time.monotonic() - self._searching) / here * (self._config.evaluations - spent)
        return left_text(seconds)


def _metric(row: dict[str, Any]) -> str:
    name = next(name for name in ("test_accuracy", "test_metric") if name in row)
    shown = f"{100 * row[name]:5.1f} %" if name == "test_accuracy" else f"{row[name]:7.3f}"
    return f"{shown}  loss {row['training_loss']:7.4f}"


def _cells(row: pd.Series[Any], label: str, quality: Quality) -> list[str]:
    cells = {str(name): value for name, value in row.items()}
    return [
        label,
        numerics_text(cells),
        design_text(cells),
        quality.of(cells).split()[0],
        f"{row['training_loss']:.4f}",
        f"{row['energy_pj'] / 1e6:.2f}",
        f"{row['step_ms']:.3f}",
        f"{row['area_um2'] / 1e6:.2f}",
    ]
