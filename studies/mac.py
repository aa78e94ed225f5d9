"""What a multiply-accumulate cell costs and why: the lines of ``bitfront mac``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import isclose

from accel.hardware.library import DEFAULT, Library
from accel.hardware.mac import CELLS_PER_GENERATOR, EXACT_TERMS, Mac, MacCost, mac_area_scale, mac_cost
from accel.hardware.technology import BASE_NODE_NM, logic_scale
from numerics import Accumulator, ExactAccumulator, FusedAdder, IntegerAccumulator

KNOWN = ("int8 x int8 + int32", "e4m3 x e4m3 + fp32", "fp16 x fp16 + fp32", "bf16 x bf16 + fp32")
FRAC_BITS = range(2, 24)
INTEGER_BITS = range(8, 49, 4)
ALIGN_BITS = range(4, 29, 2)
TERMS = tuple(4**n for n in range(11))
_BAR = 48  # characters of the longest bar
_EIGHTHS = " ▏▎▍▌▋▊▉"
_MARGIN = 26


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One accumulator of the plot: what it is called, its bits, the cell's area."""

    label: str
    bits: int
    area_um2: float
    is_asked: bool


def describe(
    text: str,
    node_nm: int = BASE_NODE_NM,
    *,
    library: Library = DEFAULT,
    cells_per_generator: int = CELLS_PER_GENERATOR,
    terms: int = EXACT_TERMS,
) -> list[str]:
    """Describe a cell in lines of text.

    Totals; the split by part; the cell in more pipeline stages; well-known cells beside it; the area
    against the bits of the accumulator; what is estimated, and the sources.

    Parameters
    ----------
    text
        Such as ``e4m3xe4m3+e6m9`` or ``int8 x int8 + int32``.
    node_nm
        Technology node, 7..130 nm.
    library
        Tables of constants.
    cells_per_generator
        Cells that share one generator of random bits.
    terms
        Products of a sum, for the width of an ``exact`` accumulator.

    Raises
    ------
    ValueError
        Wrong text, no law for the combination, a node outside the table: one line.
    """
    mac = Mac.parse(text)

    def cost(cell: Mac | str) -> MacCost:
        return mac_cost(
            cell, node_nm=node_nm, library=library, cells_per_generator=cells_per_generator, terms=terms
        )

    asked = cost(mac)
    points = sweep(mac, node_nm, library=library, cells_per_generator=cells_per_generator, terms=terms)
    sum_bits = mac.accumulator_bits_for(terms)
    return [
        f"{mac}, {node_nm} nm, per {asked.per}",
        "",
        _fact("area", f"{asked.area_um2:.4g} um2"),
        _fact("energy", f"{asked.energy_pj:.4g} pJ per multiply-accumulate, random operand bits"),
        _fact("longest path", f"{asked.delay_ns:.3g} ns in one cycle"),
        _fact("operands", f"{mac.a_bits:g} and {mac.w_bits:g} bits, partial sum {sum_bits} bits"),
        "",
        *_split(asked),
        "",
        *_pipelines(asked),
        "",
        *_beside(asked, {name: cost(name) for name in KNOWN}),
        "",
        *_plot(mac, points),
        "",
        *_remarks(mac, asked, node_nm, library),
    ]


def sweep(
    mac: Mac,
    node_nm: int = BASE_NODE_NM,
    *,
    library: Library = DEFAULT,
    cells_per_generator: int = CELLS_PER_GENERATOR,
    terms: int = EXACT_TERMS,
) -> list[Point]:
    """Area of the cell for accumulators of more and fewer bits, the asked one among them.

    Fraction bits 2..23 of a float register, 8..48 bits of an integer one, 1 to 4**10 terms of an exact
    sum, 4..28 aligned bits of a fused adder.
    """
    points = []
    for label, cell, many, asked in _variants(mac, terms):
        cost = mac_cost(
            cell, node_nm=node_nm, library=library, cells_per_generator=cells_per_generator, terms=many
        )
        bits = cell.accumulator_bits_for(many)
        points.append(Point(label=label, bits=bits, area_um2=cost.area_um2, is_asked=asked))
    return points


def _variants(mac: Mac, terms: int) -> Iterator[tuple[str, Mac, int, bool]]:
    """Label, cell, terms of a sum, and whether it is the asked one."""
    accumulator = mac.accumulator
    if isinstance(accumulator, Accumulator):
        for frac_bits in sorted({*FRAC_BITS, accumulator.format.frac_bits}):
            try:
                register = replace(accumulator.format, frac_bits=frac_bits)
                sums = replace(accumulator, format=register)
            except ValueError:  # a bias that leaves no room for so many
                continue
            yield str(register), mac._replace(accumulator=sums), terms, sums == accumulator
    elif isinstance(accumulator, IntegerAccumulator):
        for bits in sorted({*INTEGER_BITS, accumulator.bits}):
            if bits > accumulator.frac_bits:
                wider = replace(accumulator, bits=bits)
                label = str(replace(wider, chunk=None, outer=None, rounding=None))
                yield label, mac._replace(accumulator=wider), terms, bits == accumulator.bits
    elif isinstance(accumulator, ExactAccumulator):
        for many in sorted({*TERMS, terms}):
            yield f"{many} terms", mac, many, many == terms
    else:
        for align_bits in sorted({*ALIGN_BITS, accumulator.align_bits}):
            try:
                adder = replace(accumulator, align_bits=align_bits)
            except ValueError:  # beyond the 53 bits of an aligned sum
                continue
            yield f"align {align_bits}", mac._replace(accumulator=adder), terms, adder == accumulator


def _fact(name: str, value: str) -> str:
    return f"{name:<16}{value}"


def _split(cost: MacCost) -> list[str]:
    area, energy = dict(cost.area_parts_um2.items()), dict(cost.energy_parts_pj.items())
    lines = [f"{'part':<{_MARGIN}}{'um2':>10}{'share':>8}{'pJ':>11}{'share':>8}"]
    for part, um2 in area.items():
        if um2 or energy[part]:
            shares = um2 / cost.area_um2, energy[part] / cost.energy_pj
            name = part.replace("_", " ")
            lines.append(
                f"{name:<{_MARGIN}}{um2:>10.4g}{shares[0]:>8.1%}{energy[part]:>11.4g}{shares[1]:>8.1%}"
            )
    total = f"{'total':<{_MARGIN}}{cost.area_um2:>10.4g}{1:>8.1%}{cost.energy_pj:>11.4g}{1:>8.1%}"
    return [*lines, total]


def _pipelines(cost: MacCost) -> list[str]:
    lines = [f"{'pipeline stages (est.)':<{_MARGIN}}{'um2':>10}{'pJ':>11}{'ns':>9}{'MHz':>8}"]
    for stages in range(1, len(cost.stages) + 1):
        cell = cost.pipelined(stages)
        lines.append(
            f"{stages:<{_MARGIN}}{cell.area_um2:>10.4g}{cell.energy_pj:>11.4g}{cell.delay_ns:>9.3g}"
            f"{1e3 / cell.delay_ns:>8.0f}"
        )
    return lines


def _beside(asked: MacCost, known: dict[str, MacCost]) -> list[str]:
    lines = [f"{'beside':<{_MARGIN}}{'um2':>10}{'this':>8}{'pJ':>11}{'this':>8}"]
    for name, cost in known.items():
        ratios = asked.area_um2 / cost.area_um2, asked.energy_pj / cost.energy_pj
        lines.append(
            f"{name:<{_MARGIN}}{cost.area_um2:>10.4g}{ratios[0]:>7.2f}x{cost.energy_pj:>11.4g}{ratios[1]:>7.2f}x"
        )
    return lines


def _plot(mac: Mac, points: list[Point]) -> list[str]:
    """Horizontal bars from zero, the asked one marked."""
    most = max(point.area_um2 for point in points)
    width = max(len(point.label) for point in points)
    title = "area in um2 against the accumulator"
    if isinstance(mac.accumulator, FusedAdder):
        title = "area in um2 against the aligned fraction bits"
    lines = [title]
    for point in points:
        mark = ">" if point.is_asked else " "
        lines.append(f"{mark} {point.label:>{width}} {point.bits:>3} b {_bar(point.area_um2 / most)}")
        lines[-1] += f" {point.area_um2:.4g}"
    return lines


def _bar(share: float) -> str:
    full, eighth = divmod(round(share * _BAR * 8), 8)
    return "█" * full + (_EIGHTHS[eighth] if eighth else "")


def _remarks(mac: Mac, cost: MacCost, node_nm: int, library: Library) -> list[str]:
    """What is estimated, what was left out, and where the numbers come from."""
    lines = [_fact("estimated", note) for note in cost.estimates] or [
        _fact("estimated", "nothing: cells of this kind were synthesised")
    ]
    logic, register = mac_area_scale(node_nm, library)
    general = logic_scale(node_nm, library=library).area
    if not isclose(logic, general):
        lines.append(
            _fact(
                "area scaling",
                f"logic x {logic:.3g}, registers x {register:.3g}, by cells synthesised at 7 nm; general "
                f"scaling is x {general:.3g}, or {general / logic * cost.area_um2:.4g} um2",
            )
        )
    if isinstance(mac.accumulator, IntegerAccumulator) and mac.accumulator.overflow == "saturate":
        lines.append(_fact("left out", "the clamp of a saturating register"))
    lines += [_fact("replaced", name) for name in library.replaced]
    return [
        *lines,
        _fact(
            "source", f"laws fitted to synthesised 45 nm cells (bare, minimum area), tables {library.name};"
        ),
        _fact("", "mean error of a row left out: area 2 to 3 %, energy 2 to 4 %, path 4 to 5 %;"),
        _fact("", "wires, a timing target and specials come on top: compare cells"),
    ]
