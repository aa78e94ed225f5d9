"""The three training products of linear layers and of matrix products, bit-true, as autograd functions.

Order of summation, which is part of the result: forward sums over input features, backward over output
features, gradient over samples (for inputs of more axes, in C order of the leading ones). Each index runs
upward. A bias is added last (`Emulation.add_bias`); its gradient is summed like a weight's.

A product of two activations, as in attention, has no weight: both of its gradients are summed by the backward
accumulator, over the columns of the output for the left operand and over its rows for the right one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from numerics.torch.emulation import ONES, Emulation, Rounded, Streams

Gradients = tuple[torch.Tensor | None, ...]


def owned(x: torch.Tensor) -> torch.Tensor:
    """The same memory as a tensor that is no view: autograd forbids to change a view in place."""
    return torch.from_numpy(x.contiguous().numpy())


class Saved:
    """An operand of the forward pass, kept for the backward pass: rounded, or to be rounded anew.

    Parameters
    ----------
    x
        The tensor itself.
    rounded
        As it entered the forward product.
    once
        Whether it enters the other product as it is.
    """

    def __init__(self, ctx: Any, x: torch.Tensor, rounded: Rounded, *, once: bool) -> None:
        self.once = once
        self.index = len(ctx.kept)
        self.inverse, self.finite = rounded.inverse, rounded.finite
        ctx.kept.append(torch.from_numpy(rounded.values) if once else x)

    def again(self, kept: tuple[torch.Tensor, ...], anew: Callable[[torch.Tensor], Rounded]) -> Rounded:
        """The operand of the other product, from all saved tensors: as it was, or rounded by `anew`."""
        x = kept[self.index]
        return Rounded(x.numpy(), self.inverse, self.finite) if self.once else anew(x)


class LinearProduct(torch.autograd.Function):
    """``x @ weight.T + bias`` with its two gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        emulation: Emulation,
        streams: Streams,
    ) -> torch.Tensor:
        """Output of shape (..., out_features) for `x` of shape (..., in_features)."""
        rows = x.reshape(-1, x.shape[-1])
        a = emulation.round(rows, "activation", streams, along=1, keep=(0,))
        b = emulation.round(weight, "weight", streams, along=1, keep=(0,))
        y = emulation.product(a, b.T, "forward", streams, ("activation", "weight"))
        if bias is not None:
            scaled = a.inverse is not None or b.inverse is not None
            y = emulation.add_bias(y, bias, streams, axis=1, scaled=scaled)
        y = emulation.restored(y, "output", streams)
        ctx.kept = []
        ctx.rows = Saved(ctx, rows, a, once=emulation.once("activation"))
        ctx.weight = Saved(ctx, weight, b, once=emulation.once("weight"))
        ctx.save_for_backward(*ctx.kept)
        del ctx.kept
        ctx.emulation, ctx.has_bias, ctx.shape = emulation, bias is not None, x.shape
        return owned(y.reshape(*x.shape[:-1], weight.shape[0]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> Gradients:
        """Gradients of x, weight and bias."""
        emulation, kept = ctx.emulation, ctx.saved_tensors
        streams = emulation.training
        once, rounded = emulation.once("error"), partial(emulation.round, streams=streams)
        errors = grads[0].reshape(-1, grads[0].shape[-1])
        by_row = by_column = None
        x_grad = weight_grad = bias_grad = None
        if ctx.needs_input_grad[0]:
            by_row = emulation.round(errors, "error", streams, along=1, keep=(0,))
            kernel = ctx.weight.again(kept, partial(rounded, role="weight", along=0, keep=(1,)))
            x_grad = emulation.product(by_row, kernel, "backward", streams, ("error", "weight"))
            x_grad = x_grad.reshape(ctx.shape)
        if ctx.needs_input_grad[1] or (ctx.has_bias and ctx.needs_input_grad[2]):
            by_column = by_row if once and by_row is not None else None
            if by_column is None:
                by_column = emulation.round(errors, "error", streams, along=0, keep=(1,))
        if ctx.needs_input_grad[1]:
            assert by_column is not None
            rows = ctx.rows.again(kept, partial(rounded, role="activation", along=0, keep=(1,)))
            weight_grad = emulation.product(by_column.T, rows, "gradient", streams, ("error", "activation"))
            weight_grad = emulation.restored(weight_grad, "weight_gradient", streams)
        if ctx.has_bias and ctx.needs_input_grad[2]:
            assert by_column is not None
            bias_grad = bias_gradient(by_column.T, emulation, streams)
        return x_grad, weight_grad, bias_grad, None, None


def bias_gradient(errors: Rounded, emulation: Emulation, streams: Streams) -> torch.Tensor:
    """Sums (o,) of `errors`, an (o, n) matrix, on the format of weight gradients."""
    ones = Rounded(np.ones((errors.values.shape[1], 1), np.float32))
    summed = emulation.product(errors, ones, "gradient", streams, ("error", ONES))
    return emulation.restored(summed.flatten(), "weight_gradient", streams, tensor="bias_gradient")


class MatrixProduct(torch.autograd.Function):
    """``a @ b``, (..., m, k) and (..., k, n) with leading axes that broadcast."""

    @staticmethod
    def forward(
        ctx: Any,
        a: torch.Tensor,
        b: torch.Tensor,
        emulation: Emulation,
        streams: Streams,
        roles: tuple[str, str],
    ) -> torch.Tensor:
        """Output of shape (..., m, n); `roles` are ``"activation"`` or ``"weight"``."""
        left = emulation.round(a, roles[0], streams, along=-1, keep=_but(a, -1), tensor="left")
        right = emulation.round(b, roles[1], streams, along=-2, keep=_but(b, -2), tensor="right")
        y = emulation.product(left, right, "forward", streams, roles)
        y = emulation.restored(y, "output", streams)
        ctx.kept = []
        ctx.left = Saved(ctx, a, left, once=emulation.once(roles[0]))
        ctx.right = Saved(ctx, b, right, once=emulation.once(roles[1]))
        ctx.save_for_backward(*ctx.kept)
        del ctx.kept
        ctx.emulation, ctx.roles, ctx.shapes = emulation, roles, (a.shape, b.shape)
        return owned(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> Gradients:
        """Gradients of a and b."""
        emulation, kept = ctx.emulation, ctx.saved_tensors
        streams = emulation.training
        errors, shapes = grads[0], ctx.shapes
        anew: Callable[..., Rounded] = partial(emulation.round, streams=streams)
        left_grad = right_grad = rounded = None
        if ctx.needs_input_grad[0]:
            rounded = emulation.round(errors, "error", streams, along=-1, keep=_but(errors, -1))
            axes = {"along": -1, "keep": _axes(len(shapes[1]), -1)}
            right = ctx.right.again(kept, partial(anew, role=ctx.roles[1], **axes))
            pair = ("error", ctx.roles[1])
            left_grad = _gradient(rounded, right.T, ctx.roles[0], pair, shapes[0], emulation, streams)
        if ctx.needs_input_grad[1]:
            if rounded is None or not emulation.once("error"):
                rounded = emulation.round(errors, "error", streams, along=-2, keep=_but(errors, -2))
            axes = {"along": -2, "keep": _axes(len(shapes[0]), -2)}
            left = ctx.left.again(kept, partial(anew, role=ctx.roles[0], **axes))
            pair = (ctx.roles[0], "error")
            right_grad = _gradient(left.T, rounded, ctx.roles[1], pair, shapes[1], emulation, streams)
        return left_grad, right_grad, None, None, None


def _gradient(
    a: Rounded,
    b: Rounded,
    role: str,
    roles: tuple[str, str],
    shape: torch.Size,
    emulation: Emulation,
    streams: Streams,
) -> torch.Tensor:
    """Gradient of an operand of `shape`; leading axes that were broadcast are summed in float32."""
    is_weight = role == "weight"
    y = emulation.product(a, b, "gradient" if is_weight else "backward", streams, roles).sum_to_size(shape)
    return emulation.restored(y, "weight_gradient", streams) if is_weight else y


def _axes(count: int, summed: int) -> tuple[int, ...]:
    return tuple(axis for axis in range(count) if axis != summed % count)


def _but(x: torch.Tensor, summed: int) -> tuple[int, ...]:
    """All axes but the one that is summed."""
    return _axes(x.ndim, summed)


class EmbeddingLookup(torch.autograd.Function):
    """Rows of a table, on the format of weights; the gradient of a row sums its errors by position.

    The sums are those of the errors of one row alone, and its uses are what a chunk counts.
    """

    @staticmethod
    def forward(
        ctx: Any,
        indices: torch.Tensor,
        weight: torch.Tensor,
        padding_idx: int | None,
        emulation: Emulation,
        streams: Streams,
    ) -> torch.Tensor:
        """Output of shape (*indices, features)."""
        table = emulation.restored(weight.detach(), "weight", streams)
        y = emulation.restored(table[indices], "output", streams)
        ctx.save_for_backward(indices)
        ctx.emulation, ctx.shape, ctx.padding_idx = emulation, weight.shape, padding_idx
        return owned(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> Gradients:
        """Gradient of the table."""
        (indices,) = ctx.saved_tensors
        emulation: Emulation = ctx.emulation
        streams = emulation.training
        features = grads[0].shape[-1]
        errors = emulation.round(grads[0].reshape(-1, features), "error", streams, along=0, keep=(1,))
        gradient = torch.zeros(ctx.shape)
        order = torch.argsort(indices.reshape(-1), stable=True)
        rows, counts = torch.unique_consecutive(indices.reshape(-1)[order], return_counts=True)
        starts = counts.cumsum(0) - counts
        for count in torch.unique(counts).tolist():
            # One product for all rows that occur equally often: a sum for each row and feature.
            chosen = counts == count
            places = order[starts[chosen][None, :] + torch.arange(count)[:, None]]
            terms = errors.values[places.reshape(-1).numpy()].reshape(count, -1)
            ones = Rounded(np.ones((1, count), np.float32))
            part = Rounded(terms, None, errors.finite)
            summed = emulation.product(ones, part, "gradient", streams, (ONES, "error"))
            gradient[rows[chosen]] = summed.reshape(-1, features)
        gradient = torch.from_numpy(emulation.unscaled(gradient.numpy(), errors.inverse, None))
        if ctx.padding_idx is not None:
            gradient[ctx.padding_idx] = 0.0
        return None, emulation.restored(gradient, "weight_gradient", streams), None, None, None
