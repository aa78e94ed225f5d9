"""Static memory allocation: buffers of known lifetimes get fixed offsets, exactly.

A buffer is a rectangle whose times are given and whose offset is free. Two buffers live at the same time
must not share an address, and all must fit in the capacity. Whether they do is NP-complete; greedy orders
often need 10 to 40 per cent more than the largest load. This is a complete search: it finds offsets,
proves that there are none, or says that its time was over.

Positions are canonical, every buffer lies on 0 or on top of another; sections of time bound what still
fits [Moffitt23]_; what failed once is remembered.

References
----------
.. [Moffitt23] M. D. Moffitt, "MiniMalloc: A Lightweight Memory Allocator for Hardware-Accelerated Machine
   Learning", ASPLOS 2023, doi 10.1145/3623278.3624752.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from time import perf_counter
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from accel._given import LIMIT, whole
from accel.schedule._options import seconds
from accel.schedule._packer.search import Outcome, load_kernels, lowest_height, peak_load, place_units

AllocationStatus: TypeAlias = Literal["PLACED", "INFEASIBLE", "UNDECIDED", "OPTIMAL", "FEASIBLE"]

_COLUMNS = ("lower", "upper", "size")
_LIMIT_BYTES = 1 << 60  # sums of sizes stay within 64 bits


class AllocationError(ValueError):
    """An allocation that is not one: two buffers share an address, or one lies outside of the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """A buffer: live in ``[start, end)``, at one address all the time.

    Attributes
    ----------
    bytes
        May be 0: such a buffer takes no part and gets offset 0.
    """

    name: str
    start: int
    end: int
    bytes: int

    def __post_init__(self) -> None:
        for field in ("start", "end", "bytes"):
            number = whole(f"{field} of {self.name!r}", getattr(self, field), least=1 - LIMIT)
            object.__setattr__(self, field, number)
        if self.end <= self.start:
            raise ValueError(f"end of {self.name!r} must be after its start {self.start}, got {self.end}")
        if not 0 <= self.bytes <= _LIMIT_BYTES:
            raise ValueError(f"bytes of {self.name!r} must be in 0..2**60, got {self.bytes}")


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """Offsets of buffers, or the proof that there are none.

    Attributes
    ----------
    offsets
        Of each lifetime by its position; empty unless placed.
    capacity
        What was to be kept to; None if it was to be minimised.
    bound_bytes
        No placement is lower: the largest load, or more where a search has proved it.
    status
        For a given capacity ``"PLACED"``, ``"INFEASIBLE"`` (proved) or ``"UNDECIDED"`` (time was over);
        for the least one ``"OPTIMAL"`` or, with a height above the bound, ``"FEASIBLE"``.
    method
        ``"greedy"``: largest first, lowest hole, and the like. ``"peak load"``: more is live at once than
        fits. ``"search"``: the complete search decided, or was interrupted.
    nodes
        Nodes of the search, all restarts together; an interrupted one counts as far as it came, so that
        this number alone may vary from run to run.
    seconds
        Wall-clock time of the whole call, kernels loaded or compiled included.
    """

    lifetimes: tuple[Lifetime, ...]
    offsets: tuple[int, ...]
    capacity: int | None
    alignment: int
    bound_bytes: int
    status: AllocationStatus
    method: str
    nodes: int
    seconds: float

    @property
    def is_placed(self) -> bool:
        """Whether every buffer has an offset."""
        return self.status in ("PLACED", "OPTIMAL", "FEASIBLE")

    @cached_property
    def by_name(self) -> Mapping[str, int]:
        """Offset of each lifetime by its name; empty unless placed."""
        names = (lifetime.name for lifetime in self.lifetimes)
        return MappingProxyType(dict(zip(names, self.offsets, strict=True)) if self.is_placed else {})

    @property
    def height_bytes(self) -> int | None:
        """Capacity that these offsets need, whole units of the alignment; None unless placed."""
        if not self.is_placed:
            return None
        tops = (at + _up(a.bytes, self.alignment) for at, a in zip(self.offsets, self.lifetimes, strict=True))
        return max(tops, default=0)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per lifetime: id, lower, upper (excluded), size and, missing unless placed, offset."""
        frame = pd.DataFrame(
            [(a.name, a.start, a.end, a.bytes) for a in self.lifetimes],
            columns=["id", "lower", "upper", "size"],
        )
        frame["offset"] = pd.array(self.offsets if self.is_placed else [None] * len(frame), dtype="Int64")
        return frame

    def check(self) -> None:
        """Replay the lifetimes, event by event: every block in bounds, aligned, and shared with no other.

        Raises
        ------
        AllocationError
            At the first thing that is wrong, or when there is no placement to check.
        """
        if not self.is_placed or len(self.offsets) != len(self.lifetimes):
            raise AllocationError(f"no placement to check: the status is {self.status}")
        events: list[tuple[int, int, int]] = []
        for i, (lifetime, offset) in enumerate(zip(self.lifetimes, self.offsets, strict=True)):
            top = offset + lifetime.bytes
            if offset < 0 or offset % self.alignment or (self.capacity is not None and top > self.capacity):
                raise AllocationError(
                    f"{lifetime.name!r} is at {offset}..{top}, allowed are multiples of {self.alignment} "
                    f"from 0 to {self.capacity}"
                )
            if lifetime.bytes:
                events += [(lifetime.end, 0, i), (lifetime.start, 1, i)]  # ends first: they are excluded
        live: dict[int, tuple[int, int]] = {}
        for _, is_start, i in sorted(events):
            if not is_start:
                del live[i]
                continue
            low, high = self.offsets[i], self.offsets[i] + self.lifetimes[i].bytes
            for other, (other_low, other_high) in live.items():
                if low < other_high and other_low < high:
                    raise AllocationError(
                        f"{self.lifetimes[i].name!r} at {low}..{high} and {self.lifetimes[other].name!r} "
                        f"at {other_low}..{other_high} are live at once"
                    )
            live[i] = (low, high)


def read_lifetimes(path: str | PathLike[str]) -> tuple[Lifetime, ...]:
    """Lifetimes of a CSV file with the columns ``lower, upper, size`` and, if it has names, ``id``.

    Raises
    ------
    ValueError
        Other columns, or a value that is no lifetime's.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            frame = pd.read_csv(path, dtype={"id": str}, keep_default_na=False, index_col=False)
        except pd.errors.ParserWarning:
            raise ValueError(f"{path}: rows must have as many values as there are columns") from None
    return _lifetimes_of(frame)


def allocate(
    lifetimes: Sequence[Lifetime] | pd.DataFrame,
    capacity: int | None = None,
    *,
    alignment: int = 1,
    time_limit_s: float = 60.0,
    seed: int = 0,
) -> Allocation:
    """Give every buffer an offset below `capacity`, or in the least memory.

    Parameters
    ----------
    lifetimes
        Buffers of distinct names, or a table with columns ``lower``, ``upper`` (excluded), ``size`` and,
        if they have names, ``id``.
    capacity
        Bytes; whole units of `alignment` are used. None looks for the least capacity.
    alignment
        Every offset is a multiple of it, and every size is rounded up to one.
    time_limit_s
        Wall-clock seconds for the work, after which the result is ``"UNDECIDED"``, or ``"FEASIBLE"`` for
        the least capacity; never ``"INFEASIBLE"``. Kernels are loaded, or once after an installation
        compiled, before this clock starts; `Allocation.seconds` includes that.
    seed
        A seed gives one result on every machine, unless time runs out.

    Raises
    ------
    TypeError
        An option is of the wrong kind, or something else than a `Lifetime` is among them.
    ValueError
        An option is out of range, two buffers share a name, or the table is bad.

    Examples
    --------
    >>> buffers = [
    ...     Lifetime(name="a", start=0, end=3, bytes=4),
    ...     Lifetime(name="b", start=3, end=9, bytes=4),
    ...     Lifetime(name="c", start=0, end=9, bytes=4),
    ... ]
    >>> found = allocate(buffers, 8)
    >>> found.status, found.offsets
    ('PLACED', (4, 4, 0))
    >>> allocate(buffers, 7).status
    'INFEASIBLE'
    >>> allocate(buffers).height_bytes
    8
    """
    began = perf_counter()
    if isinstance(lifetimes, pd.DataFrame):
        lifetimes = _lifetimes_of(lifetimes)
    lifetimes = _checked(lifetimes)
    alignment = whole("alignment", alignment)
    seed = whole("seed", seed, least=0)
    time_limit_s = seconds(time_limit_s, may_be_zero=True)
    if capacity is not None and (capacity := whole("capacity", capacity)) < alignment:
        raise ValueError(f"capacity must be at least the alignment of {alignment} bytes, got {capacity}")
    sizes = [_up(lifetime.bytes, alignment) for lifetime in lifetimes]
    if sum(sizes) > _LIMIT_BYTES:
        raise ValueError(f"sizes must sum to at most 2**60 bytes, got {sum(sizes)}")
    taking_part = np.flatnonzero(sizes)
    # Canonical offsets are sums of sizes: their common divisor is the unit.
    unit = int(np.gcd.reduce(np.array(sizes, np.int64))) or alignment
    start = np.array([lifetimes[i].start for i in taking_part], np.int64)
    end = np.array([lifetimes[i].end for i in taking_part], np.int64)
    size = np.array([sizes[i] // unit for i in taking_part], np.int64)
    load_kernels()
    deadline_s = perf_counter() + time_limit_s
    bound = peak_load(start, end, size)
    status: AllocationStatus
    if capacity is None:
        outcome, bound = lowest_height(start, end, size, deadline_s=deadline_s, seed=seed)
        height = 0 if outcome.offset is None else int((outcome.offset + size).max(initial=0))
        status = "OPTIMAL" if height == bound else "FEASIBLE"
    else:
        outcome = place_units(
            start, end, size, min(capacity, _LIMIT_BYTES) // unit, deadline_s=deadline_s, seed=seed
        )
        status = outcome.status
        if status == "INFEASIBLE":
            bound = max(bound, capacity // unit + 1)
    return Allocation(
        lifetimes=lifetimes,
        offsets=_offsets(outcome, taking_part, len(lifetimes), unit),
        capacity=capacity,
        alignment=alignment,
        bound_bytes=bound * unit,
        status=status,
        method=outcome.method,
        nodes=outcome.nodes,
        seconds=perf_counter() - began,
    )


def place_rectangles(
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    size: NDArray[np.int64],
    capacity: int,
    *,
    deadline_s: float,
    seed: int = 0,
) -> tuple[NDArray[np.int64] | None, bool]:
    """Offsets of rectangles, for those who place thousands of small sets: no checks, one thread.

    Parameters
    ----------
    start, end, size : (n,)
        Live in ``[start, end)``; sizes of 0 get offset 0.
    deadline_s
        On the clock of `time.perf_counter`; greedy attempts are made even if it has passed.

    Returns
    -------
    offsets : (n,) or None
    is_decided
        False if time was over: None then proves nothing.
    """
    taking_part = np.flatnonzero(size)
    outcome = place_units(
        start[taking_part],
        end[taking_part],
        size[taking_part],
        capacity,
        deadline_s=deadline_s,
        seed=seed,
        workers=1,
    )
    if outcome.offset is None:
        return None, outcome.status == "INFEASIBLE"
    offsets = np.zeros(size.size, np.int64)
    offsets[taking_part] = outcome.offset
    return offsets, True


def _checked(lifetimes: Any) -> tuple[Lifetime, ...]:
    """`lifetimes` as a tuple, with a name each."""
    what = "lifetimes must be a sequence of Lifetime or a table"
    try:
        found = tuple(lifetimes)
    except TypeError:
        raise TypeError(f"{what}, got {lifetimes!r:.80}") from None
    seen: set[str] = set()
    for lifetime in found:
        if not isinstance(lifetime, Lifetime):
            raise TypeError(f"{what}, got {lifetime!r:.80} in it")
        if lifetime.name in seen:
            raise ValueError(f"names must be distinct, got {lifetime.name!r} twice")
        seen.add(lifetime.name)
    return found


def _up(size_bytes: int, alignment: int) -> int:
    return -(-size_bytes // alignment) * alignment


def _offsets(outcome: Outcome, taking_part: NDArray[np.intp], count: int, unit: int) -> tuple[int, ...]:
    if outcome.offset is None:
        return ()
    offsets = np.zeros(count, np.int64)
    offsets[taking_part] = outcome.offset * unit
    return tuple(offsets.tolist())


def _lifetimes_of(frame: pd.DataFrame) -> tuple[Lifetime, ...]:
    """Lifetimes of a table, named by their positions if it has no column ``id``."""
    given = [str(column) for column in frame.columns]
    if unknown := sorted({*given} - {"id", *_COLUMNS}):
        raise ValueError(f"columns must be lower, upper, size and maybe id, got also {', '.join(unknown)}")
    if missing := [column for column in _COLUMNS if column not in given]:
        raise ValueError(f"columns must be lower, upper, size and maybe id, missing {', '.join(missing)}")
    for column in _COLUMNS:
        if len(frame) and not pd.api.types.is_integer_dtype(frame[column].dtype):
            raise ValueError(f"column {column} must hold integers, got {frame[column].dtype}")
    names = frame["id"].astype(str) if "id" in given else map(str, range(len(frame)))
    rows = zip(names, *(frame[column].tolist() for column in _COLUMNS), strict=True)
    return tuple(Lifetime(name=name, start=lower, end=upper, bytes=size) for name, lower, upper, size in rows)
