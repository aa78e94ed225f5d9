"""Trials as tables: what a campaign shows, and what is attached to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dse.outcomes import Outcomes
from dse.space import Design, Space
from dse.trial import Json, State, Trial

if TYPE_CHECKING:
    import pandas as pd

#: States of attached rows that say something of the design; rows in another state are passed over.
_TAKEN = {State.DONE, State.INFEASIBLE, State.FAILED}


def frame(space: Space, outcomes: Outcomes, trials: Sequence[Trial]) -> pd.DataFrame:
    """One row per trial: id, state, parameters, fidelity, objectives, limits, metrics, seconds, error."""
    import pandas as pd

    metrics = dict.fromkeys(
        name
        for trial in trials
        for name, value in trial.metrics.items()
        if isinstance(value, str | int | float | None)
    )
    names, own = [*outcomes.names, *outcomes.limited], outcomes.own
    exactness = [] if outcomes.fidelity is None else [outcomes.fidelity.name]
    columns = [
        own["id"],
        own["state"],
        *space.names,
        *exactness,
        *names,
        *metrics,
        own["seconds"],
        own["error"],
    ]
    rows = [
        {
            own["id"]: trial.id,
            own["state"]: str(trial.state),
            **trial.settings,
            **trial.values,
            **trial.constraints,
            **{name: trial.metrics.get(name) for name in metrics},
            own["seconds"]: trial.seconds,
            own["error"]: trial.error,
        }
        for trial in trials
    ]
    return pd.DataFrame(rows, columns=columns)


def rows_to_attach(
    space: Space, outcomes: Outcomes, table: pd.DataFrame
) -> Iterator[tuple[Design, dict[str, Json]]]:
    """Design and stored event of each row of a table of trials measured elsewhere.

    Raises
    ------
    TypeError
        No data frame.
    ValueError
        A column is missing, or a row holds no legal design, value or state; the message names the row.
    """
    import pandas as pd

    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"rows to attach must be a pandas DataFrame, got {type(table).__name__}")
    own = outcomes.own
    optional = {p.name for p in space.parameters if p.active_if is not None}
    for name in (*space.names, *outcomes.told):
        if name not in table.columns and name not in optional:
            raise ValueError(f"a table to attach must have the column {name}, got {', '.join(table.columns)}")
    fidelity = outcomes.fidelity
    taken = {*own.values(), *space.names, *outcomes.names, *outcomes.limited}
    extra = [n for n in table.columns if n not in taken and (fidelity is None or n != fidelity.name)]
    for number, row in enumerate(table.to_dict("records")):
        try:
            state = _state(row.get(own["state"], State.DONE))
            if state not in _TAKEN:
                continue
            given = {name: _plain(row[name]) for name in space.names if name in row}
            design = space.design(given)
            event: dict[str, Json] = {"parameters": space.parameters_of(design), "state": state}
            if space.is_table:
                event["row"] = space.row(design)
            if fidelity is not None:
                level = _plain(row.get(fidelity.name))
                event["fidelity"] = fidelity.full if level is None else fidelity.check(level)
            if state is State.FAILED:
                event["error"] = str(_plain(row.get(own["error"])) or "failed elsewhere")
            else:
                values = {name: row[name] for name in outcomes.told}
                event["values"], event["constraints"], event["state"] = outcomes.measured(design, values)
            event["metrics"] = {
                n: v for n in extra if (v := _plain(row[n])) is not None and isinstance(n, str)
            }
            outcomes.check_metrics(event["metrics"])
            event["seconds"] = _plain(row.get(own["seconds"]))
        except ValueError as error:
            raise ValueError(f"row {number} of the table to attach: {error}") from None
        yield design, event


def _state(given: Any) -> State:
    if given not in list(State):
        raise ValueError(f"state must be one of {', '.join(State)}, got {given!r}")
    return State(given)


def designs_of(space: Space, table: pd.DataFrame) -> list[Design]:
    """Design of each row of a table.

    Raises
    ------
    TypeError
        No data frame.
    ValueError
        A row is no design of the space; the message names the row.
    """
    import pandas as pd

    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"designs must come as a pandas DataFrame, got {type(table).__name__}")
    found = []
    for number, row in enumerate(table.to_dict("records")):
        try:
            found.append(space.design({name: _plain(row[name]) for name in space.names if name in row}))
            if space.is_table:
                space.row(found[-1])
        except ValueError as error:
            raise ValueError(f"row {number}: {error}") from None
    return found


def _plain(value: Any) -> Any:
    """Python value of a cell; ``None`` for what is missing."""
    import numpy as np

    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and value != value):
        return None
    return tuple(value) if isinstance(value, list | np.ndarray) else value
