"""Options of a schedule that need no graph, and the plan that it is to be no worse than."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from accel._given import whole
from accel.schedule._options import one_of, random_seed, seconds
from accel.schedule.plan import Mode, Schedule
from accel.schedule.working_set import Order


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of :func:`accel.schedule.schedule` that need no graph, as plain values; see there."""

    mode: Mode
    order: Order
    time_limit_s: float
    seed: int
    alignment: int
    tile_reserve_bytes: int


def read_options(
    *, mode: Any, order: Any, time_limit_s: Any, seed: Any, alignment: Any, tile_reserve_bytes: Any
) -> Options:
    """Check the options of :func:`accel.schedule.schedule` that need no graph.

    Parameters
    ----------
    order
        ``None`` for the one of the mode.

    Raises
    ------
    TypeError, ValueError
        One of them is of the wrong kind, or out of range.
    """
    one_of("mode", mode, get_args(Mode))
    if order is None:
        order = default_order(mode)
    one_of("order", order, get_args(Order))
    reserve = whole("tile_reserve_bytes", tile_reserve_bytes, least=0)
    if reserve and mode != "streamed":
        raise ValueError(f"tile_reserve_bytes is for mode 'streamed', got {reserve} in {mode!r}")
    return Options(
        mode=mode,
        order=order,
        time_limit_s=seconds(time_limit_s),
        seed=random_seed(seed),
        alignment=whole("alignment", alignment),
        tile_reserve_bytes=reserve,
    )


def default_order(mode: Mode) -> Order:
    """Order of the operators where none is asked for."""
    return "free" if mode == "atomic" else "given"


def check_known(known: Any, mode: Mode, scratchpad_bytes: int, options: Mapping[str, Any]) -> None:
    """Check the schedule that another one is to be no worse than.

    Parameters
    ----------
    options
        What it must have in common with that one, by attribute.

    Raises
    ------
    TypeError, ValueError
        It is no schedule, of no use in this mode, on a larger scratchpad, or with other options.
    """
    if not isinstance(known, Schedule):
        raise TypeError(f"known must be a Schedule, got {known!r:.80}")
    if mode != "streamed":
        raise ValueError(f"known is for mode 'streamed', got a schedule in {mode!r}")
    if known.scratchpad_bytes > scratchpad_bytes:
        raise ValueError(
            f"known must be a schedule on at most {scratchpad_bytes} bytes, got one on "
            f"{known.scratchpad_bytes}"
        )
    for name, value in options.items():
        if (other := getattr(known, name)) != value:
            raise ValueError(f"known must have {name}={value!r:.80}, got a schedule with {other!r:.80}")
