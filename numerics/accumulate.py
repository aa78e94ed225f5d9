"""Dot products and matrix products under a declared accumulator, exact to the bit.

The result is defined by `numerics.accumulator.Accumulator`, `numerics.fused.FusedAdder` or
`numerics.kulisch.ExactAccumulator`. For plain sums (ascending index, exact products, one rounding per
addition) the arithmetic that computes it (float32, float64, or float64 with rounding to odd) is
decided once per call by a certificate on the operands, and never changes a bit; all other sums take
float64 with rounding to odd, or integers.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, overload

import numpy as np
from jaxtyping import Float

from numerics._ordered import Report, ordered
from numerics._sequential import sequential
from numerics._target import check_seed
from numerics.accumulator import Accumulator
from numerics.formats import FloatFormat
from numerics.fused import FusedAdder, fused, is_fused
from numerics.kulisch import ExactAccumulator, exact
from numerics.rounding import Rounding

AnyAccumulator: TypeAlias = Accumulator | FusedAdder | ExactAccumulator
Formats: TypeAlias = tuple[FloatFormat | str, FloatFormat | str]


def parse_accumulator(text: AnyAccumulator | str) -> AnyAccumulator:
    """Read any accumulator from its text; one that is a value already passes through.

    Examples
    --------
    >>> type(parse_accumulator("e6m9 chunk=64")).__name__, type(parse_accumulator("volta")).__name__
    ('Accumulator', 'FusedAdder')
    """
    if isinstance(text, FusedAdder) or (isinstance(text, str) and is_fused(text)):
        return FusedAdder.parse(text)
    if isinstance(text, ExactAccumulator) or (
        isinstance(text, str) and text.split(maxsplit=1)[:1] == ["exact"]
    ):
        return ExactAccumulator.parse(text)
    return Accumulator.parse(text)


def dot(
    a: Float[np.ndarray, " n"],
    b: Float[np.ndarray, " n"],
    accumulator: AnyAccumulator | str,
    *,
    seed: int | None = None,
    stream: int = 0,
    formats: Formats | None = None,
) -> float:
    """Dot product summed as `accumulator` says.

    Parameters
    ----------
    a, b : (n,)
        float32 or float64 operands, used as they are: round them to their format first.
    seed, stream
        Key of a stochastic accumulator.
    formats
        Formats of `a` and `b`, for a fused adder (see `matmul`).

    Returns
    -------
    A value of the accumulator's format (infinity or its largest value after an overflow).

    Examples
    --------
    >>> ones = np.ones(4096)
    >>> dot(ones, ones, "e6m9")  # swamping: 1024 + 1 rounds to 1024
    1024.0
    >>> dot(ones, ones, "e6m9 chunk=64")
    4096.0
    """
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"a and b must be 1-D and equal in shape, got {a.shape} and {b.shape}")
    product = matmul(a[None, :], b[:, None], accumulator, seed=seed, stream=stream, formats=formats)
    return float(product[0, 0])


@overload
def matmul(
    a: Float[np.ndarray, "m k"],
    b: Float[np.ndarray, "k n"],
    accumulator: AnyAccumulator | str,
    *,
    seed: int | None = None,
    stream: int = 0,
    formats: Formats | None = None,
    report: Literal[False] = False,
) -> Float[np.ndarray, "m n"]: ...


@overload
def matmul(
    a: Float[np.ndarray, "m k"],
    b: Float[np.ndarray, "k n"],
    accumulator: AnyAccumulator | str,
    *,
    seed: int | None = None,
    stream: int = 0,
    formats: Formats | None = None,
    report: Literal[True],
) -> tuple[Float[np.ndarray, "m n"], Report]: ...


def matmul(
    a: Float[np.ndarray, "m k"],
    b: Float[np.ndarray, "k n"],
    accumulator: AnyAccumulator | str,
    *,
    seed: int | None = None,
    stream: int = 0,
    formats: Formats | None = None,
    report: bool = False,
) -> Float[np.ndarray, "m n"] | tuple[Float[np.ndarray, "m n"], Report]:
    """Matrix product in which every element is summed as `accumulator` says.

    Parameters
    ----------
    a, b : (m, k), (k, n)
        float32 or float64 operands, used as they are: round them to their format first. Any
        strides.
    seed, stream
        Key of a stochastic accumulator: the random word of an addition depends on the key, the
        output element and the number of the addition (see `Accumulator`) alone.
    formats
        Formats of `a` and `b`: a fused adder needs them, since the exponent of a subnormal operand is
        that of its format; the operands must be values of them. No other accumulator takes them.
    report
        Also count overflows, swamped additions and the like (for an `Accumulator` only). The result is the
        same; it takes the slow general kernel.

    Returns
    -------
    (m, n) array of accumulator values, float32; with `report`, the array and a `Report`.

    Raises
    ------
    TypeError, ValueError
        Other dtypes, shapes that do not match, float64 operands whose products need more than 53
        bits, a missing seed, formats that are missing or not taken, operands off their formats.

    Examples
    --------
    >>> a = np.array([[1.0, 2.0**-10, 2.0**-10]], np.float32)
    >>> matmul(a, np.ones((3, 1), np.float32), "e6m9")  # each small term is lost on its own
    array([[1.]], dtype=float32)
    >>> matmul(a, np.ones((3, 1), np.float32), "e6m9", report=True)[1].swamped
    2
    >>> matmul(a, np.ones((3, 1), np.float32), "hopper-fp16", formats=("fp16", "fp16"))
    array([[1.0019531]], dtype=float32)
    """
    accumulator = parse_accumulator(accumulator)
    pair = _formats(accumulator, formats)
    if report and not isinstance(accumulator, Accumulator):
        raise ValueError(f"report counts rounded additions, of which {accumulator} has none")
    seed, stream = check_seed(_seeded(accumulator), seed, stream)
    for name, operand in (("a", a), ("b", b)):
        if not isinstance(operand, np.ndarray) or operand.dtype not in (np.float32, np.float64):
            kind = getattr(operand, "dtype", type(operand).__name__)
            raise TypeError(f"{name} must be a float32 or float64 array, got {kind}")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ValueError(f"shapes must be (m, k) and (k, n), got {a.shape} and {b.shape}")
    if 0 in (*a.shape, *b.shape):
        zeros = np.zeros((a.shape[0], b.shape[1]), np.float32)
        return (zeros, Report()) if report else zeros
    if isinstance(accumulator, FusedAdder):
        assert pair is not None  # _formats has seen to it
        return fused(a, b, accumulator, pair)
    if isinstance(accumulator, ExactAccumulator):
        return exact(a, b, accumulator, seed, stream)
    if report:
        return ordered(a, b, accumulator, seed, stream, counting=True)
    if accumulator.is_plain:
        return sequential(a, b, accumulator, seed, stream)
    return ordered(a, b, accumulator, seed, stream)[0]


def _seeded(accumulator: AnyAccumulator) -> Rounding:
    outer = accumulator.outer if isinstance(accumulator, Accumulator) else None
    return outer.rounding if outer is not None and outer.rounding.is_stochastic else accumulator.rounding


def _formats(accumulator: AnyAccumulator, formats: Formats | None) -> tuple[FloatFormat, FloatFormat] | None:
    if not isinstance(accumulator, FusedAdder):
        if formats is not None:
            raise ValueError(f"formats are for fused adders, got {formats} with accumulator {accumulator}")
        return None
    if formats is None:
        raise ValueError(f"fused adder {accumulator} needs formats=(format of a, format of b), got None")
    if not isinstance(formats, tuple) or len(formats) != 2:
        raise ValueError(f"formats must be a pair (format of a, format of b), got {formats!r}")
    pair = [FloatFormat.parse(fmt) if isinstance(fmt, str) else fmt for fmt in formats]
    for fmt in pair:
        if not isinstance(fmt, FloatFormat):
            raise TypeError(f"operands of a fused adder must be of a FloatFormat, got {fmt!r}")
    return pair[0], pair[1]
