"""Formats drawn at random, values that are hard to round, operands that are hard to sum."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st

from numerics import FixedFormat, FloatFormat, cast, parse_format

OPERANDS = ["e4m3fn", "e5m2", "e3m2", "e2m1", "hfp8", "fp16", "bf16", "fp32", "s3.4"]
ACCUMULATORS = [
    "e6m9", "fp16", "bf16", "e8m2", "e5m2", "e4m3fn", "e6m3", "e8m23", "e4m3-flush", "e6m5b20", "e5m6none",
    "e8m13", "e4m0fn", "e8m21", "e8m22", "e5m10-flush",
]  # fmt: skip
KINDS = ["normal", "cancel", "huge", "tiny", "positive", "powers", "sparse", "mixed"]

STOCHASTIC_TEXTS = st.just("stochastic") | st.integers(1, 32).map(lambda bits: f"stochastic:{bits}")

WITH_MINUS_ZERO = ("ieee", "fn", "none")  # if signed
ALL_SPECIALS = (*WITH_MINUS_ZERO, "fnuz", "p3109", "fused-top")


@st.composite
def float_formats(draw, *, max_frac_bits=23, signed=None, families=WITH_MINUS_ZERO):
    """Any float format, its bias anywhere in the allowed range; `signed` as given, if given."""
    specials = draw(st.sampled_from(families))
    if specials in ("fnuz", "p3109"):
        assert signed is not False
        signed = True
    exp_bits = draw(st.integers(2 if specials == "ieee" else 1, 8))
    # e1m0fn has zero and NaN only.
    top_is_taken = specials in ("fn", "p3109", "fused-top")
    least_frac = 1 if specials == "ieee" else int(top_is_taken and exp_bits == 1)
    frac_bits = draw(st.integers(least_frac, max_frac_bits))
    lost = specials == "ieee" or (top_is_taken and frac_bits == 0)
    low = max(-127, (1 << exp_bits) - 1 - lost - 127)
    high = 150 - frac_bits
    if low > high:  # more binades than float32 has
        return draw(float_formats(max_frac_bits=max_frac_bits, signed=signed, families=families))
    default = (1 << (exp_bits - 1)) - int(specials not in ("fnuz", "p3109"))
    biases = st.integers(low, high)
    if low <= default <= high:
        biases |= st.just(default)
    return FloatFormat(
        exp_bits=exp_bits,
        frac_bits=frac_bits,
        bias=draw(biases),
        specials=specials,
        subnormals=draw(st.booleans()),
        signed=draw(st.booleans()) if signed is None else signed,
    )


@st.composite
def fixed_formats(draw):
    """Any fixed-point format."""
    signed = draw(st.booleans())
    bits = draw(st.integers(int(not signed), 32 - signed))  # without the sign
    frac_bits = draw(st.integers(max(0, bits - 31), min(bits, 31)))
    overflow = draw(st.sampled_from(["saturate", "wrap"]))
    return FixedFormat(int_bits=bits - frac_bits, frac_bits=frac_bits, signed=signed, overflow=overflow)


def formats():
    """Any format."""
    return float_formats(families=ALL_SPECIALS) | fixed_formats()


def hard_values(fmt, rng, count):
    """float64 values on, between and just beside the values of `fmt`, and beyond both its ends."""
    if isinstance(fmt, FloatFormat):
        low, high = 1 - fmt.bias - fmt.frac_bits, (1 << fmt.exp_bits) - fmt.bias
        bits = fmt.frac_bits + 1
    else:
        low, high, bits = -fmt.frac_bits, fmt.int_bits, fmt.int_bits + fmt.frac_bits
    exponent = rng.integers(low - 3, high + 2, count)
    # Significands with up to two bits more than the format: values, ties and quarters.
    whole = rng.integers(1, 1 << (bits + 2), count)
    x = np.ldexp(whole.astype(float), exponent - rng.integers(0, bits + 3, count))
    x *= rng.choice([-1.0, 1.0], count)
    beside = rng.integers(0, 4, count)
    x = np.where(beside == 1, np.nextafter(x, np.inf), x)
    return np.where(beside == 2, np.nextafter(x, 0.0), x)


def draw_operand(rng, text, kind, shape):
    """Values of the format `text` of a kind that strains the sums."""
    fmt = parse_format(text)
    least = 2.0**-fmt.frac_bits if text == "s3.4" else fmt.min_subnormal
    low, high = math.log2(least), min(math.log2(fmt.max), 120)
    x = rng.normal(size=shape)
    if kind == "huge":
        x *= fmt.max if fmt.max < 1e30 else 1e30
    elif kind == "tiny":
        x *= least * 8
    elif kind == "positive":
        x = np.abs(x)
    elif kind == "powers":
        x = np.sign(x) * 2.0 ** rng.integers(math.ceil(low), math.floor(high), shape)
    elif kind == "sparse":
        x *= rng.random(shape) < 0.3
    elif kind == "mixed":
        x *= 2.0 ** rng.uniform(low, high, shape)
    return cast(x, text, overflow="saturate").astype(np.float32)


def draw_operands(rng, left, right, kind, m, k, n):
    a, b = draw_operand(rng, left, kind, (m, k)), draw_operand(rng, right, kind, (k, n))
    if kind == "cancel" and k > 1:
        half = k // 2
        a[:, -half:], b[-half:] = -a[:, :half], b[:half]
    return a, b
