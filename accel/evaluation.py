"""Energy, cycles and area of a workload on a design.

Two decisions make up a mapping. Within an operator, a tiling says how its product runs through the
memories (``accel.mapping``). Between operators, whole tensors stay in the scratchpad where that saves
most (``accel.schedule.streamed``): part of the scratchpad is a tile reserve that all operators share,
the rest holds tensors. The reserve is chosen among sizes that do not depend on the scratchpad, so
that a larger one never moves more.

Or a schedule of ``accel.schedule`` is given, whose operators find all their tensors in the
scratchpad: then off-chip traffic is exactly the schedule's, and tilings only spare the memories.

Latency of an operator: arithmetic, the scratchpad's ports (one word per bank and cycle) and the
accumulator buffer's (one sum in and one out per column and cycle) overlap perfectly; off-chip
transfers overlap with them as the design's ``overlap`` says, but for the first tiles' load and the
last one's drain. Operators do not overlap with one another.

Energy: see ``accel.cost.COMPONENTS``. Dynamic logic and memory energy is at 0.9 V, or at the SRAM
table's own voltage; leakage is that of the two memories over the run time.

Not modelled: DRAM pages and refresh, bank conflicts, network-on-chip contention, compression,
sparsity, a control processor, leakage of logic, voltage and temperature. Formats are converted
between tensor, array and vector unit free of charge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from accel._runs import Tilings, run_schedule, run_streamed
from accel._units import area_um2, estimates_of, replaced_in, timing_of, units_of
from accel.cost import COMPONENTS, Cost, OperatorCost, Violation, exactly
from accel.design import Design
from accel.mapping.search import OBJECTIVES, Objective
from accel.mapping.tiling import Tiling
from accel.operator_cost import Work, work_of
from accel.schedule import Schedule
from accel.workload import Workload

if TYPE_CHECKING:
    import pandas as pd


_GREEDY = (
    "which tensors stay in the scratchpad is a greedy choice: the graph is too wide for the best at once"
)

_STREAMED_WEIGHTS = (
    "weights pass by the scratchpad, once each, through a buffer that is not in the area; "
    "schedule(..., weights='tracked') gives them room"
)


def evaluate(
    design: Design,
    workload: Workload,
    mapping: Tilings | None = None,
    *,
    schedule: Schedule | None = None,
    objective: Objective = "balanced",
) -> Cost:
    """Cost of `workload` on `design`, with the best mapping or with yours.

    Tensors are stored in the formats that the workload gives them
    (``workload.with_formats(design.operand)`` stores all in the array's).

    Parameters
    ----------
    mapping
        Tilings by operator name; operators that it does not name get the best.
    schedule
        In atomic mode, see ``accel.schedule``: order and off-chip transfers. Weights that it streams
        pass through a buffer of their own, once. Without a schedule operators run in file order and what
        does not stay in the scratchpad is streamed.
    objective
        What the mapping is best in. ``"balanced"``: least off-chip traffic among tilings that keep the
        array busy (at most 1.5 times its fewest cycles). ``"offchip"``: least traffic, however slow.
        With both a larger scratchpad never moves more, and more bandwidth is never slower (unless
        ``estimates`` say that what stays was chosen greedily, as in wide training graphs).
        ``"energy"``, ``"cycles"``, ``"edp"`` (their product): least of that.

    Returns
    -------
    Cost
        Of an infeasible design with the violated constraints, and by how much, in place of a run.

    Raises
    ------
    TypeError
        An argument is of the wrong kind.
    ValueError
        The schedule is of another workload or mode, or needs a larger scratchpad; or the mapping names an
        operator that has no product, or a tile larger than its product.

    Examples
    --------
    >>> from accel import Gemm, Operator, Role, Tensor
    >>> tensors = {
    ...     name: Tensor(name=name, shape=shape, role=role)
    ...     for name, shape, role in (
    ...         ("x", (256, 96), Role.INPUT),
    ...         ("w", (96, 128), Role.WEIGHT),
    ...         ("y", (256, 128), Role.ACTIVATION),
    ...     )
    ... }
    >>> fc = Operator(
    ...     name="fc", kind="linear", inputs=("x", "w"), outputs=("y",), gemm=Gemm(m=256, n=128, k=96)
    ... )
    >>> layer = Workload(
    ...     name="layer", operators=(fc,), tensors=tensors, inputs=("x", "w"), outputs=("y",)
    ... ).with_formats("e4m3")
    >>> chip = Design(
    ...     rows=16, columns=16, dataflow="ws", operand="e4m3", accumulator="e6m9",
    ...     scratchpad_bytes=65536, accumulator_bytes=16384, offchip="LPDDR4",
    ...     offchip_bytes_per_cycle=16, clock_mhz=250,
    ... )
    >>> cost = evaluate(chip, layer)
    >>> cost.offchip_bytes == 256 * 96 + 96 * 128 + 256 * 128, str(cost.operators[0].tiling)
    (True, 'm=1x256x1 n=128 k=96 order=mnk')
    """
    for name, value, kind in (
        ("design", design, Design),
        ("workload", workload, Workload),
        ("mapping", {} if mapping is None else mapping, Mapping),
        *(
            (f"mapping[{key!r}]", tiling, Tiling)
            for key, tiling in (mapping.items() if isinstance(mapping, Mapping) else ())
        ),
        *((("schedule", schedule, Schedule),) if schedule is not None else ()),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be a {kind.__name__}, got {value!r:.80}")
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}; got {objective!r}")
    work, units = work_of(workload), units_of(design)
    given = _check_mapping(work, mapping or {})
    if schedule is not None:
        _check_schedule(design, workload, schedule)
        operators = run_schedule(work, units, schedule, given, objective)
        violations: tuple[Violation, ...] = ()
        is_optimal = True
    else:
        operators, violations, is_optimal = run_streamed(work, units, given, objective)
    return Cost(
        run=_rounded(operators),
        area_um2=area_um2(design),
        cells=design.rows * design.columns,
        clock_mhz=design.clock_mhz,
        offchip_bytes_per_cycle=design.offchip_bytes_per_cycle,
        violations=violations,
        timing=timing_of(design),
        estimates=(
            *estimates_of(design),
            *(() if is_optimal else (_GREEDY,)),
            *_wide_tensors(design, work),
            *((_STREAMED_WEIGHTS,) if schedule is not None and schedule.weights == "streamed" else ()),
        ),
        replaced=replaced_in(design),
    )


def evaluate_many(
    designs: pd.DataFrame,
    workload: Workload,
    *,
    base: Design | Mapping[str, Any] | None = None,
    objective: Objective = "balanced",
) -> pd.DataFrame:
    """Costs of many designs on one workload; sub-results that designs share are computed once.

    Parameters
    ----------
    designs
        One row per design; columns are keys of :class:`accel.Design`.
    base
        What all designs share: a design, or settings; columns of `designs` take precedence.

    Returns
    -------
    DataFrame
        Same index. ``feasible`` and ``violation`` (empty text if feasible: the constraint and by how
        much, or why there is no such design); then ``energy_pj``, ``cycles``, ``seconds``,
        ``area_um2``, ``offchip_bytes``, ``utilization``, and the energy of each component as
        ``mac_pj``, ...; missing where infeasible. One bad design does not stop the others.

    Raises
    ------
    ValueError
        A column is no key of a design.
    """
    import pandas as pd

    if not isinstance(designs, pd.DataFrame):
        raise TypeError(f"designs must be a DataFrame with a row per design, got {type(designs).__name__}")
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}; got {objective!r}")
    work_of(workload)  # a workload that cannot be evaluated is no fault of a design
    if base is not None and not isinstance(base, Design | Mapping):
        raise TypeError(f"base must be a Design or its settings, got {base!r:.80}")
    shared = base.settings() if isinstance(base, Design) else dict(base or {})
    known = Design.keys()
    if unknown := [column for column in (*designs.columns, *shared) if column not in known]:
        raise ValueError(f"design has no key {unknown[0]!r}; keys are {', '.join(known)}")
    if not designs.columns.is_unique:
        twice = designs.columns[designs.columns.duplicated()][0]
        raise ValueError(f"designs must have each column once, got {twice!r} twice")
    rows = []
    for settings in designs.to_dict("records"):
        own = {str(key): _plain(value) for key, value in settings.items() if not _is_missing(value)}
        rows.append(_row({**shared, **own}, workload, objective))
    columns = {
        "feasible": "bool", "violation": "object", "energy_pj": "float64", "cycles": "Int64",
        "seconds": "float64", "area_um2": "float64", "offchip_bytes": "Int64", "utilization": "float64",
        **{f"{part}_pj": "float64" for part in COMPONENTS},
    }  # fmt: skip
    return pd.DataFrame(rows, index=designs.index, columns=list(columns)).astype(columns)


def _row(settings: Mapping[str, Any], workload: Workload, objective: Objective) -> dict[str, Any]:
    try:
        cost = evaluate(Design.from_mapping(settings), workload, objective=objective)
    except (ValueError, TypeError, OverflowError) as error:
        return {"feasible": False, "violation": str(error)}
    row: dict[str, Any] = {
        "feasible": cost.feasible,
        "violation": "; ".join(map(str, cost.violations)),
        "area_um2": cost.total_area_um2,
    }
    if cost.feasible:
        row |= {
            "energy_pj": cost.total_energy_pj,
            "cycles": cost.cycles,
            "seconds": cost.seconds,
            "offchip_bytes": cost.offchip_bytes,
            "utilization": cost.utilization,
            **{f"{part}_pj": energy for part, energy in cost.energy_pj.items()},
        }
    return row


def _is_missing(value: Any) -> bool:
    import pandas as pd

    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))


def _plain(value: object) -> object:
    """Value as a design takes it; a column with missing entries holds its whole numbers as floats."""
    if isinstance(value, np.generic):
        value = value.item()
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _wide_tensors(design: Design, work: Work) -> tuple[str, ...]:
    """Warn of operands that are stored wider than the array takes them: mostly by oversight."""
    takes, stored = max(design.mac.a_bits, design.mac.w_bits), work.stored_bits
    if not (wide := {name: bits for name, bits in stored.items() if bits > takes}):
        return ()
    name = next(iter(wide))
    note = (
        f"{len(wide)} of {len(stored)} operands are stored wider than the array's {takes:g} bits, such as "
        f"{name} in {work.workload.tensors[name].format}; "
        f"with_formats({str(design.operand)!r}) stores them so"
    )
    return (note,)


def _check_mapping(work: Work, mapping: Tilings) -> Tilings:
    layers = dict(zip((operator.name for operator in work.workload.operators), work.layers, strict=True))
    for name in mapping:
        if layers.get(name) is None:
            known = ", ".join(operator.name for operator in work.workload.gemms())
            raise ValueError(
                f"mapping names {name!r}, which is no operator with a product; those are {known}"
            )
    return mapping


def _check_schedule(design: Design, workload: Workload, schedule: Schedule) -> None:
    if schedule.workload is not workload and schedule.workload != workload:
        raise ValueError(
            f"the schedule is of workload {schedule.workload.name}, or of other formats or sizes, "
            f"not of the {workload.name} given"
        )
    if schedule.mode != "atomic":
        raise ValueError(
            f"the schedule must be of mode 'atomic', got {schedule.mode!r}; without a schedule operators are "
            "streamed by their own tilings"
        )
    if schedule.scratchpad_bytes > design.scratchpad_bytes and schedule.peak_bytes > design.scratchpad_bytes:
        raise ValueError(
            f"the schedule needs {schedule.peak_bytes} bytes of scratchpad, "
            f"the design has {design.scratchpad_bytes}"
        )


def _rounded(run: Sequence[OperatorCost]) -> tuple[OperatorCost, ...]:
    """Operators whose energies add up exactly, in whatever order."""
    leaves = iter(exactly([pj for operator in run for pj in operator.energy_pj.values()]))
    return tuple(
        replace(operator, energy_pj={part: next(leaves) for part in operator.energy_pj}) for operator in run
    )
