"""From files and names to costs: what ``bitfront cost`` computes before it shows anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from accel.cost import Cost, Violation
from accel.design import Design
from accel.evaluation import evaluate
from accel.mapping.search import Objective
from accel.workload import Workload
from studies.cost.sensitivity import sensitivity
from studies.cost.source import open_design, store
from studies.model import OWN, Model, Stored, open_model, parse_stored, read_formats

#: What the model leaves out, shown with every result.
NOT_MODELLED = (
    "pages, refresh and standby power of the off-chip memory, whose bandwidth is taken as sustained",
    "bank conflicts, contention on wires, a control processor, and the time between two operators",
    "compression and sparsity; leakage of logic; variations of voltage and temperature",
    "conversions between the formats of tensors, array and vector unit, which are free",
)

_PRODUCT_KINDS = ("linear", "conv", "matmul", "gemm")  # how kinds of operators with a product begin


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked.

    Attributes
    ----------
    designs
        TOML files; the first is what others are compared with.
    format
        Of all stored tensors, ``own``, or nothing: as the operands of each design.
    formats
        TOML file of exceptions, see `studies.model.read_formats`.
    sensitivity
        Whether each parameter of the first design is varied.
    """

    designs: tuple[Path, ...]
    model: Model
    format: str | None = None
    formats: Path | None = None
    objective: Objective = "balanced"
    sensitivity: bool = True


@dataclass(frozen=True, kw_only=True)
class Priced:
    """A design, the workload in the formats that it stores, and the cost."""

    name: str
    path: Path
    design: Design
    workload: Workload
    cost: Cost


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Costs of one network on one or more designs.

    Attributes
    ----------
    model
        As it was asked for; `workload` is the graph with the formats of its source.
    stored
        How tensors are stored, in words.
    sensitivity
        Table of `studies.cost.sensitivity.sensitivity`, if it was asked for.
    """

    model: Model
    workload: Workload
    stored: str
    objective: Objective
    designs: tuple[Priced, ...]
    sensitivity: pd.DataFrame | None = None

    @property
    def first(self) -> Priced:
        """The design that others are compared with."""
        return self.designs[0]

    @property
    def network(self) -> str:
        """Name of the network, whatever the pass."""
        return self.workload.name.removesuffix(" training") if self.model.training else self.workload.name

    @property
    def infeasible(self) -> tuple[str, ...]:
        """One line per constraint that a design breaks."""
        return tuple(
            f"{priced.path}: {line}" for priced in self.designs for line in broken(priced.cost.violations)
        )


def answer(request: Request) -> Answer:
    """Read designs and network, find the best mappings, vary the first design.

    Raises
    ------
    ValueError, OSError
        Something cannot be read or does not fit; the message is one line.
    """
    designs = [open_design(path) for path in request.designs]  # cheap, and so before the network
    stored = parse_stored(request.format)
    overrides = read_formats(request.formats) if request.formats else None
    workload = open_model(request.model)
    try:
        priced = tuple(
            _price(name, path, design, store(workload, design, stored, overrides), request.objective)
            for name, path, design in zip(_names(request.designs), request.designs, designs, strict=True)
        )
    except ValueError as error:
        if request.formats and "a format is given by" in str(error):
            raise ValueError(f"{request.formats}: {error}") from None
        raise
    first = priced[0]
    table = None
    if request.sensitivity and first.cost.feasible:
        table = sensitivity(
            first.design,
            lambda design: store(workload, design, stored, overrides),
            objective=request.objective,
            cost=first.cost,
        )
    return Answer(
        model=request.model,
        workload=workload,
        stored=_words(stored, overrides),
        objective=request.objective,
        designs=priced,
        sensitivity=table,
    )


def _price(name: str, path: Path, design: Design, workload: Workload, objective: Objective) -> Priced:
    cost = evaluate(design, workload, objective=objective)
    return Priced(name=name, path=path, design=design, workload=workload, cost=cost)


def _names(paths: tuple[Path, ...]) -> list[str]:
    """File names without suffix, with as many folders before them as tell them apart.

    Examples
    --------
    >>> _names((Path("chip.toml"), Path("old/a.toml"), Path("new/a.toml")))
    ['chip', 'old/a', 'new/a']
    """
    parts = [path.resolve().with_suffix("").parts for path in paths]

    def name(own: tuple[str, ...]) -> str:
        for length in range(1, len(own)):
            if sum(other[-length:] == own[-length:] for other in parts) == 1:
                return "/".join(own[-length:])
        return own[-1]  # one file, named twice

    return [name(own) for own in parts]


def _words(stored: Stored, overrides: Mapping[str, str] | None) -> str:
    if stored is None:
        text = "as the array's operands"
    elif stored == OWN:
        text = "as the model's file says"
    else:
        text = f"as {stored}"
    exceptions = ", ".join(f"{key} as {value}" for key, value in (overrides or {}).items())
    return f"{text}, {exceptions}" if exceptions else text


def notes(workload: Workload) -> list[str]:
    """What the graph leaves open, so that a zero is no surprise."""
    lost = [
        operator.name
        for operator in workload.operators
        if operator.gemm is None and not operator.vector_ops and operator.kind.startswith(_PRODUCT_KINDS)
    ]
    if not lost:
        return []
    others = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
    return [f"{lost[0]}{others}: the graph does not give the matrix product, so that bytes alone are counted"]


def broken(violations: tuple[Violation, ...]) -> list[str]:
    """One line per constraint, with the operator that is furthest from it.

    Examples
    --------
    >>> needs = [
    ...     Violation(constraint="scratchpad_bytes", needed=n, available=64, unit="bytes", where=name)
    ...     for name, n in (("conv1", 96), ("fc", 128))
    ... ]
    >>> broken(tuple(needs))
    ['fc needs 128 bytes, scratchpad_bytes gives 64: 64 bytes short; 1 more operator does not fit either']
    """
    lines = []
    for constraint in dict.fromkeys(violation.constraint for violation in violations):
        found = [violation for violation in violations if violation.constraint == constraint]
        line = str(max(found, key=lambda violation: violation.short))
        if others := len(found) - 1:
            line += f"; {others} more operator{'s do' if others > 1 else ' does'} not fit either"
        lines.append(line)
    return lines
