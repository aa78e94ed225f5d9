"""Run folders on the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from studies.campaigns.runs import Run, RunError, find_runs, read_run
from studies.console import plain_table


def show_runs(folder: Path, out: Console) -> int:
    """Print one line per run folder; returns how many there are.

    Raises
    ------
    RunError
        There is no such folder.
    """
    table = plain_table(
        "run",
        "method",
        "seed",
        "trials",
        "front",
        "hypervolume",
        "objectives",
        "last change",
        text=(0, 1, 3, 6, 7),
    )
    count = 0
    for place in find_runs(folder):
        count += 1
        try:
            run = read_run(place)
        except RunError as error:
            table.add_row(str(place), f"cannot be read: {str(error).partition(': ')[2]}")
            continue
        table.add_row(str(place), run.method, str(run.seed), *_progress(run))
    if count:
        out.print(table)
    else:
        out.print(f"no run folder in {folder}")
    return count


def _progress(run: Run) -> tuple[str, str, str, str, str]:
    states = ", ".join(f"{count} {state}" for state, count in sorted(run.states.items())) or "none"
    measured = len(run.done) > 0
    front = str(int(run.on_front.sum())) if measured else "0"
    share = f"{100 * run.hypervolumes()[-1]:.1f} %" if measured else "-"
    wanted = ", ".join(f"{each.name}:{'min' if each.minimize else 'max'}" for each in run.objectives)
    when = run.changed[:16].replace("T", " ") or run.created[:16].replace("T", " ")
    return states, front, share, wanted, when
