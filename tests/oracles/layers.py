"""The operand lists, in the documented order, of every output and gradient of a layer.

Plain loops over indices: which weight meets which input, and when. Each function yields
``(index, a, b)``: the element with that index is the dot product of the lists a and b.
"""

from __future__ import annotations

import itertools


def linear_forward(x, weight):
    """Outputs: over input features."""
    for n, o in itertools.product(range(len(x)), range(len(weight))):
        yield (n, o), list(x[n]), list(weight[o])


def linear_backward(errors, weight):
    """Input gradients: over output features."""
    for n, i in itertools.product(range(len(errors)), range(len(weight[0]))):
        yield (n, i), list(errors[n]), [row[i] for row in weight]


def linear_gradient(errors, x):
    """Weight gradients: over samples."""
    for o, i in itertools.product(range(len(errors[0])), range(len(x[0]))):
        yield (o, i), [row[o] for row in errors], [row[i] for row in x]


def _pixel(image, row, column):
    inside = 0 <= row < image.shape[0] and 0 <= column < image.shape[1]
    return float(image[row, column]) if inside else 0.0


def conv_forward(x, weight, out_shape, stride, padding, dilation, groups):
    """Outputs: over input channel, kernel row, kernel column."""
    inner, rows, columns = weight.shape[1:]
    per_group = weight.shape[0] // groups
    for n, o, y, z in itertools.product(*map(range, out_shape)):
        first = o // per_group * inner
        a, b = [], []
        for c, i, j in itertools.product(range(inner), range(rows), range(columns)):
            a.append(float(weight[o, c, i, j]))
            row = y * stride[0] - padding[0] + i * dilation[0]
            column = z * stride[1] - padding[1] + j * dilation[1]
            b.append(_pixel(x[n, first + c], row, column))
        yield (n, o, y, z), a, b


def conv_backward(errors, weight, x_shape, stride, padding, dilation, groups):
    """Input gradients: over output channel, kernel row and column from the last to the first."""
    inner, rows, columns = weight.shape[1:]
    per_group = weight.shape[0] // groups
    for n, c, y, z in itertools.product(*map(range, x_shape)):
        group, channel = divmod(c, inner)
        a, b = [], []
        for o in range(group * per_group, (group + 1) * per_group):
            for i, j in itertools.product(reversed(range(rows)), reversed(range(columns))):
                a.append(float(weight[o, channel, i, j]))
                row, row_rest = divmod(y + padding[0] - i * dilation[0], stride[0])
                column, column_rest = divmod(z + padding[1] - j * dilation[1], stride[1])
                hit = row_rest == 0 and column_rest == 0
                b.append(_pixel(errors[n, o], row, column) if hit else 0.0)
        yield (n, c, y, z), a, b


def conv_gradient(errors, x, weight_shape, stride, padding, dilation, groups):
    """Weight gradients: over sample, output row, output column."""
    inner = weight_shape[1]
    per_group = weight_shape[0] // groups
    for o, c, i, j in itertools.product(*map(range, weight_shape)):
        first = o // per_group * inner
        a, b = [], []
        for n, y, z in itertools.product(range(len(x)), *map(range, errors.shape[2:])):
            a.append(float(errors[n, o, y, z]))
            row = y * stride[0] - padding[0] + i * dilation[0]
            column = z * stride[1] - padding[1] + j * dilation[1]
            b.append(_pixel(x[n, first + c], row, column))
        yield (o, c, i, j), a, b


def conv_bias_gradient(errors):
    """Bias gradients: over sample, output row, output column."""
    for o in range(errors.shape[1]):
        a = [float(v) for v in errors[:, o].reshape(-1)]
        yield (o,), a, [1.0] * len(a)
