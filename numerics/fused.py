"""Fused block adders: the rule by which matrix units add a block of products at once.

References
----------
.. [Fasi21] M. Fasi, N. Higham, M. Mikaitis, S. Pranesh, "Numerical behavior of NVIDIA tensor cores",
   PeerJ Computer Science 7:e330, 2021.
.. [MMASim] "MMA-Sim: Bit-Accurate Reference Model of Tensor Cores and Matrix Cores", arXiv 2511.10909.
.. [DSV3] DeepSeek-AI, "DeepSeek-V3 Technical Report", arXiv 2412.19437, section 3.3.2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from math import log2
from typing import Any

import numpy as np
from numba import config

from numerics._kernels import fused as kernels
from numerics._kernels import fused_tiles, ordered
from numerics._ordered import Report
from numerics._packing import over_panels, pack
from numerics._target import Target
from numerics.accumulator import read_options, whole
from numerics.certificate import Operand
from numerics.formats import FloatFormat
from numerics.rounding import Mode, Rounding

_OPTIONS = ("products", "align_bits", "output", "rounding", "promote", "halves")


@dataclass(frozen=True, slots=True)
class FusedAdder:
    """A matrix unit that adds a block of products and an addend with one alignment [MMASim]_.

    For each block of products, in ascending order, with the addend c (at first +0):

    1. The exponent of a product is the sum of the exponents of its operands, not renormalised; a
       subnormal operand (or c) has the smallest normal exponent of its format, and a term that is zero
       has -126. Let e be the largest exponent of the block and c.
    2. Every term is cut toward zero to a multiple of ``2**(e - align_bits)``.
    3. The terms are added exactly and the sum is rounded once to `output`; it is the next c.

    A last block that is shorter is filled with zeros. Infinities and NaNs are resolved first: a NaN
    term, infinity times zero or infinities of both signs give NaN, else one infinity that infinity.
    An overflow of the output follows IEEE 754: toward zero it stays at the largest value.

    Attributes
    ----------
    products
        Products of one instruction.
    align_bits
        Fraction bits kept below the largest exponent.
    output
        Format of c and of the result; a number of bits f is ``e8m<f>``.
    rounding
        To `output`; not stochastic.
    promote
        Add c to a binary32 register, rounding to nearest even, after every so many products and after
        the last, and restart from c = 0 [DSV3]_; a multiple of `products`. ``None``: never.
    halves
        The unit adds the first half of the products, then the second half to the result: blocks are of
        ``products / 2``.

    Examples
    --------
    >>> print(FusedAdder.parse("hopper-fp8 promote=128"))
    hopper-fp8 promote=128
    >>> FusedAdder.parse("ada-fp8").block
    16
    >>> print(FusedAdder(products=16, align_bits=12, output="fp16", rounding="nearest-even"))
    fused products=16 align_bits=12 output=e5m10 rounding=nearest-even
    """

    products: int
    align_bits: int
    output: FloatFormat
    rounding: Rounding = Rounding.TOWARD_ZERO
    promote: int | None = None
    halves: bool = False

    def __init__(
        self,
        *,
        products: int,
        align_bits: int,
        output: FloatFormat | str | int,
        rounding: Rounding | str = Rounding.TOWARD_ZERO,
        promote: int | None = None,
        halves: bool = False,
    ) -> None:
        numbers = {"products": products, "align_bits": align_bits}
        if promote is not None:
            numbers["promote"] = promote
        for name, value in numbers.items():
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an integer, got {value!r}")
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not isinstance(halves, bool):
            raise TypeError(f"halves must be True or False, got {halves!r}")
        if halves and products % 2:
            raise ValueError(f"products must be even with halves, got {products}")
        if promote is not None and promote % products:
            raise ValueError(f"promote must be a multiple of products {products}, got {promote}")
        if align_bits + 2 + log2(products + 1) > 53:
            raise ValueError(
                f"the aligned sum must fit 53 bits: align_bits + 2 + log2(products + 1), got align_bits "
                f"{align_bits} with products {products}"
            )
        rounding = Rounding.parse(rounding)
        if rounding.is_stochastic:
            raise ValueError(f"a fused adder rounds deterministically, got rounding {rounding}")
        if isinstance(output, int):
            output = FloatFormat(exp_bits=8, frac_bits=output)
        elif isinstance(output, str):
            output = FloatFormat.parse(output)
        if not isinstance(output, FloatFormat):
            raise TypeError(f"output must be a FloatFormat, its text or fraction bits, got {output!r}")
        if not output.signed or not output.subnormals or output.emin < -126:
            raise ValueError(f"output must be signed, with subnormals, and emin at least -126, got {output}")
        object.__setattr__(self, "products", products)
        object.__setattr__(self, "align_bits", align_bits)
        object.__setattr__(self, "output", output)
        object.__setattr__(self, "rounding", rounding)
        object.__setattr__(self, "promote", promote)
        object.__setattr__(self, "halves", halves)

    @classmethod
    def parse(cls, text: str | FusedAdder) -> FusedAdder:
        """Read ``hopper-fp8 promote=128`` or ``fused products=16 align_bits=13 output=e8m13``.

        The options are the attributes, and may follow a preset too.

        Raises
        ------
        ValueError
            An unknown preset or option, a missing or a bad value.
        """
        if isinstance(text, FusedAdder):
            return text
        head, *words = text.split() or [""]
        if head != "fused" and head not in PRESETS:
            raise ValueError(f"fused adder must be fused or one of {', '.join(PRESETS)}; got {head!r}")
        options = read_options(words, _OPTIONS, "fused adder")
        preset = PRESETS.get(head)
        if preset is None and (missing := [name for name in _OPTIONS[:3] if name not in options]):
            raise ValueError(f"a fused adder needs {', '.join(_OPTIONS[:3])}; {missing[0]} is missing")
        if (halves := options.get("halves", "false")) not in ("true", "false"):
            raise ValueError(f"halves must be true or false, got {halves!r}")
        given: dict[str, Any] = {name: options[name] for name in ("output", "rounding") if name in options}
        for name in ("products", "align_bits", "promote"):
            if name in options:
                given[name] = whole(options, name, None)
        if "halves" in options:
            given["halves"] = halves == "true"
        return cls(**given) if preset is None else replace(preset, **given)

    def __str__(self) -> str:
        once = replace(self, promote=None)
        promote = "" if self.promote is None else f" promote={self.promote}"
        for name, preset in PRESETS.items():
            if preset == once:
                return name + promote
        rounding = "" if self.rounding == Rounding.TOWARD_ZERO else f" rounding={self.rounding}"
        return (
            f"fused products={self.products} align_bits={self.align_bits} output={self.output}"
            f"{rounding}{promote}{' halves=true' if self.halves else ''}"
        )

    @property
    def block(self) -> int:
        """Products that are aligned and added at once."""
        return self.products // 2 if self.halves else self.products


#: Matrix units by name. Block sizes of Volta, Turing and Ampere (binary16 operands) after [Fasi21]_,
#: the others and all alignments after [MMASim]_.
PRESETS: dict[str, FusedAdder] = {
    "volta": FusedAdder(products=4, align_bits=23, output=23),
    "turing": FusedAdder(products=4, align_bits=24, output=23),
    "ampere": FusedAdder(products=16, align_bits=24, output=23, halves=True),
    "hopper-fp16": FusedAdder(products=16, align_bits=25, output=23),
    "hopper-fp8": FusedAdder(products=32, align_bits=13, output=13),
    "ada-fp8": FusedAdder(products=32, align_bits=13, output=13, halves=True),
}


def is_fused(text: str) -> bool:
    """Whether the text of an accumulator is that of a fused adder."""
    head = text.split(maxsplit=1)[:1]
    return head == ["fused"] or (bool(head) and head[0] in PRESETS)


def fused(
    a: np.ndarray,
    b: np.ndarray,
    adder: FusedAdder,
    formats: tuple[FloatFormat, FloatFormat],
    *,
    counting: bool = False,
) -> tuple[np.ndarray, Report]:
    """``a @ b`` for checked operands, neither of them empty: (m, n) float32, and what was counted.

    Raises
    ------
    ValueError
        An operand that is not on its format.
    """
    least = None if counting or config.DISABLE_JIT else _least_exponent(a, b, adder, formats)
    if least is not None:
        return _in_tiles(a, b, adder, formats, least), Report()
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    left, left_exp = _split("a", a, formats[0])
    right, right_exp = _split("b", b, formats[1])
    out = np.empty((a.shape[0], b.shape[1]), np.float32)
    counts = np.zeros(ordered.COUNTERS, np.int64)
    product_bits = formats[0].frac_bits + formats[1].frac_bits
    kernels.gemm_fused(
        a,
        b,
        left,
        left_exp,
        right,
        right_exp,
        out,
        adder.block,
        max(0, adder.align_bits - product_bits),
        max(0, product_bits - adder.align_bits),
        adder.align_bits,
        Target.of(adder.output, adder.rounding).scalars(),
        adder.promote or 0,
        bool(np.isfinite(a).all() and np.isfinite(b).all()),
        counting,
        counts,
    )
    return out, Report.of(counts)


def _least_exponent(
    a: np.ndarray, b: np.ndarray, adder: FusedAdder, formats: tuple[FloatFormat, FloatFormat]
) -> int | None:
    """Exponent at or below that of any term that is not zero, if the tiles give the bits of the definition.

    They need finite operands of formats with subnormals and signs, products that are exact in float32, an
    aligned sum that fits 32 bits, and an output that is cut toward zero in the range of its normal numbers.
    With least exponents of the products e and f fraction bits kept, an addend that is not zero is at
    least 2**(e - f), its own alignment cuts at 2**(e - 2 f), and all of these must be normal in float32 and
    in the output, as must 2**f over the least of them.
    """
    facts = [Operand.of(x) for x in (a, b)]
    for fact, fmt in zip(facts, formats, strict=True):
        on_format = fact.finite and fact.bits <= fmt.precision and fact.largest <= fmt.max
        if not (on_format and fmt.subnormals and fmt.signed and fact.unit >= fmt.emin - fmt.frac_bits):
            return None
    align, output = adder.align_bits, adder.output
    least = max(formats[0].emin + formats[1].emin - align, -126)
    bound = a.shape[1] * facts[0].largest * facts[1].largest
    fits = (
        formats[0].precision + formats[1].precision <= 24
        and align + 2 + log2(adder.block + 1) <= 31
        and adder.rounding.mode is Mode.TOWARD_ZERO
        and least - align >= max(-126, output.emin)
        and align - least <= 126
        and 2.0 * bound <= min(output.max, 2.0**126)
    )
    return least if fits else None


def _in_tiles(
    a: np.ndarray,
    b: np.ndarray,
    adder: FusedAdder,
    formats: tuple[FloatFormat, FloatFormat],
    least: int,
) -> np.ndarray:
    top = fused_tiles.TOP
    rows, starts, columns = pack(a, b, top)
    exponents_a, exponents_b = (np.empty(x.shape, np.int32) for x in (rows, columns))
    fused_tiles.exponents(rows, exponents_a.reshape(-1), formats[0].emin)
    fused_tiles.exponents(columns.reshape(-1), exponents_b.reshape(-1), formats[1].emin)
    out = np.empty((len(a), columns.shape[0] * columns.shape[2]), np.float32)
    keep = -1 << (23 - adder.output.frac_bits)
    work = partial(
        fused_tiles.gemm,
        rows,
        exponents_a,
        starts,
        columns,
        exponents_b,
        out,
        adder.block,
        adder.align_bits,
        least,
        keep,
        adder.promote or 0,
    )
    over_panels(work, columns, len(a))
    return out[:, : b.shape[1]]


def _split(name: str, x: np.ndarray, fmt: FloatFormat) -> tuple[np.ndarray, np.ndarray]:
    infinite, nan = bool(np.isinf(x).any()), bool(np.isnan(x).any())
    if (infinite and not fmt.has_infinity) or (nan and not fmt.has_nan):
        raise ValueError(
            f"{name} must hold values of {fmt}, got {'inf' if infinite else 'nan'}; round it first"
        )
    significand, exponent = np.empty(x.shape, np.int64), np.empty(x.shape, np.int64)
    bad = kernels.split_operand(
        x.reshape(-1), fmt.frac_bits, fmt.emin, fmt.max, significand.reshape(-1), exponent.reshape(-1)
    )
    if bad >= 0:
        raise ValueError(f"{name} must hold values of {fmt}, got {x.reshape(-1)[bad]:g}; round it first")
    if not fmt.subnormals and bool(((significand != 0) & (abs(significand) < 1 << fmt.frac_bits)).any()):
        raise ValueError(f"{name} must hold values of {fmt}, got a subnormal; round it first")
    if not fmt.signed and bool((significand < 0).any()):
        raise ValueError(f"{name} must hold values of {fmt}, got a negative one; round it first")
    return significand, exponent
