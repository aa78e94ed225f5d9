"""Bits of a register in which no dot product overflows.

References
----------
.. [A2Q] I. Colbert, A. Pappalardo, J. Petri-Koenig, "A2Q: Accumulator-Aware Quantization with
   Guaranteed Overflow Avoidance", ICCV 2023, arXiv 2308.13504.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from numerics.formats import FloatFormat


def overflow_free_bits(
    length: int, activation_bits: int, weight_bits: int, *, signed_activations: bool = True
) -> int:
    """Bits of a signed register that holds every sum of `length` products of integers [A2Q]_.

    The least P with ``length * 2**(N - s) * 2**(M - 1) <= 2**(P - 1) - 1``, for N-bit activations, s = 1
    if they are signed and 0 if not, and signed M-bit weights: ``P >= alpha + log2(1 + 2**-alpha) + 1``
    with ``alpha = log2(length) + N + M - 1 - s``. Signed operands need all of them; unsigned activations
    reach only ``2**N - 1``, for which one bit less may do (two for 1-bit operands).

    Parameters
    ----------
    length
        Products in a sum (K).
    activation_bits, weight_bits
        Bits of the operands (N, M), with the sign.
    signed_activations
        Two's complement, or from zero on.

    Raises
    ------
    TypeError, ValueError
        A number that is no integer of at least 1.

    Examples
    --------
    >>> overflow_free_bits(4608, 8, 8)
    28
    """
    _check(length=length, activation_bits=activation_bits, weight_bits=weight_bits)
    # 2**a is an integer, so that P is the bits of its magnitude and a sign.
    magnitude = length << (activation_bits - bool(signed_activations) + weight_bits - 1)
    return magnitude.bit_length() + 1


def overflow_free_bits_for_weights(
    weights: np.ndarray, activation_bits: int, *, signed_activations: bool = True
) -> Int64[np.ndarray, " n"]:
    """The same for each output channel of known weights, by the sum of their magnitudes [A2Q]_.

    ``2**alpha`` is ``sum(abs(weights[:, n])) * 2**(N - s)``; a channel of zeros needs the sign only. It
    is reached by signed activations and weights of one sign, the negative one; otherwise up to three
    bits less may do.

    Parameters
    ----------
    weights : (k, n)
        Integers, of any dtype that holds them.
    activation_bits, signed_activations
        As in `overflow_free_bits`.

    Returns
    -------
    (n,) bits of the registers.

    Raises
    ------
    TypeError, ValueError
        Weights that are no (k, n) array of integers, a bad number of bits.

    Examples
    --------
    >>> overflow_free_bits_for_weights(np.array([[1, 100], [-1, 27]]), 8)
    array([10, 15])
    """
    _check(activation_bits=activation_bits)
    if not isinstance(weights, np.ndarray) or weights.dtype.kind not in "iuf":
        raise TypeError(
            f"weights must be an array of numbers, got {getattr(weights, 'dtype', type(weights).__name__)}"
        )
    if weights.ndim != 2:
        raise ValueError(f"weights must be of shape (k, n), got {weights.shape}")
    if (off := np.argwhere(np.where(np.isfinite(weights), weights, 0.5) % 1 != 0)).size:
        i, j = off[0]
        raise ValueError(f"weights must be integers, got {weights[i, j]} at [{i}, {j}]")
    sizes = abs(weights.astype(np.float64))
    sums = sizes.sum(axis=0).tolist()
    if max(sums, default=0.0) >= 2.0**53:  # a sum below it is exact
        sums = [sum(abs(int(weight)) for weight in channel) for channel in weights.T.tolist()]
    places = activation_bits - bool(signed_activations)
    return np.array([(int(total) << places).bit_length() + 1 for total in sums], np.int64)


def exact_sum_bits(format_a: FloatFormat | str, format_b: FloatFormat | str, length: int) -> int:
    """Bits of a fixed-point register that holds every sum of `length` products of small floats, exactly.

    Products are multiples of the product u of the least units, and below ``2**(wa + wb)`` of it with
    ``w = emax - emin + frac_bits + 1``: ``P = wa + wb + ceil(log2(length)) + 1``, with the sign. For a
    format whose codes are all numbers, or all but one, w is ``2**exp_bits - 1 + frac_bits``.

    Parameters
    ----------
    format_a, format_b
        Formats of the operands; infinities and NaNs do not count. Text is parsed.
    length
        Products in a sum (K).

    Raises
    ------
    TypeError, ValueError
        No float format, a length that is no integer of at least 1.

    Examples
    --------
    >>> exact_sum_bits("e2m3", "e2m3", 4608), exact_sum_bits("e4m3", "e4m3", 4608)
    (26, 50)
    """
    _check(length=length)
    bits = (length - 1).bit_length() + 1
    for name, text in (("format_a", format_a), ("format_b", format_b)):
        fmt = FloatFormat.parse(text) if isinstance(text, str) else text
        if not isinstance(fmt, FloatFormat):
            raise TypeError(f"{name} must be a FloatFormat or its text, got {text!r}")
        bits += fmt.emax - fmt.emin + fmt.frac_bits + 1
    return bits


def _check(**numbers: int) -> None:
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an integer, got {value!r}")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
