"""Accumulation lengths: by hand, and against PyTorch, where a sum of ones counts its own terms."""

from math import prod

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the name PyTorch users know
from hypothesis import given
from hypothesis import strategies as st

from accel.accumulations import (
    Network,
    NetworkBuilder,
    NetworkError,
    TrainingProducts,
    attention,
    contraction,
    convolution,
    einsum,
    matmul_equation,
    transposed_convolution,
)


def lengths(row):
    return row.forward, row.backward, row.gradient


def ones(*shape):
    return torch.ones(shape, dtype=torch.float64, requires_grad=True)


def counted(output, first, second):
    """Terms of the three sums: with ones everywhere, each result is the number of its terms."""
    output.backward(torch.ones_like(output))
    return tuple(int(values.max()) for values in (output, first.grad, second.grad))


CONVOLUTIONS = [
    # (axes, channels in, channels out, window, stride, dilation, groups)
    (1, 4, 6, 3, 1, 1, 1),
    (2, 4, 6, 3, 1, 1, 1),
    (2, 4, 6, 3, 1, 2, 2),
    (2, 4, 8, 3, 1, 1, 4),
    (3, 2, 4, 2, 1, 1, 1),
    (2, 4, 6, 3, 2, 1, 1),
    (2, 4, 6, 5, 2, 1, 2),
    (2, 3, 5, 4, 3, 1, 1),
    (2, 3, 5, 3, 2, 2, 1),  # all taps of an input pixel have the parity of one another
    (2, 3, 5, 3, 4, 2, 1),
    (2, 4, 4, 1, 2, 1, 1),
]


@pytest.mark.parametrize(("axes", "c_in", "c_out", "k", "stride", "dilation", "groups"), CONVOLUTIONS)
def test_a_convolution_sums_what_autograd_counts(axes, c_in, c_out, k, stride, dilation, groups):
    x, w = ones(2, c_in, *[26 if axes < 3 else 9] * axes), ones(c_out, c_in // groups, *[k] * axes)
    call = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    y = call(x, w, stride=stride, dilation=dilation, groups=groups)
    row = convolution(
        "conv", w.shape, positions=y.numel() // c_out, groups=groups, stride=(stride,), dilation=(dilation,)
    )
    forward, met, gradient = counted(y, x, w)
    assert (row.forward, row.gradient) == (forward, gradient)
    assert row.backward == k**axes * c_out // groups
    if stride == 1:
        assert (row.backward, row.notes) == (met, ())
    elif met < row.backward:
        assert row.notes == (f"its stride leaves at most {met} products of a backward sum that are not 0",)
    else:
        assert row.notes == ()
    assert row.macs == y.numel() * row.forward


@pytest.mark.parametrize(("axes", "c_in", "c_out", "k", "stride", "dilation", "groups"), CONVOLUTIONS)
def test_a_transposed_convolution_sums_what_autograd_counts(axes, c_in, c_out, k, stride, dilation, groups):
    x, w = ones(2, c_in, *[9] * axes), ones(c_in, c_out // groups, *[k] * axes)
    call = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[axes - 1]
    y = call(x, w, stride=stride, dilation=dilation, groups=groups)
    row = transposed_convolution(
        "up",
        w.shape,
        positions=2 * 9**axes,
        groups=groups,
        stride=[stride] * axes,
        dilation=[dilation] * axes,
    )
    assert lengths(row) == counted(y, x, w)
    assert row.operator == "transposed conv"
    assert row.macs == x.numel() * k**axes * c_out // groups  # each input pixel is spread over a window


def test_kinds_of_convolution_are_told_apart():
    kinds = [
        convolution("c", weight, positions=1, groups=groups).operator
        for weight, groups in (((8, 4, 3, 3), 1), ((8, 2, 3, 3), 2), ((8, 1, 3, 3), 4), ((8, 1, 3, 3), 1))
    ]
    assert kinds == ["conv", "grouped conv", "depthwise conv", "conv"]


@pytest.mark.parametrize(
    ("equation", "first", "second"),
    [
        ("mk,kn->mn", (3, 4), (4, 5)),
        ("...k,nk->...n", (2, 3, 4), (5, 4)),
        ("bmk,bkn->bmn", (2, 3, 4), (2, 4, 5)),
        ("...mk,...kn->...mn", (2, 6, 3, 4), (2, 6, 4, 5)),
        ("...mk,...kn->...mn", (2, 6, 3, 4), (2, 1, 4, 5)),  # all heads share keys
        ("...mk,...kn->...mn", (1, 6, 3, 4), (2, 6, 4, 5)),
        ("...mk,...kn->...mn", (2, 6, 3, 4), (4, 5)),
        ("bhqd,bkhd->bhqk", (2, 3, 4, 5), (2, 6, 3, 5)),
        ("bqd,bkd", (2, 4, 5), (2, 6, 5)),  # the output is implied
        ("...d,d", (2, 4, 5), (5,)),
        ("ij,ij->", (4, 5), (4, 5)),
        ("b i , b j -> b i j", (2, 4), (2, 5)),
        ("bij,bjk->ik", (2, 3, 4), (2, 4, 5)),  # the sum runs over the batch, too
    ],
)
def test_a_contraction_sums_what_autograd_counts(equation, first, second):
    a, b = ones(*first), ones(*second)
    row = contraction("product", "einsum", equation, first, second)
    y = torch.einsum(equation, a, b)
    assert lengths(row) == counted(y, a, b)
    assert row.macs == prod(y.shape) * row.k
    # Beside a weight, backward is the error of the other operand wherever it stands.
    swapped = contraction("product", "einsum", equation, first, second, weight=0)
    assert lengths(swapped) == (row.forward, row.gradient, row.backward)
    assert (swapped.m, swapped.n, swapped.k, swapped.count) == (row.n, row.m, row.k, row.count)


@given(first=st.lists(st.integers(2, 4), min_size=1, max_size=4), n=st.integers(2, 4), batched=st.booleans())
def test_matrix_products_of_any_rank(first, n, batched):
    k = first[-1]
    second = (*(first[:-2] if batched else ()), k, n) if n > 2 else (k,)
    a, b = ones(*first), ones(*second)
    row = contraction("product", "matmul", matmul_equation(first, second), first, second)
    assert lengths(row) == counted(a @ b, a, b)


@pytest.mark.parametrize(
    ("equation", "shapes", "message"),
    [
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)], "it has 3 operands"),
        ("ii,ij->j", [(3, 3), (3, 4)], "operand ii takes a diagonal"),
        ("ij,k->k", [(2, 3), (4,)], "it sums over axis i of one operand alone"),
        ("ij,jk->ik", [(2, 3), (4, 5)], "axis j is 3 in one operand and 4 in the other"),
        ("ij,jk->ik", [(2, 3, 4), (3, 5)], r"operand ij does not fit the shape \(2, 3, 4\)"),
        ("...ijk,jk->...i", [(3, 4), (3, 4)], r"operand \.\.\.ijk does not fit the shape \(3, 4\)"),
    ],
)
def test_an_einsum_that_is_no_product_of_two_matrices_says_why(equation, shapes, message):
    with pytest.raises(ValueError, match=message):
        einsum("e", equation, shapes)
    with pytest.raises(ValueError, match=message):
        contraction("e", "einsum", equation, *shapes[:2])


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij->ji", [(2, 3)]),
        ("bsd,bsd->bsd", [(2, 3, 4), (2, 3, 4)]),
        ("bsd,d->bsd", [(2, 3, 4), (4,)]),
    ],
)
def test_an_einsum_that_sums_nothing_is_no_product(equation, shapes):
    assert einsum("e", equation, shapes) is None


def test_an_outer_product_has_sums_of_one_term_forward_only():
    row = einsum("e", "bi,bj->bij", [(7, 2), (7, 3)])
    assert (lengths(row), row.count) == ((1, 3, 2), 7)


@pytest.mark.parametrize("shared", [6, 3, 1])
def test_attention_sums_what_autograd_counts(shared):
    q, k, v = ones(2, 6, 5, 4), ones(2, shared, 7, 4), ones(2, shared, 7, 3)
    scores, context = attention("attn", q.shape, k.shape, v.shape)
    keys, values = (x.repeat_interleave(6 // shared, dim=1) for x in (k, v))
    assert lengths(scores) == counted(q @ keys.mT, q, k)
    p = ones(2, 6, 5, 7)
    assert lengths(context) == counted(p @ values, p, v)
    assert (scores.layer, context.layer) == ("attn QK^T", "attn PV")
    assert (scores.macs, context.macs) == (2 * 6 * 5 * 7 * 4, 2 * 6 * 5 * 7 * 3)


def test_attention_without_heads_and_with_a_causal_mask():
    scores, context = attention("a", (3, 8, 4), (3, 8, 4), (3, 8, 4), causal=True)
    assert (lengths(scores), lengths(context), scores.count) == ((4, 8, 8), (8, 4, 8), 3)
    assert scores.notes == context.notes
    assert "1 to 8 terms" in scores.notes[0]
    plain, _ = attention("a", (8, 4), (8, 4), (8, 4))
    assert (lengths(plain), plain.count, plain.notes) == ((4, 8, 8), 1, ())


def test_channels_that_do_not_divide_are_refused():
    with pytest.raises(NetworkError, match="c: 8 channels or heads do not fall into 3 groups"):
        convolution("c", (8, 2, 3, 3), positions=1, groups=3)
    with pytest.raises(NetworkError, match="a: 6 channels or heads do not fall into 4 groups"):
        attention("a", (1, 6, 2, 2), (1, 4, 2, 2), (1, 4, 2, 2))


def test_an_empty_product_is_refused_with_its_layer():
    with pytest.raises(NetworkError, match="conv: gradient must be at least 1, got 0"):
        convolution("conv", (4, 3, 3, 3), positions=0)


def row(layer="fc", **changed):
    sizes = {"forward": 4, "backward": 5, "gradient": 6, "m": 6, "n": 5, "k": 4, **changed}
    return TrainingProducts(layer=layer, operator="linear", **sizes)


def built(*, batch=8, traced=8):
    return NetworkBuilder("net", batch=batch, traced=traced)


def test_the_gradient_of_a_shared_weight_sums_over_its_uses():
    builder = built()
    for number in range(5):
        builder.add(row(f"use{number}"), weight="w")
    builder.add(row("other"), weight="v")
    builder.add(row("forward only"), weight="w", gradient=False)
    products = builder.network().products
    assert [found.gradient for found in products] == [30, 30, 30, 30, 30, 6, None]
    assert products[0].notes == (
        "weight shared with use1, use2, use3 and 1 more: its gradient sums over all 5 uses",
    )
    assert products[5].notes == products[6].notes == ()


def test_an_embedding_is_noted_on_the_product_that_reads_its_table():
    builder = built()
    builder.add(row("head"), weight="table")
    builder.look_up("wte", "table", 80)
    builder.look_up("other", "rest", 8)
    network = builder.network()
    assert network.products[0].gradient == 6
    assert network.products[0].notes == (
        "embedding wte reads the same table: 80 lookups add to its gradient by scatter-add",
    )
    assert network.notes == (
        "embedding other is no product: a gradient sums over the lookups of its row, of 8",
    )


def test_what_holds_the_batch_is_rescaled():
    builder = built(batch=256, traced=2)
    builder.add(row("weighted"), weight="w")
    builder.add(row("constant"), weight="v", batched=False)
    builder.add(row("activations", count=10, gradient=3))
    builder.look_up("wte", "t", 20)
    weighted, constant, activations = builder.network().products
    assert (weighted.m, weighted.gradient, weighted.count) == (768, 768, 1)
    assert (constant.m, constant.gradient) == (6, 6)
    assert (activations.m, activations.gradient, activations.count) == (6, 3, 1280)
    assert builder.network().notes[0].endswith("of 2560")
    assert builder.network().macs == (768 + 6 + 6 * 1280) * 20


def test_what_is_no_multiple_of_the_batch_is_left_and_named():
    builder = built(batch=256, traced=4)
    builder.add(row("rows"), weight="w")
    builder.add(row("products", count=3))
    rows, products = builder.network().products
    assert (rows.m, products.count) == (6, 3)
    assert rows.notes[0].startswith("m is 6, no multiple of the batch of 4")
    assert products.notes[0].startswith("count is 3, no multiple of the batch of 4")


def test_sums_that_nothing_needs_have_no_length():
    builder = built()
    strided = convolution("conv", (4, 3, 3, 3), positions=8, stride=(2, 2))
    builder.add(strided, weight="w", backward=False)
    (first,) = builder.network().products
    assert (first.backward, first.gradient, first.notes) == (None, 8, ())


def test_equal_notes_are_one_and_an_empty_network_has_one():
    builder = built()
    builder.note("once")
    builder.note("once")
    assert builder.network() == Network(
        name="net", batch=8, products=(), notes=("once", "no matrix product was found")
    )


def test_a_batch_must_be_positive():
    with pytest.raises(NetworkError, match="batch must be at least 1, got 0"):
        built(batch=0)
