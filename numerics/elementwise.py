"""Element-wise rounding of arrays: `cast`, and the rounded ``alpha * x + y`` of a weight update."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from math import frexp
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float
from numba import config

from numerics._kernels import arrays, casts, vectors
from numerics._kernels import rounding as modes
from numerics._scaling import products, quotients, round_blocks, rounds_blocks
from numerics._target import Overflow, Target, check_seed, full_setting
from numerics.block import BlockFormat, parse_any_format
from numerics.formats import FixedFormat, FloatFormat, Format
from numerics.rounding import Rounding

_FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))


def cast(
    x: Float[np.ndarray, "..."],
    fmt: Format | BlockFormat | str,
    *,
    rounding: Rounding | str = "nearest-even",
    overflow: Overflow = "format",
    seed: int | None = None,
    stream: int = 0,
    tensor_scale: float | None = None,
    out: Float[np.ndarray, "..."] | None = None,
) -> Float[np.ndarray, "..."]:
    """Round every element of `x` once to the format `fmt`.

    In a block format (`numerics.block` defines the scales) the last axis is cut into blocks, an
    element is rounded after exact division by its scales and then multiplied by them. Elements
    saturate. With a tensor scale that is no power of two the product may need more than the 24 bits
    of a float32 `x`; it is then rounded to nearest even.

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
        A fixed-point format that wraps does so with ``"format"``, and makes NaN of infinities. The
        fused top code is NaN. Block formats take ``"format"`` and ``"saturate"``, one and the same.
    seed, stream
        Key of stochastic rounding; element i (in C order) gets the random digits of place i of the stream.
    tensor_scale
        Second scale of a block format of rule ``"amax"``; ``None``: from the largest magnitude.
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
    dtype: Any = x.dtype if isinstance(x, np.ndarray) else type(x)
    try:
        known = _resolved(fmt, rounding, overflow, dtype)
    except TypeError:  # also of what cannot be hashed, and so is neither format nor rounding
        known = _resolved.__wrapped__(fmt, rounding, overflow, dtype)
    plain = seed is None and stream == 0 and not known.rounding.is_stochastic
    key = (0, 0) if plain else check_seed(known.rounding, seed, stream)
    if isinstance(known.fmt, BlockFormat):
        return _cast_blocks(x, known.fmt, known.rounding, overflow, key, tensor_scale, out)
    if tensor_scale is not None:
        raise ValueError(f"tensor_scale belongs to block formats, got {tensor_scale!r} with {known.fmt}")
    if known.kernel is None:
        assert isinstance(known.fmt, FixedFormat)
        return _cast_wrapping(x, known.fmt, known.rounding, key, _output(out, x))
    source = x if x.flags.c_contiguous else np.ascontiguousarray(x)
    if out is None:
        out = np.empty(x.shape, x.dtype)
    elif _output(out, x) is not x and _overlap(source, out):
        source = source.copy()  # overlapping, but not element on element
    if x.ndim != 1:
        source = source.reshape(-1)
    result = out if out.ndim == 1 else out.reshape(-1)
    if x.dtype == np.float16:  # Numba has no float16 arithmetic on the CPU
        source, result = source.astype(np.float32), np.empty(x.size, np.float32)
    known.kernel(source, result, *key)
    if not known.has_minus_zero:
        _without_minus_zero(result)
    if x.dtype == np.float16:
        out.reshape(-1)[:] = result
    return out


def _without_minus_zero(x: np.ndarray) -> None:
    """Make +0 of -0, which the format has no code for."""
    with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
        x += 0.0


def _overlap(x: np.ndarray, out: np.ndarray) -> bool:
    """Whether memory may be shared; two arrays that own theirs share none."""
    return (x.base is not None or out.base is not None) and np.may_share_memory(x, out)


Kernel: TypeAlias = Callable[[np.ndarray, np.ndarray, int, int], object]


class _Resolved(NamedTuple):
    """The arguments of a cast, read and checked once; no kernel for blocks and for what wraps around."""

    fmt: Format | BlockFormat
    rounding: Rounding
    kernel: Kernel | None
    has_minus_zero: bool


@lru_cache(maxsize=1024)  # a cast of a cached array takes less time than this
def _resolved(
    fmt: Format | BlockFormat | str, rounding: Rounding | str, overflow: Overflow, dtype: Any
) -> _Resolved:
    check_dtype(dtype, "x")
    fmt, rounding = parse_any_format(fmt), Rounding.parse(rounding)
    if isinstance(fmt, BlockFormat):
        return _Resolved(fmt, rounding, None, True)
    check_holds(dtype, fmt)
    if isinstance(fmt, FixedFormat) and fmt.overflow == "wrap" and overflow == "format":
        return _Resolved(fmt, rounding, None, False)
    narrow = dtype != np.float64
    has_minus_zero = isinstance(fmt, FloatFormat) and fmt.has_minus_zero
    return _Resolved(fmt, rounding, _kernel(Target.of(fmt, rounding, overflow), narrow), has_minus_zero)


def _kernel(target: Target, narrow: bool) -> Kernel:
    """The fastest kernel for the target and float32 (`narrow`) or float64; they agree to the bit."""
    shape, limits = target[1:5], target.limits()
    frac_bits, emin, min_value, max_value = shape
    to_nearest, stochastic = target.mode == modes.NEAREST_EVEN, target.mode == modes.STOCHASTIC
    if target.flush or not (to_nearest or stochastic):
        return partial(_generally, target.scalars())
    # Vectors know one limit for both signs; all their constants must be normal float32 numbers.
    in_vectors = narrow and not config.DISABLE_JIT and min_value == -max_value and max_value < 2.0**126
    if to_nearest:
        fits = frac_bits <= 21 and emin >= -126 and max_value < 2.0 ** (104 + frac_bits)
        if in_vectors and fits:
            numbers = full_setting(target)
            return partial(_nearest, numbers)
        loop = casts.cast_nearest_even_f32 if narrow and fits else casts.cast_nearest_even
        return lambda x, out, *_: loop(x, out, *shape, *limits)
    bits = min(target.random_bits or modes.HALF, modes.HALF)
    if in_vectors and frac_bits <= 14 and emin + 127 >= frac_bits + bits:
        beyond = frexp(max_value)[1] + 1
        setting = arrays.Random(
            (beyond + 127) << 23, (emin + 127) << 23, frac_bits << 23, bits, max_value, limits[1]
        )
        return partial(_by_halves, target, vectors.LANES_32, partial(_randomly, setting))
    loop = partial(_randomly_by_loops, (target.scalars(), *limits))
    return partial(_by_halves, target, casts.GROUP, loop)


def _generally(target: tuple[float, ...], x: np.ndarray, out: np.ndarray, seed: int, stream: int) -> None:
    casts.cast_any(x, out, target, seed, stream)


def _past_caches(x: np.ndarray, out: np.ndarray) -> int:
    """How many of the elements may go past the caches."""
    if x.size < arrays.PAST_CACHES or out.ctypes.data % 16:
        return 0
    return x.size // arrays.STRIDE * arrays.STRIDE


def _nearest(numbers: tuple[int, int, int, float, float], x: np.ndarray, out: np.ndarray, *_: int) -> None:
    if whole := _past_caches(x, out):
        arrays.round_nearest_even_past(x[:whole], out[:whole], *numbers)
        x, out = x[whole:], out[whole:]
    arrays.round_nearest_even(x, out, *numbers)


def _randomly(
    setting: arrays.Random, x: np.ndarray, out: np.ndarray, seed: int, stream: int, undecided: np.ndarray
) -> None:
    if whole := _past_caches(x, out):
        arrays.round_stochastic_past(x[:whole], out[:whole], setting, seed, stream, undecided)
        x, out, undecided = x[whole:], out[whole:], undecided[whole // vectors.LANES_32 :]
    arrays.round_stochastic(x, out, setting, whole, seed, stream, undecided)


def _randomly_by_loops(
    settings: tuple[Any, ...],
    x: np.ndarray,
    out: np.ndarray,
    seed: int,
    stream: int,
    undecided: np.ndarray,
) -> None:
    casts.cast_stochastic(x, out, *settings, seed, stream, undecided)


def _by_halves(
    target: Target,
    group: int,
    kernel: Callable[..., object],
    x: np.ndarray,
    out: np.ndarray,
    seed: int,
    stream: int,
) -> None:
    """Round with 16 random bits, and where more may decide otherwise, again with more."""
    more = target.random_bits == modes.EXACT or target.random_bits > modes.HALF
    if more and np.may_share_memory(x, out):
        x = x.copy()
    runs = max(arrays.STRIDE, casts.BLOCK)
    undecided = np.zeros(-(-x.size // runs) * (runs // group), np.bool_)
    kernel(x, out, seed, stream, undecided)
    if more and undecided.any():
        casts.cast_undecided(x, out, target.scalars(), seed, stream, undecided, group)


def axpy(
    alpha: float,
    x: Float[np.ndarray, "..."],
    y: Float[np.ndarray, "..."],
    fmt: FloatFormat | str,
    *,
    rounding: Rounding | str = Rounding.NEAREST_EVEN,
    seed: int | None = None,
    stream: int = 0,
    out: Float[np.ndarray, "..."] | None = None,
) -> Float[np.ndarray, "..."]:
    """``alpha * x + y``, the exact result rounded once to `fmt`.

    Parameters
    ----------
    alpha
        A scalar; it is first rounded to float32, so that its product with `x` is exact.
    x, y : (...)
        float32 arrays of equal shape, of any strides.
    fmt, rounding
        Values or their text.
    seed, stream
        Key of stochastic rounding; element i (in C order) gets the random digits of place i of the stream,
        those of a `cast`.
    out : (...)
        Where to write; float32, of the shape of `x`, C-contiguous. May be `x` or `y` itself.

    Returns
    -------
    float32 array of the shape of `x`.

    Raises
    ------
    TypeError, ValueError
        Arrays of another dtype or of unequal shapes, a missing seed, an unfit `out`.

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
        if check_float_array(value, name).dtype != np.float32:
            raise TypeError(f"{name} must be float32, got {value.dtype}")
    if x.shape != y.shape:
        raise ValueError(f"x and y must be equal in shape, got {x.shape} and {y.shape}")
    out = _output(out, x)
    x, y = (_flat_beside(value, out) for value in (x, y))
    _sum(target, float(np.float32(alpha)), x, y, out.reshape(-1), seed, stream)
    if not fmt.has_minus_zero:
        _without_minus_zero(out)
    return out


def _flat_beside(x: np.ndarray, out: np.ndarray) -> np.ndarray:
    """`x` flat and contiguous, copied where it overlaps with `out` but not element on element."""
    if not x.flags.c_contiguous or (x is not out and _overlap(x, out)):
        x = x.copy(order="C")
    return x.reshape(-1)


def _sum(
    target: Target, alpha: float, x: np.ndarray, y: np.ndarray, out: np.ndarray, seed: int, stream: int
) -> None:
    """The fastest kernel for the target; they agree to the bit."""
    if target.mode == modes.NEAREST_EVEN and not target.flush:
        casts.axpy_nearest_even(alpha, x, y, out, *target[1:5], *target.limits())
    elif target.mode == modes.STOCHASTIC and not target.flush:
        casts.axpy_stochastic(alpha, x, y, out, target.scalars(), *target.limits(), seed, stream)
    else:
        casts.axpy_any(alpha, x, y, out, target.scalars(), seed, stream)


def _cast_wrapping(
    x: np.ndarray, fmt: FixedFormat, rounding: Rounding, key: tuple[int, int], out: np.ndarray
) -> np.ndarray:
    """Round without ends, then reduce modulo the range.

    The remainder by the range is exact, keeps the sign and moves a value by an even number of steps,
    so no rounding mode sees a difference.
    """
    span = fmt.step * 2.0**fmt.bits
    with np.errstate(invalid="ignore"):  # infinities become NaN
        reduced = np.fmod(x.astype(np.float64), span).reshape(-1)
    rounded = np.empty_like(reduced)
    casts.cast_any(reduced, rounded, Target.endless(fmt, rounding).scalars(), *key)
    rounded -= span * np.floor((rounded - fmt.min) / span)
    out[...] = (rounded + 0.0).reshape(x.shape)
    return out


def _cast_blocks(
    x: np.ndarray,
    fmt: BlockFormat,
    rounding: Rounding,
    overflow: Overflow,
    key: tuple[int, int],
    tensor_scale: float | None,
    out: np.ndarray | None,
) -> np.ndarray:
    if overflow not in ("format", "saturate"):
        raise ValueError(f"overflow of block formats must be format or saturate, got {overflow!r}")
    fmt.check_holds(x.dtype)
    fmt.check_tensor_scale(tensor_scale)
    out = _output(out, x)
    if rounds_blocks(fmt, rounding):
        round_blocks(x, fmt, rounding, out)
        return out
    scales, tensor = fmt.scales(x, tensor_scale)
    divided = quotients(x, fmt, scales * tensor)
    elements = cast(
        divided, fmt.element, rounding=rounding, overflow="saturate", seed=key[0], stream=key[1], out=divided
    )
    return products(elements, fmt, scales * tensor, out)


def check_float_array(x: Any, name: str) -> np.ndarray:
    """`x` if it is an array of a float dtype that the kernels take, or a TypeError."""
    check_dtype(getattr(x, "dtype", type(x)), name)
    if not isinstance(x, np.ndarray):
        raise TypeError(f"{name} must be a float16, float32 or float64 array, got {type(x).__name__}")
    return x


def check_dtype(dtype: Any, name: str) -> None:
    """Raise TypeError for what is no dtype that the kernels take, or no dtype at all."""
    if not isinstance(dtype, np.dtype) or dtype not in _FLOATS:
        kind = dtype.__name__ if isinstance(dtype, type) else dtype
        raise TypeError(f"{name} must be a float16, float32 or float64 array, got {kind}")


@lru_cache(maxsize=1024)
def check_holds(dtype: np.dtype[Any], fmt: Format) -> None:
    """Raise ValueError where a value of `fmt` is none of `dtype`."""
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
    if out is x and x.flags.c_contiguous:
        return out
    if out.shape != x.shape or out.dtype != x.dtype or not out.flags.c_contiguous:
        raise ValueError(
            f"out must be C-contiguous with shape {x.shape} and dtype {x.dtype}, "
            f"got shape {out.shape} and dtype {out.dtype}"
        )
    return out
