"""Trials of a campaign, and the events of a run that a progress display listens to."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

from dse.space import Value

Json: TypeAlias = Any  # a JSON value; recursive aliases help neither reader nor checker


class State(StrEnum):
    """Where a trial stands."""

    PENDING = "pending"  #: asked, and neither started nor finished
    RUNNING = "running"  #: being evaluated
    DONE = "done"  #: its values are known
    FAILED = "failed"  #: the design cannot be evaluated, and is not proposed again
    ABANDONED = "abandoned"  #: the infrastructure failed too often; says nothing about the design


@dataclass(slots=True, eq=False)
class Trial:
    """One evaluation of one design. The campaign keeps it up to date; callers only read it.

    Attributes
    ----------
    id
        0, 1, 2, ... in the order of asking.
    parameters
        The design, by parameter name.
    values
        By objective name, known ones included, once the trial is done.
    metrics
        Whatever else the evaluator measured.
    attempts
        Infrastructure failures so far.
    """

    id: int
    parameters: dict[str, Value]
    state: State = State.PENDING
    values: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, Json] = field(default_factory=dict)
    error: str | None = None
    seconds: float | None = None
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to a trial of a run.

    Attributes
    ----------
    finished, budget
        Trials done or failed so far, those before a resume included, and how many are wanted.
    """

    trial: Trial
    finished: int
    budget: int


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
