"""Element-wise rounding of arrays: `cast`, and the rounded ``alpha * x + y`` of a weight update."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from numerics import _kernels
from numerics._target import Overflow, Target, check_seed
from numerics.formats import FloatFormat, Format, parse_format
from numerics.rounding import Mode, Rounding

_FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))


def cast(
    x: Float[np.ndarray, "..."],
    fmt: Format | str,
    *,
    rounding: Rounding | str = Rounding.NEAREST_EVEN,
    overflow: Overflow = "format",
    seed: int | None = None,
    stream: int = 0,
    out: Float[np.ndarray, "..."] | None = None,
) -> Float[np.ndarray, "..."]:
    """Round every element of `x` once to the format `fmt`.

    Parameters
    ----------
    x : (...)
        float16, float32 or float64 of any shape and stride.
    fmt, rounding
        Values or their text.
    overflow
        What a finite value beyond the largest one becomes: ``"saturate"``, ``"infinity"``,
        ``"nan"``, or ``"format"``: infinity where the format has one, else saturate. Infinities of
        `x` follow the same rule, NaN stays NaN. The directed modes stay finite, as IEEE 754 says.
    seed, stream
        Key of stochastic rounding; element i (in C order) always gets the same random word.
    out : (...)
        Where to write; shape and dtype of `x`, C-contiguous. May be `x` itself.

    Returns
    -------
    Array of the shape and dtype of `x`.

    Raises
    ------
    TypeError, ValueError
        Another dtype, a format that the dtype cannot hold, a missing seed, an unfit `out`.

    Examples
    --------
    >>> cast(np.array([0.3, 464.0, 1e3]), "e4m3fn")
    array([3.125e-01, 4.480e+02, 4.480e+02])
    >>> cast(np.array([1.125, -9.0], np.float32), "s2.2")
    array([ 1., -4.], dtype=float32)
    """
    x = _checked(x, "x")
    fmt = parse_format(fmt)
    rounding = Rounding.parse(rounding)
    target = Target.of(fmt, rounding, overflow)
    seed, stream = check_seed(rounding, seed, stream)
    _holds(x.dtype, fmt)
    out = _output(out, x)
    source, result = np.ascontiguousarray(x).reshape(-1), out.reshape(-1)
    if np.may_share_memory(source, result) and source.ctypes.data != result.ctypes.data:
        source = source.copy()  # overlapping, but not element on element
    if x.dtype == np.float16:  # Numba has no float16 arithmetic on the CPU
        source, result = source.astype(np.float32), np.empty(x.size, np.float32)
    if rounding.mode is Mode.NEAREST_EVEN and not target.flush:
        _kernels.cast_nearest_even(source, result, *target[1:5], *target.limits())
    else:
        _kernels.cast_any(source, result, *target, seed, stream)
    if target.min_value >= 0.0 or not isinstance(fmt, FloatFormat):
        result += 0.0  # no code for -0
    if x.dtype == np.float16:
        out.reshape(-1)[:] = result
    return out


def axpy(
    alpha: float,
    x: Float[np.ndarray, "..."],
    y: Float[np.ndarray, "..."],
    fmt: FloatFormat | str,
    *,
    rounding: Rounding | str = Rounding.NEAREST_EVEN,
    seed: int | None = None,
    stream: int = 0,
) -> Float[np.ndarray, "..."]:
    """``alpha * x + y``, the exact result rounded once to `fmt`.

    Parameters
    ----------
    alpha
        A scalar; it is first rounded to float32, so that its product with `x` is exact.
    x, y : (...)
        float32 arrays of equal shape.

    Returns
    -------
    float32 array of the shape of `x`.

    Examples
    --------
    >>> one = np.ones(3, np.float32)
    >>> axpy(2.0**-12, one, one, "e6m9"), axpy(1.0, one, one, "e6m9")
    (array([1., 1., 1.], dtype=float32), array([2., 2., 2.], dtype=float32))
    """
    rounding = Rounding.parse(rounding)
    fmt = FloatFormat.parse(fmt) if isinstance(fmt, str) else fmt
    target = Target.of(fmt, rounding)
    seed, stream = check_seed(rounding, seed, stream)
    for name, value in (("x", x), ("y", y)):
        if _checked(value, name).dtype != np.float32:
            raise TypeError(f"{name} must be float32, got {value.dtype}")
    if x.shape != y.shape:
        raise ValueError(f"x and y must be equal in shape, got {x.shape} and {y.shape}")
    out = np.empty(x.shape, np.float32)
    scalar = float(np.float32(alpha))
    flat = (np.ascontiguousarray(value).reshape(-1) for value in (x, y))
    _kernels.axpy_any(scalar, *flat, out.reshape(-1), *target, seed, stream)
    if not fmt.signed:
        out += 0.0  # no code for -0
    return out


def _checked(x: Any, name: str) -> np.ndarray:
    if not isinstance(x, np.ndarray) or x.dtype not in _FLOATS:
        kind = getattr(x, "dtype", type(x).__name__)
        raise TypeError(f"{name} must be a float16, float32 or float64 array, got {kind}")
    return x


def _holds(dtype: np.dtype[Any], fmt: Format) -> None:
    info = np.finfo(dtype)
    if isinstance(fmt, FloatFormat):
        fits = (
            fmt.precision <= info.nmant + 1
            and fmt.max <= float(info.max)
            and fmt.min_subnormal >= float(info.smallest_subnormal)
        )
    else:
        fits = fmt.int_bits + fmt.frac_bits <= info.nmant + 1
    if not fits:
        raise ValueError(f"{dtype} arrays cannot hold every value of {fmt}; use a wider float")


def _output(out: np.ndarray | None, x: np.ndarray) -> np.ndarray:
    if out is None:
        return np.empty(x.shape, x.dtype)
    if out.shape != x.shape or out.dtype != x.dtype or not out.flags.c_contiguous:
        raise ValueError(
            f"out must be C-contiguous with shape {x.shape} and dtype {x.dtype}, "
            f"got shape {out.shape} and dtype {out.dtype}"
        )
    return out
