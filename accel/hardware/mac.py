"""Area, energy and delay of one multiply-accumulate cell, from its formats.

A cell is written ``e4m3 x e4m3 + e6m9 chunk=64``: two operand formats, and how products are summed. What
the operands and the accumulator are decides which law is used (see ``accel/data/mac.toml``):

==================== ============================ ==============================================
operands             accumulator                  law
==================== ============================ ==============================================
any, blocks included float, chunks, lanes, outer  float cell: `accel.hardware._mac_float`
floats, or a float   integer or ``exact``         fixed-point cell: `accel.hardware._mac_integer`
and an integer
integers             integer or ``exact``         integer cell: `accel.hardware._mac_integer`
floats, or blocks    fused adder                  `accel.hardware.adder_tree`, per product
==================== ============================ ==============================================

The laws were fitted to synthesised cells. Energy is at 0.9 V, scaled from the cell library's 1.1 V by the
voltage squared and by the calibration ``kappa = 0.52``. Absolute areas are of bare cells at minimum area:
wiring, pipelining and a timing target cost several times as much, so compare cells rather than quote square
millimetres.

Not modelled: glitches, operand statistics (random bits are assumed), the delay of wires, specials (NaN and
infinities), the clamp of a saturating integer register.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations, pairwise
from math import log
from typing import NamedTuple, overload

from accel.hardware._mac_float import float_cell
from accel.hardware._mac_integer import integer_cell
from accel.hardware._mac_laws import MacLaws, mac_laws
from accel.hardware._mac_operand import Operand, exact_bits
from accel.hardware._mac_parts import Cell, MacParts, Stage
from accel.hardware.adder_tree import fused_cell
from accel.hardware.library import DEFAULT, Library
from accel.hardware.register import RegisterCost, register_cost
from accel.hardware.technology import BASE_NODE_NM, logic_scale
from numerics.accumulate import AnyAccumulator, parse_accumulator
from numerics.accumulator import Accumulator
from numerics.block import BlockFormat, parse_any_format
from numerics.formats import Format
from numerics.fused import FusedAdder
from numerics.integer import IntegerAccumulator
from numerics.kulisch import ExactAccumulator

__all__ = [
    "CELLS_PER_GENERATOR",
    "EXACT_TERMS",
    "Mac",
    "MacCost",
    "MacParts",
    "RegisterCost",
    "Stage",
    "mac_area_scale",
    "mac_cost",
    "register_cost",
]

EXACT_TERMS = 1024  #: products of a sum for which an ``exact`` accumulator is made wide enough
CELLS_PER_GENERATOR = 16  #: cells, such as a row of the array, that share one generator of random bits


@dataclass(frozen=True, slots=True, kw_only=True)
class MacCost:
    """One multiply-accumulate.

    Attributes
    ----------
    area_parts_um2, energy_parts_pj
        Split by part, whose sums are `area_um2` (accumulator registers included) and `energy_pj` (per
        multiply-accumulate, at 0.9 V).
    delay_ns
        Longest path: of the single-cycle accumulate loop, or of a stage.
    stages
        Steps of the single-cycle path, in order.
    estimates
        What rests on no synthesised cell, a sentence each.
    per
        What the cost is of: a cell, or a product of a unit that adds several at once.
    pipeline_register
        One flip-flop bit by the same laws.
    replaced
        Tables that a user put in place of ours.
    """

    area_parts_um2: MacParts
    energy_parts_pj: MacParts
    delay_ns: float
    stages: tuple[Stage, ...]
    estimates: tuple[str, ...]
    per: str
    pipeline_register: RegisterCost
    replaced: tuple[str, ...] = ()

    def __str__(self) -> str:
        numbers = f"{self.area_um2:,.1f} um2, {self.energy_pj:.3g} pJ, {self.delay_ns:.3g} ns"
        return f"{numbers} (estimated)" if self.estimated else numbers

    @property
    def area_um2(self) -> float:
        """Area of the bare cell."""
        return self.area_parts_um2.total

    @property
    def energy_pj(self) -> float:
        """Energy of one multiply-accumulate, at 0.9 V."""
        return self.energy_parts_pj.total

    @property
    def estimated(self) -> bool:
        """Whether a part rests on no synthesised cell."""
        return bool(self.estimates)

    def pipelined(self, stages: int) -> MacCost:
        """The same cell with registers between so many groups of its steps; an estimate.

        The steps (multiplier, alignment, adder, normaliser) are grouped so that the longest group is as
        short as it can be, with the fewest register bits. Registers cost area and a clock each; set-up
        times, and the interleaved sums that a loop of several cycles needs, are left out.

        Raises
        ------
        ValueError
            Fewer stages than 1, or more than the cell has steps.

        Examples
        --------
        >>> cell = mac_cost("e4m3 x e4m3 + e6m9")
        >>> [round(cell.pipelined(n).delay_ns, 2) for n in (1, 2, 4)]
        [3.55, 2.04, 1.51]
        """
        steps = self.stages
        if not 1 <= stages <= len(steps):
            raise ValueError(f"stages must be in 1..{len(steps)} for this cell, got {stages}")
        if stages == 1:
            return self

        def quality(cuts: tuple[int, ...]) -> tuple[float, int]:
            groups = pairwise((0, *cuts, len(steps)))
            longest = max(sum(step.delay_ns for step in steps[i:j]) for i, j in groups)
            return longest, sum(steps[cut - 1].cut_bits for cut in cuts)

        delay_ns, bits = min(quality(cuts) for cuts in combinations(range(1, len(steps)), stages - 1))
        return replace(
            self,
            area_parts_um2=self.area_parts_um2 + MacParts(register=bits * self.pipeline_register.area_um2),
            energy_parts_pj=self.energy_parts_pj + MacParts(register=bits * self.pipeline_register.energy_pj),
            delay_ns=delay_ns,
            estimates=(*self.estimates, f"pipelined by {bits} register bits; no such cell was synthesised"),
        )


class Mac(NamedTuple):
    """Operands and accumulator of a cell, as text ``e4m3 x e4m3 + e6m9 chunk=64``.

    Examples
    --------
    >>> mac = Mac.parse("e4m3xe5m2+e6m9 chunk=64")
    >>> str(mac), mac.a_bits, mac.accumulator_bits
    ('e4m3fn x e5m2 + e6m9 chunk=64', 8.0, 16)
    >>> mac_cost(*mac) == mac_cost("e4m3", "e5m2", "e6m9 chunk=64") == mac_cost(str(mac))
    True
    """

    a: Format | BlockFormat
    w: Format | BlockFormat
    accumulator: AnyAccumulator

    @classmethod
    def parse(cls, text: str) -> Mac:
        """Read ``<format> x <format> + <accumulator>``, with the spaces or without, in either case.

        Raises
        ------
        ValueError
            The text has another shape, or a format or the accumulator is wrong.
        """
        written = " ".join(text.lower().split())
        operands, plus, accumulator = written.partition("+")
        pairs = list(_pairs(operands)) if plus else []
        for a, w in pairs:
            try:
                formats = parse_any_format(a), parse_any_format(w)
            except ValueError:
                if len(pairs) == 1:
                    raise
                continue
            return cls(*formats, parse_accumulator(accumulator.strip()))
        raise ValueError(f"a MAC is written '<format> x <format> + <accumulator>', got {text!r}")

    def __str__(self) -> str:
        return f"{self.a} x {self.w} + {self.accumulator}"

    @property
    def a_bits(self) -> float:
        """Bits of the first operand, with its share of a block's scale."""
        return _bits(self.a)

    @property
    def w_bits(self) -> float:
        """Bits of the second operand, with its share of a block's scale."""
        return _bits(self.w)

    @property
    def accumulator_bits(self) -> int:
        """Bits of a partial sum: those of the register, or of a fused adder's output.

        An ``exact`` accumulator holds every sum of `EXACT_TERMS` products.
        """
        return self.accumulator_bits_for(EXACT_TERMS)

    def accumulator_bits_for(self, terms: int) -> int:
        """`accumulator_bits` with sums of `terms` products, which matter to an ``exact`` one alone.

        Raises
        ------
        ValueError
            Fewer terms than 1, or an exact sum of a block format.
        """
        if isinstance(self.accumulator, Accumulator):
            return self.accumulator.format.bits
        if isinstance(self.accumulator, IntegerAccumulator):
            return self.accumulator.bits
        if isinstance(self.accumulator, FusedAdder):
            return self.accumulator.output.bits
        if terms < 1:
            raise ValueError(f"terms must be at least 1, got {terms}")
        _refuse_blocks(self)
        return exact_bits(Operand.of(self.a), Operand.of(self.w), terms)


@overload
def mac_cost(
    a: Mac | str,
    *,
    node_nm: int = ...,
    library: Library = ...,
    cells_per_generator: int = ...,
    terms: int = ...,
) -> MacCost: ...


@overload
def mac_cost(
    a: Format | BlockFormat | str,
    w: Format | BlockFormat | str,
    accumulator: AnyAccumulator | str,
    node_nm: int = ...,
    *,
    library: Library = ...,
    cells_per_generator: int = ...,
    terms: int = ...,
) -> MacCost: ...


def mac_cost(
    a: Mac | Format | BlockFormat | str,
    w: Format | BlockFormat | str | None = None,
    accumulator: AnyAccumulator | str | None = None,
    node_nm: int = BASE_NODE_NM,
    *,
    library: Library = DEFAULT,
    cells_per_generator: int = CELLS_PER_GENERATOR,
    terms: int = EXACT_TERMS,
) -> MacCost:
    """Cost of a cell that adds ``a * w`` into an accumulator.

    Parameters
    ----------
    a, w, accumulator
        Operand formats and how products are summed; text is parsed. Or `a` alone: the whole cell, a `Mac`
        or its text.
    node_nm
        Technology node, 7..130 nm; other than 45 nm the laws are scaled.
    library
        Tables of constants.
    cells_per_generator
        Cells that share the generator of random bits of a stochastic rounding.
    terms
        Products of a sum, for the width of an ``exact`` accumulator.

    Raises
    ------
    ValueError
        A text is wrong, no law covers the combination, or the node is outside the table.

    Examples
    --------
    >>> cost = mac_cost("e4m3 x e4m3 + e6m9", node_nm=45)
    >>> round(cost.area_um2), round(cost.energy_pj, 3), round(cost.delay_ns, 2), cost.estimated
    (829, 0.462, 3.55, False)
    >>> print(cost)
    828.9 um2, 0.462 pJ, 3.55 ns
    >>> {part: round(um2) for part, um2 in cost.area_parts_um2.items() if um2}
    {'multiplier': 156, 'alignment': 151, 'adder': 74, 'normaliser': 151, 'rounding': 82, 'exponent': 141, \
'register': 72}
    """
    if w is None and accumulator is None:
        if not isinstance(a, Mac | str):
            raise ValueError(f"a cell is a Mac, its text, or two formats and an accumulator, got {a!r}")
        mac = Mac.parse(a) if isinstance(a, str) else a
    elif w is None or accumulator is None or isinstance(a, Mac):
        raise ValueError(f"a cell is a Mac, its text, or two formats and an accumulator, got {(a, w)}")
    else:
        mac = Mac(parse_any_format(a), parse_any_format(w), parse_accumulator(accumulator))
    for name, value in (("cells_per_generator", cells_per_generator), ("terms", terms)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return _mac_cost(mac, node_nm, library, cells_per_generator, terms)


@lru_cache(maxsize=4096)
def _mac_cost(mac: Mac, node_nm: int, library: Library, cells_per_generator: int, terms: int) -> MacCost:
    laws = mac_laws(library)
    cost = _scaled(_cell(mac, laws, cells_per_generator, terms), laws, node_nm, library)
    measured = library.cell(str(mac), node_nm)
    return cost if measured is None else _measured(cost, measured, library)


def _cell(mac: Mac, laws: MacLaws, cells_per_generator: int, terms: int) -> Cell:
    a, w, accumulator = Operand.of(mac.a), Operand.of(mac.w), mac.accumulator
    if isinstance(accumulator, Accumulator):
        return float_cell(a, w, accumulator, laws, cells_per_generator)
    if isinstance(accumulator, FusedAdder):
        if not (a.is_float and w.is_float):
            raise ValueError(
                f"a fused adder takes float operands, or blocks of them, got {mac.a} x {mac.w}; "
                f"integers are summed by an integer, exact or float accumulator"
            )
        return fused_cell(a, w, accumulator, laws)
    _refuse_blocks(mac)
    if isinstance(accumulator, ExactAccumulator):
        return integer_cell(a, w, mac.accumulator_bits_for(terms), laws)
    return integer_cell(a, w, accumulator, laws)


def _refuse_blocks(mac: Mac) -> None:
    if isinstance(mac.a, BlockFormat) or isinstance(mac.w, BlockFormat):
        raise ValueError(
            f"block formats are summed by a float accumulator or a fused adder, got {mac.a} x {mac.w} with "
            f"accumulator {mac.accumulator}"
        )


def _scaled(cell: Cell, laws: MacLaws, node_nm: int, library: Library) -> MacCost:
    """Take a cell from 45 nm and the voltage of the laws to a node and the library's voltage."""
    scale = logic_scale(node_nm, library=library)
    energy = scale.energy * laws.pj_per_fj
    logic, register = mac_area_scale(node_nm, library)
    area = replace(
        cell.area * logic,
        register=cell.area.register * register,
        random_generator=cell.area.random_generator * register,
    )
    delay = (node_nm / BASE_NODE_NM) ** laws.scaling["delay_exponent"]
    stages = tuple(replace(stage, delay_ns=stage.delay_ns * delay) for stage in cell.stages)
    note = f"scaled from {BASE_NODE_NM} nm to {node_nm} nm"
    if node_nm == BASE_NODE_NM:
        note = "energy scaled to another supply voltage"
    return MacCost(
        area_parts_um2=area,
        energy_parts_pj=cell.energy * energy,
        delay_ns=sum(stage.delay_ns for stage in stages),
        stages=stages,
        estimates=(*cell.estimates, *([note] if scale.scaled else [])),
        per=cell.per,
        pipeline_register=RegisterCost(
            area_um2=laws.gates["register_um2"] * register,
            energy_pj=laws.gates["register_fj"] * energy,
            scaled=scale.scaled,
        ),
        replaced=library.replaced,
    )


def _measured(cost: MacCost, measured: Mapping[str, float], library: Library) -> MacCost:
    """A user's measurement in place of the laws, which then only say how it is split."""
    delay = measured["delay_ns"] / cost.delay_ns
    return replace(
        cost,
        area_parts_um2=cost.area_parts_um2 * (measured["area_um2"] / cost.area_um2),
        energy_parts_pj=cost.energy_parts_pj * (measured["energy_pj"] / cost.energy_pj),
        delay_ns=measured["delay_ns"],
        stages=tuple(replace(stage, delay_ns=stage.delay_ns * delay) for stage in cost.stages),
        estimates=(f"measured by {library.name}; the split is in the proportions of the laws",),
    )


@lru_cache(maxsize=256)
def mac_area_scale(node_nm: int, library: Library = DEFAULT) -> tuple[float, float]:
    """Area factors from 45 nm of a cell's logic and of its registers.

    General scaling, corrected from 45 to 7 nm by the cells that were synthesised at both.

    Examples
    --------
    >>> [round(factor, 4) for factor in mac_area_scale(7)]
    [0.0847, 0.0645]
    """
    scaling, general = mac_laws(library).scaling, logic_scale(node_nm, library=library).area
    least = int(scaling["node_nm"])
    share = max(0.0, log(BASE_NODE_NM / node_nm) / log(BASE_NODE_NM / least))
    logic, register = (
        general * (scaling[name] / logic_scale(least, library=library).area) ** share
        for name in ("logic_area", "register_area")
    )
    return logic, register


def _bits(fmt: Format | BlockFormat) -> float:
    return fmt.bits_per_value if isinstance(fmt, BlockFormat) else float(fmt.bits)


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """Both sides of a times sign: of the one with spaces around it, else of every x."""
    if " x " in text:
        a, _, w = text.partition(" x ")
        yield a.strip(), w.strip()
        return
    for i, letter in enumerate(text):
        if letter == "x":
            yield text[:i].strip(), text[i + 1 :].strip()
