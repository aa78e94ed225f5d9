"""Ratios of published hardware beside those of the MAC laws.

Run with ``--data DIR``, a folder with ``published_unit_costs.csv``: item, node_nm, value, unit, status.
For every ratio of two published numbers it prints theirs, ours, and ours over theirs; then the geometric mean
and the worst factor of each group. A published range counts by its nearer end.

Stand-alone units are read off the laws of the cells: an integer adder is a ripple adder, an integer
multiplier the term ``a w``; a float multiplier is the multiplier with rounding and exponents, a float adder
the window with rounding and exponents. Published units are pipelined, fully IEEE and laid out for a
clock; ours are bare, and in a cell the sum, kept from step to step, switches less than two fresh operands.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log
from pathlib import Path

from accel import mac_cost
from accel.hardware._mac_float import addition_um2, window_fj
from accel.hardware._mac_laws import mac_laws
from accel.hardware.library import DEFAULT
from accel.hardware.mac import mac_area_scale
from accel.hardware.technology import logic_scale
from numerics.formats import BFLOAT16, BINARY16, BINARY32

FLOATS = {"fp16": BINARY16, "fp32": BINARY32, "bf16": BFLOAT16}
#: Items of the table by our names of units; at 45 nm "int add 8", at 7 nm "int8 add".
UNITS = tuple(
    f"{kind} {op}" for kind in ("int8", "int16", "int32", "bf16", "fp16", "fp32") for op in ("add", "mult")
)
BASE = "int8 mult"
Value = tuple[float, float]  # ends of a range


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A ratio of two published numbers, and ours of the same two."""

    name: str
    theirs: Value
    ours: float
    status: str

    @property
    def factor(self) -> float:
        """Ours over theirs, 1 inside a range."""
        return self.ours / min(max(self.ours, self.theirs[0]), self.theirs[1])


def unit_cost(unit: str, node_nm: int) -> dict[str, float]:
    """PJ and um2 of a stand-alone unit by the laws."""
    laws, (kind, operation) = mac_laws(DEFAULT), unit.split()
    if kind.startswith("int"):
        bits = int(kind.removeprefix("int"))
        if operation == "add":
            fj, um2 = laws.gates["adder_fj"] * bits, laws.gates["adder_um2"] * bits
        else:
            fj = laws.integer_energy["multiplier_bit"] * bits**2
            um2 = laws.integer_area["multiplier_bit"] * bits**2
    else:
        fmt, area, energy = FLOATS[kind], laws.float_area, laws.float_energy
        fj, um2 = energy["rounding_bit"] * fmt.precision, area["rounding_bit"] * fmt.precision
        if operation == "add":
            window = fmt.frac_bits + laws.margin_bits
            fj += window_fj(window, fmt.exp_bits, laws) + energy["exponent_bit"] * 2 * fmt.exp_bits
            um2 = addition_um2(window, fmt.frac_bits, 2 * fmt.exp_bits, laws).total
        else:
            fj += energy["multiplier_bit"] * fmt.precision**2 + energy["exponent_bit"] * fmt.exp_bits
            um2 += area["multiplier_bit"] * fmt.precision**2 + area["exponent_bit"] * fmt.exp_bits
    return {
        "pJ": fj * laws.pj_per_fj * logic_scale(node_nm).energy,
        "um2": um2 * mac_area_scale(node_nm)[0],
    }


class Published:
    """The table, by item and node."""

    def __init__(self, folder: Path) -> None:
        with (folder / "published_unit_costs.csv").open(encoding="utf-8", newline="") as file:
            self.rows = {(row["item"], row["node_nm"]): row for row in csv.DictReader(file)}

    def find(self, item: str, node_nm: int | str) -> tuple[Value, str] | None:
        """A value or range with its status."""
        row = self.rows.get((item, str(node_nm)))
        if row is None:
            return None
        ends = [float(end) for end in row["value"].split("-")]
        return (ends[0], ends[-1]), row["status"]

    def unit(self, unit: str, node_nm: int, measure: str) -> tuple[float, str] | None:
        """Energy or area of a unit under either spelling."""
        kind, operation = unit.split()
        item = unit
        if node_nm == 45 and kind.startswith("int"):
            item = f"int {operation} {kind.removeprefix('int')}"
        found = self.find(item + (" area" if measure == "um2" else ""), node_nm)
        return None if found is None else (found[0][0], found[1])


def units(published: Published, node_nm: int, measure: str) -> list[Ratio]:
    """Every unit over the 8-bit multiplier, and MACs (multiplier and adder) over the 8-bit one."""
    found = {
        name: (value, status, unit_cost(name, node_nm)[measure])
        for name in UNITS
        if (row := published.unit(name, node_nm, measure)) is not None
        for value, status in [row]
    }
    base_theirs, _, base_ours = found[BASE]
    return [
        Ratio(
            name=f"{name} / {BASE}",
            theirs=(value / base_theirs, value / base_theirs),
            ours=ours / base_ours,
            status=status,
        )
        for name, (value, status, ours) in found.items()
        if name != BASE
    ]


def macs(published: Published, node_nm: int, measure: str) -> list[Ratio]:
    """Whole cells: ours with registers, theirs a multiplier and an adder."""
    cells = {
        "int8+int32": ("int8 mult", "int32 add", "int8 x int8 + int32"),
        "bf16+fp32": ("bf16 mult", "fp32 add", "e8m7-flush x e8m7-flush + e8m23"),
        "fp16+fp16": ("fp16 mult", "fp16 add", "e5m10-flush x e5m10-flush + e5m10"),
        "fp16+fp32": ("fp16 mult", "fp32 add", "e5m10-flush x e5m10-flush + e8m23"),
        "fp32+fp32": ("fp32 mult", "fp32 add", "e8m23-flush x e8m23-flush + e8m23"),
    }
    found: dict[str, tuple[float, str, float]] = {}
    for name, (mult, add, cell) in cells.items():
        parts = [published.unit(part, node_nm, measure) for part in (mult, add)]
        cost = mac_cost(cell, node_nm=node_nm)
        known = [part for part in parts if part is not None]
        if len(known) == len(parts):
            status = "verified" if all(s == "verified" for _, s in known) else "recalled"
            ours = cost.energy_pj if measure == "pJ" else cost.area_um2
            found[name] = sum(value for value, _ in known), status, ours
    base_theirs, _, base_ours = found["int8+int32"]
    return [
        Ratio(
            name=f"MAC {name} / int8+int32",
            theirs=(value / base_theirs, value / base_theirs),
            ours=ours / base_ours,
            status=status,
        )
        for name, (value, status, ours) in found.items()
        if name != "int8+int32"
    ]


def statements(published: Published) -> list[Ratio]:
    """What papers say of whole designs, and what our bare cells say of the same."""
    rows: list[Ratio] = []

    def add(name: str, item: str, node_nm: int | str, ours: float, change: Callable[[float], float]) -> None:
        if (found := published.find(item, node_nm)) is not None:
            (low, high), status = found
            rows.append(Ratio(name=name, theirs=(change(low), change(high)), ours=ours, status=status))

    def energy(text: str, node_nm: int = 45) -> float:
        return mac_cost(text, node_nm=node_nm).energy_pj

    def area(text: str) -> float:
        return mac_cost(text).area_um2

    narrow, wide = "e5m2 x e5m2 + e6m9 chunk=64", "e5m10-flush x e5m10-flush + e8m23"
    add(
        "e4m3+fp32 over int8+int32, energy: 50 to 180 % worse",
        "FP8 vs INT8 dedicated inference hardware",
        "",
        energy("e4m3 x e4m3 + fp32") / energy("int8 x int8 + int32"),
        lambda percent: 1 + percent / 100,
    )
    add(
        "fp16+fp32 over e5m2+e6m9, area: 2 to 4 times the throughput",
        "FP8 + 16-bit accumulation vs 16-bit systems",
        "",
        area(wide) / area(narrow),
        lambda times: times,
    )
    add(
        "e5m2+fp32 over e5m2+e6m9, area: 1.5 to 2.2 times",
        "narrow accumulator, FPU area reduction",
        "",
        area("e5m2 x e5m2 + fp32") / area("e5m2 x e5m2 + e6m9"),
        lambda times: times,
    )
    hfp8 = published.find("IBM 4-core 7 nm: HFP8 training peak efficiency", 7)
    int4 = published.find("IBM 4-core 7 nm: INT4 inference peak efficiency", 7)
    if hfp8 is not None and int4 is not None:
        ratio = int4[0][0] / hfp8[0][0]
        rows.append(
            Ratio(
                name="e4m3 x e5m2 + e6m9 over int4+int16, energy, 7 nm chip",
                theirs=(ratio, ratio),
                ours=energy("e4m3 x e5m2 + e6m9 chunk=64", 7) / energy("int4 x int4 + int16", 7),
                status=int4[1],
            )
        )
    add(
        "int8+int32 MAC in the array at 7 nm, pJ",
        "TPU v4i: MAC (8 bit) in the array",
        7,
        energy("int8 x int8 + int32", 7),
        lambda pj: pj,
    )
    return rows


def show(title: str, ratios: list[Ratio]) -> None:
    """Print a group with its mean and its worst factor."""
    print(f"\n{title}")
    for ratio in ratios:
        low, high = ratio.theirs
        theirs = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
        print(f"    {ratio.name:<62}{theirs:>13}{ratio.ours:>9.3g}{ratio.factor:>8.2f}  {ratio.status}")
    mean = exp(sum(log(ratio.factor) for ratio in ratios) / len(ratios))
    worst = max(ratios, key=lambda ratio: abs(log(ratio.factor)))
    factor = exp(abs(log(worst.factor)))
    print(f"    geometric mean of ours over theirs {mean:.2f}; worst factor {factor:.2f}: {worst.name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of reference tables")
    published = Published(parser.parse_args().data)
    print(f"{'ratio':<66}{'published':>13}{'ours':>9}{'factor':>8}  published as")
    for node_nm, measure in ((45, "pJ"), (45, "um2"), (7, "pJ")):
        title = f"{'energy' if measure == 'pJ' else 'area'}, {node_nm} nm"
        show(f"units, {title}", units(published, node_nm, measure))
        show(f"MACs, {title}", macs(published, node_nm, measure))
    show("statements of papers", statements(published))
    print("\nabsolute, 45 nm: ours over published")
    for measure in ("pJ", "um2"):
        found = [
            (name, unit_cost(name, 45)[measure] / row[0])
            for name in UNITS
            if (row := published.unit(name, 45, measure)) is not None
        ]
        print(f"    {measure:<5}" + ", ".join(f"{name} {factor:.2f}" for name, factor in found))


if __name__ == "__main__":
    main()
