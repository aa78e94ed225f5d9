"""Coefficients of the MAC laws, read from the ``mac`` section of a library and checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from math import isfinite
from types import MappingProxyType
from typing import Any

from accel.hardware.library import Library

Coefficients = Mapping[str, float]

_NAMES: dict[str, tuple[str, ...]] = {
    "calibration": ("kappa", "voltage_v"),
    "gates": ("adder_um2", "adder_fj", "adder_ns", "register_um2", "register_fj"),
    "float": ("margin_bits",),
    "float.area_um2": ("multiplier_bit", "subnormal_bit", "shifter_bit", "rounding_bit", "exponent_bit"),
    "float.energy_fj": (
        "multiplier_bit",
        "subnormal_bit",
        "product_shift_bit",
        "window_bit",
        "rounding_bit",
        "exponent_bit",
    ),
    "float.delay_ns": ("window_bit", "exponent_bit", "subnormal"),
    "fixed.area_um2": ("shifter_bit",),
    "fixed.energy_fj": ("register_bit", "product_shift_bit", "adder_bit"),
    "fixed.delay_ns": ("register_bit", "significand_bit", "exponent_bit"),
    "integer.area_um2": ("multiplier_bit", "adder_bit"),
    "integer.energy_fj": ("multiplier_bit", "adder_bit", "register_bit", "register_product_bit"),
    "integer.delay_ns": ("register_bit", "product_level"),
    "scaling": ("node_nm", "logic_area", "register_area", "delay_exponent"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MacLaws:
    """Coefficients by law, as ``accel/data/mac.toml`` describes them; um2, fJ at `voltage_v`, ns."""

    calibration: Coefficients
    gates: Coefficients
    float_area: Coefficients
    float_energy: Coefficients
    float_delay: Coefficients
    fixed_area: Coefficients
    fixed_energy: Coefficients
    fixed_delay: Coefficients
    integer_area: Coefficients
    integer_energy: Coefficients
    integer_delay: Coefficients
    scaling: Coefficients
    voltage_v: float
    margin_bits: int

    @property
    def pj_per_fj(self) -> float:
        """Energy at the calibrated voltage for a femtojoule of the law."""
        supply = (self.calibration["voltage_v"] / self.voltage_v) ** 2
        return 1e-3 * self.calibration["kappa"] * supply


@lru_cache(maxsize=16)
def mac_laws(library: Library) -> MacLaws:
    """Read the laws of a library.

    Raises
    ------
    ValueError
        A coefficient is missing, or is no number of at least 0.
    """
    data = library.section("mac")
    tables = {path: _coefficients(data, path, library) for path in _NAMES}
    laws = {
        f.name: tables[path]
        for f in fields(MacLaws)
        if (path := f.name.replace("_area", ".area_um2").replace("_energy", ".energy_fj")) in tables
    }
    laws |= {f"{kind}_delay": tables[f"{kind}.delay_ns"] for kind in ("float", "fixed", "integer")}
    return MacLaws(
        **laws,
        voltage_v=_number(data, "voltage_v", "voltage_v", library),
        margin_bits=int(tables["float"]["margin_bits"]),
    )


def _coefficients(data: Mapping[str, Any], path: str, library: Library) -> Coefficients:
    table: Any = data
    for key in path.split("."):
        table = table.get(key) if isinstance(table, Mapping) else None
    if not isinstance(table, Mapping):
        raise ValueError(f"library {library.name}: mac has no table [{path}]")
    return MappingProxyType({n: _number(table, n, f"{path}.{n}", library) for n in _NAMES[path]})


def _number(table: Mapping[str, Any], name: str, path: str, library: Library) -> float:
    value = table.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not (value >= 0 and isfinite(value)):
        raise ValueError(f"library {library.name}: mac.{path} must be a number of at least 0, got {value!r}")
    return float(value)
