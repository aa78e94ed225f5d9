"""The three training products of a linear layer and a convolution, bit-true, as autograd functions.

Order of summation, which is part of the result: forward sums over input features, for a convolution
over (input channel, kernel row, kernel column); backward over output features, (output channel,
kernel row, kernel column of the flipped kernel); gradient over (sample, output row, output column).
Each index runs upward, the last one fastest. The zeros of padding, and those that a stride puts
between the errors, take part and change nothing: adding +0 is exact. A bias is added last, with one
more rounding of the forward accumulator; its gradient is summed like a weight's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from numerics.accumulate import matmul
from numerics.accumulator import Accumulator
from numerics.elementwise import axpy, cast
from numerics.formats import Format
from numerics.torch.policy import LayerPolicy

Pair = tuple[int, int]


@dataclass(slots=True)
class Emulation:
    """What an emulated layer carries: its policy, and the key of its random numbers.

    Attributes
    ----------
    stream
        Number of random streams used so far; every cast and product takes a fresh one.
    """

    policy: LayerPolicy
    seed: int
    layer: int
    stream: int = field(default=0)

    def next_stream(self) -> int:
        """Fresh stream number, different for every layer and use."""
        self.stream += 1
        return (self.layer << 40) | self.stream

    def quantize(self, x: torch.Tensor, fmt: Format | None) -> torch.Tensor:
        """`x` on the format `fmt`; saturating, as training hardware does."""
        if fmt is None:
            return x.detach()
        values = x.detach().contiguous().numpy()
        rounded = cast(
            values,
            fmt,
            rounding=self.policy.rounding,
            overflow="saturate",
            seed=self.seed,
            stream=self.next_stream(),
        )
        return torch.from_numpy(rounded)

    def product(self, a: torch.Tensor, b: torch.Tensor, accumulator: Accumulator | None) -> torch.Tensor:
        """Product ``a @ b`` for (m, k) and (k, n)."""
        if accumulator is None:
            return a @ b
        out = matmul(a.numpy(), b.numpy(), accumulator, seed=self.seed, stream=self.next_stream())
        return torch.from_numpy(out)

    def add_bias(self, y: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """``y + bias``, rounded once to the forward accumulator's format; equal shapes."""
        accumulator = self.policy.forward
        if accumulator is None:
            return y + bias
        summed = axpy(
            1.0,
            bias.contiguous().numpy(),
            y.contiguous().numpy(),
            accumulator.format,
            rounding=accumulator.rounding,
            seed=self.seed,
            stream=self.next_stream(),
        )
        return torch.from_numpy(summed)

    def weight_gradient(self, errors: torch.Tensor, activations: torch.Tensor) -> torch.Tensor:
        """``errors @ activations`` for (o, n) and (n, i), on the format of weight gradients."""
        gradient = self.product(errors, activations, self.policy.gradient)
        return self.quantize(gradient, self.policy.weight_gradient)


class LinearProduct(torch.autograd.Function):
    """``x @ weight.T + bias`` with its two gradients."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, emulation: Emulation
    ) -> torch.Tensor:
        """Output of shape (..., out_features) for `x` of shape (..., in_features)."""
        policy = emulation.policy
        rows = emulation.quantize(x, policy.activation).reshape(-1, x.shape[-1])
        kernel = emulation.quantize(weight, policy.weight)
        y = emulation.product(rows, kernel.t(), policy.forward)
        if bias is not None:
            y = emulation.add_bias(y, emulation.quantize(bias, policy.weight).expand_as(y))
        ctx.save_for_backward(rows, kernel)
        ctx.emulation, ctx.has_bias, ctx.shape = emulation, bias is not None, x.shape
        return _owned(y.reshape(*x.shape[:-1], weight.shape[0]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of x, weight and bias."""
        rows, kernel = ctx.saved_tensors
        emulation: Emulation = ctx.emulation
        errors = emulation.quantize(grads[0], emulation.policy.error).reshape(-1, kernel.shape[0])
        x_grad = weight_grad = bias_grad = None
        if ctx.needs_input_grad[0]:
            x_grad = emulation.product(errors, kernel, emulation.policy.backward).reshape(ctx.shape)
        if ctx.needs_input_grad[1]:
            weight_grad = emulation.weight_gradient(errors.t(), rows)
        if ctx.has_bias and ctx.needs_input_grad[2]:
            bias_grad = emulation.weight_gradient(errors.t(), torch.ones(len(errors), 1)).flatten()
        return x_grad, weight_grad, bias_grad, None


class Conv2dProduct(torch.autograd.Function):
    """A two-dimensional convolution with its two gradients, each lowered to matrix products."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
        emulation: Emulation,
    ) -> torch.Tensor:
        """Output (batch, out_channels, rows, columns) for `x` (batch, in_channels, height, width)."""
        policy = emulation.policy
        images = emulation.quantize(x, policy.activation)
        kernel = emulation.quantize(weight, policy.weight)
        size = _output_size(x.shape[2:], weight.shape[2:], stride, padding, dilation)
        windows = [
            _windows(part, weight.shape[2:], stride, padding, dilation) for part in images.chunk(groups, 1)
        ]
        parts = [
            emulation.product(k.flatten(1), w, policy.forward)
            for k, w in zip(kernel.chunk(groups, 0), windows, strict=True)
        ]
        y = torch.cat(parts)
        if bias is not None:
            y = emulation.add_bias(y, emulation.quantize(bias, policy.weight)[:, None].expand_as(y))
        ctx.save_for_backward(kernel, *windows)
        ctx.emulation, ctx.has_bias, ctx.shape = emulation, bias is not None, x.shape
        ctx.geometry = stride, padding, dilation, groups
        return _owned(_images(y, x.shape[0], size))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of x, weight and bias."""
        kernel, *windows = ctx.saved_tensors
        emulation: Emulation = ctx.emulation
        stride, padding, dilation, groups = ctx.geometry
        errors = emulation.quantize(grads[0], emulation.policy.error)
        parts = errors.chunk(groups, 1)
        x_grad = weight_grad = bias_grad = None
        if ctx.needs_input_grad[0]:
            x_grad = torch.cat(
                [
                    _input_gradient(part, k, ctx.shape[2:], stride, padding, dilation, emulation)
                    for part, k in zip(parts, kernel.chunk(groups, 0), strict=True)
                ],
                1,
            )
        if ctx.needs_input_grad[1]:
            weight_grad = torch.cat(
                [
                    emulation.weight_gradient(_columns(part), w.t())
                    for part, w in zip(parts, windows, strict=True)
                ]
            ).reshape(kernel.shape)
        if ctx.has_bias and ctx.needs_input_grad[2]:
            ones = torch.ones(errors.shape[0] * errors.shape[2] * errors.shape[3], 1)
            bias_grad = emulation.weight_gradient(_columns(errors), ones).flatten()
        return x_grad, weight_grad, bias_grad, None, None, None, None, None


def _input_gradient(
    errors: torch.Tensor,
    kernel: torch.Tensor,
    size: torch.Size,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    emulation: Emulation,
) -> torch.Tensor:
    """Input gradient as a convolution of the spread errors with the flipped kernel."""
    batch, channels = errors.shape[:2]
    reach = [dilation[d] * (kernel.shape[2 + d] - 1) for d in (0, 1)]
    spread_size = [(errors.shape[2 + d] - 1) * stride[d] + 1 for d in (0, 1)]
    spread = errors.new_zeros(batch, channels, *spread_size)
    spread[:, :, :: stride[0], :: stride[1]] = errors
    before = [reach[d] - padding[d] for d in (0, 1)]
    after = [size[d] + reach[d] - before[d] - spread_size[d] for d in (0, 1)]
    padded = functional.pad(spread, (before[1], after[1], before[0], after[0]))
    windows = _windows(padded, kernel.shape[2:], (1, 1), (0, 0), dilation)
    flipped = kernel.flip(2, 3).transpose(0, 1).flatten(1)
    return _images(emulation.product(flipped, windows, emulation.policy.backward), batch, (size[0], size[1]))


def _owned(x: torch.Tensor) -> torch.Tensor:
    """The same memory as a tensor that is no view: autograd forbids to change a view in place."""
    return torch.from_numpy(x.numpy())


def _output_size(size: torch.Size, kernel: torch.Size, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    rows, columns = (
        (size[d] + 2 * padding[d] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1 for d in (0, 1)
    )
    return rows, columns


def _windows(
    images: torch.Tensor, kernel: torch.Size, stride: Pair, padding: Pair, dilation: Pair
) -> torch.Tensor:
    """(channels x window, batch x output positions) matrix of the input windows."""
    unfolded = functional.unfold(images, tuple(kernel), dilation, padding, stride)
    return unfolded.transpose(0, 1).flatten(1)


def _columns(images: torch.Tensor) -> torch.Tensor:
    """(channels, batch x positions) matrix of a batch of images."""
    return images.transpose(0, 1).flatten(1)


def _images(columns: torch.Tensor, batch: int, size: Pair) -> torch.Tensor:
    """Inverse of `_columns`."""
    return columns.reshape(columns.shape[0], batch, *size).transpose(0, 1).contiguous()
