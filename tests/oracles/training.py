"""Layers under a policy by their definition: every operand rounded, every sum taken, in exact arithmetic.

Operands are rounded as rationals, sums are those of `oracles.integers`. Of a policy only its fields are read.
Nothing is stochastic here.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from oracles import integers, layers
from oracles.blocks import mx_row, nearest_float32, nv_rows
from oracles.orders import BINARY32
from oracles.rational import binade, largest, last_code, round_rational, value_of_code


class Entered(NamedTuple):
    """Float32 values on a format, and the inverse of the scale of each of them, or None."""

    values: np.ndarray
    inverse: np.ndarray | None = None


@cache
def float32(x):
    """A Fraction rounded to float32."""
    return round_rational(x, BINARY32)


@cache
def _on_format(x, sign, fmt, mode):
    # Both zeros are one key.
    x = math.copysign(x, sign)
    return x if not math.isfinite(x) else round_rational(x, fmt, mode, overflow="saturate")


def on_format(x, fmt, rounding):
    """Every element rounded, saturating; what is not finite stays as it is."""
    rounded = [
        _on_format(value, math.copysign(1, value), fmt, rounding.mode.value) for value in np.ravel(x).tolist()
    ]
    return np.array(rounded, np.float32).reshape(np.shape(x))


def in_blocks(x, fmt, rounding, along, groups=1):
    """`x` in blocks along an axis, each group of it by itself."""
    moved = np.moveaxis(np.asarray(x, np.float64), along, -1)
    rows = moved.reshape(-1, moved.shape[-1] // groups).tolist()
    mode = rounding.mode.value
    if fmt.rule == "floor":
        top = binade(value_of_code(last_code(fmt.element), fmt.element))
        rows = [mx_row(row, fmt.element, top, mode, fmt.block) for row in rows]
    else:
        assert fmt.block == 16
        top = max((abs(Fraction(v)) for row in rows for v in row), default=Fraction(0))
        tensor = max(nearest_float32(top / (448 * 6)), 2.0**-149) if top else 1.0
        rows = [
            [math.copysign(float32(v), old) for v, old in zip(new, row, strict=True)]
            for new, row in zip(nv_rows(rows, fmt, mode, tensor), rows, strict=True)
        ]
    return np.moveaxis(np.array(rows, np.float32).reshape(moved.shape), -1, along)


def scale_of(amax, fmt, power_of_two):
    """What brings `amax` to the largest value, in 2**-126..2**126; 1 for zero and what is not finite."""
    if amax == 0.0 or not math.isfinite(amax):
        return 1.0
    ratio = largest(fmt) / Fraction(amax)
    scale = float(Fraction(2) ** binade(ratio)) if power_of_two else float32(ratio)
    return min(max(scale, 2.0**-126), 2.0**126)


def amax_of(x):
    """Largest magnitude, NaN if there is one."""
    sizes = np.abs(np.ravel(x)).tolist()
    return math.nan if any(map(math.isnan, sizes)) else max(sizes, default=0.0)


class Reference:
    """One layer, used once or, with delayed scaling, again and again."""

    def __init__(self, policy):
        self.policy = policy
        self.history = {}

    # How a tensor enters a product, and leaves the layer.

    def entered(self, x, role, along, channel, groups=1, part=""):
        """A tensor in a product over the axis `along`; `channel` numbers each element's scale."""
        policy = self.policy.tensor(role)
        if policy is None:
            return Entered(x)
        if hasattr(policy.format, "block"):
            return Entered(in_blocks(x, policy.format, policy.rounding, along, groups))
        scaling = policy.scaling
        if scaling.granularity == "none":
            return Entered(on_format(x, policy.format, policy.rounding))
        number = np.broadcast_to(channel if scaling.granularity == "channel" else 0, x.shape)
        scales, inverses = np.ones(x.shape), np.ones(x.shape, np.float32)
        for one in np.unique(number):
            amax = self.amax(x[number == one], role + part, scaling)
            scale = scale_of(amax, policy.format, scaling.power_of_two)
            scales[number == one], inverses[number == one] = scale, float32(1 / Fraction(scale))
        both = zip(np.ravel(x).tolist(), scales.ravel().tolist(), strict=True)
        scaled = [scaled_up(*pair) for pair in both]
        return Entered(on_format(np.reshape(scaled, x.shape), policy.format, policy.rounding), inverses)

    def amax(self, x, role, scaling):
        """Of this tensor, or the largest of some uses before."""
        if not scaling.history:
            return amax_of(x)
        before = self.history.get(role, [])
        return max(before[-scaling.history :], default=amax_of(x))

    def used(self, x, role):
        """Remember a tensor for delayed scales, once per use; an overflow is no magnitude to scale by."""
        if math.isfinite(amax := amax_of(x)):
            self.history.setdefault(role, []).append(amax)

    def left(self, x, role, part=""):
        """A tensor that leaves the layer: rounded as if summed over its features, and scaled back."""
        features = 1 if x.ndim == 4 else x.ndim - 1
        others = [1 if axis >= features else size for axis, size in enumerate(x.shape)]
        entered = self.entered(x, role, features, np.arange(math.prod(others)).reshape(others), part=part)
        self.used(x, role + part)
        if entered.inverse is None:
            return entered.values
        both = zip(entered.values.ravel().tolist(), entered.inverse.ravel().tolist(), strict=True)
        return np.array([multiplied(*pair) for pair in both], np.float32).reshape(x.shape)

    # A product.

    def product(self, lists, shape, left, right, role, roles):
        """Every element by its list of pairs, scaled back."""
        summed = Sums(getattr(self.policy, role), left.values, right.values, self.formats(roles))
        y = np.full(shape, np.nan, np.float32)
        for index, pairs in lists:
            total = summed.of(pairs)
            for operand, side in ((left, 0), (right, 1)):
                if operand.inverse is None:
                    continue
                assert len({float(operand.inverse[pair[side]]) for pair in pairs if pair[side]}) <= 1
            y[index] = self.unscaled(total, left, right, pairs)
        return y

    def unscaled(self, total, left, right, pairs):
        """Times the product of both inverses."""
        inverses = [
            next((float(operand.inverse[pair[side]]) for pair in pairs if pair[side] is not None), 1.0)
            for side, operand in enumerate((left, right))
            if operand.inverse is not None
        ]
        if not inverses:
            return total
        return multiplied(total, inverses[0] if len(inverses) == 1 else multiplied(*inverses))

    def formats(self, roles):
        policies = [self.policy.tensor(role) for role in roles]
        return [None if policy is None else policy.format for policy in policies]

    def plus_bias(self, y, bias, axis, *, scaled):
        """A register takes the bias as a weight where nothing has scales; else it is added in float32."""
        shape = [-1 if i == axis else 1 for i in range(y.ndim)]
        acc, policy = self.policy.forward, self.policy.tensor("weight")
        if not hasattr(acc, "lanes") or scaled or (policy and hasattr(policy.format, "block")):
            fmt, mode = BINARY32, "nearest-even"
        else:
            total = acc.outer or acc
            fmt, mode = total.format, total.rounding.mode.value
            bias = bias if policy is None else on_format(bias, policy.format, policy.rounding)
        added = [
            round_rational(plus(*pair), fmt, mode)
            for pair in zip(
                y.ravel().tolist(),
                np.broadcast_to(bias.reshape(shape), y.shape).ravel().tolist(),
                strict=True,
            )
        ]
        return np.array(added, np.float32).reshape(y.shape)

    def finished(self, y, x, weight, bias, axis):
        """Bias and output format."""
        if bias is not None:
            scaled = x.inverse is not None or weight.inverse is not None
            y = self.plus_bias(y, bias, axis, scaled=scaled)
        return self.left(y, "output")

    def bias_gradient(self, errors, axis):
        """Over everything but the channels, in C order."""
        rows = np.moveaxis(errors.values, axis, 0).reshape(errors.values.shape[axis], -1)
        inverse = errors.inverse
        if inverse is not None:
            inverse = np.moveaxis(inverse, axis, 0).reshape(rows.shape)
        lists = (((o,), [((o, n), None) for n in range(rows.shape[1])]) for o in range(len(rows)))
        one = Entered(np.ones(1, np.float32))
        y = self.product(
            lists, (len(rows),), Entered(rows, inverse), one, "gradient", ("error", "activation")
        )
        return self.left(y, "weight_gradient", " of the bias")

    # Layers. All return output, input gradient, weight gradient and bias gradient.

    def linear(self, x, weight, bias, errors):
        """x (..., i), weight (o, i), errors (..., o)."""
        shape = x.shape
        x, errors = x.reshape(-1, shape[-1]), errors.reshape(-1, len(weight))
        sizes = (len(x), *weight.shape[::-1])
        rows, columns = (lambda a: np.arange(a.shape[0])[:, None]), (lambda a: np.arange(a.shape[1])[None])
        inputs = self.entered(x, "activation", 1, rows(x))
        kernel = self.entered(weight, "weight", 1, rows(weight))
        y = self.product(
            layers.linear_forward(*sizes), (len(x), len(weight)), inputs, kernel, "forward",
            ("activation", "weight"),
        )  # fmt: skip
        y = self.finished(y, inputs, kernel, bias, 1)
        deltas = self.entered(errors, "error", 1, rows(errors))
        kernel = self.entered(weight, "weight", 0, columns(weight))
        x_grad = self.product(
            layers.linear_backward(*sizes), x.shape, deltas, kernel, "backward", ("error", "weight")
        )
        deltas = self.entered(errors, "error", 0, columns(errors))
        inputs = self.entered(x, "activation", 0, columns(x))
        gradient = self.product(
            layers.linear_gradient(*sizes), weight.shape, deltas, inputs, "gradient", ("error", "activation")
        )
        for tensor, role in ((x, "activation"), (weight, "weight"), (errors, "error")):
            self.used(tensor, role)
        return (
            y.reshape(*shape[:-1], -1),
            x_grad.reshape(shape),
            self.left(gradient, "weight_gradient"),
            None if bias is None else self.bias_gradient(deltas, 1),
        )

    def convolution(self, x, weight, bias, errors, where):
        """x (n, c, rows, columns), weight (o, c / groups, ...), errors of the output's shape."""
        shapes = (x.shape, weight.shape, errors.shape, where)
        inputs = self.entered(x, "activation", 1, samples(x), where.groups)
        kernel = self.entered(weight, "weight", 1, samples(weight))
        lists = layers.conv_forward(*shapes)
        y = self.product(lists, errors.shape, inputs, kernel, "forward", ("activation", "weight"))
        y = self.finished(y, inputs, kernel, bias, 1)
        deltas = self.entered(errors, "error", 1, samples(errors), where.groups)
        group = np.arange(len(weight)) // (len(weight) // where.groups)
        per_input = (group[:, None] * weight.shape[1] + np.arange(weight.shape[1]))[:, :, None, None]
        kernel = self.entered(weight, "weight", 0, per_input, where.groups)
        lists = layers.conv_backward(*shapes)
        x_grad = self.product(lists, x.shape, deltas, kernel, "backward", ("error", "weight"))
        return (y, x_grad, *self.kernel_gradients(x, weight, errors, layers.conv_gradient(*shapes), bias))

    def transposed(self, x, weight, bias, errors, where):
        """x (n, c, rows, columns), weight (c, o / groups, ...), errors of the output's shape."""
        shapes = (x.shape, weight.shape, errors.shape, where)
        inputs = self.entered(x, "activation", 1, samples(x), where.groups)
        group = np.arange(len(weight)) // (len(weight) // where.groups)
        per_output = (group[:, None] * weight.shape[1] + np.arange(weight.shape[1]))[:, :, None, None]
        kernel = self.entered(weight, "weight", 0, per_output, where.groups)
        lists = layers.transposed_forward(*shapes)
        y = self.product(lists, errors.shape, inputs, kernel, "forward", ("activation", "weight"))
        y = self.finished(y, inputs, kernel, bias, 1)
        deltas = self.entered(errors, "error", 1, samples(errors), where.groups)
        kernel = self.entered(weight, "weight", 1, samples(weight))
        lists = layers.transposed_backward(*shapes)
        x_grad = self.product(lists, x.shape, deltas, kernel, "backward", ("error", "weight"))
        return (
            y,
            x_grad,
            *self.kernel_gradients(x, weight, errors, layers.transposed_gradient(*shapes), bias),
        )

    def kernel_gradients(self, x, weight, errors, lists, bias):
        """Of kernel and bias, over samples and positions."""
        channels = np.arange(max(x.shape[1], errors.shape[1]))[None, :, None, None]
        deltas = self.entered(errors, "error", 0, channels[:, : errors.shape[1]])
        inputs = self.entered(x, "activation", 0, channels[:, : x.shape[1]])
        gradient = self.product(lists, weight.shape, deltas, inputs, "gradient", ("error", "activation"))
        for tensor, role in ((x, "activation"), (weight, "weight"), (errors, "error")):
            self.used(tensor, role)
        bias_grad = None if bias is None else self.bias_gradient(deltas, 1)
        return self.left(gradient, "weight_gradient"), bias_grad

    def matrix(self, a, b, errors, roles=("activation", "activation")):
        """a (batch, m, k), b (batch, k, n), errors (batch, m, n): output and both gradients."""
        (batch, m, k), n = a.shape, b.shape[2]
        rows = lambda v: np.arange(v.shape[0] * v.shape[1]).reshape(*v.shape[:2], 1)  # noqa: E731
        columns = lambda v: np.arange(v.shape[0] * v.shape[2]).reshape(v.shape[0], 1, -1)  # noqa: E731
        sizes = (batch, m, k, n)
        left, right = self.entered(a, roles[0], 2, rows(a)), self.entered(b, roles[1], 1, columns(b))
        y = self.product(layers.matrix_forward(*sizes), errors.shape, left, right, "forward", roles)
        y = self.left(y, "output")
        results = [y]
        for number, (shape, lists) in enumerate(
            ((a.shape, layers.matrix_left(*sizes)), (b.shape, layers.matrix_right(*sizes)))
        ):
            other = roles[1 - number]
            along = 2 - number
            numbers = rows if along == 2 else columns
            deltas = self.entered(errors, "error", along, numbers(errors))
            operand = self.entered((b, a)[number], other, along, numbers((b, a)[number]))
            role = "gradient" if roles[number] == "weight" else "backward"
            grad = self.product(lists, shape, deltas, operand, role, ("error", other))
            results.append(self.left(grad, "weight_gradient") if role == "gradient" else grad)
        return tuple(results)

    def embedding(self, indices, table, errors, padding_idx):
        """indices (n), table (rows, features), errors (n, features): output and gradient."""
        kernel = self.left(table, "weight")
        y = self.left(kernel[indices], "output")
        deltas = self.entered(errors, "error", 0, np.arange(errors.shape[1])[None])
        one = Entered(np.ones(1, np.float32))
        lists = layers.rows_gradient(indices.tolist(), *table.shape)
        gradient = self.product(lists, table.shape, deltas, one, "gradient", ("error", "activation"))
        if padding_idx is not None:
            gradient[padding_idx] = 0.0
        self.used(errors, "error")
        gradient = self.left(gradient, "weight_gradient")
        return y, gradient


def samples(x):
    """The first axis."""
    return np.arange(len(x)).reshape(-1, 1, 1, 1)


def multiplied(x, y):
    """Product of two floats in float32."""
    if x == 0.0 or y == 0.0 or not (math.isfinite(x) and math.isfinite(y)):
        return x * y
    return float32(Fraction(x) * Fraction(y))


def scaled_up(x, scale):
    """Product with a scale in float32; what is finite stays so, for it saturates."""
    y = multiplied(x, scale)
    return y if math.isfinite(y) or not math.isfinite(x) else math.copysign(float(largest(BINARY32)), y)


def plus(x, y):
    """Exact sum; minus zero only of two of them."""
    if not (math.isfinite(x) and math.isfinite(y)):
        return x + y
    return (
        -0.0
        if x == y == 0.0 and math.copysign(1, x) == math.copysign(1, y) == -1
        else Fraction(x) + Fraction(y)
    )


class Sums:
    """Dot products of elements of two operands under an accumulator; of None in float64, and exact."""

    def __init__(self, acc: Any, left, right, formats):
        self.acc, self.operands = acc, (left, right)
        self.special = not all(np.isfinite(operand).all() for operand in self.operands)
        self.kind = type(acc).__name__
        formats_of_sums = {
            "Accumulator": lambda: [acc.format, acc.product, acc.outer and acc.outer.format],
            "FusedAdder": lambda: [acc.output, BINARY32],
            "ExactAccumulator": lambda: [acc.output],
        }.get(self.kind, list)()
        places = [-integers.least_place(fmt) for fmt in formats_of_sums if fmt]
        half = [integers.places_of(operand) for operand in self.operands]
        if self.kind == "IntegerAccumulator":
            places.append(acc.frac_bits)
        self.places = max(sum(half), *places, 0)
        half = (half[0], self.places - half[0])
        self.whole = [
            np.array(
                [integers.as_integers([[v]], p)[0][0] for v in operand.ravel().tolist()], object
            ).reshape(operand.shape)
            for operand, p in zip(self.operands, half, strict=True)
        ]
        if self.kind == "Accumulator":
            self.total = integers.float_sum(acc, self.places)
        elif self.kind == "ExactAccumulator":
            self.total = integers.exact_sum(acc, self.places)
        elif self.kind == "IntegerAccumulator":
            self.total = integers.register_sum(acc, self.places)
        elif self.kind == "FusedAdder":
            nearest = type(acc.rounding).parse("nearest-even")
            self.total = integers.fused_sum(acc, formats, self.places, (BINARY32, nearest))
        self.half = half

    def of(self, pairs):
        """The sum as a float."""
        if self.special and self.kind in ("FusedAdder", "ExactAccumulator", "IntegerAccumulator"):
            return math.nan
        one = (1 << self.half[0], 1 << self.half[1])
        sides = []
        for side in (0, 1):
            whole, operand = self.whole[side], self.operands[side]
            # The ones that sum a bias have no index; nor has a zero, whose other operand has one.
            empty = one[side] if operand.shape == (1,) else 0
            sides.append(
                [
                    (empty, 1.0 if empty else 0.0)
                    if p[side] is None
                    else (whole[p[side]], float(operand[p[side]]))
                    for p in pairs
                ]
            )
        if self.kind == "FusedAdder":
            return integers.as_float(self.total(*sides), self.places)
        terms = [integers.multiplied(x[0], y[0]) for x, y in zip(*sides, strict=True)]
        if self.acc is None:
            return integers.as_float(sum(terms), self.places)
        total = self.total(terms)
        return (
            math.ldexp(total, -self.acc.frac_bits)
            if self.kind == "IntegerAccumulator"
            else integers.as_float(total, self.places)
        )
