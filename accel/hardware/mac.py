"""Area, energy and delay of one multiply-accumulate cell, from its formats.

The laws were fitted to synthesised cells: quadratic in the operand significand (the multiplier),
``W log W`` in the window ``W = max(2 m, m_acc) + 5`` in which product and sum are aligned and
normalised, linear in the accumulator's bits. So an accumulator with fewer fraction bits than a
product saves its register and rounding, not the window.

Energy is at 0.9 V, scaled from the library's 1.1 V by the voltage squared and by the calibration
``kappa = 0.52``. Absolute areas are of bare cells at minimum area: pipelining, wiring and a timing
target cost several times as much, so compare cells rather than quote square millimetres.

Not modelled: glitches, operand statistics (random bits are assumed), pipelining, the delay of wires.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import log2
from typing import NamedTuple

from accel.hardware._data import load
from accel.hardware.technology import BASE_NODE_NM, logic_scale
from numerics.accumulator import Accumulator
from numerics.formats import FloatFormat, Format, parse_format
from numerics.rounding import MAX_RANDOM_BITS


@dataclass(frozen=True, slots=True, kw_only=True)
class MacCost:
    """One multiply-accumulate cell.

    Attributes
    ----------
    area_um2
        Cell area, its accumulator register included.
    energy_pj
        Per multiply-accumulate, at 0.9 V.
    delay_ns
        Longest path of the single-cycle accumulate loop.
    estimated
        A part rests on no synthesised cell: stochastic rounding, or a node other than 45 nm.
    """

    area_um2: float
    energy_pj: float
    delay_ns: float
    estimated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterCost:
    """One flip-flop bit: its area, and its energy per clock, at 0.9 V."""

    area_um2: float
    energy_pj: float


class Mac(NamedTuple):
    """Operands and accumulator of a cell, as text ``e4m3 x e4m3 + e6m9 chunk=64``.

    Examples
    --------
    >>> mac = Mac.parse("e4m3 x e5m2 + e6m9 chunk=64")
    >>> str(mac)
    'e4m3fn x e5m2 + e6m9 chunk=64'
    >>> mac_cost(*mac) == mac_cost("e4m3", "e5m2", "e6m9 chunk=64")
    True
    """

    a: Format
    w: Format
    accumulator: Accumulator

    @classmethod
    def parse(cls, text: str) -> Mac:
        """Read ``<format> x <format> + <accumulator>``.

        Raises
        ------
        ValueError
            The text has another shape, or a format or the accumulator is wrong.
        """
        operands, plus, accumulator = text.partition("+")
        a, times, w = operands.partition(" x ")
        if not plus or not times:
            raise ValueError(f"a MAC is written '<format> x <format> + <accumulator>', got {text!r}")
        return cls(parse_format(a), parse_format(w), Accumulator.parse(accumulator.strip()))

    def __str__(self) -> str:
        return f"{self.a} x {self.w} + {self.accumulator}"


def mac_cost(
    a: Format | str,
    w: Format | str,
    accumulator: Accumulator | str,
    node_nm: int = BASE_NODE_NM,
) -> MacCost:
    """Cost of a cell that adds ``a * w`` into an accumulator.

    Operands of two formats are costed as one format with the larger exponent field and the larger
    fraction field, as in a multiplier that takes both; subnormals are honoured if either has them.

    A chunked accumulator adds an outer register to the area, and to the energy of each product
    1/chunk of an outer addition, which uses the same adder: the law of a product with a one-bit
    significand and the accumulator's exponent. Stochastic rounding with r random bits adds r bits
    of an adder below the last place and of a shift register that makes the bits; an estimate.

    Parameters
    ----------
    a, w
        Operand formats; text is parsed.
    accumulator
        How products are summed; text is parsed.
    node_nm
        Technology node, 7..130 nm; other than 45 nm the laws are scaled.

    Raises
    ------
    ValueError
        A format is fixed point: a fixed-point MAC needs an integer accumulator, and accumulators
        are floating point. Or the node is outside the table.

    Examples
    --------
    >>> cost = mac_cost("e4m3", "e4m3", "e8m23")
    >>> round(cost.area_um2), round(cost.energy_pj, 3), round(cost.delay_ns, 2)
    (1565, 0.747, 5.91)
    """
    register = Accumulator.parse(accumulator)
    if not register.is_plain:
        raise ValueError(
            f"the cost laws are of sequential or chunked sums of exact products in one register format, "
            f"got accumulator {register}"
        )
    return _mac_cost(_float(a), _float(w), register, node_nm)


def _float(text: Format | str) -> FloatFormat:
    found = parse_format(text)
    if not isinstance(found, FloatFormat):
        raise ValueError(
            f"MAC operands must be floating point, got {found}: a fixed-point product is summed in "
            f"an integer accumulator, and accumulators are floating point"
        )
    return found


@lru_cache(maxsize=4096)
def _mac_cost(a: FloatFormat, w: FloatFormat, accumulator: Accumulator, node_nm: int) -> MacCost:
    data, scale = load("mac"), logic_scale(node_nm)
    exp_bits, frac_bits = max(a.exp_bits, w.exp_bits), max(a.frac_bits, w.frac_bits)
    subnormals = a.subnormals or w.subnormals
    acc = accumulator.format
    window = max(2 * frac_bits, acc.frac_bits) + data["window_margin_bits"]

    law = data["area_um2"]
    area_um2: float = (
        law["significand_squared"] * (frac_bits + 1) ** 2
        + law["window_log_window"] * window * log2(window)
        + law["accumulator_bit"] * acc.bits
        + law["subnormal_bit"] * subnormals * (frac_bits + 1)
        + law["exponent_bit"] * (exp_bits + acc.exp_bits)
    )
    energy_fj = _energy_fj(exp_bits, frac_bits, subnormals, acc)
    delay_ns: float = data["delay_ns"]["constant"] + data["delay_ns"]["window_bit"] * window

    if accumulator.chunk is not None:
        area_um2 += data["register"]["area_um2"] * acc.bits
        energy_fj += _energy_fj(acc.exp_bits, 0, False, acc) / accumulator.chunk
    calibration = data["calibration"]
    supply = (calibration["voltage_v"] / data["voltage_v"]) ** 2
    energy_pj: float = energy_fj * 1e-3 * calibration["kappa"] * supply
    random_bits = 0
    if accumulator.rounding.is_stochastic:
        random_bits = accumulator.rounding.random_bits or MAX_RANDOM_BITS
        adder, register = data["stochastic"], data["register"]
        area_um2 += random_bits * (adder["adder_area_um2"] + register["area_um2"])
        adder_pj = adder["adder_energy_fj"] * 1e-3 * calibration["kappa"] * supply
        energy_pj += random_bits * (adder_pj + register["energy_pj"])
        delay_ns += random_bits * adder["adder_delay_ns"]
    return MacCost(
        area_um2=area_um2 * scale.area,
        energy_pj=energy_pj * scale.energy,
        delay_ns=delay_ns * (node_nm / data["node_nm"]) ** data["delay_ns"]["node_exponent"],
        estimated=scale.scaled or random_bits > 0,
    )


def _energy_fj(exp_bits: int, frac_bits: int, subnormals: bool, acc: FloatFormat) -> float:
    """Energy law at the library's voltage, 45 nm."""
    data = load("mac")
    window = max(2 * frac_bits, acc.frac_bits) + data["window_margin_bits"]
    law = data["energy_fj"]
    energy: float = (
        law["significand_squared"] * (frac_bits + 1) ** 2
        + law["window_log_window"] * window * log2(window)
        + law["accumulator_bit"] * acc.frac_bits
        + law["subnormal_bit"] * subnormals * (frac_bits + 1)
        + law["exponent_bit"] * (exp_bits + acc.exp_bits)
    )
    return energy


@lru_cache(maxsize=64)
def register_cost(node_nm: int = BASE_NODE_NM) -> RegisterCost:
    """Area and clock energy of one flip-flop bit."""
    data, scale = load("mac")["register"], logic_scale(node_nm)
    return RegisterCost(area_um2=data["area_um2"] * scale.area, energy_pj=data["energy_pj"] * scale.energy)
