"""The problem of streamed operands: tensors, their uses in a fixed order, and room for whole tensors.

See ``accel.schedule.streamed`` for what keeping a tensor between two uses means.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accel.schedule._kernels import streamed as kernels
from accel.workload import Workload

_LARGEST = 2**62  # sums of bytes, and of byte-steps, stay below


@dataclass(frozen=True, slots=True)
class Use:
    """One operator's dealing with one tensor.

    Attributes
    ----------
    step
        Of the operator, from 0.
    writes
        Whether it is the tensor's production.
    """

    tensor: str
    step: int
    writes: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Streaming:
    """The problem, as arrays: n tensors with u uses in all, T steps.

    The uses of one tensor follow one another in order of their steps. ``dataclasses.replace`` makes the
    same problem with other costs or capacities.

    Attributes
    ----------
    tensors
        Names, (n,).
    size_bytes
        (n,), at least 1.
    first
        (n + 1,): the uses of tensor v are ``first[v] .. first[v + 1] - 1``.
    step
        (u,): 0..T - 1, each step of a tensor once.
    streamed_bytes
        (u,): what the use costs where its tensor is not resident; at least its size.
    is_produced
        (n,): whether the first use is the production; else the tensor is a graph input.
    is_output
        (n,): whether it is a graph output. A graph input needs no store in any case.
    capacity_bytes
        (T,): bytes for whole tensors at each step.

    Raises
    ------
    ValueError
        Shapes do not fit together, or a value is out of range.
    """

    tensors: tuple[str, ...]
    size_bytes: NDArray[np.int64]
    first: NDArray[np.int64]
    step: NDArray[np.int64]
    streamed_bytes: NDArray[np.int64]
    is_produced: NDArray[np.bool_]
    is_output: NDArray[np.bool_]
    capacity_bytes: NDArray[np.int64]

    def __post_init__(self) -> None:
        for name in ("size_bytes", "first", "step", "streamed_bytes", "capacity_bytes"):
            object.__setattr__(self, name, _frozen(name, getattr(self, name), np.int64))
        for name in ("is_produced", "is_output"):
            object.__setattr__(self, name, _frozen(name, getattr(self, name), np.bool_))
        self._check_shapes()
        self._check_values()

    def _check_shapes(self) -> None:
        n, uses = len(self.tensors), self.step.size
        for name, length in (
            ("size_bytes", n),
            ("first", n + 1),
            ("streamed_bytes", uses),
            ("is_produced", n),
            ("is_output", n),
        ):
            if (found := getattr(self, name)).size != length:
                raise ValueError(f"{name} must have {length} entries, got {found.size}")
        counts = np.diff(self.first)
        if self.first[0] != 0 or self.first[-1] != uses or (counts < 1).any():
            raise ValueError(f"first must ascend from 0 to {uses}, the number of uses, got {self.first}")

    def _check_values(self) -> None:
        owner, steps = self.owner, self.capacity_bytes.size
        if (bad := np.flatnonzero(self.capacity_bytes < 0)).size:
            raise ValueError(
                f"capacity must not be negative, got {self.capacity_bytes[bad[0]]} bytes at step {bad[0]}"
            )
        if (bad := np.flatnonzero(self.size_bytes < 1)).size:
            name = self.tensors[bad[0]]
            raise ValueError(f"size of tensor {name} must be at least 1 byte, got {self.size_bytes[bad[0]]}")
        if (bad := np.flatnonzero((self.step < 0) | (self.step >= steps))).size:
            name = self.tensors[owner[bad[0]]]
            raise ValueError(f"steps of tensor {name} must be in 0..{steps - 1}, got {self.step[bad[0]]}")
        if (bad := np.flatnonzero((np.diff(self.step) < 1) & (np.diff(owner) == 0))).size:
            name = self.tensors[owner[bad[0]]]
            raise ValueError(
                f"steps of tensor {name} must ascend, got {self.step[bad[0] + 1]} after {self.step[bad[0]]}"
            )
        sizes = self.size_bytes[owner]
        if (bad := np.flatnonzero(self.streamed_bytes < sizes)).size:
            i = bad[0]
            raise ValueError(
                f"streaming tensor {self.tensors[owner[i]]} at step {self.step[i]} must cost at least its "
                f"{sizes[i]} bytes, got {self.streamed_bytes[i]}"
            )
        # In floats, which do not wrap.
        most = max(self.streamed_bytes.sum(dtype=float), self.size_bytes.sum(dtype=float) * (steps + 1))
        if most >= _LARGEST:
            raise ValueError(f"bytes of all uses, and sizes times steps, must be below 2**62, got {most:g}")

    @classmethod
    def from_uses(
        cls,
        sizes_bytes: Mapping[str, int],
        costs_bytes: Mapping[Use, int],
        capacity_bytes: int | Sequence[int],
        *,
        steps: int | None = None,
        outputs: Collection[str] = (),
    ) -> Streaming:
        """Problem from its uses, in any order, each with what it costs where it is streamed.

        Parameters
        ----------
        capacity_bytes
            One number for all steps, or one per step.
        steps
            Number of steps; by default that of the capacities, or up to the last use.

        Raises
        ------
        ValueError
            A tensor has no size or two productions, or is read before its production; or see the class.
        """
        by_tensor: dict[str, list[Use]] = {}
        for use in sorted(costs_bytes, key=lambda use: (use.step, use.writes)):
            by_tensor.setdefault(use.tensor, []).append(use)
        if steps is None:
            last = max((use.step for use in costs_bytes), default=-1)
            steps = last + 1 if isinstance(capacity_bytes, int) else len(capacity_bytes)
        for name, uses in by_tensor.items():
            if name not in sizes_bytes:
                raise ValueError(f"tensor {name} has uses, but no size")
            if late := [use.step for use in uses[1:] if use.writes]:
                raise ValueError(
                    f"production of tensor {name} must be its only and first, got step {late[0]}"
                )
        ordered = [use for uses in by_tensor.values() for use in uses]
        return cls(
            tensors=tuple(by_tensor),
            size_bytes=_integers([sizes_bytes[name] for name in by_tensor]),
            first=np.cumsum([0, *map(len, by_tensor.values())]),
            step=_integers([use.step for use in ordered]),
            streamed_bytes=_integers([costs_bytes[use] for use in ordered]),
            is_produced=np.array([uses[0].writes for uses in by_tensor.values()], np.bool_),
            is_output=np.array([name in outputs for name in by_tensor], np.bool_),
            capacity_bytes=_capacities(capacity_bytes, steps),
        )

    @cached_property
    def owner(self) -> NDArray[np.int64]:
        """Index of the tensor of each use, (u,)."""
        return np.repeat(np.arange(len(self.tensors)), np.diff(self.first))

    @cached_property
    def writes(self) -> NDArray[np.bool_]:
        """Whether each use is a production, (u,)."""
        found = np.zeros(self.step.size, np.bool_)
        found[self.first[:-1][self.is_produced]] = True
        return found

    @cached_property
    def uses(self) -> tuple[Use, ...]:
        """All uses in the order of the arrays, (u,)."""
        columns = zip(self.owner.tolist(), self.step.tolist(), self.writes.tolist(), strict=True)
        return tuple(Use(self.tensors[v], step, writes) for v, step, writes in columns)

    @cached_property
    def is_gap(self) -> NDArray[np.bool_]:
        """Whether a later use of the same tensor follows, (u,)."""
        found = np.ones(self.step.size, np.bool_)
        found[self.first[1:] - 1] = False
        return found

    def costs(self, kept: ArrayLike) -> NDArray[np.int64]:
        """Bytes that each use costs, (u,), if the gaps after the uses `kept`, (u,), are kept."""
        found: NDArray[np.int64] = kernels.use_costs(
            self.size_bytes,
            self.first,
            self.streamed_bytes,
            self.is_produced,
            self.is_output,
            np.asarray(kept, np.bool_) & self.is_gap,
        )
        return found

    def resident_bytes(self, kept: ArrayLike) -> NDArray[np.int64]:
        """Bytes resident at each step, (T,), if the gaps after the uses `kept`, (u,), are kept."""
        here = np.asarray(kept, np.bool_) & self.is_gap
        before = np.zeros_like(here)
        before[1:] = here[:-1]
        size = self.size_bytes[self.owner]
        change = np.zeros(self.capacity_bytes.size + 1, np.int64)
        np.add.at(change, self.step, size * (here & ~before))
        np.subtract.at(change, self.step + 1, size * (before & ~here))
        return np.cumsum(change[:-1])

    @property
    def layer_by_layer_bytes(self) -> int:
        """Total if nothing is kept: the most any plan costs."""
        return int(self.costs(np.zeros_like(self.is_gap)).sum())

    @property
    def compulsory_bytes(self) -> int:
        """Total if every gap is kept: the least any plan costs, whatever the capacity."""
        return int(self.costs(self.is_gap).sum())

    @property
    def compulsory_capacity_bytes(self) -> int:
        """Least capacity, the same at all steps, at which every gap can be kept."""
        return int(self.resident_bytes(self.is_gap).max(initial=0))


def streaming_of(
    workload: Workload,
    costs: Mapping[Use, int] | None = None,
    *,
    capacity_bytes: int | Sequence[int] = 0,
    order: Sequence[int] | None = None,
    left_out: Collection[str] = (),
    alignment: int = 1,
) -> Streaming:
    """Problem of `workload`; every tensor with bytes takes part that is not left out.

    Parameters
    ----------
    costs
        Bytes of uses that are streamed; the tensor's size where one is not named.
    capacity_bytes
        For whole tensors: the scratchpad less the tile reserve, for all steps or for each.
    order
        Indices of operators by step; by default they run as they are listed.
    left_out
        Tensors that take no part, such as weights that pass by the scratchpad.
    alignment
        Sizes are rounded up to it.

    Raises
    ------
    ValueError
        `costs` names a use that the workload does not have; or see :class:`Streaming`.
    """
    given = dict(costs or {})
    sizes = {
        name: 0 if name in left_out else -(-tensor.bytes // alignment) * alignment
        for name, tensor in workload.tensors.items()
    }
    operators = workload.operators if order is None else [workload.operators[i] for i in order]
    found: dict[Use, int] = {}
    for step, operator in enumerate(operators):
        for names, writes in ((dict.fromkeys(operator.inputs), False), (operator.outputs, True)):
            for name in names:
                use = Use(name, step, writes)
                cost = given.pop(use, sizes[name])
                if sizes[name]:
                    found[use] = cost
                elif cost:
                    raise ValueError(f"streaming tensor {name} of no bytes must cost 0, got {cost}")
    if given:
        use = next(iter(given))
        verb = "writes" if use.writes else "reads"
        raise ValueError(f"costs names step {use.step}, which {verb} {use.tensor}, but there is no such use")
    return Streaming.from_uses(sizes, found, capacity_bytes, steps=len(operators), outputs=workload.outputs)


def _frozen(name: str, values: ArrayLike, dtype: type[np.generic]) -> NDArray[np.generic]:
    """Read-only copy of a vector."""
    found = np.asarray(values)
    kinds = "b" if dtype is np.bool_ else "iu"
    if found.ndim != 1 or (found.size and found.dtype.kind not in kinds):
        wanted = "truth values" if dtype is np.bool_ else "integers"
        raise ValueError(f"{name} must be a vector of {wanted}, got {found.dtype} of shape {found.shape}")
    copy = found.astype(dtype)
    copy.setflags(write=False)
    return copy


def _integers(values: Sequence[int]) -> NDArray[np.int64]:
    return np.array(values) if values else np.zeros(0, np.int64)


def _capacities(capacity_bytes: int | Sequence[int], steps: int) -> NDArray[np.int64]:
    """One capacity per step, (steps,)."""
    found = np.asarray(capacity_bytes)
    if found.ndim == 0:
        return np.full(steps, found)
    if found.size != steps:
        raise ValueError(f"capacity_bytes must have an entry for each of {steps} steps, got {found.size}")
    return found
