"""Which element of one operand meets which of the other, and when: every output and gradient of a layer.

Plain loops over indices, in the documented order. Each function yields ``(index, pairs)``: the element with
that index is the sum, over the pairs in their order, of the products of the left and the right operand at
these indices. An index of ``None`` is a zero that padding or a stride puts there.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple


class Geometry(NamedTuple):
    """Of a convolution: (rows, columns) of everything but the number of groups."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


def _each(shape):
    return itertools.product(*map(range, shape))


def linear_forward(n, i, o):
    """Outputs (n, o) of inputs (n, i) and weights (o, i): over input features."""
    for row, column in _each((n, o)):
        yield (row, column), [((row, k), (column, k)) for k in range(i)]


def linear_backward(n, i, o):
    """Input gradients (n, i) of errors (n, o) and weights (o, i): over output features."""
    for row, column in _each((n, i)):
        yield (row, column), [((row, k), (k, column)) for k in range(o)]


def linear_gradient(n, i, o):
    """Weight gradients (o, i) of errors (n, o) and inputs (n, i): over samples."""
    for row, column in _each((o, i)):
        yield (row, column), [((k, row), (k, column)) for k in range(n)]


def matrix_forward(batch, m, k, n):
    """Outputs (batch, m, n) of operands (batch, m, k) and (batch, k, n): over k."""
    for t, row, column in _each((batch, m, n)):
        yield (t, row, column), [((t, row, i), (t, i, column)) for i in range(k)]


def matrix_left(batch, m, k, n):
    """Gradients (batch, m, k) of errors (batch, m, n) and the right operand: over columns."""
    for t, row, column in _each((batch, m, k)):
        yield (t, row, column), [((t, row, i), (t, column, i)) for i in range(n)]


def matrix_right(batch, m, k, n):
    """Gradients (batch, k, n) of errors (batch, m, n) and the left operand: over rows."""
    for t, row, column in _each((batch, k, n)):
        yield (t, row, column), [((t, i, column), (t, i, row)) for i in range(m)]


def _reached(position, kernel, where, axis):
    """Input position that a kernel element reads for an output position."""
    return position * where.stride[axis] - where.padding[axis] + kernel * where.dilation[axis]


def _reaching(position, kernel, where, axis):
    """Output position that reads an input position with a kernel element, or one that is nowhere."""
    output, rest = divmod(position + where.padding[axis] - kernel * where.dilation[axis], where.stride[axis])
    return -1 if rest else output


def _inside(image, row, column, shape):
    inside = 0 <= row < shape[2] and 0 <= column < shape[3]
    return (*image, row, column) if inside else None


def conv_forward(x_shape, weight_shape, y_shape, where):
    """Outputs of images and weights: over input channel, kernel row, kernel column."""
    per_group = weight_shape[0] // where.groups
    for n, o, y, z in _each(y_shape):
        first = o // per_group * weight_shape[1]
        pairs = []
        for c, i, j in _each(weight_shape[1:]):
            row, column = _reached(y, i, where, 0), _reached(z, j, where, 1)
            pairs.append((_inside((n, first + c), row, column, x_shape), (o, c, i, j)))
        yield (n, o, y, z), pairs


def conv_backward(x_shape, weight_shape, y_shape, where):
    """Input gradients of errors and weights: over output channel, flipped kernel row and column."""
    per_group = weight_shape[0] // where.groups
    for n, c, y, z in _each(x_shape):
        group, channel = divmod(c, weight_shape[1])
        pairs = []
        for o in range(group * per_group, (group + 1) * per_group):
            for i, j in itertools.product(*(reversed(range(size)) for size in weight_shape[2:])):
                row, column = _reaching(y, i, where, 0), _reaching(z, j, where, 1)
                pairs.append((_inside((n, o), row, column, y_shape), (o, channel, i, j)))
        yield (n, c, y, z), pairs


def conv_gradient(x_shape, weight_shape, y_shape, where):
    """Weight gradients of errors and images: over sample, output row, output column."""
    per_group = weight_shape[0] // where.groups
    for o, c, i, j in _each(weight_shape):
        channel = o // per_group * weight_shape[1] + c
        pairs = []
        for n, y, z in _each((y_shape[0], *y_shape[2:])):
            row, column = _reached(y, i, where, 0), _reached(z, j, where, 1)
            pairs.append(((n, o, y, z), _inside((n, channel), row, column, x_shape)))
        yield (o, c, i, j), pairs


def transposed_forward(x_shape, weight_shape, y_shape, where):
    """Outputs of images and weights (in, out / groups, ...): over input channel, flipped kernel."""
    per_group = x_shape[1] // where.groups
    for n, o, y, z in _each(y_shape):
        group, channel = divmod(o, weight_shape[1])
        pairs = []
        for c in range(group * per_group, (group + 1) * per_group):
            for i, j in itertools.product(*(reversed(range(size)) for size in weight_shape[2:])):
                row, column = _reaching(y, i, where, 0), _reaching(z, j, where, 1)
                pairs.append((_inside((n, c), row, column, x_shape), (c, channel, i, j)))
        yield (n, o, y, z), pairs


def transposed_backward(x_shape, weight_shape, y_shape, where):
    """Input gradients of errors and weights: over output channel, kernel row, kernel column."""
    per_group = x_shape[1] // where.groups
    for n, c, y, z in _each(x_shape):
        first = c // per_group * weight_shape[1]
        pairs = []
        for o, i, j in _each(weight_shape[1:]):
            row, column = _reached(y, i, where, 0), _reached(z, j, where, 1)
            pairs.append((_inside((n, first + o), row, column, y_shape), (c, o, i, j)))
        yield (n, c, y, z), pairs


def transposed_gradient(x_shape, weight_shape, y_shape, where):
    """Weight gradients of errors and images: over sample, input row, input column."""
    per_group = x_shape[1] // where.groups
    for c, o, i, j in _each(weight_shape):
        channel = c // per_group * weight_shape[1] + o
        pairs = []
        for n, y, z in _each((x_shape[0], *x_shape[2:])):
            row, column = _reached(y, i, where, 0), _reached(z, j, where, 1)
            pairs.append((_inside((n, channel), row, column, y_shape), (n, c, y, z)))
        yield (c, o, i, j), pairs


def rows_gradient(indices, rows, features):
    """Gradients (rows, features) of a table from errors (n, features): over the uses of a row."""
    for row, column in _each((rows, features)):
        yield (row, column), [((n, column), None) for n, used in enumerate(indices) if used == row]
