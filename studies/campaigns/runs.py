"""Run folders, read without touching them: what was searched, every trial, and how far it came.

Only the description and the events in the store are used, so that a folder can be read whatever
evaluated it, while the campaign runs, and without the data or the program of the problem.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from dse.metrics import hypervolume, non_dominated
from dse.store import Record, StoreError, read_store

if TYPE_CHECKING:
    import pandas as pd

STORE = "campaign.sqlite"
_OPEN = {"ask": "pending", "start": "running"}  # state of a trial whose last event is this
_MARGIN = 0.1  # of the reference point beyond the worst value, as a share of the range


class RunError(ValueError):
    """A folder that holds no campaign that can be read; the message is one line."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An objective as the store describes it."""

    name: str
    minimize: bool
    unit: str
    threshold: float | None
    known: bool
    transform: str

    @property
    def label(self) -> str:
        """Name with unit, for axes."""
        return f"{self.name}, {self.unit}" if self.unit else self.name

    def costs(self, values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Values as the search compares them, (n,): minimised, transformed."""
        if self.transform == "log":
            values = np.log10(values)
        elif self.transform == "logit":
            values = np.log(values / (1 - values))
        return values if self.minimize else -values


@dataclass(frozen=True, eq=False)
class Run:
    """A campaign as it stands in its folder.

    Attributes
    ----------
    parameters
        Their descriptions, in order.
    outcomes
        Names of the outcome constraints.
    frame
        One row per trial: trial_id, trial_state, parameters, objectives, outcome constraints, scalar
        metrics, trial_seconds, trial_error, attached.
    changed
        When the last event was written, ISO 8601 in UTC; empty before the first.
    fidelity
        Its description, if there is one; the frame then has a column trial_fidelity.
    """

    folder: Path
    method: str
    seed: int
    initial: int | None
    parameters: tuple[dict[str, Any], ...]
    objectives: tuple[Wanted, ...]
    outcomes: tuple[str, ...]
    frame: pd.DataFrame
    notes: tuple[tuple[int, str], ...]
    created: str
    changed: str
    fidelity: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.resolve().name

    @property
    def names(self) -> list[str]:
        """Parameter names."""
        return [parameter["name"] for parameter in self.parameters]

    @property
    def states(self) -> Counter[str]:
        """Number of trials by state."""
        return Counter(self.frame["trial_state"])

    @property
    def done(self) -> pd.DataFrame:
        """Rows of the trials whose values are known, at full fidelity, and within the outcome constraints."""
        done = self.frame[self.frame["trial_state"] == "done"]
        return done if self.fidelity is None else done[done["trial_fidelity"] == self.fidelity["levels"][-1]]

    @property
    def costs(self) -> Float[np.ndarray, "n m"]:
        """Objectives of `done`, minimised and transformed."""
        columns = [
            wanted.costs(self.done[wanted.name].to_numpy(dtype=np.float64)) for wanted in self.objectives
        ]
        return np.column_stack(columns)

    @property
    def on_front(self) -> Bool[np.ndarray, " n"]:
        """Which rows of `done` no other one dominates."""
        best: Bool[np.ndarray, " n"] = non_dominated(self.costs)
        return best

    def reference(self) -> Float[np.ndarray, " m"]:
        """Reference point in costs: the threshold, or the worst value plus 10 % of the range."""
        costs = self.costs
        worst: Float[np.ndarray, " m"] = costs.max(axis=0) + _MARGIN * np.ptp(costs, axis=0)
        for index, wanted in enumerate(self.objectives):
            if wanted.threshold is not None:
                worst[index] = wanted.costs(np.array([wanted.threshold]))[0]
        return worst

    def hypervolumes(self) -> Float[np.ndarray, " n"]:
        """Share of the box from the ideal to the reference point that each first k of `done` dominate."""
        costs = self.costs
        if len(costs) == 0:
            return np.empty(0)
        corner = self.reference()
        width = corner - costs.min(axis=0)
        if (width <= 0).any():
            return np.zeros(len(costs))
        scaled = (costs - costs.min(axis=0)) / width
        found = np.empty(len(scaled))
        front: Float[np.ndarray, "k m"] = scaled[:0]
        for index, row in enumerate(scaled):
            if not (front <= row).all(axis=1).any():
                front = np.vstack([front[~(row <= front).all(axis=1)], row])
            found[index] = hypervolume(front, np.ones(scaled.shape[1]))
        return found


def read_run(folder: Path) -> Run:
    """Read the campaign of a folder, or of a store.

    Raises
    ------
    RunError
        There is none, it is damaged, or a newer version wrote it.
    """
    store = folder / STORE if folder.is_dir() else folder
    if not store.is_file():
        raise RunError(f"{folder}: holds no campaign, there is no {STORE}")
    try:
        meta, records = read_store(store)
    except StoreError as error:
        raise RunError(f"{store}:{str(error).removeprefix(str(store))}") from None
    try:
        return _run(folder if folder.is_dir() else folder.parent, meta, records)
    except (KeyError, TypeError) as error:
        raise RunError(f"{store}: is not a campaign store: {error} is missing in its description") from None


def _run(folder: Path, meta: dict[str, Any], records: Sequence[Record]) -> Run:
    objectives = tuple(_wanted(description) for description in meta["objectives"])
    outcomes = tuple(entry["name"] for entry in meta.get("outcome_constraints") or ())
    parameters = tuple(meta["space"]["parameters"])
    return Run(
        folder=folder,
        method=str(meta["method"]),
        seed=int(meta["seed"]),
        initial=meta.get("initial"),
        parameters=parameters,
        objectives=objectives,
        outcomes=outcomes,
        frame=_frame(
            records, [p["name"] for p in parameters], [wanted.name for wanted in objectives], list(outcomes)
        ),
        notes=tuple((each.trial, str(each.payload["text"])) for each in records if each.kind == "note"),
        created=str(meta.get("created", "")),
        changed=max((each.time for each in records), default=""),
        fidelity=meta.get("fidelity"),
    )


def _wanted(description: dict[str, Any]) -> Wanted:
    # Version 1 said log=true for what is a transform since.
    transform = description.get("transform") or ("log" if description.get("log") else "none")
    return Wanted(
        name=description["name"],
        minimize=description["minimize"],
        unit=description.get("unit", ""),
        threshold=description.get("threshold"),
        known=bool(description.get("known")),
        transform=transform,
    )


def _frame(
    records: Sequence[Record], names: list[str], objectives: list[str], outcomes: list[str]
) -> pd.DataFrame:
    import pandas as pd

    table, extra = [], dict[str, None]()
    for trial, (first, last) in sorted(_first_and_last(records).items()):
        found = last.payload
        metrics = {
            key: value
            for key, value in (found.get("metrics") or {}).items()
            if isinstance(value, str | int | float)
        }
        extra |= dict.fromkeys(metrics)
        table.append(
            metrics
            | first.payload["parameters"]
            | (found.get("constraints") or {})
            | (found.get("values") or {})
            | {
                "trial_id": trial,
                "trial_state": _OPEN.get(last.kind) or found.get("state", "done"),
                "trial_seconds": found.get("seconds"),
                "trial_error": found.get("error"),
                "attached": first.kind == "attach",
                "trial_fidelity": first.payload.get("fidelity"),
            }
        )
    measured = dict.fromkeys([*objectives, *outcomes])
    fixed = ["trial_id", "trial_state", *names, *measured]
    others = [name for name in extra if name not in fixed]
    if any(row["trial_fidelity"] is not None for row in table):
        fixed.append("trial_fidelity")
    frame = pd.DataFrame(table, columns=[*fixed, *others, "trial_seconds", "trial_error", "attached"])
    for name in (*objectives, *outcomes):
        frame[name] = pd.to_numeric(frame[name])
    return frame


def _first_and_last(records: Sequence[Record]) -> dict[int, tuple[Record, Record]]:
    """Event that gives each trial its design, and the one that gives its state."""
    found: dict[int, tuple[Record, Record]] = {}
    for record in records:
        if record.kind != "note":
            first, _ = found.get(record.trial, (record, record))
            found[record.trial] = (first, record)
    return found


def find_runs(folder: Path) -> Iterator[Path]:
    """Run folders in a folder and one level below it, or the folder itself, by name.

    Raises
    ------
    RunError
        There is no such folder.
    """
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder")
    candidates: Sequence[Path] = [folder, *sorted(folder.iterdir())]
    for candidate in candidates:
        if candidate.is_dir() and (candidate / STORE).is_file():
            yield candidate
