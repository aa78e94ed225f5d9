"""Sums, dot products and matrix products under a declared accumulator, exact to the bit.

The result is defined by `numerics.accumulator.Accumulator`, `numerics.fused.FusedAdder`,
`numerics.integer.IntegerAccumulator` or `numerics.kulisch.ExactAccumulator`. For plain sums (ascending
index, exact products, one rounding per addition) the arithmetic that computes it (float32, float64, or
float64 with rounding to odd) is decided once per call by a certificate on the operands, and never
changes a bit; all other sums take float64 with rounding to odd, or integers.
"""

from __future__ import annotations

from math import prod
from typing import Any, Literal, TypeAlias, overload

import numpy as np
from jaxtyping import Float

from numerics._ordered import Report, ordered
from numerics._sequential import batched, sequential
from numerics._target import check_seed
from numerics.accumulator import Accumulator
from numerics.formats import FloatFormat
from numerics.fused import FusedAdder, fused, is_fused
from numerics.integer import IntegerAccumulator, integer, is_integer
from numerics.kulisch import ExactAccumulator, exact
from numerics.rounding import Rounding

AnyAccumulator: TypeAlias = Accumulator | FusedAdder | IntegerAccumulator | ExactAccumulator
Formats: TypeAlias = tuple[FloatFormat | str, FloatFormat | str]


def parse_accumulator(text: AnyAccumulator | str) -> AnyAccumulator:
    """Read any accumulator from its text; one that is a value already passes through.

    Examples
    --------
    >>> [type(parse_accumulator(t)).__name__ for t in ("e6m9 chunk=64", "volta", "int16-wrap")]
    ['Accumulator', 'FusedAdder', 'IntegerAccumulator']
    """
    if isinstance(text, FusedAdder) or (isinstance(text, str) and is_fused(text)):
        return FusedAdder.parse(text)
    if isinstance(text, ExactAccumulator) or (
        isinstance(text, str) and text.split(maxsplit=1)[:1] == ["exact"]
    ):
        return ExactAccumulator.parse(text)
    if isinstance(text, IntegerAccumulator) or (isinstance(text, str) and is_integer(text)):
        return IntegerAccumulator.parse(text)
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


def sum(  # noqa: A001  as numpy names it
    x: Float[np.ndarray, "..."],
    accumulator: AnyAccumulator | str,
    *,
    axis: int | None = None,
    seed: int | None = None,
    stream: int = 0,
    formats: Formats | None = None,
) -> Float[np.ndarray, "..."]:
    """Sum along an axis, or of all elements in C order: the dot product with ones.

    Parameters
    ----------
    x : (...)
        float32 or float64.
    axis
        The axis that is summed; ``None``: all of them.
    seed, stream, formats
        As in `matmul`; the second format is that of the ones.

    Returns
    -------
    Array without that axis; a float32 scalar array for ``None``.

    Examples
    --------
    >>> x = np.full((2, 4096), 1.0, np.float32)
    >>> sum(x, "e6m9", axis=1), float(sum(x, "e6m9 chunk=64"))
    (array([1024., 1024.], dtype=float32), 8192.0)
    """
    if axis is not None and not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis must be in {-x.ndim}..{x.ndim - 1} for shape {x.shape}, got {axis}")
    rows = x.reshape(1, -1) if axis is None else np.moveaxis(x, axis, -1)
    shape = () if axis is None else rows.shape[:-1]
    rows = rows.reshape(prod(shape), rows.shape[-1])
    ones = np.ones((rows.shape[1], 1), np.float32)
    return matmul(rows, ones, accumulator, seed=seed, stream=stream, formats=formats).reshape(shape)


@overload
def matmul(
    a: Float[np.ndarray, "... m k"],
    b: Float[np.ndarray, "... k n"],
    accumulator: AnyAccumulator | str,
    *,
    seed: int | None = None,
    stream: int = 0,
    formats: Formats | None = None,
    out: Float[np.ndarray, "... m n"] | None = None,
    report: Literal[False] = False,
) -> Float[np.ndarray, "... m n"]: ...


@overload
def matmul(
    a: Float[np.ndarray, "... m k"],
    b: Float[np.ndarray, "... k n"],
    accumulator: AnyAccumulator | str,
    *,
    seed: int | None = None,
    stream: int = 0,
    formats: Formats | None = None,
    out: Float[np.ndarray, "... m n"] | None = None,
    report: Literal[True],
) -> tuple[Float[np.ndarray, "... m n"], Report]: ...


def matmul(
    a: Float[np.ndarray, "... m k"],
    b: Float[np.ndarray, "... k n"],
    accumulator: AnyAccumulator | str,
    *,
    seed: int | None = None,
    stream: int = 0,
    formats: Formats | None = None,
    out: Float[np.ndarray, "... m n"] | None = None,
    report: bool = False,
) -> Float[np.ndarray, "... m n"] | tuple[Float[np.ndarray, "... m n"], Report]:
    """Matrix product in which every element is summed as `accumulator` says.

    Parameters
    ----------
    a, b : (..., m, k), (..., k, n)
        float32 or float64 operands, used as they are: round them to their format first. Any strides;
        transposed operands are not copied. Leading axes are broadcast.
    seed, stream
        Key of a stochastic accumulator: the random number of an addition depends on the key, the
        output element, counted in C order, and the number of the addition (see `Accumulator`) alone.
    formats
        Formats of `a` and `b`: a fused adder needs them, since the exponent of a subnormal operand is
        that of its format; the operands must be values of them. No other accumulator takes them.
    out : (..., m, n)
        Where to write: of the shape and dtype of the result, sharing no memory with the operands.
    report
        Also count overflows, swamped additions and the like. The result is the same; it takes the slow
        general kernel.

    Returns
    -------
    (..., m, n) array of accumulator values, float32 (float64 for integer accumulators of more than 25
    bits); with `report`, the array and a `Report`.

    Raises
    ------
    TypeError, ValueError
        Other dtypes, shapes that do not match, float64 operands whose products need more than 53
        bits, a missing seed, formats that are missing or not taken, operands off their formats, an
        unfit `out`.

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
    seed, stream = check_seed(_seeded(accumulator), seed, stream)
    for name, operand in (("a", a), ("b", b)):
        if not isinstance(operand, np.ndarray) or operand.dtype not in (np.float32, np.float64):
            kind = getattr(operand, "dtype", type(operand).__name__)
            raise TypeError(f"{name} must be a float32 or float64 array, got {kind}")
    shape = _shape_of(a, b)
    dtype = accumulator.dtype if isinstance(accumulator, IntegerAccumulator) else np.dtype(np.float32)
    if out is not None:
        _check_out(out, shape, dtype, (a, b))
    if b.ndim == 2:  # one product of all rows, with the same sums
        rows = a.reshape(prod(shape[:-1]), a.shape[-1])
        found, counts = _product(rows, b, accumulator, pair, (seed, stream, 0), report)
        result = np.ascontiguousarray(found).reshape(shape) if out is None else out
        if out is not None:
            out[...] = found.reshape(shape)
    else:
        result = np.empty(shape, dtype) if out is None else out
        counts, size = Report(), shape[-2] * shape[-1]
        lefts = np.broadcast_to(a, (*shape[:-2], *a.shape[-2:]))
        rights = np.broadcast_to(b, (*shape[:-2], *b.shape[-2:]))
        if not report and (together := _together(lefts, rights, accumulator)) is not None:
            result[...] = together.reshape(shape)
            return result
        for number, place in enumerate(np.ndindex(shape[:-2])):
            key = (seed, stream, number * size)
            result[place], more = _product(lefts[place], rights[place], accumulator, pair, key, report)
            counts = counts + more
    return (result, counts) if report else result


def _together(a: np.ndarray, b: np.ndarray, accumulator: AnyAccumulator) -> np.ndarray | None:
    """All products of a stack at once, where that can be done."""
    left, right = (x.reshape(prod(x.shape[:-2]), *x.shape[-2:]) for x in (a, b))
    return batched(left, right, accumulator)


def _product(
    a: np.ndarray,
    b: np.ndarray,
    accumulator: AnyAccumulator,
    formats: tuple[FloatFormat, FloatFormat] | None,
    key: tuple[int, int, int],
    report: bool,
) -> tuple[np.ndarray, Report]:
    """One product of matrices; ``key`` is seed, stream and the number of the first output element."""
    if isinstance(accumulator, IntegerAccumulator):
        return integer(a, b, accumulator, counting=report)
    if 0 in (*a.shape, *b.shape):
        return np.zeros((a.shape[0], b.shape[1]), np.float32), Report()
    if isinstance(accumulator, FusedAdder):
        assert formats is not None  # _formats has seen to it
        return fused(a, b, accumulator, formats, counting=report)
    if isinstance(accumulator, ExactAccumulator):
        return exact(a, b, accumulator, key, counting=report)
    if report or not accumulator.is_plain:
        return ordered(a, b, accumulator, key, counting=report)
    return sequential(a, b, accumulator, key), Report()


def _shape_of(a: np.ndarray, b: np.ndarray) -> tuple[int, ...]:
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"shapes must be (..., m, k) and (..., k, n), got {a.shape} and {b.shape}")
    try:
        leading = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ValueError(f"leading axes must match or be 1, got {a.shape} and {b.shape}") from None
    return *leading, a.shape[-2], b.shape[-1]


def _check_out(
    out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], operands: tuple[np.ndarray, np.ndarray]
) -> None:
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != dtype:
        got = (getattr(out, "shape", None), getattr(out, "dtype", type(out).__name__))
        raise ValueError(f"out must have shape {shape} and dtype {dtype}, got {got[0]} and {got[1]}")
    if any(np.may_share_memory(out, operand) for operand in operands):
        raise ValueError("out must not share memory with the operands")


def _seeded(accumulator: AnyAccumulator) -> Rounding:
    if isinstance(accumulator, IntegerAccumulator):
        return Rounding.TOWARD_ZERO  # whatever it is, it is not stochastic
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
