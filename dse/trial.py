"""Trials of a campaign, and the events of a run that a progress display listens to."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

from dse.space import Value

Json: TypeAlias = Any  # a JSON value; recursive aliases help neither reader nor checker


class InfrastructureError(Exception):
    """Raised by an evaluator: the evaluation failed, but not because of the design."""


class State(StrEnum):
    """Where a trial stands."""

    PENDING = "pending"  #: asked, and neither started nor finished
    RUNNING = "running"  #: being evaluated
    DONE = "done"  #: its values are known
    INFEASIBLE = "infeasible"  #: its values are known, and break an outcome constraint
    FAILED = "failed"  #: the design cannot be evaluated, and is not proposed again
    LOST = "lost"  #: the infrastructure failed; the trial is asked again
    ABANDONED = "abandoned"  #: the infrastructure failed too often; says nothing about the design


OPEN = (State.PENDING, State.RUNNING, State.LOST)  #: no result yet, but one is waited for
MEASURED = (State.DONE, State.INFEASIBLE)  #: the values are known
FINISHED = (State.DONE, State.INFEASIBLE, State.FAILED)  #: what a budget counts


@dataclass(slots=True, eq=False)
class Trial:
    """One evaluation of one design. The campaign keeps it up to date; callers only read it.

    Attributes
    ----------
    id
        0, 1, 2, ... in the order of asking and attaching.
    parameters
        The design, by parameter name.
    values
        By objective name, known ones included, once the trial is measured.
    metrics
        Whatever else the evaluator measured.
    attempts
        Infrastructure failures so far.
    constraints
        Measured values of the outcome constraints, by name.
    row
        Row of the design in the table that is searched; ``None`` in other spaces.
    attached
        The trial was measured elsewhere, and never asked.
    cached
        Its result was computed by an earlier campaign.
    fidelity
        Level at which it is evaluated; ``None`` in a campaign without fidelity.
    price
        What it takes from a budget: 1 at full fidelity and without one.
    settings
        What the evaluator receives: the parameters, and the fidelity under its name.
    """

    id: int
    parameters: dict[str, Value]
    state: State = State.PENDING
    values: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, Json] = field(default_factory=dict)
    error: str | None = None
    seconds: float | None = None
    attempts: int = 0
    constraints: dict[str, float] = field(default_factory=dict)
    row: int | None = None
    attached: bool = False
    cached: bool = False
    fidelity: int | float | None = None
    price: float = 1.0
    settings: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to a trial of a run.

    Attributes
    ----------
    finished, budget
        Trials finished so far, those before a resume included, and how many are wanted.
    spent
        What they took from the budget: their number, or in full evaluations in a campaign with a fidelity.
    """

    trial: Trial
    finished: int
    budget: int
    spent: float = 0.0


class Asked(Event):
    """A design was proposed, or proposed again after an interruption."""

    __slots__ = ()


class Started(Event):
    """Its evaluation begins."""

    __slots__ = ()


class Done(Event):
    """Its values are stored."""

    __slots__ = ()


class Failed(Event):
    """The design failed, or the infrastructure did; ``trial.state`` and ``trial.error`` tell."""

    __slots__ = ()
