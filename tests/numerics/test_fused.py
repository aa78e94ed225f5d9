"""Fused block adders: bit for bit the aligned, truncated sums of the definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics import FusedAdder, cast, dot, matmul, parse_accumulator, parse_format
from numerics.fused import PRESETS
from oracles.orders import fused_rational
from oracles.rational import DETERMINISTIC
from oracles.strategies import KINDS, draw_operands, float_formats

FLOATS = ["e4m3fn", "e5m2", "e3m2", "e2m1", "hfp8", "fp16", "bf16", "tf32", "fp32", "e4m3-flush"]
E4M3 = ("e4m3fn", "e4m3fn")


def judge(a, b, adder, formats):
    """Matrix of the sums of the definition."""
    pair = [parse_format(text) for text in formats]
    block = adder.products // 2 if adder.halves else adder.products
    return np.array(
        [
            [
                fused_rational(
                    row.tolist(),
                    column.tolist(),
                    pair,
                    block=block,
                    align_bits=adder.align_bits,
                    output=adder.output,
                    mode=adder.rounding.mode.value,
                    promote=adder.promote,
                )
                for column in b.T
            ]
            for row in a
        ]
    )


@st.composite
def adders(draw):
    """Named units and others."""
    promote = draw(st.sampled_from([None, 1, 2, 4]))
    if draw(st.booleans()):
        preset = PRESETS[draw(st.sampled_from(sorted(PRESETS)))]
        return FusedAdder.parse(f"{preset}{f' promote={promote * preset.products}' if promote else ''}")
    products = draw(st.integers(1, 9))
    outputs = st.sampled_from(["e8m23", "e8m13", "fp16", "bf16", "e5m2", "e4m3fn", "e8m5"])
    return FusedAdder(
        products=products,
        align_bits=draw(st.integers(1, 40)),
        output=draw(outputs | float_formats(signed=True).filter(lambda f: f.subnormals and f.emin >= -126)),
        rounding=draw(st.sampled_from(DETERMINISTIC)),
        promote=promote and promote * products,
        halves=products % 2 == 0 and draw(st.booleans()),
    )


@settings(max_examples=600)
@given(
    left=st.sampled_from(FLOATS),
    right=st.sampled_from(FLOATS),
    adder=adders(),
    kind=st.sampled_from(KINDS),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 3)),
    seed=st.integers(0, 2**32),
)
def test_every_element_is_the_sum_of_the_definition(left, right, adder, kind, shape, seed):
    a, b = draw_operands(np.random.default_rng(seed), left, right, kind, *shape)
    result = matmul(a, b, adder, formats=(left, right))
    np.testing.assert_array_equal(result, judge(a, b, adder, (left, right)))


@settings(max_examples=200)
@given(
    adder=adders(), seed=st.integers(0, 2**32), length=st.integers(1, 40), share=st.sampled_from([0.05, 0.3])
)
def test_infinities_and_nan_are_resolved_before_the_sum(adder, seed, length, share):
    rng = np.random.default_rng(seed)
    a, b = draw_operands(rng, "e5m2", "fp16", "sparse", 3, length, 3)
    for x in (a, b):
        hit = rng.random(x.shape) < share
        x[hit] = rng.choice([np.inf, np.inf, -np.inf, np.nan], hit.sum())
    result = matmul(a, b, adder, formats=("e5m2", "fp16"))
    np.testing.assert_array_equal(result, judge(a, b, adder, ("e5m2", "fp16")))


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_blocks_of_every_remainder(preset, offset):
    adder = PRESETS[preset]
    for length in (0, adder.block + offset, 2 * adder.products + offset):
        a, b = draw_operands(np.random.default_rng(length), "e4m3fn", "e4m3fn", "mixed", 2, length, 2)
        result = matmul(a, b, preset, formats=E4M3)
        np.testing.assert_array_equal(result, judge(a, b, adder, E4M3))


def test_terms_are_cut_toward_zero_at_the_aligned_bit_by_hand():
    # Against 2**0 with 13 bits kept, 2**-13 + 2**-14 keeps 2**-13, on either sign, and 2**-14 nothing.
    adder = FusedAdder(products=4, align_bits=13, output=23)
    a = np.array([1.0, 1, 1, 1], np.float32)
    b = np.array([1.0, 1.5 * 2.0**-13, -1.5 * 2.0**-13, 2.0**-14], np.float32)
    for end, expected in ((1, 1.0), (2, 1 + 2.0**-13), (3, 1.0), (4, 1.0)):
        assert dot(a[:end], b[:end], adder, formats=("fp16", "fp16")) == expected


def test_a_product_is_not_renormalised_before_the_alignment():
    # 1.5 * 1.5 = 2.25 counts with exponent 0: units of 2**-2 remain. Renormalised they would be 2**-1.
    adder = FusedAdder(products=2, align_bits=2, output=23)
    a, b = np.array([1.5, 1], np.float32), np.array([1.5, 0.25], np.float32)
    assert dot(a, b, adder, formats=("fp16", "fp16")) == 2.5


def test_a_subnormal_operand_counts_with_the_least_exponent_of_its_format():
    # 2**-9 of e4m3fn is 2**-6 * 0.125: with 2 bits kept below 2**-6 it is cut to zero, while in fp16
    # it is a normal number.
    adder = FusedAdder(products=1, align_bits=2, output=23)
    a, one = np.array([2.0**-9], np.float32), np.ones(1, np.float32)
    assert dot(a, one, adder, formats=("e4m3fn", "fp16")) == 0.0
    assert dot(a, one, adder, formats=("fp16", "fp16")) == 2.0**-9


def test_the_addend_of_a_chain_is_aligned_too():
    # The second block meets c = 2**14, of which 13 bits are kept: 1 is below them.
    a = np.zeros(64, np.float32)
    a[[0, 32]] = [128.0, 1.0]
    b = np.where(a == 128.0, 128.0, a).astype(np.float32)
    assert dot(a, b, "hopper-fp8", formats=E4M3) == 16384.0
    assert dot(a, b, "hopper-fp8 promote=32", formats=E4M3) == 16385.0


@pytest.mark.parametrize(
    ("promote", "error", "bias"), [("", 1.4e-3, -6.6e-2), (" promote=128", 1.2e-4, -5e-4)]
)
def test_the_error_of_4096_products_is_as_published(promote, error, bias):
    # numpy simulation of the same rule: relative Frobenius error for N(0, 1), bias for U(0, 1).
    rng = np.random.default_rng(0)
    adder = "hopper-fp8" + promote
    a, b = (cast(rng.normal(size=shape).astype(np.float32), "e4m3fn") for shape in ((48, 4096), (4096, 48)))
    exact = a.astype(np.float64) @ b
    measured = np.linalg.norm(matmul(a, b, adder, formats=E4M3) - exact) / np.linalg.norm(exact)
    assert measured == pytest.approx(error, rel=0.15)
    a, b = (cast(rng.random(shape).astype(np.float32), "e4m3fn") for shape in ((48, 4096), (4096, 48)))
    exact = a.astype(np.float64) @ b
    measured = ((matmul(a, b, adder, formats=E4M3) - exact) / exact).mean()
    assert measured == pytest.approx(bias, rel=0.1)


@given(adder=adders())
def test_text_reads_back(adder):
    assert FusedAdder.parse(str(adder)) == adder
    assert parse_accumulator(str(adder)) == adder


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_print_their_names(preset):
    assert str(FusedAdder.parse(preset)) == preset
    longer = FusedAdder.parse(f"{preset} promote=128")
    assert str(longer) == f"{preset} promote=128"
    assert (longer.products, longer.promote) == (PRESETS[preset].products, 128)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hopper", "fused adder must be fused or one of volta, .* got 'hopper'"),
        ("hopper-fp8 promote=100", "promote must be a multiple of products 32, got 100"),
        ("hopper-fp8 promote=0", "promote must be at least 1, got 0"),
        ("hopper-fp8 chunk=64", "got 'chunk'"),
        ("hopper-fp8 halves=yes", "halves must be true or false, got 'yes'"),
        ("fused products=4 output=fp16", "align_bits is missing"),
        ("fused products=3 align_bits=9 output=fp16 halves=true", "products must be even with halves, got 3"),
        ("fused products=x align_bits=9 output=fp16", "products must be a whole number, got 'x'"),
        (
            "fused products=8 align_bits=49 output=fp16",
            "must fit 53 bits: .* got align_bits 49 with products 8",
        ),
        ("volta rounding=stochastic", "rounds deterministically, got rounding stochastic"),
        ("volta output=ue4m3fn", "output must be signed, .* got ue4m3fn"),
        ("volta output=e4m3-flush", "output must be signed, .* got e4m3fn-flush"),
    ],
)
def test_a_bad_adder_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        FusedAdder.parse(text)


def test_operands_come_with_their_formats():
    x = np.ones((2, 2), np.float32)
    with pytest.raises(ValueError, match=r"fused adder volta needs formats=.* got None"):
        matmul(x, x, "volta")
    with pytest.raises(ValueError, match=r"formats are for fused adders, got .* with accumulator e6m9"):
        matmul(x, x, "e6m9", formats=E4M3)
    with pytest.raises(ValueError, match=r"formats must be a pair .* got 'fp16'"):
        matmul(x, x, "volta", formats="fp16")
    with pytest.raises(TypeError, match="must be of a FloatFormat, got FixedFormat"):
        matmul(x, x, "volta", formats=("fp16", parse_format("s3.4")))


@pytest.mark.parametrize(
    ("value", "fmt", "message"),
    [
        (1.0625, "e4m3fn", "got 1.0625"),
        (480.0, "e4m3fn", "got 480"),
        (np.inf, "e4m3fn", "got inf"),
        (np.nan, "e2m1", "got nan"),
        (2.0**-10, "e4m3fn", "got 0.000976562"),
        (2.0**-9, "e4m3-flush", "got a subnormal"),
        (-1.0, "ue4m3fn", "got a negative one"),
    ],
)
def test_operands_off_their_format_are_an_error(value, fmt, message):
    x = np.ones((2, 2), np.float32)
    off = x.copy()
    off[1, 0] = value
    with pytest.raises(ValueError, match=f"a must hold values of .* {message}"):
        matmul(off, x, "volta", formats=(fmt, "fp16"))
    with pytest.raises(ValueError, match=f"b must hold values of .* {message}"):
        matmul(x, off, "volta", formats=("fp16", fmt))


def test_neither_dtype_nor_strides_matter():
    a, b = draw_operands(np.random.default_rng(5), "e4m3fn", "e4m3fn", "normal", 6, 40, 9)
    expected = matmul(a, b, "hopper-fp8", formats=E4M3)
    wide = np.zeros((12, 80))
    wide[::2, ::-2] = a
    result = matmul(wide[::2, ::-2], np.asfortranarray(b), "hopper-fp8", formats=E4M3)
    np.testing.assert_array_equal(result, expected)


def test_the_report_of_a_block_by_hand():
    # Exponents 10, 0, 0 and, of the addend, none at first: with three bits kept, 1 and -1 are cut away.
    a = np.array([[2.0**10, 1.0, -1.0, 0.0, 2.0**10, 0.0]], np.float32)
    ones = np.ones((6, 1), np.float32)
    text = "fused products=3 align_bits=3 output=e8m23"
    product, report = matmul(a, ones, text, formats=("bf16", "bf16"), report=True)
    assert product == 2.0**11
    # Two blocks of three products and the addend; the addend of the second, 2**10, has its largest exponent.
    assert (report.additions, report.swamped, report.max_shift) == (8, 2, 10)
    assert (report.overflow, report.underflow, report.saturation) == (0, 0, 0)
    product, report = matmul(a, ones, text + " promote=3", formats=("bf16", "bf16"), report=True)
    assert (report.additions, report.swamped) == (10, 2)
    a = np.array([[2.0**12, 1.0, 1.0]], np.float32)  # the register holds 2**24 and swamps 1 twice
    single = "fused products=1 align_bits=13 output=e8m23 promote=1"
    assert matmul(a, a.T, single, formats=("bf16", "bf16"), report=True)[1].swamped == 2
    a = np.array([[2.0**10, 1.0, -1.0, 0.0, 2.0**10, 0.0]], np.float32)
    a *= np.float32(2.0**5)
    text = "fused products=3 align_bits=3 output=e5m2"
    assert matmul(a, ones, text, formats=("bf16", "bf16"), report=True)[1].saturation == 1
    assert np.isinf(matmul(a, ones, text + " rounding=up", formats=("bf16", "bf16")))


@given(seed=st.integers(0, 999), depth=st.integers(1, 70))
def test_a_report_changes_no_bit(seed, depth):
    rng = np.random.default_rng(seed)
    a, b = (cast(rng.normal(size=s).astype(np.float32), "e4m3fn") for s in ((3, depth), (depth, 2)))
    formats = ("e4m3fn", "e4m3fn")
    for text in ("hopper-fp8 promote=32", "ada-fp8"):
        counted, report = matmul(a, b, text, formats=formats, report=True)
        np.testing.assert_array_equal(counted, matmul(a, b, text, formats=formats))
        assert report.additions >= 6 * depth
