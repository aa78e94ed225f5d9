"""Configuration of a campaign on a table of designs or an outside program: what varies, what is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from dse.methods import METHODS
from studies.config import Table

PositiveInt: TypeAlias = Annotated[int, Field(ge=1)]
PositiveFloat: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
Scalar: TypeAlias = bool | int | Finite | str


def _named(name: str) -> str:
    if not name:
        raise ValueError("must not be empty")
    return name


Name: TypeAlias = Annotated[str, AfterValidator(_named)]


def known_method(name: str) -> str:
    """Validate a method's name."""
    if name not in METHODS:
        raise ValueError(f"must be one of {', '.join(METHODS)}, got {name!r}")
    return name


class ParameterTable(Table):
    """One thing that varies.

    ``real`` and ``integer`` take `low` and `high`, and `log` to be searched in the logarithm;
    ``power-of-two`` takes `low` and `high`; ``ordinal`` and ``categorical`` take `choices`;
    ``permutation`` takes `items`. `active_if` holds a parent's name and the values with which it exists.
    """

    name: Name
    kind: Literal["real", "integer", "power-of-two", "ordinal", "categorical", "permutation"]
    low: Finite | None = None
    high: Finite | None = None
    log: bool = False
    choices: list[Scalar] | None = None
    items: list[Scalar] | None = None
    active_if: dict[str, list[Scalar]] | None = None

    @model_validator(mode="after")
    def _keys_of_the_kind(self) -> Self:
        wanted = {
            "real": ("low", "high"),
            "integer": ("low", "high"),
            "power-of-two": ("low", "high"),
            "ordinal": ("choices",),
            "categorical": ("choices",),
            "permutation": ("items",),
        }[self.kind]
        for key in ("low", "high", "choices", "items"):
            if (getattr(self, key) is not None) != (key in wanted):
                verb = "needs" if key in wanted else "takes no"
                raise ValueError(f"{self.name} of kind {self.kind} {verb} {key}")
        if self.log and self.kind not in ("real", "integer", "ordinal"):
            raise ValueError(f"{self.name} of kind {self.kind} takes no log")
        if self.active_if is not None and len(self.active_if) != 1:
            raise ValueError(f"active_if of {self.name} must name one parent, got {len(self.active_if)}")
        return self


class ObjectiveTable(Table):
    """One quantity that is wanted low or high.

    `known` is an expression of the parameters that gives it exactly; it is then not measured.
    """

    name: Name
    goal: Literal["min", "max"] = "min"
    unit: str = ""
    threshold: Finite | None = None
    transform: Literal["auto", "log", "logit", "none"] = "auto"
    known: str | None = None


class OutcomeTable(Table):
    """A bound on an objective or on another measured quantity: exactly one of `at_most`, `at_least`."""

    name: Name
    at_most: Finite | None = None
    at_least: Finite | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if (self.at_most is None) == (self.at_least is None):
            given = "neither" if self.at_most is None else "both"
            raise ValueError(f"{self.name} must have at_most or at_least, got {given}")
        return self


class ProgramTable(Table):
    """The program that evaluates a design.

    `command` is a program and its arguments, in which ``{parameters}`` stands for the file that holds the
    design as JSON, ``{metrics}`` for that to which the program writes its measurements as JSON, and
    ``{NAME}`` for the value of a parameter. `cache` is a folder of results that campaigns share.
    """

    command: Annotated[list[str], Field(min_length=1)]
    time_limit_s: PositiveFloat = 3600.0
    cache: str | None = None


class SourceTable(Table):
    """The table whose rows are the designs."""

    file: Name
    columns: list[Name] | None = None
    features: list[Name] = Field(default_factory=list)
    valid: Name | None = None


class CampaignFile(Table):
    """A whole campaign: `program` with `parameters`, or `table`; never both.

    `transfer` holds run folders and CSV files of earlier campaigns to learn from.
    """

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    budget: PositiveInt = 50
    method: Annotated[str, AfterValidator(known_method)] = "auto"
    initial: PositiveInt | None = None
    transfer: list[Name] = Field(default_factory=list)
    program: ProgramTable | None = None
    table: SourceTable | None = None
    parameters: list[ParameterTable] = Field(default_factory=list)
    constraints: list[str] = Field(default_factory=list)
    objectives: Annotated[list[ObjectiveTable], Field(min_length=1)]
    outcome_constraints: list[OutcomeTable] = Field(default_factory=list)

    def check(self) -> None:
        """``ValueError`` where the tables do not go together."""
        if (self.program is None) == (self.table is None):
            raise ValueError("must have either a [program] or a [table]")
        if self.program is not None and not self.parameters:
            raise ValueError("a [program] needs [[parameters]]")
        if self.table is not None and self.parameters:
            raise ValueError("[[parameters]] belong to a [program]; those of a [table] are its columns")
        names = [entry.name for group in (self.parameters, self.objectives) for entry in group]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise ValueError(f"names must be distinct, got {name!r} twice")


def parse_objectives(text: str) -> list[ObjectiveTable]:
    """Objectives of the command line.

    Raises
    ------
    ValueError
        A direction other than min and max, a name that is empty or comes twice.

    Examples
    --------
    >>> [(objective.name, objective.goal) for objective in parse_objectives("time:min,throughput:max,area")]
    [('time', 'min'), ('throughput', 'max'), ('area', 'min')]
    """
    found: list[ObjectiveTable] = []
    for part in text.split(","):
        name, _, goal = part.strip().rpartition(":") if ":" in part else (part.strip(), "", "min")
        if goal not in ("min", "max"):
            raise ValueError(f"an objective must be NAME:min or NAME:max, got {part.strip()!r}")
        if not name:
            raise ValueError(f"an objective must have a name, got {part.strip()!r} in {text!r}")
        if name in [objective.name for objective in found]:
            raise ValueError(f"objectives must be distinct, got {name!r} twice")
        found.append(ObjectiveTable(name=name, goal="max" if goal == "max" else "min"))
    return found


def relative_to(file: Path, text: str) -> Path:
    """Path that a configuration file gives, relative to the file."""
    path = Path(text)
    return path if path.is_absolute() else file.parent / path
