"""Block formats: elements that share a scale, as in MX and NVFP4.

Two rules choose the scale of a block from its largest magnitude ``amax``.

``rule="floor"``, scale ``e8m0`` [MX]_: ``2**X`` with ``X = floor(log2 amax) - emax(element)``, at least
-127 (also where all elements are zero). Elements above the largest one saturate; that is part of the
definition.

``rule="amax"``, a float scale [NVFP4]_: ``amax / (t * max(element))`` rounded once to nearest even,
saturating. The scale of the tensor, ``t``, is a float32 number: given, or ``amax(tensor) / (max(scale)
* max(element))`` rounded to float32 (at least its smallest number; 1 for a tensor of zeros), so that
the largest block gets the largest scale. A block whose scale rounds to zero is zero.

An element is ``x`` over its scales, the exact quotient rounded once. NaN or an infinity makes its block
NaN: an infinity has an ``X`` beyond 127.

References
----------
.. [MX] Open Compute Project, "OCP Microscaling Formats (MX) Specification", rev. 1.0, 2023, 6.3.
.. [NVFP4] NVIDIA, "Pretraining Large Language Models with NVFP4", arXiv 2509.25149.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from numerics._kernels import blocks
from numerics.formats import E2M1, E2M3, E3M2, E4M3, E5M2, FixedFormat, FloatFormat, Format, parse_format

ScaleRule: TypeAlias = Literal["floor", "amax"]

_TEXT = re.compile(r"(\S+) block=(\d+) scale=(\S+)")
_E8M0_MIN, _E8M0_MAX = -127, 127
_SMALLEST_FLOAT32 = 2.0**-149


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockFormat:
    """Blocks of elements along the last axis, each block with one scale.

    Attributes
    ----------
    element
        Format of the elements.
    block
        Elements per scale; a shorter last block counts as padded with zeros.
    scale
        ``"e8m0"`` (a power of two in 2**-127..2**127, or NaN) or a float format with NaN, of at most
        16 bits.
    rule
        How the scale follows from the block; ``None`` gives ``"floor"`` to e8m0, ``"amax"`` to others,
        the only rules that they have.

    Examples
    --------
    >>> str(BlockFormat.parse("mxfp4")), BlockFormat.parse("nvfp4").bits_per_value
    ('mxfp4', 4.5)
    >>> str(BlockFormat.parse("e3m2 block=16 scale=e8m0"))
    'e3m2 block=16 scale=e8m0'
    """

    element: Format
    block: int
    scale: FloatFormat | Literal["e8m0"] = "e8m0"
    rule: ScaleRule | None = None

    def __post_init__(self) -> None:
        if self.block < 1:
            raise ValueError(f"block must be at least 1, got {self.block}")
        rule: ScaleRule = "floor" if self.scale == "e8m0" else "amax"
        if self.rule not in (None, rule):
            raise ValueError(f"rule of scale {self.scale} must be {rule!r}, got {self.rule!r}")
        object.__setattr__(self, "rule", rule)
        if isinstance(self.scale, FloatFormat):
            if not self.scale.has_nan or self.scale.bits > 16 or self.scale.frac_bits < 1:
                raise ValueError(
                    f"scale must have NaN, a fraction and at most 16 bits (or be e8m0), got {self.scale}"
                )
        elif self.scale != "e8m0":
            raise ValueError(f"scale must be 'e8m0' or a FloatFormat, got {self.scale!r}")
        if isinstance(self.element, FixedFormat) and self.element.overflow == "wrap":
            raise ValueError(f"element must saturate, got {self.element}")

    @classmethod
    def parse(cls, text: str) -> BlockFormat:
        """Read a name such as ``mxfp4`` or ``<element> block=<n> scale=<e8m0 or float format>``."""
        key = " ".join(text.lower().split())
        if (named := BLOCK_FORMATS.get(key)) is not None:
            return named
        if (match := _TEXT.fullmatch(key)) is None:
            raise ValueError(
                f"block format must be <element> block=<n> scale=<e8m0 or float format> or one of "
                f"{', '.join(BLOCK_FORMATS)}; got {text!r}"
            )
        element, block, scale = match.groups()
        return cls(
            element=parse_format(element),
            block=int(block),
            scale="e8m0" if scale == "e8m0" else FloatFormat.parse(scale),
        )

    def __str__(self) -> str:
        for name, fmt in BLOCK_FORMATS.items():
            if fmt == self:
                return name
        return f"{self.element} block={self.block} scale={self.scale}"

    @property
    def scale_bits(self) -> int:
        """Bits of one stored scale."""
        return 8 if isinstance(self.scale, str) else self.scale.bits

    @property
    def scale_format(self) -> FloatFormat | None:
        """Format of the scales, ``None`` for E8M0."""
        return None if isinstance(self.scale, str) else self.scale

    @property
    def bits_per_value(self) -> float:
        """Stored bits per value with the block's share of its scale, without the tensor's scale."""
        return self.element.bits + self.scale_bits / self.block

    @property
    def fits_float32(self) -> bool:
        """Whether an element times its scale, the tensor's apart, needs no more than a float32 has."""
        step = self.element.min_subnormal if isinstance(self.element, FloatFormat) else self.element.step
        if isinstance(self.scale, str):
            return _significant_bits(self.element) <= 24 and step * 2.0**_E8M0_MIN >= _SMALLEST_FLOAT32
        bits = _significant_bits(self.element) + self.scale.precision
        return bits <= 24 and step * self.scale.min_subnormal >= _SMALLEST_FLOAT32

    def check_holds(self, dtype: np.dtype[Any]) -> None:
        """Raise ValueError where an element times its scale may be no number of `dtype`."""
        if dtype == np.float16 or (dtype == np.float32 and not self.fits_float32):
            raise ValueError(f"{dtype} arrays cannot hold every value of {self}; use a wider float")

    def check_tensor_scale(self, tensor_scale: float | None, *, stored: bool = False) -> None:
        """Raise ValueError unless it is ``None`` or, with rule ``"amax"``, a positive float32 number.

        With a `stored` tensor ``None`` does for rule ``"floor"`` alone.
        """
        if tensor_scale is None:
            if stored and self.rule == "amax":
                raise ValueError(f"tensor_scale of {self} must be a positive float32 number, got None")
            return
        if self.rule == "floor":
            raise ValueError(f"tensor_scale belongs to rule 'amax'; {self} takes none, got {tensor_scale!r}")
        with np.errstate(over="ignore", under="ignore"):
            single = float(np.float32(tensor_scale))
        if not 0.0 < tensor_scale < np.inf or single != tensor_scale:
            raise ValueError(f"tensor_scale must be a positive float32 number, got {tensor_scale!r}")

    def blocks_in(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the scales of a tensor: blocks in place of elements along the last axis.

        Raises
        ------
        ValueError
            A shape without an axis.
        """
        if not shape:
            raise ValueError("x must have at least one axis, got a scalar array")
        return (*shape[:-1], -(-shape[-1] // self.block))

    def scales(
        self, x: Float[np.ndarray, "*rows n"], tensor_scale: float | None = None
    ) -> tuple[Float[np.ndarray, "*rows blocks"], float]:
        """Scales of the blocks of `x` (NaN for a block with NaN or infinity) and of the tensor.

        Parameters
        ----------
        x : (..., n)
            float32 or float64, at least one axis.
        tensor_scale
            A positive float32 number; ``None`` follows the rule. Rule ``"floor"`` has no such scale,
            and 1.0 is returned.

        Examples
        --------
        >>> scales, tensor = BlockFormat.parse("mxfp4").scales(np.array([0.3, -7.0]))
        >>> scales.tolist(), tensor
        ([1.0], 1.0)
        """
        self.check_tensor_scale(tensor_scale)
        amax = np.empty(self.blocks_in(x.shape))
        x = np.ascontiguousarray(x, np.float32 if x.dtype == np.float32 else np.float64)
        blocks.maxima(in_rows(x), in_rows(amax), self.block)
        bad = ~np.isfinite(amax)
        amax[bad] = np.nan
        if isinstance(self.scale, str):
            return _power_scales(amax, self.element), 1.0
        if tensor_scale is None:
            finite = np.abs(x[np.isfinite(x)]) if bad.any() else amax
            tensor_scale = _tensor_scale(float(finite.max(initial=0.0)), self.element, self.scale)
        tensor_scale = float(tensor_scale)
        unit = tensor_scale * self.element.max
        return _ratio_scales(amax, unit, self.scale, single=x.dtype == np.float32), tensor_scale


def parse_any_format(fmt: Format | BlockFormat | str) -> Format | BlockFormat:
    """Read a format of one value or of blocks from its text; a format passes through.

    Examples
    --------
    >>> [type(parse_any_format(text)).__name__ for text in ("e2m1", "mxfp4", "e2m1 block=8 scale=e8m0")]
    ['FloatFormat', 'BlockFormat', 'BlockFormat']
    """
    if isinstance(fmt, BlockFormat):
        return fmt
    if isinstance(fmt, str) and ((key := fmt.strip().lower()) in BLOCK_FORMATS or " block=" in key):
        return BlockFormat.parse(fmt)
    return parse_format(fmt)


def in_rows(x: Float[np.ndarray, "*rows n"]) -> Float[np.ndarray, "m n"]:
    """A contiguous array with all its leading axes as one, as the kernels take it."""
    return x.reshape(prod(x.shape[:-1]), x.shape[-1])


def _significant_bits(fmt: Format) -> int:
    return fmt.precision if isinstance(fmt, FloatFormat) else fmt.int_bits + fmt.frac_bits


def _power_scales(amax: Float[np.ndarray, "*blocks"], element: Format) -> Float[np.ndarray, "*blocks"]:
    emax = element.emax if isinstance(element, FloatFormat) else element.int_bits - 1
    bad = np.isnan(amax)
    exponent = np.frexp(np.where(bad, 0.0, amax))[1].astype(np.int64) - 1 - emax
    exponent = np.where(amax == 0.0, _E8M0_MIN, np.maximum(exponent, _E8M0_MIN))
    bad |= exponent > _E8M0_MAX
    return np.where(bad, np.nan, np.ldexp(1.0, np.minimum(exponent, _E8M0_MAX)))


def _tensor_scale(amax: float, element: Format, scale: FloatFormat) -> float:
    if amax == 0.0:
        return 1.0
    # 24-bit rounding of a quotient: odd at 53 bits first, so that it is rounded once.
    ratio = blocks.divide_to_odd(amax, scale.max * element.max)
    with np.errstate(over="ignore", under="ignore"):
        rounded = float(np.float32(ratio))
    return min(max(rounded, _SMALLEST_FLOAT32), float(np.finfo(np.float32).max))


def _ratio_scales(
    amax: Float[np.ndarray, "*blocks"], unit: float, scale: FloatFormat, *, single: bool
) -> Float[np.ndarray, "*blocks"]:
    """``amax / unit`` to nearest even; `single` says that the magnitudes are those of float32."""
    out = np.empty(amax.shape)
    rows = amax.reshape(1, -1), out.reshape(1, -1)
    shape = scale.frac_bits, scale.emin, scale.max, not scale.subnormals
    blocks.nearest_scales(*rows, unit, *shape, single)
    return out


BLOCK_FORMATS: dict[str, BlockFormat] = {
    "mxfp8": BlockFormat(element=E4M3, block=32),
    "mxfp8e5m2": BlockFormat(element=E5M2, block=32),
    "mxfp6": BlockFormat(element=E2M3, block=32),
    "mxfp6e3m2": BlockFormat(element=E3M2, block=32),
    "mxfp4": BlockFormat(element=E2M1, block=32),
    "mxint8": BlockFormat(element=FixedFormat(int_bits=1, frac_bits=6), block=32),
    "nvfp4": BlockFormat(element=E2M1, block=16, scale=E4M3),
}
