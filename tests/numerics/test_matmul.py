"""The front of the products: stacks of matrices, `out`, sums, and errors before any work."""

import numpy as np
import pytest

from numerics import Report, cast, dot, matmul, prepare
from numerics import sum as rounded_sum

ACCUMULATORS = [
    ("e6m9 chunk=5", None),
    ("e6m9 rounding=stochastic", None),
    ("e6m9 rounding=to-odd", None),
    ("e6m5 lanes=2 rounding=stochastic:7", None),
    ("exact output=e6m9 rounding=stochastic", None),
    ("hopper-fp8", ("e4m3fn", "e4m3fn")),
]


def operands(*shapes):
    rng = np.random.default_rng(0)
    return [cast(rng.normal(size=shape).astype(np.float32), "e4m3fn") for shape in shapes]


@pytest.mark.parametrize(("text", "formats"), ACCUMULATORS)
def test_a_stack_is_a_product_each_with_output_elements_counted_through(text, formats):
    a, b = operands((3, 2, 4, 17), (3, 2, 17, 5))
    kwargs = {"seed": 3, "formats": formats}
    whole = matmul(a, b, text, **kwargs)
    assert whole.shape == (3, 2, 4, 5)
    if "stochastic" not in text:
        for place in np.ndindex(3, 2):
            np.testing.assert_array_equal(whole[place], matmul(a[place], b[place], text, **kwargs))
        return
    # The first of the stack has the words of a product alone, the others have words of their own.
    np.testing.assert_array_equal(whole[0, 0], matmul(a[0, 0], b[0, 0], text, **kwargs))
    same = np.broadcast_to(a[0, 0], a.shape), np.broadcast_to(b[0, 0], b.shape)
    stack = matmul(*same, text, **kwargs)
    assert (stack[0, 0] != stack[2, 1]).any()
    # Rows of one tall product are counted alike.
    tall = matmul(same[0].reshape(-1, 17), b[0, 0], text, **kwargs)
    np.testing.assert_array_equal(tall.reshape(3, 2, 4, 5), stack)
    np.testing.assert_array_equal(matmul(same[0], b[0, 0], text, **kwargs), stack)


def test_leading_axes_are_broadcast():
    a, b = operands((3, 1, 4, 6), (2, 6, 5))
    whole = matmul(a, b, "e6m9")
    assert whole.shape == (3, 2, 4, 5)
    np.testing.assert_array_equal(whole[2, 1], matmul(a[2, 0], b[1], "e6m9"))
    assert matmul(a[:0], b, "e6m9").shape == (0, 2, 4, 5)


@pytest.mark.parametrize("text", ["e6m9", "e6m9 rounding=down", "e6m9 lanes=2", "int12"])
@pytest.mark.parametrize("shape", [(4, 8), (40, 3), (3, 4, 9)])
def test_out_receives_the_result(text, shape):
    a, b = operands((*shape[:-1], 7), (7, shape[-1]))
    if text.startswith("int"):
        a, b = np.rint(a), np.rint(b)
    out = np.full(shape, np.nan, np.float32)
    assert matmul(a, b, text, out=out) is not None
    np.testing.assert_array_equal(out, matmul(a, b, text))
    strided = np.full((*shape[:-1], 2 * shape[-1]), np.nan, np.float32)[..., ::2]
    matmul(a, b, text, out=strided)
    np.testing.assert_array_equal(strided, out)


def test_results_are_contiguous():
    a, b = operands((40, 7), (7, 3))
    for left, right in ((a, b), (b.T, a.T), (a[:5], b)):
        assert matmul(left, right, "e6m9").flags.c_contiguous


def test_an_unfit_out_is_refused():
    a, b = operands((4, 7), (7, 3))
    for out in (np.empty((4, 4), np.float32), np.empty((4, 3)), None, [1]):
        if out is not None:
            with pytest.raises(ValueError, match=r"out must have shape \(4, 3\) and dtype float32, got"):
                matmul(a, b, "e6m9", out=out)
    square = np.ones((4, 4), np.float32)
    with pytest.raises(ValueError, match="out must not share memory with the operands"):
        matmul(square, square, "e6m9", out=square)


def test_reports_of_a_stack_add_up():
    a, b = operands((3, 4, 30), (3, 30, 5))
    _, report = matmul(a, b, "e4m2", report=True)
    parts = [matmul(x, y, "e4m2", report=True)[1] for x, y in zip(a, b, strict=True)]
    assert report == parts[0] + parts[1] + parts[2]
    assert report.additions == 3 * 4 * 5 * 30
    assert report.max_shift == max(part.max_shift for part in parts)
    assert Report() + report == report


@pytest.mark.parametrize(("text", "formats"), ACCUMULATORS)
def test_a_sum_is_the_dot_product_with_ones(text, formats):
    (x,) = operands((3, 20, 2))
    kwargs = {"seed": 1, "formats": formats}
    ones = np.ones(20, np.float32)
    along = rounded_sum(x, text, axis=1, **kwargs)
    assert along.shape == (3, 2)
    assert along[0, 0] == dot(np.ascontiguousarray(x[0, :, 0]), ones, text, **kwargs)
    if "stochastic" not in text:
        for i, j in np.ndindex(3, 2):
            assert along[i, j] == dot(np.ascontiguousarray(x[i, :, j]), ones, text, **kwargs)
    everything = rounded_sum(x, text, **kwargs)
    assert everything.shape == ()
    assert everything == dot(x.ravel(), np.ones(120, np.float32), text, **kwargs)
    np.testing.assert_array_equal(rounded_sum(x, text, axis=-2, **kwargs), along)


def test_a_sum_of_nothing_is_zero():
    assert rounded_sum(np.ones((0,), np.float32), "e6m9") == 0.0
    np.testing.assert_array_equal(rounded_sum(np.ones((3, 0), np.float32), "e6m9", axis=1), np.zeros(3))


def test_an_axis_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"axis must be in -2..1 for shape \(2, 3\), got 2"):
        rounded_sum(np.ones((2, 3), np.float32), "e6m9", axis=2)


@pytest.mark.parametrize(
    ("a", "b", "error", "message"),
    [
        (np.ones((2, 3), np.int64), np.ones((3, 2), np.float32), TypeError, "a must be .* got int64"),
        (np.ones((2, 3), np.float32), np.ones((3, 2), complex), TypeError, "b must be .* got complex128"),
        (np.ones((2, 3), np.float32), np.ones((3, 2), object), TypeError, "b must be .* got object"),
        (np.ones((2, 3), np.float16), np.ones((3, 2), np.float32), TypeError, "a must be .* got float16"),
        ([[1.0]], np.ones((1, 1), np.float32), TypeError, "a must be .* got list"),
        (np.ones((2, 3), np.float32), np.ones((2, 3), np.float32), ValueError, r"got \(2, 3\) and \(2, 3\)"),
        (np.ones(3, np.float32), np.ones((3, 2), np.float32), ValueError, r"got \(3,\) and \(3, 2\)"),
        (np.ones((2, 2, 3), np.float32), np.ones((3, 3, 2), np.float32), ValueError, "leading axes"),
    ],
)
def test_unfit_operands_are_named(a, b, error, message):
    with pytest.raises(error, match=message):
        matmul(a, b, "e6m9")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("e6m9 chunk=0", "chunk must be at least 1, got 0"),
        ("e9m9", "exp_bits must be in 1..8, got 9"),
        ("e6m9 rounding=nearest", "rounding must be one of .* got 'nearest'"),
        ("e6m9 rounding=stochastic:33", "bits must be in 1..32"),
        ("e6m9 rounding=stochastic", "needs a seed"),
        ("hopper-fp8", "needs formats"),
        ("int1", "bits must be in 2..64, got 1"),
    ],
)
def test_a_bad_accumulator_is_an_error_before_any_work(text, message):
    ones = np.ones((2, 2), np.float32)
    with pytest.raises(ValueError, match=message):
        matmul(ones, ones, text)


@pytest.mark.parametrize(("text", "formats"), [*ACCUMULATORS, ("int20 rounding=down", None)])
@pytest.mark.parametrize("shape", [(5, 40, 30), (30, 40, 3), (2, 600, 17), (0, 4, 3), (3, 0, 2)])
def test_a_prepared_operand_gives_the_same_bits(text, formats, shape):
    m, k, n = shape
    a, b = operands((m, k), (k, n))
    ready = prepare(b)
    kwargs = {"seed": 5, "formats": formats}
    for _ in range(2):
        np.testing.assert_array_equal(matmul(a, ready, text, **kwargs), matmul(a, b, text, **kwargs))
    stack = np.stack([a, a])
    np.testing.assert_array_equal(matmul(stack, ready, text, **kwargs), matmul(stack, b, text, **kwargs))


def test_a_prepared_operand_cannot_change_and_keeps_nothing_for_its_parts():
    a, b = operands((4, 9), (9, 20))
    ready = prepare(b)
    with pytest.raises(ValueError, match="read-only"):
        ready[0, 0] = 1.0
    b[:] = 0.0
    assert (matmul(a, ready, "e6m9") != 0.0).any()
    plain = np.array(ready)
    np.testing.assert_array_equal(matmul(a, ready[:, 3:], "e6m9"), matmul(a, plain[:, 3:], "e6m9"))
    np.testing.assert_array_equal(matmul(ready.T[:, :4], a, "e6m9"), matmul(plain.T[:, :4], a, "e6m9"))
    np.testing.assert_array_equal(matmul(a, 2 * ready, "e6m9"), matmul(a, 2 * plain, "e6m9"))


def test_only_a_float32_matrix_can_be_prepared():
    with pytest.raises(TypeError, match="b must be a float32 array, got float64"):
        prepare(np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"b must have two axes, got shape \(2,\)"):
        prepare(np.ones(2, np.float32))


@pytest.mark.parametrize("shape", [(20, 17, 70), (40, 9, 5), (3, 33, 33)], ids=str)
@pytest.mark.parametrize(
    ("text", "scale"),
    [
        ("e6m9", 1.0),  # float32 tiles
        ("e6m9 chunk=5", 1.0),
        ("e6m9 chunk=5 rounding=toward-zero", 1.0),
        ("e8m13 chunk=4", 1.0),  # float64 tiles
        ("e5m9 chunk=3", 1e4),  # float32 with overflow, which knows the sign of a zero
        ("e8m23", 1.0),  # the processor's own multiply-adds
        ("e8m23 chunk=4", 1.0),
    ],
)
def test_a_stack_has_the_bits_of_its_products_in_every_kind_of_tile(text, scale, shape):
    rng = np.random.default_rng(0)
    m, k, n = shape
    a, b = (
        cast((scale * rng.normal(size=size)).astype(np.float32), "e6m4") for size in ((5, m, k), (5, k, n))
    )
    a[1], a[3, ::2] = -0.0, -0.0
    b[1] = abs(b[1])
    stack = matmul(a, b, text)
    assert 0.0 in stack
    for number in range(5):
        single = matmul(a[number], b[number], text)
        np.testing.assert_array_equal(stack[number].view(np.int32), single.view(np.int32))
