"""Progress of a campaign on the terminal, and its front at the end."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from rich.console import Console

from dse import Campaign, Done, Event, Failed
from dse.metrics import non_dominated
from studies.campaigns.figures import text_of
from studies.campaigns.runs import Run
from studies.console import count, plain_table

_LONGEST = 30  # designs of the front that are listed
_SHOWN = 8  # parameters on a line


class Progress:
    """Prints one line per evaluation; ``*`` is on the front of the moment, ``x`` outside a constraint."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._begin = time.monotonic()

    def begin(self, campaign: Campaign, budget: int) -> None:
        """Say what is searched, and how far it is already."""
        size = campaign.space.size
        designs = "a continuum of designs" if size is None else count(size, "design")
        names = ", ".join(campaign.space.names)
        self._out.print(f"{count(len(campaign.space.names), 'parameter')} ({names}), {designs}")
        if campaign.finished:
            self._out.print(f"resumed: {campaign.finished} of {budget} evaluations were finished before")

    def event(self, event: Event, campaign: Campaign) -> None:
        """Print what is done or failed."""
        if not isinstance(event, Done | Failed):
            return
        trial = event.trial
        place = f"{event.finished:4d}/{event.budget}"
        knobs = ", ".join(text_of(value) for value in list(trial.parameters.values())[:_SHOWN])
        if trial.values:
            mark = "*" if _is_on_front(campaign, trial.id) else ("x" if trial.state == "infeasible" else " ")
            values = "  ".join(f"{name} {value:.6g}" for name, value in trial.values.items())
            self._out.print(f"{place}{mark} {values}  ({knobs})", soft_wrap=True)
        else:
            self._out.print(f"{place}  {trial.state}: {trial.error}  ({knobs})", soft_wrap=True)

    def finish(self, run: Run, files: list[Path]) -> None:
        """Print the front, and where everything is."""
        front = run.done[run.on_front] if len(run.done) else run.done
        names = [wanted.name for wanted in run.objectives]
        table = plain_table(
            "trial", *names, *run.names, text=range(1 + len(names), 1 + len(names) + len(run.names))
        )
        for row in front.sort_values(names[0]).head(_LONGEST).to_dict("records"):
            table.add_row(str(row["trial_id"]), *(text_of(row[name]) for name in [*names, *run.names]))
        self._out.print(f"\nPareto front of {', '.join(names)}: {count(len(front), 'design')}")
        self._out.print(table)
        states = ", ".join(f"{number} {state}" for state, number in sorted(run.states.items()))
        self._out.print(f"{states}; {time.monotonic() - self._begin:.0f} s")
        for path in files:
            self._out.print(f"  {path}", soft_wrap=True)


def _is_on_front(campaign: Campaign, trial_id: int) -> bool:
    """Whether a trial is among the best of those that are done."""
    done = [trial for trial in campaign.trials if trial.state == "done"]
    place = next((index for index, trial in enumerate(done) if trial.id == trial_id), None)
    if place is None:
        return False
    costs = np.column_stack(
        [
            objective.cost(np.array([trial.values[objective.name] for trial in done]))
            for objective in campaign.objectives
        ]
    )
    return bool(non_dominated(costs)[place])
