"""A design, and a network with the formats in which it stores the tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from accel.design import Design
from accel.workload import ElementFormat, Role, Tensor, Workload
from studies.model import OWN, Stored


def open_design(path: Path) -> Design:
    """Read a design; see ``Design.from_file`` for errors."""
    return Design.from_file(path)


def store(
    workload: Workload, design: Design, stored: Stored = None, overrides: Mapping[str, str] | None = None
) -> Workload:
    """Give tensors the formats in which they are stored.

    Parameters
    ----------
    stored
        One format for all; `OWN` leaves those of `workload`. By default weights are stored in the
        design's ``weight`` and all others in its ``operand``: what the array reads without conversion.
    overrides
        Formats by role, name or pattern in place of those, see ``Workload.with_formats``.
    """

    def of_the_array(tensor: Tensor) -> ElementFormat | None:
        if tensor.role.holds_integers:
            return None
        return design.weight if tensor.role is Role.WEIGHT else design.operand

    if stored != OWN:
        workload = workload.with_formats(of_the_array if stored is None else stored)
    return workload.with_formats(overrides) if overrides else workload
