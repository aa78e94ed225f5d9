"""A campaign as a study of Optuna, which its dashboard opens."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from studies.campaigns.figures import is_missing, text_of
from studies.campaigns.runs import Run, RunError

_STATES = {"done": "COMPLETE", "infeasible": "COMPLETE", "pending": "WAITING", "running": "RUNNING"}


def export(run: Run, path: Path) -> int:
    """Write a database that Optuna opens as ``sqlite:///PATH``; returns the number of trials.

    Numbers become ranges from the least to the largest value, all else is categorical, an order as its
    text. Metrics and what failed become attributes of the trials.

    Raises
    ------
    RunError
        Optuna is not installed, or the file is there already.
    """
    try:
        import optuna
    except ModuleNotFoundError:
        raise RunError(
            "--optuna needs Optuna, which is not installed: pip install 'bitfront[optuna]'"
        ) from None
    if path.exists():
        raise RunError(f"{path}: is there already; a study is written to a new file")
    distributions = {parameter["name"]: _distribution(parameter, run) for parameter in run.parameters}
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = optuna.create_study(
                storage=f"sqlite:///{path}",
                study_name=run.name,
                directions=["minimize" if wanted.minimize else "maximize" for wanted in run.objectives],
            )
            study.set_metric_names([wanted.name for wanted in run.objectives])
            study.set_user_attr("method", run.method)
            study.set_user_attr("seed", run.seed)
            trials = [_trial(run, row, distributions) for row in run.frame.to_dict("records")]
            study.add_trials(trials)
    finally:
        optuna.logging.set_verbosity(before)
    return len(trials)


def _distribution(parameter: Mapping[str, Any], run: Run) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    seen = [value for value in run.frame[parameter["name"]] if not is_missing(value)]
    low, high = parameter.get("low"), parameter.get("high")
    choices = parameter.get("choices")
    if isinstance(choices, Mapping):  # a long column of a table
        choices = [choices["first"], *seen, choices["last"]]
    numbers = [low, high] if low is not None and high is not None else choices
    ordered = parameter["kind"] not in ("categorical", "permutation")
    if ordered and numbers and all(isinstance(value, int | float) for value in numbers):
        least, most = min(numbers), max(numbers)
        log = parameter["kind"] == "power_of_two" or bool(parameter.get("log"))
        if all(isinstance(value, int) for value in (*numbers, *seen)):
            return IntDistribution(int(least), int(most), log=log and least >= 1)
        return FloatDistribution(float(least), float(most), log=log and least > 0)
    if parameter["kind"] == "permutation" or choices is None:
        return CategoricalDistribution(sorted({text_of(value) for value in seen}) or ["-"])
    return CategoricalDistribution(list(dict.fromkeys(choices)))


def _trial(run: Run, row: Mapping[Any, Any], distributions: Mapping[str, Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, IntDistribution
    from optuna.trial import TrialState, create_trial

    parameters = {}
    for description in run.parameters:
        name = description["name"]
        value = row[name]
        if is_missing(value) and None not in (description.get("choices") or ()):
            continue  # inactive
        if description["kind"] == "permutation":
            value = text_of(value)
        elif isinstance(distributions[name], IntDistribution):
            value = int(value)
        elif isinstance(distributions[name], CategoricalDistribution) and is_missing(value):
            value = None
        parameters[name] = value
    state = TrialState[_STATES.get(row["trial_state"], "FAIL")]
    complete = state is TrialState.COMPLETE
    others = {str(key): value for key, value in row.items() if key not in (*run.names, "trial_id")}
    attributes = {
        key: value
        for key, value in others.items()
        if isinstance(value, str | int | float) and not is_missing(value)
    }
    breaks = float(row["trial_state"] == "infeasible")
    made = create_trial(
        state=state,
        values=[float(row[wanted.name]) for wanted in run.objectives] if complete else None,
        params=parameters,
        distributions={name: distributions[name] for name in parameters},
        user_attrs=attributes,
        constraints={"outcome": breaks} if run.outcomes and complete else None,
    )
    if complete and not is_missing(row["trial_seconds"]) and made.datetime_complete is not None:
        # Optuna has no duration: the end is now, the begin so long before.
        end: datetime = made.datetime_complete
        made.datetime_start = datetime.fromtimestamp(end.timestamp() - float(row["trial_seconds"]))
    return made
