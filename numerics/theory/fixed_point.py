"""Fixed-point formats of every tensor of a training run, by the rules of [PTFP]_.

In a layer the tensors are: its weights W; its input A; the gradient GW of the weights; the gradient GA of
the layer's output, from which GW is computed; and the accumulator of the part of the weights that is below
their step. Five rules, each a formula that wants a measured number and gives a range or a step:

1. Forward: the noise of a tensor T that is rounded to the step D_T flips a prediction with a probability
   of at most ``D_T**2 * E_T``; the gains E_T set the widths apart from each other so that all tensors
   contribute alike (`feedforward_bits`), and the probability allowed sets all of them (`least_bits`).
2. Ranges of gradients: a few standard deviations, so that few values saturate.
3. Step of weight gradients: a fraction of the smallest standard deviation, so that they keep their mean.
4. Step of activation gradients: their noise in the weight gradients is no more than the latter's own.
5. Step of the weight accumulator: the least update that the smallest learning rate makes.

Ranges are rounded up and steps down to powers of two. `assign_formats` applies all rules to what was
measured of each layer, which `numerics.torch.assign_fixed_point` does for a PyTorch model. A `FixedFormat`
has its binary point inside its bits; gradients, all of them far below 1, do not, hence `FixedPoint` here.

References
----------
.. [PTFP] C. Sakr, N. Shanbhag, "Per-Tensor Fixed-Point Quantization of the Back-Propagation Algorithm",
   ICLR 2019, arXiv 1812.11732.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import frexp, isfinite, ldexp, sqrt

import numpy as np
from jaxtyping import Int64

MOST_BITS = 52  # codes and their halves are exact in float64
LEAST_BITS = 2  # a sign and a magnitude
_MOST_EXPONENT = 126  # float32 divides by such a step exactly
_TEXT = re.compile(r"([su])(-?\d+)\.(-?\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPoint:
    """A fixed-point format by its range and its step, both powers of two.

    Printed and read as ``s<integer>.<fraction>`` like a `FixedFormat`, but either number may be negative:
    ``s-2.13`` is a sign and the places 2**-3 to 2**-13.

    Attributes
    ----------
    range
        The values are the multiples of `step` in ``[-range, range - step]``, or in ``[0, range - step]``.
    step
        Distance of neighbouring values.
    signed
        Two's complement, or from zero on.

    Raises
    ------
    ValueError
        A range or step that is no power of two in 2**-126..2**126, or a format without bits or with more
        than 52.

    Examples
    --------
    >>> gradients = FixedPoint(range=2.0**-2, step=2.0**-12)
    >>> print(gradients, gradients.bits, gradients.max)
    s-2.12 11 0.249755859375
    >>> FixedPoint.parse("u1.1").quantize(np.array([-1.0, 0.25, 0.5, 9.0]))
    array([0. , 0.5, 0.5, 1.5])
    """

    range: float
    step: float
    signed: bool = True

    def __post_init__(self) -> None:
        for name in ("range", "step"):
            value = getattr(self, name)
            power = isfinite(value) and value > 0.0 and frexp(value)[0] == 0.5
            if not power or abs(_exponent(value)) > _MOST_EXPONENT:
                raise ValueError(
                    f"{name} must be a power of two in 2**-{_MOST_EXPONENT}..2**{_MOST_EXPONENT}, "
                    f"got {value!r}"
                )
        if not 1 <= self.bits <= MOST_BITS:
            raise ValueError(
                f"a fixed-point format must have 1..{MOST_BITS} bits, "
                f"got {self.bits} from range {self.range!r} and step {self.step!r}"
            )

    @classmethod
    def parse(cls, text: str) -> FixedPoint:
        """Read ``s-2.13``, ``u1.7``, ``s5.-2``."""
        if (match := _TEXT.fullmatch(text.strip().lower())) is None:
            raise ValueError(f"fixed-point format must be s<int>.<frac> or u<int>.<frac>, got {text!r}")
        integer, fraction = int(match[2]), int(match[3])
        if max(abs(integer), abs(fraction)) > _MOST_EXPONENT:
            raise ValueError(f"places must be in -{_MOST_EXPONENT}..{_MOST_EXPONENT}, got {text!r}")
        return cls(range=ldexp(1.0, integer), step=ldexp(1.0, -fraction), signed=match[1] == "s")

    @classmethod
    def of_bits(cls, range: float, bits: int, *, signed: bool = True) -> FixedPoint:  # noqa: A002
        """Format of that range with so many bits.

        Examples
        --------
        >>> print(FixedPoint.of_bits(1.0, 8), FixedPoint.of_bits(2.0, 8, signed=False))
        s0.7 u1.7
        """
        return cls(range=range, step=ldexp(range, signed - bits), signed=signed)

    def __str__(self) -> str:
        return f"{'s' if self.signed else 'u'}{_exponent(self.range)}.{-_exponent(self.step)}"

    @property
    def bits(self) -> int:
        """Bits of one stored value: ``log2(range / step)``, and one for a sign."""
        return _exponent(self.range) - _exponent(self.step) + int(self.signed)

    @property
    def max(self) -> float:
        """Largest value."""
        return self.range - self.step

    @property
    def min(self) -> float:
        """Smallest value."""
        return -self.range if self.signed else 0.0

    @property
    def span(self) -> float:
        """``step * 2**bits``, what the codes divide among them."""
        return self.range * (2.0 if self.signed else 1.0)

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """Nearest values of the format; halves go away from zero, what is out of range to its end.

        Parameters
        ----------
        x : (...)
            float32 or float64. NaN stays NaN.

        Returns
        -------
        (...) of the same dtype. In float32 the upper end of a format of more than 25 bits is the largest of
        its values that float32 holds.

        Raises
        ------
        TypeError
            Another dtype.
        """
        if not isinstance(x, np.ndarray) or x.dtype not in (np.float32, np.float64):
            raise TypeError(
                f"x must be a float32 or float64 array, got {getattr(x, 'dtype', type(x).__name__)}"
            )
        high = x.dtype.type(self.max)
        if float(high) > self.max:
            high = np.nextafter(high, x.dtype.type(0.0))
        # The ends are values of the format: to clip first and round then is to round first and clip then.
        codes = np.clip(x, x.dtype.type(self.min), high) / x.dtype.type(self.step)
        size = abs(codes)
        whole = np.floor(size)
        # floor(size + 0.5) would take 0.49999999999999994 up; this difference is exact.
        whole += size - whole >= 0.5
        values: np.ndarray = np.copysign(whole, codes) * x.dtype.type(self.step)
        values += x.dtype.type(0.0)  # there is no -0 in fixed point
        return values


def feedforward_bits(
    gains: Sequence[float] | np.ndarray, minimum: int, *, spans: Sequence[float] | np.ndarray | None = None
) -> Int64[np.ndarray, " n"]:
    """Widths of weights and activations with which all contribute alike to the mismatch [PTFP]_.

    ``B_T = round(log2(sqrt(E_T / E_min))) + B_min``. The paper gives weights the range [-1, 1) and
    activations [0, 2), one span of 2 for all. For other spans R_T, the step is ``R_T * 2**-B_T``, and what
    must be alike is ``R_T**2 * E_T * 4**-B_T``: the gains are multiplied by ``R_T**2``.

    Parameters
    ----------
    gains : (n,)
        E_T of every tensor, positive.
    minimum
        B_min, the bits of the tensor with the least gain.
    spans : (n,)
        R_T of every tensor; equal ones if not given.

    Returns
    -------
    (n,) bits.

    Raises
    ------
    ValueError
        Gains or spans that are not positive and finite, or are not as many.

    Examples
    --------
    >>> feedforward_bits([2408.9, 980.27, 1222.6, 7.8217e-4], 3)  # of the authors' network
    array([14, 13, 13,  3])
    """
    scaled = _scaled(gains, spans)
    bits: np.ndarray = np.rint(np.log2(np.sqrt(scaled / scaled.min()))).astype(np.int64) + minimum
    return bits


def least_bits(
    gains: Sequence[float] | np.ndarray,
    mismatch: float,
    *,
    spans: Sequence[float] | np.ndarray | None = None,
) -> int:
    """Least B_min, from 2 on, with which `mismatch_bound` of `feedforward_bits` is at most `mismatch`.

    Without spans, 2 for all as in the paper: the step of B bits is ``2**(1 - B)``.

    Raises
    ------
    ValueError
        A probability outside (0, 1), or gains or spans as in `feedforward_bits`.

    Examples
    --------
    >>> least_bits([1.0, 4.0], 0.01)  # steps 2**-4 and 2**-5: 1 / 256 + 4 / 1024
    5
    """
    check_target(mismatch, None)
    ranges = np.full(len(gains), 2.0) if spans is None else np.asarray(spans, float)
    offsets = feedforward_bits(gains, 0, spans=ranges)
    minimum = LEAST_BITS
    while mismatch_bound(np.ldexp(ranges, -(offsets + minimum)), gains) > mismatch:
        minimum += 1
    return minimum


def mismatch_bound(steps: Sequence[float] | np.ndarray, gains: Sequence[float] | np.ndarray) -> float:
    """Bound ``sum(D_T**2 * E_T)`` on the probability that rounding changes a prediction [PTFP]_.

    Parameters
    ----------
    steps, gains : (n,)
        D_T and E_T of every tensor.

    Returns
    -------
    The bound, which may be above 1 and then says nothing.
    """
    return float(np.sum(np.square(np.asarray(steps, float)) * np.asarray(gains, float)))


def weight_gradient_format(sigma_min: float, sigma_max: float) -> FixedPoint:
    """Format of a weight gradient by its smallest and largest standard deviation over training [PTFP]_.

    Range ``2 * sigma_max`` or more: a normal gradient saturates in less than 5 % of its values. Step
    ``sigma_min / 4`` or less: its mean is off by less than 1 %.

    Raises
    ------
    ValueError
        Deviations that are not positive and finite, as of a dead tensor, or in the wrong order.

    Examples
    --------
    >>> print(weight_gradient_format(0.001, 0.1), weight_gradient_format(0.001, 0.1).bits)
    s-2.12 11
    """
    check_positive(sigma_min=sigma_min, sigma_max=sigma_max)
    if sigma_min > sigma_max:
        raise ValueError(f"sigma_min must be at most sigma_max {sigma_max!r}, got {sigma_min!r}")
    return FixedPoint(range=power_of_two_above(2.0 * sigma_max), step=power_of_two_below(sigma_min / 4.0))


def activation_gradient_format(
    sigma_max: float, weight_gradient_step: float, lambda_max: float
) -> FixedPoint:
    """Format of an activation gradient by its largest standard deviation over training [PTFP]_.

    Range ``4 * sigma_max`` or more, for these gradients are sparse and their tails are heavy. Step
    ``weight_gradient_step / sqrt(lambda_max)`` or less: what its rounding adds to the weight gradient has
    no more variance than the latter's own rounding.

    Parameters
    ----------
    weight_gradient_step
        Of the weight gradient that is computed from this tensor.
    lambda_max
        Largest singular value of the matrix of the squared derivatives of the weight gradient with respect
        to this tensor.

    Returns
    -------
    A format of at least 2 bits: a step beyond half the range is half the range.

    Raises
    ------
    ValueError
        A number that is not positive and finite.

    Examples
    --------
    >>> print(activation_gradient_format(0.001, 2.0**-12, 16.0))
    s-7.14
    """
    check_positive(sigma_max=sigma_max, weight_gradient_step=weight_gradient_step, lambda_max=lambda_max)
    range_ = power_of_two_above(4.0 * sigma_max)
    step = power_of_two_below(weight_gradient_step / sqrt(lambda_max))
    return FixedPoint(range=range_, step=min(step, range_ / 2.0))


def accumulator_format(
    weight: FixedPoint, weight_gradient_step: float, smallest_learning_rate: float
) -> FixedPoint | None:
    """Format of the accumulator that holds what of the weights is below their step [PTFP]_.

    Range half the weights' step, which is ``2**-B_W`` of weights in [-1, 1); step
    ``smallest_learning_rate * weight_gradient_step`` or less, the least update there is.

    Returns
    -------
    ``None`` if that leaves no bit: no update is below the weights' step.

    Raises
    ------
    ValueError
        A number that is not positive and finite.

    Examples
    --------
    >>> accumulator_format(FixedPoint.of_bits(1.0, 14), 2.0**-12, 0.001).bits
    9
    """
    check_positive(weight_gradient_step=weight_gradient_step, smallest_learning_rate=smallest_learning_rate)
    step = power_of_two_below(smallest_learning_rate * weight_gradient_step)
    return None if step > weight.step / 2.0 else FixedPoint(range=weight.step / 2.0, step=step)


def full_adders(length: int, activation_bits: int, weight_bits: int) -> int:
    """One-bit full adders of a dot product, ``D BA BW + (D - 1)(BA + BW + ceil(log2 D) - 1)`` [PTFP]_.

    The multipliers take the first term, the adder tree the second.

    Parameters
    ----------
    length
        Products in the sum (D).
    activation_bits, weight_bits
        Bits of the operands (BA, BW).

    Raises
    ------
    TypeError, ValueError
        A number that is no integer of at least 1.

    Examples
    --------
    >>> full_adders(4, 8, 8)  # 4 * 64 + 3 * 17
    307
    """
    for name, value in (
        ("length", length),
        ("activation_bits", activation_bits),
        ("weight_bits", weight_bits),
    ):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an integer, got {value!r}")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    carry = (length - 1).bit_length()  # ceil(log2(length))
    return length * activation_bits * weight_bits + (length - 1) * (activation_bits + weight_bits + carry - 1)


def check_target(mismatch: float, min_bits: int | None) -> None:
    """Refuse a probability outside (0, 1), or a B_min below 2.

    Raises
    ------
    ValueError
        The message names the value.
    """
    if not 0.0 < mismatch < 1.0:
        raise ValueError(f"mismatch must be in (0, 1), got {mismatch!r}")
    if min_bits is not None and not LEAST_BITS <= min_bits <= MOST_BITS:
        raise ValueError(f"min_bits must be in {LEAST_BITS}..{MOST_BITS}, got {min_bits!r}")


def power_of_two_above(x: float) -> float:
    """Least power of two that is not below the positive number `x`."""
    significand, exponent = frexp(x)
    return ldexp(1.0, exponent - (significand == 0.5))


def power_of_two_below(x: float) -> float:
    """Largest power of two that is not above the positive number `x`."""
    return ldexp(0.5, frexp(x)[1])


def _exponent(power: float) -> int:
    return frexp(power)[1] - 1


def _scaled(gains: Sequence[float] | np.ndarray, spans: Sequence[float] | np.ndarray | None) -> np.ndarray:
    values = np.asarray(gains, float)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"gains must be of shape (n,) with n from 1 on, got {values.shape}")
    factors = np.ones_like(values) if spans is None else np.asarray(spans, float)
    if factors.shape != values.shape:
        raise ValueError(f"spans must be as many as gains, {values.size}, got shape {factors.shape}")
    for name, numbers in (("gains", values), ("spans", factors)):
        good = np.isfinite(numbers) & (numbers > 0.0)
        if not good.all():
            raise ValueError(f"{name} must be positive and finite, got {numbers[~good][0]}")
    scaled: np.ndarray = values * factors**2
    return scaled


def check_positive(**numbers: float) -> None:
    """Refuse numbers that are not positive and finite.

    Raises
    ------
    ValueError
        The message names the number.
    """
    for name, value in numbers.items():
        if not (isfinite(value) and value > 0.0):
            raise ValueError(f"{name} must be positive and finite, got {value!r}")
