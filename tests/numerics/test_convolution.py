"""The three products of a convolution: the documented sums, and those of lowered operands, bit for bit."""

import os
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from numerics import cast, convolution, matmul, threads
from numerics.convolution import Geometry, convolve, convolve_input_gradient, convolve_weight_gradient
from oracles import layers
from oracles.rational import dot_rational

GEOMETRIES = [
    # geometry, channels, outputs, size, batch
    (Geometry((2, 3)), 2, 3, (4, 5), 2),
    (Geometry((3, 3), (2, 1), (1, 2)), 2, 2, (5, 4), 1),
    (Geometry((2, 2), (2, 2), (0, 1), (1, 2), 2), 4, 4, (5, 4), 2),
    (Geometry((3, 2), (1, 2), (1, 0), groups=3), 3, 3, (4, 4), 1),
    (Geometry((1, 1), (2, 3), (1, 1)), 1, 2, (4, 3), 2),
    (Geometry((2, 2), (3, 3), (1, 1), (2, 2), 2), 2, 4, (6, 5), 1),
    (Geometry((1, 3), (1, 2), (0, 5)), 1, 9, (1, 6), 1),
]

#: One for each way in which a product may be computed.
ACCUMULATORS = {
    "float32": "e6m9",
    "float32 in chunks": "e6m9 chunk=5",
    "float32 toward zero": "e8m6 rounding=toward-zero",
    "float32 down in chunks": "e8m6 chunk=7 rounding=down",
    "float32 stochastic": "e8m5 rounding=stochastic",
    "float32 stochastic in chunks": "e8m5 chunk=17 rounding=stochastic:6",
    "float64": "e8m16",
    "float64 in chunks": "e8m16 chunk=3",
    "subnormals and overflow": "e4m5 chunk=40",
    "to odd": "e5m6 rounding=to-odd",
    "no fractions": "e4m0fn",
    "rounded products": "e6m9 product=e5m4 chunk=4 outer=e8m11",
    "lanes": "e6m5 lanes=3",
    "tree": "e6m5 order=pairwise chunk=8 rounding=stochastic",
    "fused": "fused products=4 align_bits=9 output=e8m9",
    "integer": "int16-wrap chunk=6 outer=int32-wrap",
    "exact": "exact output=e6m4",
}


def lowered(images, kernel_size, first, stride, dilation, size, groups):
    """Windows (groups, k, n * positions) of images whose pixel 0 is at place `first`, zeros all around."""
    n, channels, height, width = images.shape
    inner = channels // groups
    out = np.zeros((groups, inner, *kernel_size, n, *size), np.float32)
    for c, i, j, y, x in product(*map(range, (inner, *kernel_size, *size))):
        row = y * stride[0] + i * dilation[0] - first[0]
        column = x * stride[1] + j * dilation[1] - first[1]
        if 0 <= row < height and 0 <= column < width:
            out[:, c, i, j, :, y, x] = images[:, c::inner, row, column].T
    return out.reshape(groups, inner * kernel_size[0] * kernel_size[1], n * size[0] * size[1])


def spread(errors, stride):
    """Zeros between the errors."""
    n, channels, rows, columns = errors.shape
    out = np.zeros((n, channels, (rows - 1) * stride[0] + 1, (columns - 1) * stride[1] + 1), np.float32)
    for y, x in product(range(rows), range(columns)):
        out[:, :, y * stride[0], x * stride[1]] = errors[:, :, y, x]
    return out


def by_definition(images, kernel, errors, geometry, accumulator, formats=None):
    """The three products by `matmul` of lowered operands."""
    g, taps, (n, channels, *size) = geometry.groups, geometry.kernel, images.shape
    where = (geometry.stride, geometry.dilation, errors.shape[2:], g)
    of_weights, of_images, of_errors = formats or (None, None, None)
    pair = lambda a, b: None if formats is None else (a, b)  # noqa: E731

    def by_sample(y, height, width):
        return y.reshape(y.shape[0] * y.shape[1], n, height, width).swapaxes(0, 1)

    windows = lowered(images, taps, geometry.padding, *where)
    flat = kernel.reshape(g, len(kernel) // g, -1)
    y = matmul(flat, windows, accumulator, seed=1, stream=2, formats=pair(of_weights, of_images))
    rows = errors.swapaxes(0, 1)
    gradient = matmul(
        rows.reshape(g, len(kernel) // g, -1),
        np.ascontiguousarray(windows.swapaxes(1, 2)),
        accumulator,
        seed=1,
        stream=2,
        formats=pair(of_errors, of_images),
    )
    before = [geometry.dilation[d] * (taps[d] - 1) - geometry.padding[d] for d in (0, 1)]
    windows = lowered(spread(errors, geometry.stride), taps, before, (1, 1), geometry.dilation, size, g)
    flipped = np.empty((g, channels // g, len(kernel) // g, *taps), np.float32)
    for k, c, o, i, j in product(*map(range, flipped.shape)):
        flipped[k, c, o, i, j] = kernel[k * len(kernel) // g + o, c, taps[0] - 1 - i, taps[1] - 1 - j]
    flipped = flipped.reshape(g, channels // g, -1)
    back = matmul(flipped, windows, accumulator, seed=1, stream=2, formats=pair(of_weights, of_errors))
    return by_sample(y, *errors.shape[2:]), by_sample(back, *size), gradient.reshape(kernel.shape)


def computed(images, kernel, errors, geometry, accumulator, formats=None):
    of_weights, of_images, of_errors = formats or (None, None, None)
    pair = lambda a, b: None if formats is None else (a, b)  # noqa: E731
    key = {"seed": 1, "stream": 2}
    size = images.shape[2:]
    return (
        convolve(images, kernel, geometry, accumulator, formats=pair(of_weights, of_images), **key),
        convolve_input_gradient(
            errors, kernel, size, geometry, accumulator, formats=pair(of_weights, of_errors), **key
        ),
        convolve_weight_gradient(
            errors, images, geometry, accumulator, formats=pair(of_errors, of_images), **key
        ),
    )


def assert_same(found, expected):
    for name, one, other in zip(("forward", "backward", "gradient"), found, expected, strict=True):
        assert one.flags.c_contiguous, name
        assert (one.shape, one.dtype) == (other.shape, other.dtype), name
        bits = f"i{one.itemsize}"
        np.testing.assert_array_equal(np.isnan(one), np.isnan(other), name)
        plain = [np.where(np.isnan(x), x.dtype.type(0), x).view(bits) for x in (one, other)]
        np.testing.assert_array_equal(*plain, name)


def operands(rng, geometry, channels, outputs, size, batch, fmt="e5m2", scale=1.0):
    """Images, kernel and errors on a format, half of the images zeros as after a ReLU."""
    shapes = (
        (batch, channels, *size),
        (outputs, channels // geometry.groups, *geometry.kernel),
        (batch, outputs, *geometry.output_size(size)),
    )
    draw = lambda shape: cast((scale * rng.normal(size=shape)).astype(np.float32), fmt)  # noqa: E731
    images, kernel, errors = map(draw, shapes)
    return np.maximum(images, 0), kernel, errors


@pytest.mark.parametrize("accumulator", ["e6m3", "e6m2 chunk=5 rounding=up", "e4m2 chunk=3"])
@pytest.mark.parametrize("case", GEOMETRIES, ids=str)
def test_every_element_is_the_documented_sum(case, accumulator):
    geometry, accumulator = case[0], convolution.parse_accumulator(accumulator)
    images, kernel, errors = operands(np.random.default_rng(1), *case, fmt="e5m3")
    where = layers.Geometry(geometry.stride, geometry.padding, geometry.dilation, geometry.groups)
    shapes = images.shape, kernel.shape, errors.shape
    mode, chunk = accumulator.rounding.mode.value, accumulator.chunk
    found = computed(images, kernel, errors, geometry, accumulator)
    oracles = (
        (layers.conv_forward, images, kernel),
        (layers.conv_backward, errors, kernel),
        (layers.conv_gradient, errors, images),
    )
    for result, (oracle, first, second) in zip(found, oracles, strict=True):
        expected = np.full(result.shape, np.nan)
        for index, terms in oracle(*shapes, where):
            a, b = (
                [0.0 if place is None else float(x[place]) for place in places]
                for x, places in zip((first, second), zip(*terms, strict=True), strict=True)
            )
            expected[index] = dot_rational(a, b, accumulator.format, mode, chunk=chunk)
        np.testing.assert_array_equal(result, expected)


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def cases(draw):
    """A geometry and a fitting input, padding often beyond the kernel's reach; or depthwise, or one row."""
    groups = draw(st.integers(1, 3))
    kernel, stride, dilation = draw(pairs), draw(pairs), draw(pairs)
    padding = draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
    size = (draw(st.sampled_from([1, 1, 2, 5])), draw(st.integers(1, 20)))
    inner, outer = groups * draw(st.integers(1, 3)), groups * draw(st.sampled_from([1, 2, 3, 9, 18]))
    geometry = Geometry(kernel, stride, padding, dilation, groups)
    for d in (0, 1):
        assume(size[d] + 2 * padding[d] > geometry.reach[d])
    return geometry, inner, outer, size, draw(st.integers(0, 3))


@pytest.mark.parametrize("name", ACCUMULATORS)
@settings(max_examples=12)
@given(case=cases(), seed=st.integers(0, 2**31))
def test_a_product_is_that_of_the_lowered_operands(name, case, seed):
    accumulator = ACCUMULATORS[name]
    formats = ("e5m2", "e5m2", "e5m2") if name == "fused" else None
    fmt = "s6.0" if name == "integer" else "e5m2"
    arrays = operands(np.random.default_rng(seed), *case, fmt=fmt)
    found = computed(*arrays, case[0], accumulator, formats)
    assert_same(found, by_definition(*arrays, case[0], accumulator, formats))


@pytest.mark.parametrize(
    "name", ["float32", "float32 in chunks", "float64", "subnormals and overflow", "to odd"]
)
@settings(max_examples=10)
@given(
    case=cases(),
    seed=st.integers(0, 2**31),
    special=st.sampled_from([np.inf, -np.inf, np.nan, -0.0, 57344.0, 1e-45]),
)
def test_infinities_meet_the_zeros_of_padding_and_signs_of_zeros_stay(name, case, seed, special):
    rng = np.random.default_rng(seed)
    arrays = operands(rng, *case)
    for x in arrays:
        x[rng.random(x.shape) < 0.1] = special
    found = computed(*arrays, case[0], ACCUMULATORS[name])
    assert_same(found, by_definition(*arrays, case[0], ACCUMULATORS[name]))


def test_an_infinite_weight_on_padding_is_nan():
    kernel = np.full((1, 1, 1, 3), np.inf, np.float32)
    images = np.ones((1, 1, 1, 4), np.float32)
    y = convolve(images, kernel, Geometry((1, 3), padding=(0, 1)), "e6m9")
    np.testing.assert_array_equal(y.ravel(), [np.nan, np.inf, np.inf, np.nan])


LARGE = {
    # Several blocks of positions and products, whole images in place, and rows that straddle vectors.
    "sums in place": (Geometry((3, 3), padding=(1, 1)), 3, 17, (16, 16), 9),
    "sums moved": (Geometry((3, 3), padding=(1, 1)), 5, 24, (13, 14), 11),
    "upright": (Geometry((3, 3), padding=(1, 1)), 24, 32, (9, 7), 22),
    "strided": (Geometry((3, 3), (2, 2), (1, 1)), 7, 16, (30, 30), 5),
    "depthwise": (Geometry((3, 3), padding=(1, 1), groups=40), 40, 40, (14, 14), 3),
    "points": (Geometry((1, 1)), 40, 20, (8, 8), 20),
    "one row": (Geometry((1, 7), (1, 3), (0, 3)), 4, 6, (1, 3000), 2),
    "few windows": (Geometry((4, 4)), 4, 40, (4, 4), 3),
}
WAYS = [
    "e6m9",
    "e6m9 chunk=50",
    "e8m16 chunk=999",
    "e5m9 chunk=64",
    "e8m8 rounding=down",
    "e6m7 rounding=stochastic",
]


@pytest.mark.parametrize("accumulator", WAYS)
@pytest.mark.parametrize("name", LARGE)
def test_large_products_are_those_of_the_lowered_operands_with_any_threads(name, accumulator, monkeypatch):
    geometry = LARGE[name][0]
    arrays = operands(np.random.default_rng(3), *LARGE[name], scale=30.0 if "e5m9" in accumulator else 1.0)
    expected = by_definition(*arrays, geometry, accumulator)
    monkeypatch.setattr("numerics._packing._LEAST_WORK", 1)
    try:
        for count in (1, 2, 3):
            threads.limit(count)
            assert_same(computed(*arrays, geometry, accumulator), expected)
    finally:
        threads.limit(None)


def test_strides_of_operands_do_not_matter():
    geometry = Geometry((3, 2), (1, 2), (1, 1), groups=2)
    arrays = operands(np.random.default_rng(4), geometry, 4, 6, (9, 8), 3)
    expected = computed(*arrays, geometry, "e6m7")
    for change in (
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, 3)[..., ::2],
        lambda x: x[::-1, :, ::-1].copy()[::-1, :, ::-1],
        lambda x: np.ascontiguousarray(x.transpose(2, 3, 0, 1)).transpose(2, 3, 0, 1),
    ):
        assert_same(computed(*map(change, arrays), geometry, "e6m7"), expected)


WITHOUT_COMPILER = """
import sys
import numba
from numpy import frombuffer
from numerics.convolution import Geometry, convolve, convolve_input_gradient, convolve_weight_gradient
assert numba.config.DISABLE_JIT
data = frombuffer(bytes.fromhex(sys.argv[1]), "f4")
images, kernel = data[:50].reshape(1, 2, 5, 5), data[50:74].reshape(3, 2, 2, 2)
errors = data[74:].reshape(1, 3, 2, 6)
geometry = Geometry((2, 2), (2, 1), (0, 1))
for accumulator in ("e6m7", "e6m5 chunk=3 rounding=stochastic"):
    for result in (
        convolve(images, kernel, geometry, accumulator, seed=1, stream=2),
        convolve_input_gradient(errors, kernel, (5, 5), geometry, accumulator, seed=1, stream=2),
        convolve_weight_gradient(errors, images, geometry, accumulator, seed=1, stream=2),
    ):
        print(result.tobytes().hex())
"""


def test_without_the_compiler_the_bits_are_the_same():
    geometry = Geometry((2, 2), (2, 1), (0, 1))
    arrays = operands(np.random.default_rng(6), geometry, 2, 3, (5, 5), 1)
    expected = [
        result.tobytes().hex()
        for accumulator in ("e6m7", "e6m5 chunk=3 rounding=stochastic")
        for result in computed(*arrays, geometry, accumulator)
    ]
    data = np.concatenate([x.ravel() for x in arrays]).tobytes().hex()
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILER, data],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == expected


def test_no_sample_gives_zeros():
    geometry = Geometry((2, 2), groups=2)
    for accumulator in ("e6m9", "e6m9 rounding=stochastic", "int8-wrap"):
        y, back, gradient = computed(
            np.empty((0, 2, 4, 5), np.float32), np.ones((4, 1, 2, 2), np.float32),
            np.empty((0, 4, 3, 4), np.float32), geometry, accumulator,
        )  # fmt: skip
        assert (y.shape, back.shape) == ((0, 4, 3, 4), (0, 2, 4, 5))
        np.testing.assert_array_equal(gradient, np.zeros((4, 1, 2, 2)))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"images": np.ones((1, 2, 4, 4))}, TypeError, "images must be a float32 array, got float64"),
        ({"kernel": [1.0]}, TypeError, "kernel must be a float32 array, got list"),
        ({"images": np.ones((2, 4, 4), np.float32)}, ValueError, "images must have four axes"),
        ({"images": np.ones((1, 3, 4, 4), np.float32)}, ValueError, "images must have 2 along axis 1"),
        (
            {"kernel": np.ones((3, 2, 3, 2), np.float32)},
            ValueError,
            r"kernel must be \(o, c / groups, 2, 2\)",
        ),
        ({"images": np.ones((1, 2, 4, 1), np.float32)}, ValueError, r"no window .* size \(4, 1\)"),
        ({"seed": 0.5}, TypeError, "seed must be an integer"),
        ({"accumulator": "e6m9 rounding=stochastic"}, ValueError, "needs a seed"),
        ({"formats": ("e5m2", "e5m2")}, ValueError, "formats are for fused adders"),
        ({"accumulator": "fused products=4 align_bits=9 output=e8m9"}, ValueError, "needs formats"),
    ],
)
def test_errors_name_what_is_wrong(change, error, words):
    arguments = {
        "images": np.ones((1, 2, 4, 4), np.float32),
        "kernel": np.ones((3, 2, 2, 2), np.float32),
        "geometry": Geometry((2, 2)),
        "accumulator": "e6m9",
    }
    with pytest.raises(error, match=words):
        convolve(**{**arguments, **change})


def test_errors_of_the_gradients_name_what_is_wrong():
    geometry = Geometry((2, 2), groups=2)
    images, kernel = np.ones((2, 4, 5, 5), np.float32), np.ones((6, 2, 2, 2), np.float32)
    errors = np.ones((2, 6, 4, 4), np.float32)
    for wrong, words in (
        (errors[:, :5], r"errors must be \(n, 6, 4, 4\), got shape \(2, 5, 4, 4\)"),
        (errors[..., 1:], r"errors must be \(n, 6, 4, 4\), got shape \(2, 6, 4, 3\)"),
    ):
        with pytest.raises(ValueError, match=words):
            convolve_input_gradient(wrong, kernel, (5, 5), geometry, "e6m9")
    for wrong, words in (
        (errors[:, :5], r"errors must have channels in 2 groups, got shape \(2, 5, 4, 4\)"),
        (errors[:1], "errors must have 2 along axis 0"),
        (errors[..., 1:], r"errors must be \(n, 6, 4, 4\)"),
    ):
        with pytest.raises(ValueError, match=words):
            convolve_weight_gradient(wrong, images, geometry, "e6m9")
    with pytest.raises(ValueError, match="images must have channels in 2 groups"):
        convolve_weight_gradient(errors, images[:, :3], geometry, "e6m9")
    with pytest.raises(ValueError, match="kernel must have outputs in 2 groups"):
        convolve(images, kernel[:5], geometry, "e6m9")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"kernel": (0, 3)}, ValueError, r"kernel must be at least 1, got \(0, 3\)"),
        ({"kernel": (3,)}, TypeError, r"kernel must be a pair of integers, got \(3,\)"),
        ({"stride": (1, 0)}, ValueError, "stride must be at least 1"),
        ({"padding": (-1, 0)}, ValueError, "padding must be at least 0"),
        ({"dilation": (1.0, 1)}, TypeError, "dilation must be a pair of integers"),
        ({"groups": 0}, ValueError, "groups must be at least 1, got 0"),
        ({"groups": True}, TypeError, "groups must be an integer, got True"),
    ],
)
def test_a_geometry_is_checked(arguments, error, words):
    with pytest.raises(error, match=words):
        Geometry(**{"kernel": (3, 3), **arguments})
