"""Known constraints: predicates of the parameters that say why a design is not allowed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from dse.space.parameter import Value

Constraint: TypeAlias = Callable[[dict[str, Value]], str | None]


class ConstraintError(RuntimeError):
    """A constraint raised an error of its own, which is the cause of this one."""


def name_of(constraint: Constraint) -> str:
    """Name of a function, or of the class of another callable."""
    return getattr(constraint, "__name__", type(constraint).__name__)


def reason_against(constraints: Sequence[Constraint], parameters: dict[str, Value]) -> str | None:
    """Reason of the first constraint that rejects the parameters, or ``None``.

    Raises
    ------
    ConstraintError
        A constraint raised.
    TypeError
        A constraint returned neither ``None`` nor a non-empty text.
    """
    for constraint in constraints:
        try:
            reason = constraint(parameters)
        except Exception as error:
            raised = f"{type(error).__name__}: {error}"
            raise ConstraintError(
                f"the constraint {name_of(constraint)} raised {raised}; for {parameters}"
            ) from error
        if reason is None:
            continue
        if not isinstance(reason, str) or not reason:
            raise TypeError(
                f"a constraint must return None or a reason as text, got {reason!r} "
                f"from {name_of(constraint)} for {parameters}"
            )
        return reason
    return None
