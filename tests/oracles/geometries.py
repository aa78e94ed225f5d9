"""Convolutions of one and two axes drawn at random, each with a size that fits."""

from __future__ import annotations

from hypothesis import assume
from hypothesis import strategies as st
from torch import nn

KINDS = {
    (1, False): nn.Conv1d,
    (2, False): nn.Conv2d,
    (1, True): nn.ConvTranspose1d,
    (2, True): nn.ConvTranspose2d,
}


@st.composite
def convolutions(draw, *, transposed=False):
    """(kind, arguments of its layer, input size), padding often beyond the kernel's reach."""
    axes = draw(st.integers(1, 2))
    each = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(axes))  # noqa: E731
    groups = draw(st.integers(1, 3))
    kernel, stride, dilation, padding, size = each(1, 3), each(1, 3), each(1, 3), each(0, 3), each(1, 5)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    if transposed:
        more = [draw(st.integers(0, s - 1)) for s in stride]
        options["output_padding"] = tuple(more)
        for axis in range(axes):
            assume((size[axis] - 1) * stride[axis] - 2 * padding[axis] + reach[axis] + more[axis] >= 1)
    else:
        assume(all(n + 2 * p >= r for n, p, r in zip(size, padding, reach, strict=True)))
    inner, outer = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    options["bias"] = draw(st.booleans())
    return (
        (axes, transposed),
        {"in_channels": inner, "out_channels": outer, "kernel_size": kernel, **options},
        size,
    )


def layer_of(case):
    """The layer that `convolutions` describes."""
    kind, arguments, _ = case
    return KINDS[kind](**arguments)
