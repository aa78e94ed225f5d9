"""Bounds on the loss of stochastic gradient descent in low precision, and the errors of formats in them.

The iteration is ``w' = w - eta (g + r) + s``: g is a stochastic gradient of a convex loss f, r the error of
the gradient's format, s that of the weights'. Both have a bias, the mean given all that came before, and a
rest of zero mean. With ``E ||g||**2 <= G**2``, N steps from a distance D0 of a minimiser w*, and no iterate
further than `radius` from it::

    2 eta (mean f(w_k) - f(w*)) <= D0**2 / N                           the start is forgotten
                                 + 2 (eta bias_r + bias_s) radius      biases push away
                                 + (eta M + bias_s)**2 + variance_s    steps overshoot
    M**2 = (G + bias_r)**2 + variance_r

in expectation, for the mean over the iterates w_0 .. w_(N-1), and so for the best of them and for the loss
of their mean. It follows from ``||w' - w*||**2`` by convexity and Minkowski's inequality. Without biases it
is ``D0**2 / (2 eta N) + eta (G**2 + R2) / 2 + S2 / (2 eta)``, which stochastic rounding keeps to. Nearest
rounding has a bias and nothing else. An error of storage is divided by the step size, one of the gradient is
not. Values that saturate at the ends of a box that holds w* come no further from it, and need no term.

[Cacciola23]_ bounds the same iteration for quasi-convex losses.

References
----------
.. [Cacciola23] M. Cacciola, A. Frangioni, M. Asgharian, A. Ghaffari, V. Partovi Nia, "On the Convergence of
   Stochastic Gradient Descent in Low-precision Number Formats", 2023, arXiv 2301.01651.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from numerics.elementwise import cast
from numerics.formats import FixedFormat, Format, parse_format
from numerics.rounding import Mode, Rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBound:
    """How large the error of a vector may be.

    Attributes
    ----------
    bias
        Bound on the Euclidean norm of its mean, given the vector.
    variance
        Bound on the mean square of the Euclidean norm of the rest.
    """

    bias: float = 0.0
    variance: float = 0.0

    def __post_init__(self) -> None:
        for name in ("bias", "variance"):
            _check_size(name, getattr(self, name))


class BestStep(NamedTuple):
    """A step size, and the bound that it gives."""

    step_size: float
    bound: float


def excess_loss_bound(
    step_size: float | Float[np.ndarray, "..."],
    *,
    steps: int,
    distance: float,
    gradient_norm: float,
    gradient_error: ErrorBound | None = None,
    storage_error: ErrorBound | None = None,
    radius: float | None = None,
) -> float | Float[np.ndarray, "..."]:
    """Bound on the mean of ``f(w_k) - f(w*)`` over the iterates, in expectation.

    Parameters
    ----------
    step_size
        eta, positive; an array gives an array.
    steps
        N, at least 1.
    distance
        D0, the distance of the start from w*.
    gradient_norm
        G, the root of a bound on the mean square norm of a stochastic gradient at every iterate.
    gradient_error, storage_error
        Of r and s, such as `rounding_error` tells; ``None``: exact.
    radius
        Bound on the distance of every iterate from w*; needed where an error has a bias.

    Returns
    -------
    float or ndarray, in units of the loss.

    Raises
    ------
    TypeError, ValueError
        A number out of its range, a bias without radius.

    Examples
    --------
    >>> excess_loss_bound(0.1, steps=100, distance=1.0, gradient_norm=2.0)  # 0.01 / 0.2 + 0.1 * 4 / 2
    0.25
    >>> stored = ErrorBound(variance=0.0004)  # and 0.0004 / 0.2
    >>> excess_loss_bound(0.1, steps=100, distance=1.0, gradient_norm=2.0, storage_error=stored)
    0.252
    """
    eta = np.asarray(step_size, np.float64)
    if not (np.isfinite(eta) & (eta > 0.0)).all():
        raise ValueError(f"step_size must be positive and finite, got {step_size}")
    fixed, moving, constant = _terms(steps, distance, gradient_norm, gradient_error, storage_error, radius)
    bound = fixed / (2.0 * eta) + eta * moving**2 / 2.0 + constant
    return bound if np.ndim(bound) else float(bound)


def best_step_size(
    *,
    steps: int,
    distance: float,
    gradient_norm: float,
    gradient_error: ErrorBound | None = None,
    storage_error: ErrorBound | None = None,
    radius: float | None = None,
) -> BestStep:
    """Step size of least `excess_loss_bound`, whose arguments and errors these are, and that bound.

    ``eta**2 = (D0**2 / N + 2 bias_s radius + bias_s**2 + variance_s) / M**2``, with the bound
    ``M**2 eta + M bias_s + bias_r radius``; without biases ``sqrt((D0**2 / N + S2) (G**2 + R2))``.

    Examples
    --------
    >>> best_step_size(steps=100, distance=1.0, gradient_norm=2.0)
    BestStep(step_size=0.05, bound=0.2)
    """
    fixed, moving, constant = _terms(steps, distance, gradient_norm, gradient_error, storage_error, radius)
    return BestStep(math.sqrt(fixed) / moving, math.sqrt(fixed) * moving + constant)


def rounding_error(
    fmt: Format | str,
    rounding: Rounding | str,
    *,
    dimension: int,
    largest: float | None = None,
    norm: float | None = None,
    update_norm: float | None = None,
) -> ErrorBound:
    """Error of a vector when every component is rounded to `fmt`, in its range.

    Let u be the distance of the two neighbours of a component on the format: the step of a fixed format;
    ``2**-m`` of the component at most, for a float of m fraction bits, or the least positive number if that
    is more. With ``S = sqrt(sum(u**2))`` over the vector:

    =================  ============  =========
    rounding           bias          variance
    =================  ============  =========
    stochastic         0             S**2 / 4
    stochastic:r       ``2**-r S``   S**2 / 4
    nearest            S / 2         0
    directed, to odd   S             0
    =================  ============  =========

    Where the vector is one of the format plus an update, as weights are, a component is no further from a
    value than it was moved, so that the variance of stochastic rounding is also no more than S times the norm
    of the update: for updates ``eta g``, ``S2 / (2 eta) <= S G / 2`` however small the step size.

    Parameters
    ----------
    fmt, rounding
        Values or their text.
    dimension
        Components (d).
    largest, norm
        Bounds on the largest magnitude of a component and on the Euclidean norm of the vector, before
        rounding. A float format needs one of them, and takes the better of two.
    update_norm
        Root of a bound on the mean square norm of an update to a vector that was on the format, such as
        ``eta G``; counts with exact stochastic rounding only.

    Raises
    ------
    TypeError, ValueError
        No format of single values, a number out of its range, `largest` beyond the range of the format, a
        float format with neither.

    Examples
    --------
    >>> rounding_error("s0.7", "stochastic", dimension=16)  # 16 * 2**-14 / 4
    ErrorBound(bias=0.0, variance=0.000244140625)
    >>> rounding_error("e6m9", "nearest-even", dimension=16, norm=2.0).bias == 2.0**-9
    True
    """
    fmt, rounding = parse_format(fmt), Rounding.parse(rounding)
    _check_count("dimension", dimension)
    for name, size in (("largest", largest), ("norm", norm), ("update_norm", update_norm)):
        if size is not None:
            _check_size(name, size)
    if largest is not None and largest > fmt.max:
        raise ValueError(f"largest must be at most {fmt.max}, the end of {fmt}, got {largest}")
    squares = _square_spacings(fmt, dimension, largest, norm)
    root = math.sqrt(squares)
    if rounding.is_stochastic and rounding.random_bits:
        # The bits that are not drawn are cut off, which is less than 2**-r of a spacing.
        return ErrorBound(bias=math.ldexp(root, -rounding.random_bits), variance=squares / 4.0)
    if rounding.is_stochastic:
        by_update = math.inf if update_norm is None else root * update_norm
        return ErrorBound(variance=min(squares / 4.0, by_update))
    nearest = rounding.mode in (Mode.NEAREST_EVEN, Mode.NEAREST_AWAY)
    return ErrorBound(bias=root / 2.0 if nearest else root)


def stall_threshold(values: Float[np.ndarray, "..."], fmt: Format | str) -> Float[np.ndarray, "..."]:
    """Size below which an update to a value of the format is rounded away to nearest: half its least gap.

    Descent with nearest rounding stands still once every component of ``eta g`` is below it. With stochastic
    rounding it moves on, in the mean by all of ``eta g``.

    Parameters
    ----------
    values : (...)
        Values of the format.
    fmt
        Value or text.

    Returns
    -------
    float64 array of the shape of `values`.

    Raises
    ------
    TypeError, ValueError
        No format of single values, a value that is not on the format.

    Examples
    --------
    >>> stall_threshold(np.array([0.0, 1.0, 1.5]), "e4m3fn") * 2**10
    array([ 1., 32., 64.])
    """
    fmt = parse_format(fmt)
    x = np.array(values, np.float64, ndmin=1)  # a copy, and none of another dtype
    if (off := x[(cast(x, fmt, overflow="saturate") != x)]).size:
        raise ValueError(f"values must be on the format {fmt}, got {off.flat[0]}")
    if isinstance(fmt, FixedFormat):
        return np.full(np.shape(values), fmt.step / 2.0)
    significand, exponent = np.frexp(abs(x))
    # Below a power of two values lie twice as dense.
    binade = np.maximum(exponent - 1 - (significand == 0.5), fmt.emin)
    gap = np.ldexp(1.0, binade - fmt.frac_bits)
    gap = np.where(x == 0.0, fmt.min_subnormal, gap)
    return np.asarray(gap / 2.0).reshape(np.shape(values))


def _terms(
    steps: int,
    distance: float,
    gradient_norm: float,
    gradient_error: ErrorBound | None,
    storage_error: ErrorBound | None,
    radius: float | None,
) -> tuple[float, float, float]:
    """F, M and C of the bound ``F / (2 eta) + eta M**2 / 2 + C``."""
    _check_count("steps", steps)
    _check_size("distance", distance)
    _check_size("gradient_norm", gradient_norm)
    if gradient_norm == 0.0:
        raise ValueError(f"gradient_norm must be positive, got {gradient_norm}")
    gradient = ErrorBound() if gradient_error is None else gradient_error
    storage = ErrorBound() if storage_error is None else storage_error
    for name, error in (("gradient_error", gradient), ("storage_error", storage)):
        if not isinstance(error, ErrorBound):
            raise TypeError(f"{name} must be an ErrorBound, got {error!r}")
        if radius is None and error.bias:
            raise ValueError(f"radius must be given, for {name} has a bias of {error.bias}")
    if radius is not None:
        _check_size("radius", radius)
    bias, reach = storage.bias, radius or 0.0
    fixed = distance**2 / steps + bias * (2.0 * reach + bias) + storage.variance
    moving = math.hypot(gradient_norm + gradient.bias, math.sqrt(gradient.variance))
    return fixed, moving, moving * bias + gradient.bias * reach


def _square_spacings(fmt: Format, dimension: int, largest: float | None, norm: float | None) -> float:
    """Bound on the sum of squared distances of neighbours around the components of a vector."""
    if isinstance(fmt, FixedFormat):
        return dimension * fmt.step**2
    if largest is None and norm is None:
        raise ValueError(f"largest or norm must be given for the float format {fmt}")
    least = fmt.min_subnormal  # around zero, where a format without subnormals has none either
    sizes = [size for size in (largest, norm) if size is not None]
    binade = max(math.frexp(min(sizes))[1] - 1, fmt.emin) if min(sizes) > 0.0 else fmt.emin
    spacing = max(least, math.ldexp(1.0, binade - fmt.frac_bits))
    squares = dimension * spacing**2
    if norm is not None:
        squares = min(squares, (norm * 2.0**-fmt.frac_bits) ** 2 + dimension * least**2)
    return squares


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")


def _check_size(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0.0):
        raise ValueError(f"{name} must be finite and not negative, got {value}")
