"""Which whole tensors stay in the scratchpad between operators, where all others are streamed in tiles.

Operators run in a fixed order. What is not resident passes through a tile reserve, and costs what the
operator's tiling makes it cost, which may be more than its size. Between two uses of a tensor lies a
*gap*; keeping the gap holds the whole tensor, at both uses and at every step between them, against the
capacity that the tile reserve leaves. Keeping a tensor for a part of a gap saves nothing.

- A use inside or at the end of a residency costs nothing; one that begins a residency brings the tensor
  in once, whole; any other is streamed.
- A produced tensor is stored at its production if it is a graph output or if some gap of it is dropped:
  written through whole where a residency begins there, else streamed. Tensors do not change, so a later
  drop is free. A tensor that nobody reads and that is no output costs nothing.

Costs are in bytes. The plan is of least total, and of those of least byte-steps: bytes times steps of
residency. (Where the integer program chooses, of the fewest that a limited search finds.) Only
capacities are kept here: addresses, and whether the residencies can be laid out without gaps between
them, are the business of the schedules with addresses.

This is the gap model of replacement with known future, extended to streamed operands; capacity and
tile reserve together make up the scratchpad of [COSMA]_, whose operators hold all operands instead.

References
----------
.. [COSMA] Y. Li, A. Gupta, S. Malik, "COSMA", arXiv 2311.18246, 2023: order, residency, placement.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from time import perf_counter
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accel.schedule import _streamed_dp, _streamed_milp
from accel.workload import Workload

Backend: TypeAlias = Literal["auto", "dynamic-program", "integer-program", "greedy"]
KeepMethod: TypeAlias = Literal["fits", "dynamic-program", "integer-program", "greedy"]

_MOST_WORK = 400_000  # states of a dynamic program, over all its decisions, before the other takes over
_MOST_WORK_ALONE = 4_000_000  # where there is no other
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
        return _streamed_dp.use_costs(
            self.size_bytes,
            self.first,
            self.streamed_bytes,
            self.is_produced,
            self.is_output,
            np.asarray(kept, np.bool_) & self.is_gap,
        )

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Residency:
    """A stay of a whole tensor in the scratchpad, from step `start` to `end`, both included."""

    tensor: str
    start: int
    end: int
    bytes: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Kept:
    """A plan; whatever follows from the gaps it keeps is derived from them.

    Attributes
    ----------
    kept
        (u,): whether the gap that follows each use of `problem` is kept.
    bound_bytes
        No plan has a smaller total.
    method
        What chose: ``"fits"`` where every gap fits beside all others or fits nowhere; the exact dynamic
        or integer program; or a ``"greedy"`` plan, where the time limit left no better one.
    solver
        Name and version of the integer program's solver, ``"none"`` without one.
    seconds
        Time spent.
    """

    problem: Streaming
    kept: NDArray[np.bool_]
    bound_bytes: int
    method: KeepMethod
    solver: str
    seconds: float = field(repr=False)

    @cached_property
    def cost_bytes(self) -> NDArray[np.int64]:
        """Bytes that each use costs, (u,)."""
        return self.problem.costs(self.kept)

    @cached_property
    def total_bytes(self) -> int:
        """Bytes moved on and off chip."""
        return int(self.cost_bytes.sum())

    @property
    def is_optimal(self) -> bool:
        """Whether no plan has a smaller total, proven."""
        return self.bound_bytes == self.total_bytes

    @property
    def gap(self) -> float:
        """Share of the total that a better plan might save, 0 if optimal."""
        return (self.total_bytes - self.bound_bytes) / max(1, self.total_bytes)

    @cached_property
    def resident_bytes(self) -> NDArray[np.int64]:
        """Bytes of whole tensors at each step, (T,)."""
        return self.problem.resident_bytes(self.kept)

    @property
    def peak_bytes(self) -> int:
        """Most bytes of whole tensors at any step."""
        return int(self.resident_bytes.max(initial=0))

    @property
    def byte_steps(self) -> int:
        """Resident bytes summed over all steps."""
        return int(self.resident_bytes.sum())

    @cached_property
    def costs(self) -> Mapping[Use, int]:
        """Bytes by use."""
        return MappingProxyType(dict(zip(self.problem.uses, self.cost_bytes.tolist(), strict=True)))

    @cached_property
    def gaps(self) -> Mapping[str, tuple[tuple[int, int], ...]]:
        """Kept gaps by tensor, each from the step of one use to that of the next."""
        found: dict[str, list[tuple[int, int]]] = {name: [] for name in self.problem.tensors}
        for i in np.flatnonzero(self.kept):
            name = self.problem.tensors[self.problem.owner[i]]
            found[name].append((int(self.problem.step[i]), int(self.problem.step[i + 1])))
        return MappingProxyType({name: tuple(gaps) for name, gaps in found.items()})

    @cached_property
    def residency(self) -> tuple[Residency, ...]:
        """Stays by tensor, then by start; kept gaps that meet are one stay."""
        found = []
        for v, (name, gaps) in enumerate(self.gaps.items()):
            starts = [start for i, (start, _) in enumerate(gaps) if i == 0 or gaps[i - 1][1] != start]
            ends = [here[1] for here, following in pairwise(gaps) if here[1] != following[0]]
            ends += [gaps[-1][1]] if gaps else []
            size = int(self.problem.size_bytes[v])
            found += [
                Residency(tensor=name, start=start, end=end, bytes=size)
                for start, end in zip(starts, ends, strict=True)
            ]
        return tuple(found)


def keep(
    problem: Streaming,
    *,
    time_limit_s: float = 10.0,
    tolerance: float = 0.0,
    backend: Backend = "auto",
) -> Kept:
    """Gaps to keep for the least total.

    Parts of the problem that share no step at which the capacity binds are chosen apart: each by a
    dynamic program over steps, or, where that would hold too many sets of gaps at once, by an integer
    program.

    Parameters
    ----------
    time_limit_s
        Of the integer programs together, by the clock. A plan is returned in any case, with the bound
        reached by then; plans are reproducible as long as the limit is not met.
    tolerance
        Share of the least total by which a plan of the integer programs may exceed it, 0..1: with a
        little of it they take a fraction of the time. The dynamic program is always exact.
    backend
        ``"dynamic-program"`` or ``"integer-program"`` forces one engine, to compare the two. ``"greedy"``
        leaves the integer programs out: a plan at once, the same on every machine, whose bound is what no
        plan can avoid.

    Raises
    ------
    ValueError
        An option is out of range, or the dynamic program that is asked for would need too many states.

    Examples
    --------
    A block with a skip connection: ``b = f(a)``, ``c = g(b)``, ``d = a + c``.

    >>> steps = {"x": (0,), "a": (0, 1, 3), "b": (1, 2), "c": (2, 3), "d": (3,)}
    >>> sizes = {"x": 4, "a": 8, "b": 12, "c": 8, "d": 8}
    >>> costs = {
    ...     Use(name, step, name != "x" and i == 0): sizes[name]
    ...     for name, found in steps.items()
    ...     for i, step in enumerate(found)
    ... }
    >>> for capacity_bytes in (7, 12, 20, 28):
    ...     plan = keep(Streaming.from_uses(sizes, costs, capacity_bytes, outputs=["d"]))
    ...     print(plan.total_bytes, *((stay.tensor, stay.start, stay.end) for stay in plan.residency))
    76
    52 ('b', 1, 2)
    28 ('a', 0, 3) ('b', 1, 2)
    12 ('a', 0, 3) ('b', 1, 2) ('c', 2, 3)
    """
    started_s = perf_counter()
    if not time_limit_s > 0:
        raise ValueError(f"time_limit_s must be above 0, got {time_limit_s}")
    if not 0 <= tolerance <= 1:
        raise ValueError(f"tolerance must be in 0..1, got {tolerance}")
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {', '.join(get_args(Backend))}, got {backend!r}")
    most_work = {"dynamic-program": _MOST_WORK_ALONE, "integer-program": 0}.get(backend, _MOST_WORK)
    kept, fate, is_left = _streamed_dp.solve(
        problem.size_bytes,
        problem.first,
        problem.step,
        problem.streamed_bytes,
        problem.is_produced,
        problem.is_output,
        problem.capacity_bytes,
        most_work,
    )
    method: KeepMethod = "fits" if is_left.size == 0 else "dynamic-program"
    solver, missing = "none", 0
    if is_left.any() and backend == "greedy":
        method = "greedy"
        missing = int(problem.costs(kept).sum()) - problem.compulsory_bytes
    elif is_left.any():
        if backend == "dynamic-program":
            raise ValueError(
                f"backend 'dynamic-program' takes at most {_MOST_WORK_ALONE} states, this problem needs more"
            )
        chosen = _streamed_milp.solve_parts(
            problem,
            kept,
            fate,
            np.flatnonzero(is_left),
            deadline_s=perf_counter() + time_limit_s,
            tolerance=tolerance,
        )
        kept, missing, solver = chosen.kept, chosen.missing_bytes, _streamed_milp.SOLVER
        method = "greedy" if chosen.is_greedy else "integer-program"
    kept.setflags(write=False)
    total_bytes = int(problem.costs(kept).sum())
    return Kept(
        problem=problem,
        kept=kept,
        bound_bytes=total_bytes - missing,
        method=method,
        solver=solver,
        seconds=perf_counter() - started_s,
    )


def streaming_of(
    workload: Workload,
    costs: Mapping[Use, int] | None = None,
    *,
    capacity_bytes: int | Sequence[int] = 0,
) -> Streaming:
    """Problem of `workload` in the order of its operators; every tensor with bytes takes part.

    Parameters
    ----------
    costs
        Bytes of uses that are streamed; the tensor's size where one is not named.
    capacity_bytes
        For whole tensors: the scratchpad less the tile reserve, for all steps or for each.

    Raises
    ------
    ValueError
        `costs` names a use that the workload does not have; or see :class:`Streaming`.
    """
    given = dict(costs or {})
    sizes = {name: tensor.bytes for name, tensor in workload.tensors.items()}
    found: dict[Use, int] = {}
    for step, operator in enumerate(workload.operators):
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
    return Streaming.from_uses(
        sizes, found, capacity_bytes, steps=len(workload.operators), outputs=workload.outputs
    )


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
