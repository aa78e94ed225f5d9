"""Exact placement of residency runs: rectangles of fixed time and free address, by CP-SAT."""

from __future__ import annotations

from ortools.sat.python import cp_model

from accel.schedule._cpsat import new_solver
from accel.schedule._placement import Placed
from accel.schedule._residency import Residency


def pack(residency: Residency, *, deadline_s: float, seed: int) -> Placed | None:
    """Addresses for all blocks, or ``None`` where none exist or none were found by the deadline."""
    size, capacity = residency.instance.size, residency.instance.capacity
    model = cp_model.CpModel()
    addresses, steps, rows = [], [], []
    for block in residency.blocks:
        height = size[block.tensor]
        addresses.append(model.new_int_var(0, capacity - height, ""))
        rows.append(model.new_fixed_size_interval_var(addresses[-1], height, ""))
        steps.append(model.new_fixed_size_interval_var(block.start, block.end - block.start + 1, ""))
    model.add_no_overlap_2d(steps, rows)
    model.add_cumulative(steps, [size[block.tensor] for block in residency.blocks], capacity)
    solver = new_solver(deadline_s=deadline_s, seed=seed)
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    return Placed(residency, tuple(solver.value(address) for address in addresses))
