"""The table of a prediction: one row for each training product of each layer."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

import pandas as pd

from accel.accumulations import Network, TrainingProducts
from numerics import FloatFormat, parse_format
from numerics.theory import operand_noise, required_bits
from numerics.theory.calibration import calibrated_rounding

Product: TypeAlias = Literal["forward", "backward", "gradient"]
PRODUCTS: Final[tuple[Product, ...]] = get_args(Product)
COLUMNS: Final = (
    "layer",
    "gemm",
    "length",
    "density",
    "bits_theory",
    "bits_theory_chunked",
    "bits_emulated",
    "bits_emulated_chunked",
)
BITS: Final = COLUMNS[4:]
_DENSITY_COLUMNS = ("layer", "gemm", "density")

#: Fraction of the products that are not zero, by layer and product; 1 where it is not given.
Densities: TypeAlias = Mapping[tuple[str, str], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """What enters the accumulators, and how they round.

    Attributes
    ----------
    operands
        Formats of the two operands of each product.
    chunk
        Products that are summed first in the columns ``..._chunked``.
    rounding
        Of the emulated accumulators.
    tolerance
        Relative square error that is allowed; as much as rounding the operands adds, if not given.
    """

    operands: tuple[FloatFormat, FloatFormat]
    chunk: int = 64
    rounding: str = "nearest-even"
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {self.chunk}")
        if self.tolerance is not None and not 0.0 < self.tolerance < 1.0:
            raise ValueError(f"tolerance must be between 0 and 1, got {self.tolerance}")
        calibrated_rounding(self.rounding)

    @property
    def product_bits(self) -> int:
        """Fraction bits of an exact product."""
        return sum(operand.frac_bits for operand in self.operands) + 1

    @property
    def allowed(self) -> float:
        """Relative square error that is allowed."""
        return operand_noise(self.product_bits) if self.tolerance is None else self.tolerance


def parse_operands(text: str) -> tuple[FloatFormat, FloatFormat]:
    """Read one format for both operands (``e5m2``), or two (``e4m3fn x e5m2``).

    Raises
    ------
    ValueError
        They are no floating-point formats; the message names them.
    """
    formats = [parse_format(part.strip()) for part in text.split(" x ")]
    for found in formats:
        if not isinstance(found, FloatFormat):
            raise ValueError(f"input must be a floating-point format, got {found}")
    floats = [found for found in formats if isinstance(found, FloatFormat)]
    if len(floats) > 2:
        raise ValueError(f"input must be one format or two, as 'e4m3fn x e5m2', got {text!r}")
    return floats[0], floats[-1]


def predict(network: Network, arithmetic: Arithmetic, densities: Densities) -> pd.DataFrame:
    """Fewest fraction bits of every accumulator: theory and emulation, plain and chunked.

    Returns
    -------
    DataFrame
        `COLUMNS`, in the order of the network; a product that no training needs has no row.
    """
    rows = []
    for layer in network.products:
        for product in PRODUCTS:
            if (length := length_of(layer, product)) is not None:
                density = densities.get((layer.layer, product), 1.0)
                rows.append((layer.layer, product, length, density, *_bits(length, density, arithmetic)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def length_of(layer: TrainingProducts, product: Product) -> int | None:
    """Accumulation length of one of the three products."""
    length: int | None = getattr(layer, product)
    return length


@lru_cache(maxsize=1 << 14)
def _bits(length: int, density: float, arithmetic: Arithmetic) -> tuple[int, ...]:
    found = []
    for rule in ("theory", "emulated"):
        for chunk in (None, arithmetic.chunk):
            bits = required_bits(
                length,
                arithmetic.product_bits,
                chunk=chunk,
                density=density,
                rule="theory" if rule == "theory" else "emulated",
                rounding=arithmetic.rounding,
                tolerance=None if rule == "theory" else arithmetic.tolerance,
            )
            found.append(int(bits))
    return tuple(found)


def most(table: pd.DataFrame) -> pd.DataFrame:
    """Largest bits of each kind of product: what one accumulator for the whole network needs."""
    kinds = [product for product in PRODUCTS if product in set(table["gemm"])]
    return table.groupby("gemm")[["length", *BITS]].max().loc[kinds].reset_index()


def read_densities(path: Path, network: Network) -> Densities:
    """Densities from a CSV file with the columns layer, gemm and density; others are ignored.

    Raises
    ------
    ValueError
        A column is missing, a layer or product is not in the network, or a density is out of (0, 1];
        the message names the line.
    OSError
        The file cannot be read.
    """
    known = {
        (layer.layer, product)
        for layer in network.products
        for product in PRODUCTS
        if length_of(layer, product) is not None
    }
    found: dict[tuple[str, str], float] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.DictReader(file)
            if missing := [name for name in _DENSITY_COLUMNS if name not in (lines.fieldnames or ())]:
                raise ValueError(f"{path}: a column {missing[0]} is missing; needed are layer, gemm, density")
            for line in lines:
                where = f"{path}, line {lines.line_num}"
                key = (line["layer"] or "", line["gemm"] or "")
                if key not in known:
                    raise ValueError(f"{where}: the network has no {key[1]!r} product of a layer {key[0]!r}")
                found[key] = checked_density(line["density"] or "", where)
    except UnicodeDecodeError:
        raise ValueError(f"{path}: densities must be a CSV file in UTF-8") from None
    return found


def checked_density(text: str, where: str) -> float:
    """A density from text.

    Raises
    ------
    ValueError
        It is no number in (0, 1].
    """
    try:
        density = float(text)
    except ValueError:
        density = math.nan
    if not 0.0 < density <= 1.0:
        raise ValueError(f"{where}: a density must be in (0, 1], got {text!r}")
    return density
