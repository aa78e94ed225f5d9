"""What becomes of the parameters: streamed past the scratchpad, tracked in it, or resident all the time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from accel._given import whole
from accel.schedule._instance import Instance, build_instance, weights_of
from accel.schedule._options import one_of, tensor_names, workload
from accel.workload import Tensor, Workload

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
    alignment
        As a plain integer, whatever was given.
    """

    streamed: tuple[str, ...]
    resident: tuple[str, ...]
    resident_bytes: int
    alignment: int

    @property
    def left_out(self) -> frozenset[str]:
        """All of them."""
        return frozenset((*self.streamed, *self.resident))

    def rounded(self, tensor: Tensor) -> int:
        """Bytes of a tensor, rounded up to the alignment."""
        return -(-tensor.bytes // self.alignment) * self.alignment

    def instance(self, graph: Workload, scratchpad_bytes: int = 0, *, fixed_order: bool) -> Instance:
        """Return what is left to be scheduled, on what resident weights leave of the scratchpad."""
        return build_instance(
            graph,
            max(0, scratchpad_bytes // self.alignment * self.alignment - self.resident_bytes),
            alignment=self.alignment,
            fixed_order=fixed_order,
            left_out=self.left_out,
        )


def plan_weights(
    graph: Workload, weights: Weights, *, resident: Collection[str] | None = None, alignment: int = 1
) -> WeightPlan:
    """Sort the parameters of `graph`, after a check of all that is given.

    Parameters
    ----------
    resident
        With ``"resident"``: those that stay, all of them by default; the others are streamed.

    Raises
    ------
    TypeError
        `graph` is no workload, `alignment` no whole number or `resident` no collection of names.
    ValueError
        `weights` or `alignment` is out of range, two operators share a name, or `resident` names what is
        no parameter.
    """
    workload(graph)
    one_of("weights", weights, get_args(Weights))
    alignment = whole("alignment", alignment)
    chosen = None if resident is None else tensor_names("resident", resident)
    if chosen is not None and weights != "resident":
        raise ValueError(f"resident tensors are for weights='resident', got weights={weights!r}")
    streamed = weights_of(graph)
    kept: tuple[str, ...] = ()
    if weights == "tracked":
        streamed = ()
    elif weights == "resident":
        chosen = frozenset(streamed) if chosen is None else chosen
        if unknown := sorted(chosen.difference(streamed)):
            raise ValueError(f"resident tensor {unknown[0]!r} is no parameter that {graph.name} reads")
        kept = tuple(name for name in streamed if name in chosen)
        streamed = tuple(name for name in streamed if name not in chosen)
    plan = WeightPlan(streamed=streamed, resident=kept, resident_bytes=0, alignment=alignment)
    return replace(plan, resident_bytes=sum(plan.rounded(graph.tensors[name]) for name in kept))
