"""What becomes of the parameters: streamed past the scratchpad, tracked in it, or resident all the time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from accel.schedule._instance import weights_of
from accel.workload import Workload

Weights: TypeAlias = Literal["streamed", "tracked", "resident"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightPlan:
    """Parameters that take no part in the scheduling, by what becomes of them.

    Attributes
    ----------
    streamed
        Loaded past the scratchpad.
    resident
        In the scratchpad for the whole run, loaded beforehand.
    resident_bytes
        Room they take, each rounded up to the alignment.
    """

    streamed: tuple[str, ...]
    resident: tuple[str, ...]
    resident_bytes: int

    @property
    def left_out(self) -> frozenset[str]:
        """All of them."""
        return frozenset((*self.streamed, *self.resident))


def plan_weights(
    graph: Workload, weights: Weights, *, resident: Collection[str] | None = None, alignment: int = 1
) -> WeightPlan:
    """Sort the parameters of `graph`.

    Parameters
    ----------
    resident
        With ``"resident"``: those that stay, all of them by default; the others are streamed.

    Raises
    ------
    ValueError
        `weights` or `alignment` is out of range, or `resident` names what is no parameter.
    """
    if weights not in get_args(Weights):
        raise ValueError(f"weights must be one of {', '.join(get_args(Weights))}; got {weights!r}")
    if alignment < 1:
        raise ValueError(f"alignment must be at least 1, got {alignment}")
    if resident is not None and weights != "resident":
        raise ValueError(f"resident tensors are for weights='resident', got weights={weights!r}")
    known = weights_of(graph)
    if weights == "tracked":
        return WeightPlan(streamed=(), resident=(), resident_bytes=0)
    if weights == "streamed":
        return WeightPlan(streamed=known, resident=(), resident_bytes=0)
    chosen = frozenset(known if resident is None else resident)
    if unknown := sorted(chosen.difference(known)):
        raise ValueError(f"resident tensor {unknown[0]!r} is no parameter that {graph.name} reads")
    kept = tuple(name for name in known if name in chosen)
    return WeightPlan(
        streamed=tuple(name for name in known if name not in chosen),
        resident=kept,
        resident_bytes=sum(-(-graph.tensors[name].bytes // alignment) * alignment for name in kept),
    )
