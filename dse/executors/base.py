"""What evaluates designs: an evaluator is a function, an executor runs it somewhere.

How an evaluation can end, and what that says of the design:

- ``done``: the evaluator returned; whether its values are usable, the campaign decides;
- ``design``: the design cannot be evaluated. The evaluator raised, or its process crashed by itself
  (segmentation fault, abort, exit status), or it took longer than its time limit;
- ``infrastructure``: no fault of the design, to be tried again. The evaluator raised
  `InfrastructureError`, or its process was stopped from outside (SIGKILL of the out-of-memory killer,
  SIGTERM of a scheduler) or left with status 75 (``EX_TEMPFAIL``), or its machine was lost;
- ``setup``: every evaluation would fail alike, so the run ends. The evaluator raised `SetupError`, or
  cannot be loaded in a worker.
"""

from __future__ import annotations

import os
import pickle
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Protocol, Self, TypeAlias

from dse.space import Value
from dse.trial import InfrastructureError, Json

Kind: TypeAlias = Literal["done", "design", "infrastructure", "setup"]

#: Signals that come from outside: a scheduler, the out-of-memory killer, a person, a closed terminal.
OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


class SetupError(Exception):
    """Raised by an evaluator or executor: every evaluation would fail alike, so the run ends."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What an evaluator may return where a mapping of values does not say enough.

    Attributes
    ----------
    values
        Learnt objectives and outcome constraints, by name.
    metrics
        Whatever else was measured, as JSON.
    cached
        The result was computed earlier, and only looked up now.
    seconds
        Duration of the evaluation itself, where it differs from the time spent here.
    """

    values: Mapping[str, float]
    metrics: Mapping[str, Json] = field(default_factory=dict)
    cached: bool = False
    seconds: float | None = None


Evaluation: TypeAlias = Measurement | Mapping[str, float] | tuple[Mapping[str, float], Mapping[str, Json]]
Evaluator: TypeAlias = Callable[[dict[str, Value]], Evaluation]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one evaluation ended.

    Attributes
    ----------
    kind
        As the module describes.
    measurement
        Of an evaluation that is done, as its evaluator returned it: nothing is checked yet.
    error, trace
        One line for tables, and a traceback where there is one.
    seconds
        Wall-clock time.
    """

    kind: Kind
    measurement: Measurement | None = None
    error: str = ""
    trace: str | None = None
    seconds: float | None = None


class Executor(Protocol):
    """Runs evaluations on some workers. One thread at a time may use it."""

    @property
    def workers(self) -> int:
        """How many evaluations may run at a time; it may change, as a cluster does."""

    def prepare(self, evaluator: Evaluator) -> None:
        """Refuse at once an evaluator that cannot run here: ``TypeError`` or `SetupError`."""

    def submit(self, evaluator: Evaluator, parameters: Mapping[str, Value]) -> int:
        """Begin an evaluation; returns a handle. At most `workers` may be running."""

    def poll(self, timeout_s: float) -> list[tuple[int, Outcome]]:
        """Outcomes since the last call, by handle; waits up to `timeout_s` for the first one, not with 0."""

    def cancel(self, handle: int) -> None:
        """Stop an evaluation, which then has no outcome; unknown handles are ignored."""

    def close(self) -> None:
        """Stop everything and release the workers; closing twice is harmless."""


class Closing:
    """A context manager that closes on leaving."""

    def close(self) -> None:
        """Release what is held."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def evaluate(evaluator: Evaluator, parameters: Mapping[str, Value]) -> Outcome:
    """Call an evaluator here and now. Interrupts pass; every other exception is an outcome."""
    begin = time.perf_counter()
    try:
        result = evaluator(dict(parameters))
        seconds = time.perf_counter() - begin
        measurement = _measurement(result)
        if measurement.seconds is not None:
            seconds = measurement.seconds
        return Outcome("done", measurement, seconds=seconds)
    except Exception as error:
        kind: Kind = "design"
        if isinstance(error, InfrastructureError | SetupError):
            kind = "infrastructure" if isinstance(error, InfrastructureError) else "setup"
        return Outcome(
            kind,
            error=one_line(error),
            trace=traceback.format_exc(),
            seconds=time.perf_counter() - begin,
        )


def _measurement(result: object) -> Measurement:
    if isinstance(result, Measurement):
        return result
    values, metrics = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
    if not isinstance(values, Mapping):
        raise TypeError(f"an evaluator must return values by objective name, got {_short(values)}")
    if metrics is not None and not isinstance(metrics, Mapping):
        raise TypeError(f"the metrics of an evaluator must be a mapping by name, got {_short(metrics)}")
    return Measurement(values, metrics or {})


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def one_line(error: BaseException) -> str:
    """Return type and message of an error, in one line of at most 500 characters."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    return text if len(text) <= 500 else f"{text[:497]}..."


def ended(exitcode: int) -> tuple[Kind, str]:
    """Classify a process that ended without a result.

    Parameters
    ----------
    exitcode
        Exit status, or minus the number of the signal that ended the process.
    """
    if exitcode < 0:
        try:
            name = signal.Signals(-exitcode).name
        except ValueError:
            name = f"signal {-exitcode}"
        if -exitcode in OUTSIDE:
            return "infrastructure", f"the evaluating process was ended from outside by {name}"
        return "design", f"the evaluating process crashed with {name}"
    if exitcode == os.EX_TEMPFAIL:
        return "infrastructure", "the evaluating process left with status 75, a temporary failure"
    return "design", f"the evaluating process left with status {exitcode} and no result"


def pickled(evaluator: Evaluator) -> bytes:
    """Evaluator as bytes for another process, or ``TypeError`` that says which it is."""
    try:
        return pickle.dumps(evaluator)
    except Exception as error:
        raise TypeError(
            "an evaluator for other processes must be picklable, as a function of a module is, "
            f"got {_short(evaluator)}: {one_line(error)}"
        ) from None
