"""Bits of a support vector machine that learns online in fixed point, and what they cost [Sakr16]_.

The classifier decides by the sign of ``w . x + b`` for x in [-1, 1]^D; a step of training is::

    inside = y (w . x + b) <= 1
    w = (1 - gamma lambda) w + [inside] gamma y x
    b = b + [inside] gamma y

with three numbers of bits, signs included: B_X of the data, B_F of the weights and bias in the classifier,
B_W of the weights and bias that are updated. The steps of their grids are ``2**(1 - B_X)``,
``r 2**(1 - B_F)`` and ``r 2**(1 - B_W)``, where weights lie in [-r, r) (`weight_range`; 1 in [Sakr16]_).
Values are rounded to nearest. All bounds take it that nothing saturates: what is cut off at the end of the
range, as the number 1 itself is, may err by more than half a step.

References
----------
.. [Sakr16] C. Sakr, A. Patil, S. Zhang, Y. Kim, N. Shanbhag, "Understanding the Energy and Precision
   Requirements for Online Learning", 2016, arXiv 1607.00669.
.. [Sakr19] C. Sakr, N. Shanbhag, "Per-Tensor Fixed-Point Quantization of the Back-Propagation Algorithm",
   ICLR 2019, arXiv 1812.11732.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

_MOST_BITS = 256  # steps and their squares stay normal numbers


def output_shift(
    data_bits: int,
    weight_bits: int,
    *,
    weight_norm: float,
    data_norm: float | Float[np.ndarray, " n"],
    dimension: int,
    weight_range: float = 1.0,
    product_term: bool = True,
) -> float | Float[np.ndarray, " n"]:
    """Largest change of ``w . x + b`` by rounding the data, the weights and the bias.

    By Cauchy and Schwarz, with half a step of each grid, ``d = 2**-B_X`` and ``f = r 2**-B_F``::

        d sqrt(D) ||w|| + f sqrt((D + 1) (||x||**2 + 1)) + D d f

    A sample keeps its label if ``|w . x + b|`` is larger. The last term is the product of both errors, which
    [Sakr16]_ leaves out; with it no sample can move further.

    Parameters
    ----------
    data_bits, weight_bits
        B_X and B_F, in 1..256.
    weight_norm
        ``||w||``, Euclidean, without the bias.
    data_norm : scalar or (n,)
        ``||x||`` of one or of every sample.
    dimension
        D.
    weight_range
        r.
    product_term
        With the last term.

    Returns
    -------
    float or (n,), as `data_norm`.

    Raises
    ------
    TypeError, ValueError
        Bits or a dimension out of range, norms that are negative or not finite, a range that is not positive.

    Examples
    --------
    >>> output_shift(3, 4, weight_norm=2.0, data_norm=0.0, dimension=3)  # sqrt(3) / 4 + 2 / 16 + 3 / 128
    0.5814502018922193
    """
    _check_bits(data_bits=data_bits, weight_bits=weight_bits)
    by_data, by_weights = _shifts(weight_bits, weight_norm, data_norm, dimension, weight_range, product_term)
    shift = math.ldexp(by_data, -data_bits) + by_weights
    return shift if np.ndim(shift) else float(shift)


def geometric_bound(
    weight_bits: int,
    *,
    weight_norm: float,
    dimension: int,
    data_norm: float | None = None,
    weight_range: float = 1.0,
    product_term: bool = False,
) -> float:
    """What B_X must exceed so that every sample outside the margin keeps its label [Sakr16]_.

    ``log2( sqrt(D) ||w|| / (1 - r 2**-B_F sqrt((D + 1) (||x||**2 + 1))) )``, for then the shift of
    `output_shift` is below 1. A sufficient number, often far from a necessary one.

    Parameters
    ----------
    weight_bits, weight_norm, dimension, weight_range
        As in `output_shift`.
    data_norm
        ``||x||`` of the longest sample; ``None``: ``sqrt(D)``, the longest that there may be.
    product_term
        Count the product of both errors too, by ``D r 2**-B_F`` more in the numerator, which makes the
        condition strict. [Sakr16]_ does not.

    Returns
    -------
    float
        Infinite if the denominator is not positive: the weights need more bits, whatever the data have.
        ``-inf`` if any number of bits will do.

    Raises
    ------
    TypeError, ValueError
        As in `output_shift`.

    Examples
    --------
    >>> geometric_bound(6, weight_norm=4.0, dimension=15, data_norm=0.0)  # log2(sqrt(15) * 4 / (1 - 4 / 64))
    4.046554702195741
    >>> geometric_bound(2, weight_norm=4.0, dimension=15, data_norm=0.0)
    inf
    """
    longest = _longest(dimension) if data_norm is None else data_norm
    by_data, by_weights = _shifts(weight_bits, weight_norm, longest, dimension, weight_range, product_term)
    room = 1.0 - float(by_weights)
    if room <= 0.0:
        return math.inf
    return math.log2(by_data / room) if by_data > 0.0 else -math.inf


def geometric_data_bits(
    weight_bits: int,
    *,
    weight_norm: float,
    dimension: int,
    data_norm: float | None = None,
    weight_range: float = 1.0,
    product_term: bool = False,
) -> int | None:
    """Least B_X above `geometric_bound`, whose arguments and errors these are; ``None`` if there is none.

    Examples
    --------
    >>> geometric_data_bits(6, weight_norm=4.0, dimension=15, data_norm=0.0)
    5
    >>> geometric_data_bits(2, weight_norm=4.0, dimension=15, data_norm=0.0) is None
    True
    """
    bound = geometric_bound(
        weight_bits,
        weight_norm=weight_norm,
        dimension=dimension,
        data_norm=data_norm,
        weight_range=weight_range,
        product_term=product_term,
    )
    return None if bound == math.inf else _above(bound)


def label_change_bound(
    weights: Float[np.ndarray, " d"],
    bias: float,
    data: Float[np.ndarray, "n d"],
    *,
    data_bits: int,
    weight_bits: int,
    weight_range: float = 1.0,
    capped: bool = False,
) -> float:
    """Probability that rounding changes the label of a sample, at most [Sakr16]_.

    With the steps ``D_x = 2**(1 - B_X)`` and ``D_f = r 2**(1 - B_F)``, and the mean over the samples::

        (D_x**2 E[||w||**2 / |w.x + b|**2] + D_f**2 E[(||x||**2 + 1) / |w.x + b|**2]) / 24

    It is Chebyshev's inequality for one side of a symmetric error, under the usual model of rounding: errors
    are independent, uniform over a step, and their products negligible.

    Parameters
    ----------
    weights : (d,)
        w, before rounding.
    bias
        b.
    data : (n, d)
        The samples, before rounding.
    data_bits, weight_bits, weight_range
        B_X, B_F and r as in `output_shift`.
    capped
        Take no more than 1/2 for any sample: a symmetric error changes a label no more often. [Sakr16]_ does
        not, and may exceed 1.

    Returns
    -------
    float
        Infinite for a sample on the boundary, unless capped.

    Raises
    ------
    TypeError, ValueError
        Arrays of other shapes, without samples or with values that are not finite; bits out of range.

    Examples
    --------
    >>> label_change_bound(np.array([1.0]), 0.0, np.array([[0.5]]), data_bits=3, weight_bits=4)
    0.013671875
    """
    _check_bits(data_bits=data_bits, weight_bits=weight_bits)
    by_data, by_weights = _variances(weights, bias, data, weight_range)
    bounds = math.ldexp(1.0, 2 - 2 * data_bits) * by_data + math.ldexp(1.0, 2 - 2 * weight_bits) * by_weights
    return float(np.mean(np.minimum(bounds, 0.5) if capped else bounds))


def probabilistic_bound(
    weights: Float[np.ndarray, " d"],
    bias: float,
    data: Float[np.ndarray, "n d"],
    *,
    weight_bits: int,
    target: float,
    weight_range: float = 1.0,
) -> float:
    """Least B_X, as a real number, for which `label_change_bound` is no more than `target` [Sakr16]_.

    Parameters
    ----------
    weights, bias, data, weight_bits, weight_range
        As in `label_change_bound`.
    target
        Probability of a changed label that is allowed, in (0, 1].

    Returns
    -------
    float
        Infinite if the weights alone exceed the target; ``-inf`` for weights of zero.

    Raises
    ------
    TypeError, ValueError
        As in `label_change_bound`, and a target out of (0, 1].

    Examples
    --------
    >>> w, x = np.array([1.0]), np.array([[0.5]])
    >>> probabilistic_bound(w, 0.0, x, weight_bits=4, target=0.013671875)
    3.0
    """
    _check_bits(weight_bits=weight_bits)
    if not 0.0 < target <= 1.0:
        raise ValueError(f"target must be in (0, 1], got {target}")
    by_data, by_weights = (float(np.mean(v)) for v in _variances(weights, bias, data, weight_range))
    room = target - math.ldexp(by_weights, 2 - 2 * weight_bits)
    if not room > 0.0:  # also if either is infinite
        return math.inf
    return 1.0 + 0.5 * math.log2(by_data / room) if by_data > 0.0 else -math.inf


def safe_update_bits(step_size: float, *, weight_range: float = 1.0) -> int:
    """Least B_W whose step is no more than gamma: ``B_W >= 1 - log2(gamma / r)`` [Sakr16]_.

    No update by a component of ``|x| > 1/2`` is then rounded away; smaller ones may be.

    Parameters
    ----------
    step_size
        gamma, positive.
    weight_range
        r.

    Raises
    ------
    ValueError
        A step or range that is not positive and finite.

    Examples
    --------
    >>> safe_update_bits(2.0**-6), safe_update_bits(0.01)
    (7, 8)
    """
    return max(1, 1 + _halvings(step_size, weight_range))


def exact_update_bits(step_size: float, data_bits: int, *, weight_range: float = 1.0) -> int:
    """Least B_W that holds the last bit of ``gamma x``: ``B_W >= B_X - log2(gamma / r)``.

    For a gamma and r that are powers of two every ``w + gamma y x`` is then exact while it is in range, and
    more bits change nothing but the decay ``(1 - gamma lambda) w``, whose rounding they make finer. For any
    gamma no update by a datum other than zero is rounded away.

    Parameters
    ----------
    step_size, weight_range
        As in `safe_update_bits`.
    data_bits
        B_X.

    Raises
    ------
    TypeError, ValueError
        As in `safe_update_bits`; bits out of 1..256.

    Examples
    --------
    >>> exact_update_bits(2.0**-6, 4)
    10
    """
    _check_bits(data_bits=data_bits)
    return max(1, data_bits + _halvings(step_size, weight_range))


def updates_vanish(
    step_size: float,
    update_bits: int,
    *,
    largest: float = 1.0,
    decay: float = 0.0,
    weight_range: float = 1.0,
) -> bool:
    """Whether no update at all survives rounding to nearest: ``gamma (max |x| + lambda r) < D_w / 2``.

    Training then stays where it started.

    Parameters
    ----------
    step_size, weight_range
        gamma and r, as in `safe_update_bits`.
    update_bits
        B_W.
    largest
        ``max |x|`` over data and, for the bias, 1.
    decay
        lambda, from 0 on.

    Raises
    ------
    TypeError, ValueError
        As in `safe_update_bits`; bits out of 1..256, a size that is negative or not finite.

    Examples
    --------
    >>> updates_vanish(2.0**-6, 5), updates_vanish(2.0**-6, 6), updates_vanish(2.0**-6, 6, largest=0.9)
    (True, False, True)
    """
    _check_bits(update_bits=update_bits)
    _check_positive(step_size=step_size, weight_range=weight_range)
    _check_sizes(largest=largest, decay=decay)
    return step_size * (largest + decay * weight_range) < math.ldexp(weight_range, -update_bits)


def dot_product_adders(length: int, a_bits: int, b_bits: int) -> int:
    """One-bit full adders of a dot product of `length` products [Sakr19]_.

    A multiplier of N by M bits is N M of them; ``length - 1`` additions take the width of the whole sum:
    ``D N M + (D - 1) (N + M + ceil(log2 D) - 1)``.

    Raises
    ------
    TypeError, ValueError
        A number that is no integer in 1..256, for the length of at least 1.

    Examples
    --------
    >>> dot_product_adders(30, 8, 8)
    2500
    """
    _check_bits(a_bits=a_bits, b_bits=b_bits)
    _check_count(length=length)
    width = a_bits + b_bits + (length - 1).bit_length() - 1
    return length * a_bits * b_bits + (length - 1) * width


def classification_adders(dimension: int, data_bits: int, weight_bits: int) -> int:
    """One-bit full adders of ``w . x + b``, with B_X-bit data and B_F-bit weights.

    The bias is a term of the sum without a multiplier: D products, and D additions at the width
    ``B_X + B_F + ceil(log2(D + 1)) - 1``. Comparing the sum with 0 or 1 is not counted.

    Raises
    ------
    TypeError, ValueError
        As in `dot_product_adders`.

    Examples
    --------
    >>> classification_adders(30, 8, 8)
    2520
    """
    _check_bits(data_bits=data_bits, weight_bits=weight_bits)
    _check_count(dimension=dimension)
    width = data_bits + weight_bits + dimension.bit_length() - 1
    return dimension * (data_bits * weight_bits + width)


def update_adders(
    dimension: int, data_bits: int, update_bits: int, *, inside: bool = True, step_bits: int | None = None
) -> int:
    """One-bit full adders of one update of D weights and the bias, with B_W bits.

    The decay subtracts ``gamma lambda w`` from D weights; inside the margin, ``gamma y x`` is added to them
    and ``gamma y`` to the bias: at most 2 D + 1 additions of B_W bits. Where gamma and gamma lambda are
    powers of two their products are shifts, and a negative y an inversion, both free; else ``gamma x`` takes
    D multipliers of B_X by `step_bits` bits, and ``(gamma lambda) w`` takes D of B_W by `step_bits`.

    Parameters
    ----------
    dimension, data_bits, update_bits
        D, B_X and B_W. The data's bits count only with `step_bits`.
    inside
        Whether the sample is inside the margin; if not the decay is all.
    step_bits
        Bits of gamma and gamma lambda; ``None``: powers of two.

    Raises
    ------
    TypeError, ValueError
        As in `dot_product_adders`.

    Examples
    --------
    >>> update_adders(30, 4, 10), update_adders(30, 4, 10, inside=False)
    (610, 300)
    """
    _check_bits(data_bits=data_bits, update_bits=update_bits)
    _check_count(dimension=dimension)
    multiplier = 0
    if step_bits is not None:
        _check_bits(step_bits=step_bits)
        multiplier = step_bits
    count = dimension * (update_bits + multiplier * update_bits)
    if inside:
        count += (dimension + 1) * update_bits + dimension * multiplier * data_bits
    return count


def _shifts(
    weight_bits: int,
    weight_norm: float,
    data_norm: float | np.ndarray,
    dimension: int,
    weight_range: float,
    product_term: bool,
) -> tuple[float, float | np.ndarray]:
    """Largest change of the output for a unit of error in every datum, and by rounding the weights."""
    _check_bits(weight_bits=weight_bits)
    _check_count(dimension=dimension)
    _check_sizes(weight_norm=weight_norm, data_norm=data_norm)
    _check_positive(weight_range=weight_range)
    error = math.ldexp(weight_range, -weight_bits)
    by_data = math.sqrt(dimension) * weight_norm + (dimension * error if product_term else 0.0)
    return by_data, error * np.sqrt((dimension + 1) * (np.square(data_norm) + 1.0))


def _variances(
    weights: np.ndarray, bias: float, data: np.ndarray, weight_range: float
) -> tuple[np.ndarray, np.ndarray]:
    """Terms of the probabilistic bound for each sample: by data, and by weights, of step 1 and r."""
    w, x = np.asarray(weights, np.float64), np.asarray(data, np.float64)
    if w.ndim != 1 or x.ndim != 2 or x.shape[1] != w.size or x.size == 0:
        raise ValueError(f"weights and data must be of shapes (d,) and (n, d), got {w.shape} and {x.shape}")
    for name, values in (("weights", w), ("bias", np.asarray(bias)), ("data", x)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite, got {values[~np.isfinite(values)].flat[0]}")
    _check_positive(weight_range=weight_range)
    with np.errstate(divide="ignore", over="ignore"):
        scale = 1.0 / (24.0 * np.square(x @ w + bias))
        by_data = scale * (w @ w) if w.any() else np.zeros(len(x))
        return by_data, scale * (np.square(x).sum(axis=1) + 1.0) * weight_range**2


def _above(bound: float) -> int:
    """Least integer from 1 on that is above the bound."""
    return 1 if bound < 1.0 else math.floor(bound) + 1


def _halvings(step_size: float, weight_range: float) -> int:
    """``ceil(-log2(step_size / weight_range))``, of the quotient as float64 has it."""
    _check_positive(step_size=step_size, weight_range=weight_range)
    return 1 - math.frexp(step_size / weight_range)[1]


def _longest(dimension: int) -> float:
    _check_count(dimension=dimension)
    return math.sqrt(dimension)


def _check_count(**numbers: int) -> None:
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{name} must be an integer, got {value!r}")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def _check_bits(**numbers: int) -> None:
    _check_count(**numbers)
    for name, value in numbers.items():
        if value > _MOST_BITS:
            raise ValueError(f"{name} must be at most {_MOST_BITS}, got {value}")


def _check_positive(**sizes: float) -> None:
    for name, value in sizes.items():
        if not (math.isfinite(value) and value > 0.0):
            raise ValueError(f"{name} must be positive and finite, got {value}")


def _check_sizes(**sizes: float | np.ndarray) -> None:
    for name, value in sizes.items():
        values = np.atleast_1d(np.asarray(value, np.float64))
        if (bad := values[~(np.isfinite(values) & (values >= 0.0))]).size:
            raise ValueError(f"{name} must be finite and not negative, got {bad[0]}")
