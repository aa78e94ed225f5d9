"""From a network to schedules and baselines: what ``bitfront schedule`` computes before it shows anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from accel.schedule import Schedule, WorkingSetError, peak_minimum, sweep
from accel.schedule._scheduling_options import default_order, read_options
from accel.schedule._weights import Weights, plan_weights
from accel.schedule.backends import resolve
from accel.schedule.baselines import baselines, layer_by_layer
from accel.schedule.plan import Mode
from accel.schedule.replacement import replacement_minimum
from accel.schedule.working_set import Order, WorkingSet, largest_working_set
from accel.workload import Workload
from studies.model import OWN, Model, open_model, parse_stored, read_formats

#: The baseline whose traffic is split into what order, replacement and placement would save.
REFERENCE = {"order": "default", "replacement": "lru", "allocation": "online"}

LAYER_BY_LAYER = "layer by layer"  # the baseline without reuse


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked.

    Attributes
    ----------
    scratchpad_bytes
        The size that is looked at closely; ``None`` for the first of the sweep that works.
    sweep
        Sizes of which the traffic is computed as well, ascending.
    weights
        What becomes of parameters; by default streamed, and tracked in a training step.
    format, formats
        Of stored tensors: one text for all, a TOML file of exceptions.
    """

    model: Model
    scratchpad_bytes: int | None
    sweep: tuple[int, ...] = ()
    mode: Mode = "atomic"
    order: Order | None = None
    weights: Weights | None = None
    backend: str = "search"
    time_limit_s: float = 60.0
    seed: int = 0
    alignment: int = 1
    tile_reserve_bytes: int = 0
    format: str | None = None
    formats: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Saving:
    """What the optimum saves of the bytes of `REFERENCE`, and by what.

    Attributes
    ----------
    reference_bytes
        Non-compulsory bytes of least-recently-used replacement in file order with online placement.
    fragmentation_bytes
        What of them its placement costs: evictions and relocations for want of one large hole.
    replacement_bytes
        What keeping the best tensors saves besides, in file order.
    order_bytes
        What a better order saves besides, less what the plan's own placement costs it.
    """

    reference_bytes: int
    fragmentation_bytes: int
    replacement_bytes: int
    order_bytes: int

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.fragmentation_bytes + self.replacement_bytes + self.order_bytes


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Schedules of one network.

    Attributes
    ----------
    working_set_bytes, working_set_operator
        M_R, and the operator that needs it.
    peak_bytes
        M_P: from here on nothing has to leave.
    plan
        At the size that is looked at closely.
    baselines
        At that size; ``None`` in streamed mode.
    saving
        ``None`` in streamed mode, and where operators in place have no room in file order.
    sweep
        Plans by ascending size, `plan` among them where its size is in the sweep.
    sweep_baselines
        Non-compulsory bytes by size and name of baseline; in streamed mode of layer by layer alone.
    too_small
        Sizes of the sweep below M_R.
    """

    request: Request
    workload: Workload
    working_set_bytes: int
    working_set_operator: str
    peak_bytes: int
    plan: Schedule
    baselines: pd.DataFrame | None
    saving: Saving | None
    sweep: tuple[Schedule, ...]
    sweep_baselines: Mapping[int, Mapping[str, int]]
    too_small: tuple[int, ...]

    @property
    def order(self) -> Order:
        """Whether operators were free to change places."""
        return self.request.order or default_order(self.request.mode)

    @property
    def network(self) -> str:
        """Name of the network, whatever the pass."""
        return self.workload.name.removesuffix(" training")


#: Called with what is being done, and how much of how much is done.
Watcher = Callable[[str, int, int], None]


def answer(request: Request, *, watcher: Watcher | None = None) -> Answer:
    """Read the network, schedule it at every size, run the baselines.

    Raises
    ------
    ValueError, OSError
        Something cannot be read, does not fit, or is out of range; the message is one line.
    """
    watcher = watcher or _no_one
    resolve(request.backend)  # a missing one is told before the network is read
    read_options(**_options(request), alignment=request.alignment)
    watcher("reading the network", 0, 0)
    workload = _stored(request, open_model(request.model))
    weights: Weights = request.weights or ("tracked" if request.model.training else "streamed")
    alignment = request.alignment
    taking_part = plan_weights(workload, weights, alignment=alignment)
    least = largest_working_set(workload, taking_part, order=request.order or default_order("atomic"))
    sizes = _sizes(request, least)
    options = {"weights": weights, "backend": request.backend, "alignment": alignment} | _options(request)
    watcher("minimal peak", 0, 0)
    peak = peak_minimum(workload, weights=weights, alignment=alignment, time_limit_s=request.time_limit_s)
    rows: dict[int, dict[str, int]] = {}
    tables: dict[int, pd.DataFrame] = {}
    done: list[Schedule] = []

    def on_plan(plan: Schedule) -> None:
        size = plan.scratchpad_bytes
        if request.mode == "streamed":
            rows[size] = {LAYER_BY_LAYER: by_layer.noncompulsory_bytes}
        else:
            tables[size] = baselines(workload, size, weights=weights, alignment=alignment)
            rows[size] = {label(row): int(row["noncompulsory_bytes"]) for row in _records(tables[size])}
        done.append(plan)
        watcher("scheduling", len(done), len(sizes))

    by_layer = layer_by_layer(workload, weights=weights, alignment=alignment)
    watcher("scheduling", 0, len(sizes))
    plans = {plan.scratchpad_bytes: plan for plan in sweep(workload, sizes, on_plan=on_plan, **options)}
    size = request.scratchpad_bytes or sizes[0]
    plan = plans[size]
    saving = None
    if size in tables and not _chosen(tables[size], REFERENCE).empty:
        in_order = replacement_minimum(
            workload, size, weights=weights, alignment=alignment, time_limit_s=request.time_limit_s
        )
        saving = _saving(plan, tables[size], in_order)
    return Answer(
        request=request,
        workload=workload,
        working_set_bytes=least.bytes,
        working_set_operator=least.operator,
        peak_bytes=peak,
        plan=plan,
        baselines=tables.get(size),
        saving=saving,
        sweep=tuple(plans[size] for size in request.sweep if size in plans),
        sweep_baselines=rows,
        too_small=tuple(size for size in request.sweep if size not in plans),
    )


def label(row: Mapping[str, Any]) -> str:
    """Short name of a baseline: order, replacement and allocation."""
    if row["replacement"] == "layer-by-layer":
        return LAYER_BY_LAYER
    return " ".join(str(row[key]) for key in REFERENCE)


def _records(table: pd.DataFrame) -> list[dict[Any, Any]]:
    return table.to_dict("records")


def _options(request: Request) -> dict[str, Any]:
    """Options of the schedules that need no graph."""
    return {
        "mode": request.mode,
        "order": request.order,
        "time_limit_s": request.time_limit_s,
        "seed": request.seed,
        "tile_reserve_bytes": request.tile_reserve_bytes,
    }


def _stored(request: Request, workload: Workload) -> Workload:
    """The network with the formats that are asked for; its own by default."""
    overrides = read_formats(request.formats) if request.formats else None
    stored = parse_stored(request.format)
    if stored is not None and stored != OWN:
        workload = workload.with_formats(stored)
    try:
        return workload.with_formats(overrides) if overrides else workload
    except ValueError as error:
        raise ValueError(f"{request.formats}: {error}") from None


def _sizes(request: Request, working_set: WorkingSet) -> list[int]:
    """Sizes that have a schedule, ascending.

    Raises
    ------
    ValueError
        No size is asked for, or the one that is looked at closely, or all, are too small.
    """
    asked = sorted({*request.sweep, *([request.scratchpad_bytes] if request.scratchpad_bytes else [])})
    if not asked:
        raise ValueError("--scratchpad or --sweep must give a size, got neither")
    least = working_set.bytes if request.mode == "atomic" else request.tile_reserve_bytes
    found = [size for size in asked if size >= max(least, request.alignment)]
    wanted = request.scratchpad_bytes or asked[-1]
    if wanted in found:
        return found
    if request.mode == "streamed" or wanted < request.alignment:
        is_tiny = request.mode == "atomic" or least < request.alignment
        floor, what = (request.alignment, "alignment") if is_tiny else (least, "tile reserve")
        raise ValueError(f"a scratchpad must have at least {floor} bytes, the {what}, got {wanted}")
    raise WorkingSetError(
        f"a scratchpad of {wanted} bytes is too small: operator {working_set.operator} alone needs "
        f"{working_set.bytes} bytes, the working-set minimum M_R; --mode streamed has no such limit"
    )


def _saving(plan: Schedule, table: pd.DataFrame, in_order_bytes: int) -> Saving:
    """Split what `plan` saves of the reference into fragmentation, replacement and order."""
    reference = _noncompulsory(table, **REFERENCE)
    address_free = _noncompulsory(table, **(REFERENCE | {"allocation": "none"}))
    return Saving(
        reference_bytes=reference,
        fragmentation_bytes=reference - address_free,
        replacement_bytes=address_free - in_order_bytes,
        order_bytes=in_order_bytes - plan.noncompulsory_bytes,
    )


def _noncompulsory(table: pd.DataFrame, **keys: str) -> int:
    """Non-compulsory bytes of one baseline."""
    return int(_chosen(table, keys)["noncompulsory_bytes"].iloc[0])


def _chosen(table: pd.DataFrame, keys: Mapping[str, str]) -> pd.DataFrame:
    """Rows of `table` with these values."""
    chosen = table
    for key, value in keys.items():
        chosen = chosen[chosen[key] == value]
    return chosen


def _no_one(stage: str, done: int, total: int) -> None:
    """Watch nothing."""
