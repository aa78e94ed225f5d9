"""From a configuration to what a campaign needs: space, objectives, evaluator."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dse import Objective, Space
from dse.executors import Program
from dse.objective import OutcomeConstraint
from dse.space import Categorical, ConstraintError, Integer, Ordinal, Permutation, PowerOfTwo, Real
from dse.space.parameter import Parameter
from dse.transfer import Source
from studies.campaigns.config import CampaignFile, ObjectiveTable, ParameterTable, relative_to
from studies.campaigns.expressions import Expression, Rule
from studies.campaigns.runs import RunError, read_run
from studies.campaigns.tables import DesignTable, TableError, read_csv, read_table
from studies.config import ConfigError, load


@dataclass(frozen=True, eq=False)
class Problem:
    """What is searched, and how a design is evaluated.

    Attributes
    ----------
    identity
        JSON that makes two runs the same campaign: the configuration but for its budget, and the content
        of a table rather than its path.
    table
        Where the designs are its rows.
    """

    config: CampaignFile
    space: Space
    objectives: tuple[Objective, ...]
    outcomes: tuple[OutcomeConstraint, ...]
    evaluator: Callable[[dict[str, Any]], Any]
    identity: dict[str, Any]
    table: DesignTable | None


def load_problem_file(path: Path) -> CampaignFile:
    """Read a campaign file of a table or a program.

    Raises
    ------
    ConfigError
        See `studies.config.load`.
    """
    config = load(path, CampaignFile)
    try:
        config.check()
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    return config


def problem_of(config: CampaignFile, file: Path, folder: Path) -> Problem:
    """Problem of a configuration.

    Parameters
    ----------
    file
        The configuration's own, to which its paths are relative.
    folder
        Of the run; a program's evaluations are kept in it.

    Raises
    ------
    ConfigError
        A table or program that cannot be used, an expression that is none, a space without designs.
    """
    try:
        if config.table is not None:
            return _of_table(config, file)
        return _of_program(config, file, folder)
    except TableError as error:
        raise ConfigError(str(error)) from None
    except (ValueError, TypeError, ConstraintError) as error:
        raise ConfigError(f"{file}: {error}") from None


def _of_table(config: CampaignFile, file: Path) -> Problem:
    assert config.table is not None
    source = config.table
    measured = [entry.name for entry in config.objectives]
    table = read_table(
        relative_to(file, source.file),
        config.objectives,
        columns=source.columns,
        features=source.features,
        valid=source.valid,
        outcomes=[entry.name for entry in config.outcome_constraints if entry.name not in measured],
    )
    space = table.space
    if config.constraints:
        rules = _rules(config.constraints, space)
        space = Space.from_table(table.frame, table.columns, features=source.features, constraints=rules)
    identity = _identity(config)
    identity["table"] = {**identity["table"], "columns": list(table.columns), "sha256": table.digest}
    del identity["table"]["file"]
    return Problem(
        config,
        space,
        _objectives(config.objectives, space),
        _outcomes(config),
        table.evaluate,
        identity,
        table,
    )


def _of_program(config: CampaignFile, file: Path, folder: Path) -> Problem:
    assert config.program is not None
    parameters = [_parameter(entry) for entry in config.parameters]
    space = Space(parameters)
    if config.constraints:
        space = Space(parameters, constraints=_rules(config.constraints, space))
    objectives = _objectives(config.objectives, space)
    learnt = [objective.name for objective in objectives if objective.known is None]
    outputs = list(dict.fromkeys([*learnt, *(entry.name for entry in config.outcome_constraints)]))
    program = Program(
        command=[_beside(file, text, program=not index) for index, text in enumerate(config.program.command)],
        outputs=outputs,
        folder=folder / "evaluations",
        time_limit_s=config.program.time_limit_s,
        cache=None if config.program.cache is None else relative_to(file, config.program.cache),
    )
    return Problem(config, space, objectives, _outcomes(config), program, _identity(config), None)


def _beside(file: Path, text: str, *, program: bool) -> str:
    """Argument of a command: a file beside the configuration by its whole path, or this interpreter."""
    if text == "{python}":
        return sys.executable
    if program and os.sep not in text and shutil.which(text):
        return text
    path = file.parent / text
    try:
        return str(path.absolute()) if path.is_file() else text
    except (OSError, ValueError):  # too long for a path, or no text of one
        return text


def _identity(config: CampaignFile) -> dict[str, Any]:
    """Configuration as JSON, without what may change when a run goes on."""
    return config.model_dump(
        mode="json", exclude_none=True, exclude={"budget", "seed", "method", "initial", "transfer"}
    )


def _rules(texts: Sequence[str], space: Space) -> list[Rule]:
    return [Rule(text, space.names) for text in texts]


def _objectives(entries: Sequence[ObjectiveTable], space: Space) -> tuple[Objective, ...]:
    return tuple(
        Objective(
            entry.name,
            entry.goal == "min",
            unit=entry.unit,
            threshold=entry.threshold,
            known=None if entry.known is None else Known(entry.known, space.names),
            transform=entry.transform,
        )
        for entry in entries
    )


def _outcomes(config: CampaignFile) -> tuple[OutcomeConstraint, ...]:
    return tuple(
        OutcomeConstraint(entry.name, at_most=entry.at_most, at_least=entry.at_least)
        for entry in config.outcome_constraints
    )


class Known:
    """A known objective: an expression of the parameters that is a number."""

    def __init__(self, text: str, names: Sequence[str]) -> None:
        self._expression = Expression(text, names)
        if self._expression.is_condition:
            raise ValueError(f"a known objective must be a number, got the condition {text!r}")

    def __call__(self, parameters: Mapping[str, Any]) -> float:
        """Value of the objective."""
        return float(self._expression(parameters))


def _parameter(entry: ParameterTable) -> Parameter:
    active_if = None if entry.active_if is None else next(iter(entry.active_if.items()))
    name, low, high = entry.name, entry.low, entry.high
    makers: dict[str, Callable[[], Parameter]] = {
        "real": lambda: Real(name, _given(low), _given(high), log=entry.log, active_if=active_if),
        "integer": lambda: Integer(name, _whole(low), _whole(high), log=entry.log, active_if=active_if),
        "power-of-two": lambda: PowerOfTwo(name, _whole(low), _whole(high), active_if=active_if),
        "ordinal": lambda: Ordinal(name, entry.choices or (), log=entry.log, active_if=active_if),
        "categorical": lambda: Categorical(name, entry.choices or (), active_if=active_if),
        "permutation": lambda: Permutation(name, entry.items or (), active_if=active_if),
    }
    return makers[entry.kind]()


def _given(value: float | None) -> float:
    assert value is not None  # the configuration was checked
    return value


def _whole(value: float | None) -> Any:
    """Bound as TOML has it: 4.0 is 4, and 4.5 is left for the parameter to refuse."""
    return int(value) if value is not None and float(value).is_integer() else value


def transfer_of(config: CampaignFile, file: Path, folder: Path) -> list[Path]:
    """Earlier campaigns that a configuration names, or that a run in its folder has begun with."""
    if config.transfer:
        return [relative_to(file, name) for name in config.transfer]
    begun = folder / "config.toml"
    return [Path(name) for name in load(begun, CampaignFile).transfer] if begun.is_file() else []


def sources_of(paths: Sequence[Path], problem: Problem) -> list[Source]:
    """Earlier campaigns to transfer from: run folders, or CSV files.

    Raises
    ------
    ConfigError
        One that cannot be read, has no parameter or no objective in common with the problem, or wants
        the opposite of it.
    """
    found = []
    for path in paths:
        source = _source_of_table(path) if path.suffix == ".csv" and path.is_file() else _source_of_run(path)
        if source.frame.empty:
            raise ConfigError(f"--transfer {path}: has no finished trial to learn from")
        try:
            source.check(problem.space, problem.objectives)
        except ValueError as error:
            raise ConfigError(f"--transfer: {error}") from None
        found.append(source)
    return found


def _source_of_table(path: Path) -> Source:
    try:
        return Source(str(path), read_csv(path))
    except TableError as error:
        raise ConfigError(f"--transfer {error}") from None


def _source_of_run(path: Path) -> Source:
    try:
        run = read_run(path)
    except RunError as error:
        raise ConfigError(f"--transfer {error}") from None
    names = [*run.names, *(wanted.name for wanted in run.objectives)]
    directions = {wanted.name: wanted.minimize for wanted in run.objectives}
    return Source(str(path), run.done[names].reset_index(drop=True), directions)
