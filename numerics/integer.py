"""The integer accumulator: a two's-complement register that clamps or wraps after every addition.

References
----------
.. [Bruin20] B. de Bruin, Z. Zivkovic, H. Corporaal, "Quantization of deep neural networks for
   accumulator-constrained processors", Microprocessors and Microsystems 72, 2020, arXiv 2004.11783.
.. [WrapNet] R. Ni et al., "WrapNet: Neural Net Inference with Ultra-Low-Precision Arithmetic",
   ICLR 2021, arXiv 2007.13242.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import get_args

import numpy as np
from jaxtyping import Float, Int64

from numerics import threads
from numerics._kernels import integer as kernels
from numerics._ordered import Report
from numerics._units import Problem, in_units
from numerics.accumulator import read_options, whole
from numerics.formats import FixedOverflow
from numerics.rounding import Rounding

MAX_BITS = 64

_OPTIONS = ("chunk", "outer", "rounding")
_REGISTER = re.compile(r"(?:int(\d+)|s(\d+)\.(\d+))(-wrap)?")
_LANES = 16
_LEAST_STEP = 8  # products worth a call of the plain matrix product
_LEAST_WORK = 4_000_000  # multiply-adds worth a second thread
_ENDLESS = (-np.inf, np.inf)


@dataclass(frozen=True, slots=True)
class IntegerAccumulator:
    """A signed register of `bits` bits that counts units of ``2**-frac_bits``, in two's complement.

    ``acc = fit(acc + a[i] * b[i])`` for ascending i, from 0. The product is exact, however wide, and the
    sum is taken before it is fitted into the register: held at the nearer end of the range
    (``"saturate"``, [Bruin20]_), so that the order of the additions matters, or reduced modulo
    ``2**bits`` (``"wrap"``, [WrapNet]_), so that it does not, and a sum that fits is right whatever
    happened on the way.

    With `chunk`, every run of so many products is summed alone, from 0, and the sums are added, in order
    and from 0, into a register of `outer` bits, of the same unit and overflow.

    Attributes
    ----------
    bits, frac_bits
        Bits of the register (2..64) with its sign, and those right of the binary point
        (0..bits - 1).
    overflow
        ``"saturate"`` or ``"wrap"``.
    chunk
        Products per inner sum, or ``None`` for one sum.
    outer
        Bits of the register of the chunk sums; one as wide as the inner one is stored as ``None``.
    rounding
        How a product that is no multiple of the unit is rounded to one before it is added; ``None``
        refuses such products. Not stochastic; text is parsed.

    Examples
    --------
    >>> acc = IntegerAccumulator.parse("int16-wrap chunk=64 outer=int32-wrap")
    >>> acc.bits, acc.overflow, acc.chunk, acc.outer
    (16, 'wrap', 64, 32)
    >>> str(IntegerAccumulator(24, frac_bits=8, rounding="down"))
    's15.8 rounding=down'
    """

    bits: int
    frac_bits: int = 0
    overflow: FixedOverflow = "saturate"
    chunk: int | None = None
    outer: int | None = None
    rounding: Rounding | None = None

    def __init__(
        self,
        bits: int,
        *,
        frac_bits: int = 0,
        overflow: FixedOverflow = "saturate",
        chunk: int | None = None,
        outer: int | None = None,
        rounding: Rounding | str | None = None,
    ) -> None:
        for name, value in (("bits", bits), ("frac_bits", frac_bits), ("chunk", chunk), ("outer", outer)):
            optional = name in ("chunk", "outer")
            if optional and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an integer{' or None' if optional else ''}, got {value!r}")
        if not 2 <= bits <= MAX_BITS:
            raise ValueError(f"bits must be in 2..{MAX_BITS}, got {bits}")
        if not 0 <= frac_bits < bits:
            raise ValueError(f"frac_bits must be in 0..{bits - 1} with {bits} bits, got {frac_bits}")
        if overflow not in get_args(FixedOverflow):
            raise ValueError(f"overflow must be saturate or wrap, got {overflow!r}")
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {chunk}")
        if outer is not None and chunk is None:
            raise ValueError(f"an outer register adds the sums of chunks: outer={outer} needs chunk=<n>")
        if outer is not None and not max(2, frac_bits + 1) <= outer <= MAX_BITS:
            raise ValueError(
                f"outer must be in {max(2, frac_bits + 1)}..{MAX_BITS} bits with frac_bits {frac_bits}, "
                f"got {outer}"
            )
        mode = None if rounding is None else Rounding.parse(rounding)
        if mode is not None and mode.is_stochastic:
            raise ValueError(f"an integer register rounds products deterministically, got rounding {mode}")
        object.__setattr__(self, "bits", bits)
        object.__setattr__(self, "frac_bits", frac_bits)
        object.__setattr__(self, "overflow", overflow)
        object.__setattr__(self, "chunk", chunk)
        object.__setattr__(self, "outer", None if outer == bits else outer)
        object.__setattr__(self, "rounding", mode)

    @classmethod
    def parse(cls, text: str | IntegerAccumulator) -> IntegerAccumulator:
        """Read ``int16-wrap``, ``s15.8 rounding=down``, ``int24 chunk=64 outer=int32``.

        The options are ``chunk=<n>``, ``outer=<register>`` (of the same fraction bits and overflow) and
        ``rounding=<mode>``, in any order; an accumulator passes through.

        Raises
        ------
        ValueError
            An unsigned register, an unknown option, a bad value.
        """
        if isinstance(text, IntegerAccumulator):
            return text
        head, *words = text.split() or [""]
        options = read_options(words, _OPTIONS, "integer accumulator")
        bits, frac_bits, overflow = _read_register("integer register", head)
        outer = None
        if "outer" in options:
            outer, *rest = _read_register("outer", options["outer"])
            if rest != [frac_bits, overflow]:
                raise ValueError(
                    f"outer must have the fraction bits and the overflow of {head}, got {options['outer']!r}"
                )
        return cls(
            bits,
            frac_bits=frac_bits,
            overflow=overflow,
            chunk=whole(options, "chunk", None),
            outer=outer,
            rounding=options.get("rounding"),
        )

    def __str__(self) -> str:
        words = [self._register(self.bits)]
        if self.chunk is not None:
            words.append(f"chunk={self.chunk}")
        if self.outer is not None:
            words.append(f"outer={self._register(self.outer)}")
        if self.rounding is not None:
            words.append(f"rounding={self.rounding}")
        return " ".join(words)

    def _register(self, bits: int) -> str:
        wrap = "-wrap" if self.overflow == "wrap" else ""
        return (
            f"s{bits - 1 - self.frac_bits}.{self.frac_bits}{wrap}" if self.frac_bits else f"int{bits}{wrap}"
        )

    @property
    def output_bits(self) -> int:
        """Bits of the register that holds the result."""
        return self.bits if self.outer is None else self.outer

    @property
    def dtype(self) -> np.dtype[np.float32] | np.dtype[np.float64]:
        """Of results: float32 if that holds every value of the output register (25 bits), else float64."""
        return np.dtype(np.float32) if self.output_bits <= 25 else np.dtype(np.float64)


def _read_register(name: str, text: str) -> tuple[int, int, FixedOverflow]:
    """(bits, fraction bits, overflow) of ``int32``, ``s15.8`` or ``s15.8-wrap``."""
    if (match := _REGISTER.fullmatch(text.lower())) is None:
        raise ValueError(
            f"{name} must be int<bits> or s<int>.<frac>, signed, with -wrap or without; got {text!r}"
        )
    integer_bits, int_bits, frac_bits, wrap = match.groups()
    bits = int(integer_bits) if integer_bits else 1 + int(int_bits) + int(frac_bits)
    return bits, int(frac_bits or 0), "wrap" if wrap else "saturate"


def is_integer(text: str) -> bool:
    """Whether the text of an accumulator is that of an integer or fixed-point register."""
    return re.match(r"\s*([su]\d|u?int\d)", text.lower()) is not None


def integer(
    a: np.ndarray, b: np.ndarray, accumulator: IntegerAccumulator, *, counting: bool = False
) -> tuple[Float[np.ndarray, "m n"], Report]:
    """``a @ b`` for checked operands, summed in the register.

    Parameters
    ----------
    a, b : (m, k), (k, n)
        float32 or float64, any strides, also empty. Every product must be finite and below ``2**63``
        units, and a multiple of the unit unless `accumulator` has a rounding, when operands must be of
        at most 53 significand bits together.
    counting
        Fill the report: `additions` of products and of chunk sums, `saturation` the sums that were
        clamped, or `overflow` those that wrapped.

    Returns
    -------
    (m, n) array of ``accumulator.dtype``, and a report, all zeros if not `counting`.

    Raises
    ------
    ValueError
        Before any work: an operand or product as above, by its value and index. After it: a result of
        more than 53 bits, which float64 cannot hold; `register_codes` can.

    Examples
    --------
    >>> a = np.array([[100.0, 100.0, -100.0]])
    >>> ones = np.ones((3, 1))
    >>> [float(integer(a, ones, IntegerAccumulator.parse(t))[0][0, 0]) for t in ("int8", "int8-wrap")]
    [27.0, 100.0]
    >>> integer(a, ones, IntegerAccumulator(8), counting=True)[1].saturation
    1
    """
    sums, report = _sums(a, b, accumulator, counting)
    if sums.dtype == np.int64 and accumulator.output_bits > 54:
        for i, j in np.argwhere((sums > 1 << 53) | (sums < -(1 << 53))).tolist():
            if int(float(code := int(sums[i, j]))) != code:
                raise ValueError(
                    f"results must be of at most 53 bits to fit float64, got {code} units of "
                    f"2**-{accumulator.frac_bits} at [{i}, {j}]; register_codes returns integers"
                )
    out: np.ndarray = sums.astype(accumulator.dtype, copy=False)
    return (np.ldexp(out, -accumulator.frac_bits) if accumulator.frac_bits else out), report


def register_codes(
    a: np.ndarray, b: np.ndarray, accumulator: IntegerAccumulator, *, counting: bool = False
) -> tuple[Int64[np.ndarray, "m n"], Report]:
    """The same as `integer`, in units of ``2**-frac_bits``: int64, which holds every register.

    Examples
    --------
    >>> huge = np.full((1, 3), 2.0**62)
    >>> register_codes(huge, np.ones((3, 1)), IntegerAccumulator(64))[0]
    array([[9223372036854775807]])
    """
    sums, report = _sums(a, b, accumulator, counting)
    return sums.astype(np.int64, copy=False), report


def _sums(
    a: np.ndarray, b: np.ndarray, accumulator: IntegerAccumulator, counting: bool
) -> tuple[np.ndarray, Report]:
    """Integers as float32, float64 or int64: whichever arithmetic is fast and exact."""
    (rows, depth), columns = a.shape, b.shape[1]
    bits, outer, wraps = accumulator.bits, accumulator.output_bits, accumulator.overflow == "wrap"
    chunk = max(1, min(accumulator.chunk or depth, depth))
    has_outer = chunk < depth or accumulator.outer is not None
    additions = rows * columns * (depth + (-(-depth // chunk) if has_outer else 0))
    report = Report(additions=additions) if counting else Report()
    problem = in_units(a, b, accumulator.frac_bits, accumulator.rounding, str(accumulator))
    if problem is None:
        return np.zeros((rows, columns), np.float32), report
    reach, narrow = depth * problem.largest, min(bits, outer)
    stays = reach < 1 << (narrow - 1)  # no sum can leave a register
    modular = wraps and not counting
    # Reductions compose: only one to fewer bits than the next must be done chunk by chunk.
    once = stays or (modular and (outer <= bits or chunk >= depth))
    step = depth if once else chunk
    whole_products = problem.mode == kernels.INTEGERS
    if whole_products and (once or (modular and chunk >= _LEAST_STEP)) and step * problem.largest <= 1 << 53:
        return _by_products(problem, step, narrow, narrow if once else outer), report
    if once and reach <= 1 << 53:
        sums, _ = _run(kernels.gemm_clamped, problem, _float_for(reach, problem), 0, _ENDLESS, _ENDLESS)
        return _wrapped(sums.astype(np.int64), narrow), report
    length = chunk if has_outer else 0
    inner_reach, outer_reach = (min(reach, 1 << (width - 1)) for width in (bits, outer))
    widest = inner_reach + max(problem.largest, outer_reach if has_outer else 0)
    if widest <= 1 << 53 and not (wraps or counting):
        # An end that the type cannot hold is one that no sum reaches.
        ends = ((-(2.0 ** (width - 1)), 2.0 ** (width - 1) - 1.0) for width in (bits, outer))
        return _run(kernels.gemm_clamped, problem, _float_for(widest, problem), length, *ends)[0], report
    exact = np.int64 if whole_products else np.float64
    sums, events = _run(kernels.gemm_wide, problem, exact, length, np.int64(bits), np.int64(outer), not wraps)
    if counting:
        report = replace(report, overflow=events) if wraps else replace(report, saturation=events)
    return sums, report


def _float_for(widest: int, problem: Problem) -> type[np.float32] | type[np.float64]:
    """Type that holds all integers up to `widest`, at most 2**53, and the products."""
    return np.float32 if widest <= 1 << 24 and problem.fits_float32 else np.float64


def _by_products(problem: Problem, step: int, bits: int, outer: int) -> np.ndarray:
    """Plain matrix products over `step` products at a time, each reduced modulo ``2**bits``."""
    dtype = _float_for(step * problem.largest, problem)
    left, right = (x.astype(dtype, copy=False) for x in (problem.left, problem.right))
    total = np.zeros((left.shape[0], right.shape[1]), np.int64)
    for first in range(0, left.shape[1], step):
        sums = np.matmul(left[:, first : first + step], right[first : first + step])
        total = _wrapped(total + _wrapped(sums.astype(np.int64), bits), outer)
    return total


def _wrapped(x: np.ndarray, bits: int) -> np.ndarray:
    return (x << (MAX_BITS - bits)) >> (MAX_BITS - bits)


def _run(
    kernel: Callable[..., int], problem: Problem, dtype: type[np.number], *settings: object
) -> tuple[np.ndarray, int]:
    """What a kernel writes and the sum of what it returns, the rows shared among threads."""
    left, right = problem.left, problem.right
    # Lanes run over columns; a result too narrow for them is computed transposed, with the same sums.
    flip = right.shape[1] < _LANES and left.shape[0] > right.shape[1]
    left, right = (np.ascontiguousarray(x, dtype) for x in ((right.T, left.T) if flip else (left, right)))
    out = np.empty((left.shape[0], right.shape[1]), np.int64 if kernel is kernels.gemm_wide else dtype)
    events: list[int] = []

    def task(low: int, high: int) -> None:
        with np.errstate(over="ignore"):  # int64 wraps around, which NumPy tells where Numba is off
            events.append(int(kernel(left[low:high], right, out[low:high], problem.mode, *settings)))

    parts = threads.parts(left.shape[0], work=left.size * right.shape[1], least=_LEAST_WORK)
    threads.run([partial(task, low, high) for low, high in parts])
    return (out.T if flip else out), sum(events)
