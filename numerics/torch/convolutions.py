"""The three training products of convolutions and transposed convolutions, bit-true, as autograd functions.

Order of summation, which is part of the result: forward sums over (input channel, kernel row, kernel column);
backward over (output channel, kernel row, kernel column of the flipped kernel); gradient over (sample, output
row, output column). Each index runs upward, the last one fastest. The zeros of padding, and those that a
stride puts between the errors, take part and change nothing: adding +0 is exact. A transposed convolution is
the input gradient of a convolution, and has its three products in other roles.

Scales by channel belong to output channels of weights and to samples of images in the forward product, to
input channels of weights and samples of errors in the backward product, to channels in the gradient. Blocks
run along the channels of a group, in the gradient along samples. The gradient of a kernel has scales by
output channel, and blocks along input channels; an output has scales by sample, and blocks along channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional, grad

from numerics import convolution
from numerics.convolution import Geometry
from numerics.torch.emulation import ONES, Emulation, Rounded, Sample, Streams
from numerics.torch.products import Gradients, Saved, owned

Pair = tuple[int, int]


class ConvolutionProduct(torch.autograd.Function):
    """A two-dimensional convolution with its two gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        geometry: Geometry,
        emulation: Emulation,
        streams: Streams,
    ) -> torch.Tensor:
        """Output (batch, out_channels, rows, columns) for `x` (batch, in_channels, height, width)."""
        images = _images(x, "activation", emulation, streams, geometry)
        kernel = _by_output(weight, emulation, streams)
        y = _forward(images, kernel, geometry, "forward", ("weight", "activation"), emulation, streams)
        return _finish(ctx, y, x, images, weight, kernel, bias, geometry, emulation, streams)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> Gradients:
        """Gradients of x, weight and bias."""
        emulation, geometry, kept = ctx.emulation, ctx.geometry, ctx.saved_tensors
        streams = emulation.training
        by_sample, by_channel = _errors(ctx, grads[0], emulation, streams, geometry)
        x_grad = weight_grad = None
        if by_sample is not None:
            kernel = ctx.weight.again(kept, lambda weight: _by_input(weight, emulation, streams, geometry))
            roles = ("weight", "error")
            x_grad = _input_gradient(
                by_sample, kernel, ctx.shape[2:], geometry, "backward", roles, emulation, streams
            )
        if ctx.needs_input_grad[1]:
            images = ctx.images.again(kept, lambda x: _by_channel(x, "activation", emulation, streams))
            roles = ("error", "activation")
            weight_grad = _weight_gradient(by_channel, images, geometry, roles, emulation, streams)
            weight_grad = emulation.restored(weight_grad, "weight_gradient", streams, along=1, keep=(0,))
        return x_grad, weight_grad, _bias_gradient(ctx, by_channel, emulation, streams), None, None, None


class TransposedProduct(torch.autograd.Function):
    """A transposed convolution with its two gradients; it transposes the convolution of `geometry`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        geometry: Geometry,
        size: Pair,
        emulation: Emulation,
        streams: Streams,
    ) -> torch.Tensor:
        """Output (batch, out_channels, *size) for `x` (batch, in_channels, height, width).

        `weight` is (in_channels, out_channels / groups, rows, columns).
        """
        images = _images(x, "activation", emulation, streams, geometry)
        kernel = _by_input(weight, emulation, streams, geometry)
        roles = ("weight", "activation")
        y = _input_gradient(images, kernel, size, geometry, "forward", roles, emulation, streams)
        return _finish(ctx, y, x, images, weight, kernel, bias, geometry, emulation, streams)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> Gradients:
        """Gradients of x, weight and bias."""
        emulation, geometry, kept = ctx.emulation, ctx.geometry, ctx.saved_tensors
        streams = emulation.training
        by_sample, by_channel = _errors(ctx, grads[0], emulation, streams, geometry)
        x_grad = weight_grad = None
        if by_sample is not None:
            kernel = ctx.weight.again(kept, lambda weight: _by_output(weight, emulation, streams))
            roles = ("weight", "error")
            x_grad = _forward(by_sample, kernel, geometry, "backward", roles, emulation, streams)
        if ctx.needs_input_grad[1]:
            images = ctx.images.again(kept, lambda x: _by_channel(x, "activation", emulation, streams))
            roles = ("activation", "error")
            weight_grad = _weight_gradient(images, by_channel, geometry, roles, emulation, streams)
            weight_grad = emulation.restored(weight_grad, "weight_gradient", streams, along=1, keep=(0,))
        return (
            x_grad,
            weight_grad,
            _bias_gradient(ctx, by_channel, emulation, streams),
            None,
            None,
            None,
            None,
        )


def _images(
    x: torch.Tensor, role: str, emulation: Emulation, streams: Streams, geometry: Geometry
) -> Rounded:
    """Images in a product that sums over their channels, group by group."""
    return emulation.round(x, role, streams, along=1, keep=(0,), groups=geometry.groups)


def _by_channel(x: torch.Tensor, role: str, emulation: Emulation, streams: Streams) -> Rounded:
    """Images in a product that sums over samples and positions."""
    return emulation.round(x, role, streams, along=0, keep=(1,))


def _by_output(weight: torch.Tensor, emulation: Emulation, streams: Streams) -> Rounded:
    """Kernels (o, c / groups, rows, columns) in a product that sums over c."""
    return emulation.round(weight, "weight", streams, along=1, keep=(0,))


def _by_input(weight: torch.Tensor, emulation: Emulation, streams: Streams, geometry: Geometry) -> Rounded:
    """The same in a product that sums over the o of a group; scales are (groups, 1, c / groups, 1, 1)."""
    outputs, inner, *window = weight.shape
    split = weight.reshape(geometry.groups, outputs // geometry.groups, inner, *window)
    rounded = emulation.round(split, "weight", streams, along=1, keep=(0, 2))
    return rounded._replace(values=rounded.values.reshape(weight.shape))


def _finish(
    ctx: Any,
    y: torch.Tensor,
    x: torch.Tensor,
    images: Rounded,
    weight: torch.Tensor,
    kernel: Rounded,
    bias: torch.Tensor | None,
    geometry: Geometry,
    emulation: Emulation,
    streams: Streams,
) -> torch.Tensor:
    """Add the bias, round the output, and keep what the backward pass needs."""
    if bias is not None:
        scaled = images.inverse is not None or kernel.inverse is not None
        y = emulation.add_bias(y, bias, streams, axis=1, scaled=scaled)
    y = emulation.restored(y, "output", streams, along=1, keep=(0,))
    ctx.kept = []
    ctx.images = Saved(ctx, x, images, once=emulation.once("activation"))
    ctx.weight = Saved(ctx, weight, kernel, once=emulation.once("weight"))
    ctx.save_for_backward(*ctx.kept)
    del ctx.kept
    ctx.emulation, ctx.geometry = emulation, geometry
    ctx.has_bias, ctx.shape = bias is not None, x.shape
    return owned(y)


def _errors(
    ctx: Any, errors: torch.Tensor, emulation: Emulation, streams: Streams, geometry: Geometry
) -> tuple[Rounded | None, Rounded | None]:
    """Errors as they enter the backward and the gradient product, where these are wanted."""
    by_sample = by_channel = None
    if ctx.needs_input_grad[0]:
        by_sample = _images(errors, "error", emulation, streams, geometry)
    if ctx.needs_input_grad[1] or (ctx.has_bias and ctx.needs_input_grad[2]):
        by_channel = by_sample if emulation.once("error") else None
        if by_channel is None:
            by_channel = _by_channel(errors, "error", emulation, streams)
    return by_sample, by_channel


def _bias_gradient(
    ctx: Any, errors: Rounded | None, emulation: Emulation, streams: Streams
) -> torch.Tensor | None:
    if errors is None or not (ctx.has_bias and ctx.needs_input_grad[2]):
        return None
    # A kernel of one element over images of ones: the errors stay where they are.
    n, _, *size = errors.values.shape
    ones = Rounded(np.ones((n, 1, *size), np.float32))
    whole = Geometry((1, 1))
    summed = _weight_gradient(errors, ones, whole, ("error", ONES), emulation, streams)
    return emulation.restored(summed.flatten(), "weight_gradient", streams, tensor="bias_gradient")


def _forward(
    images: Rounded,
    kernel: Rounded,
    geometry: Geometry,
    role: str,
    roles: tuple[str, str],
    emulation: Emulation,
    streams: Streams,
) -> torch.Tensor:
    """The convolution, scaled back; `roles` are those of the left operand, the kernel, and of the images."""
    x, k = images.values, kernel.values

    def native() -> torch.Tensor:
        where = (geometry.stride, geometry.padding, geometry.dilation, geometry.groups)
        return functional.conv2d(torch.from_numpy(x), torch.from_numpy(k), None, *where)

    def emulated(accumulator: Any, **key: Any) -> np.ndarray:
        return convolution.convolve(x, k, geometry, accumulator, **key)

    size = (len(x), len(k), *geometry.output_size(x.shape[2:]))
    y = _product(size, native, emulated, (kernel, images), role, roles, emulation, streams)
    _observe(emulation, role, roles, streams, lambda fmt: _forward_sample(x, k, y, geometry, fmt))
    return torch.from_numpy(emulation.unscaled(y, _line(kernel.inverse, 1), images.inverse))


def _input_gradient(
    errors: Rounded,
    kernel: Rounded,
    size: Pair,
    geometry: Geometry,
    role: str,
    roles: tuple[str, str],
    emulation: Emulation,
    streams: Streams,
) -> torch.Tensor:
    """The product that leads from errors to inputs of `size`, scaled back."""
    e, k = errors.values, kernel.values
    shape = (len(e), k.shape[1] * geometry.groups, *size)

    def native() -> torch.Tensor:
        where = (geometry.stride, geometry.padding, geometry.dilation, geometry.groups)
        found: torch.Tensor = grad.conv2d_input(shape, torch.from_numpy(k), torch.from_numpy(e), *where)  # type: ignore[no-untyped-call]
        return found

    def emulated(accumulator: Any, **key: Any) -> np.ndarray:
        return convolution.convolve_input_gradient(e, k, (size[0], size[1]), geometry, accumulator, **key)

    y = _product(shape, native, emulated, (kernel, errors), role, roles, emulation, streams)
    _observe(emulation, role, roles, streams, lambda fmt: _input_sample(e, k, y, geometry, fmt))
    return torch.from_numpy(emulation.unscaled(y, _line(kernel.inverse, 1), errors.inverse))


def _weight_gradient(
    errors: Rounded | None,
    images: Rounded | None,
    geometry: Geometry,
    roles: tuple[str, str],
    emulation: Emulation,
    streams: Streams,
) -> torch.Tensor:
    """The product of errors and images that is the gradient of the kernel, scaled back."""
    assert errors is not None
    assert images is not None
    e, x, groups = errors.values, images.values, geometry.groups
    shape = (e.shape[1], x.shape[1] // groups, *geometry.kernel)

    def native() -> torch.Tensor:
        where = (geometry.stride, geometry.padding, geometry.dilation, groups)
        found: torch.Tensor = grad.conv2d_weight(torch.from_numpy(x), shape, torch.from_numpy(e), *where)  # type: ignore[no-untyped-call]
        return found

    def emulated(accumulator: Any, **key: Any) -> np.ndarray:
        return convolution.convolve_weight_gradient(e, x, geometry, accumulator, **key)

    y = _product(shape, native, emulated, (errors, images), "gradient", roles, emulation, streams)
    _observe(emulation, "gradient", roles, streams, lambda fmt: _weight_sample(e, x, y, geometry, fmt))
    by_input = images.inverse
    if by_input is not None and by_input.size > 1:
        # A kernel meets the channels of its group only.
        by_input = by_input.reshape(groups, 1, -1).repeat(shape[0] // groups, 1).reshape(*shape[:2], 1, 1)
    return torch.from_numpy(emulation.unscaled(y, _line(errors.inverse, 0), by_input))


def _product(
    shape: tuple[int, ...],
    native: Callable[[], torch.Tensor],
    emulated: Callable[..., np.ndarray],
    operands: tuple[Rounded, Rounded],
    role: str,
    roles: tuple[str, str],
    emulation: Emulation,
    streams: Streams,
) -> np.ndarray:
    """One of the three products by torch, by an accumulator, or NaN where that is undefined."""
    accumulator = emulation.accumulator(role)
    if accumulator is None:
        return native().contiguous().numpy()
    formats = emulation.formats(accumulator, roles)
    if (bad := emulation.undefined(accumulator, *operands)) is not None:
        return np.full(shape, bad, np.float32)
    y = emulated(accumulator, formats=formats, seed=emulation.key, stream=streams.next())
    return y.astype(np.float32, copy=False)


def _line(inverse: np.ndarray | None, axis: int) -> np.ndarray | None:
    """Inverse scales along one of four axes; a single one as it is."""
    if inverse is None or inverse.size == 1:
        return None if inverse is None else inverse.reshape(())
    shape = [1, 1, 1, 1]
    shape[axis] = -1
    return inverse.reshape(shape)


def _observe(
    emulation: Emulation,
    role: str,
    roles: tuple[str, str],
    streams: Streams,
    sample: Callable[[Any], Sample | None],
) -> None:
    accumulator = emulation.accumulator(role)
    if accumulator is None or emulation.observer is None or streams is not emulation.training:
        return
    found = sample(emulation.formats(accumulator, roles))
    if found is not None:
        emulation.observer.product(emulation.name, role, accumulator, found)


def _pixels(
    images: np.ndarray, n: np.ndarray, c: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Elements of images (n, c, rows, columns) at broadcast indices, zero outside."""
    inside = (rows >= 0) & (rows < images.shape[2]) & (columns >= 0) & (columns < images.shape[3])
    found = images[n, c, np.where(inside, rows, 0), np.where(inside, columns, 0)]
    return np.where(inside, found, np.float32(0.0))


def _forward_sample(
    x: np.ndarray, kernel: np.ndarray, y: np.ndarray, geometry: Geometry, formats: Any
) -> Sample | None:
    """Of several groups, as below, the first one."""
    if y.size == 0:
        return None
    channels, window = kernel.shape[1], kernel.shape[1:]
    outputs, places = len(kernel) // geometry.groups, (len(x), *y.shape[2:])

    def operands(rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        c, i, j = (index.reshape(-1, 1) for index in np.indices(window))
        n, row, column = np.unravel_index(columns, places)
        down = row * geometry.stride[0] - geometry.padding[0] + i * geometry.dilation[0]
        right = column * geometry.stride[1] - geometry.padding[1] + j * geometry.dilation[1]
        return kernel[rows].reshape(len(rows), -1), _pixels(x[:, :channels], n, c, down, right)

    return Sample(
        shape=(outputs, int(np.prod(window)), int(np.prod(places))),
        operands=operands,
        result=lambda rows, columns: _at(y, rows, columns, places),
        formats=formats,
    )


def _input_sample(
    errors: np.ndarray, kernel: np.ndarray, y: np.ndarray, geometry: Geometry, formats: Any
) -> Sample | None:
    if y.size == 0:
        return None
    outputs = len(kernel) // geometry.groups
    window, places = (outputs, *kernel.shape[2:]), (len(y), *y.shape[2:])
    (up, left), (down, right) = geometry.stride, geometry.dilation

    def operands(rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        o, i, j = (index.reshape(-1, 1) for index in np.indices(window))
        i, j = kernel.shape[2] - 1 - i, kernel.shape[3] - 1 - j
        n, row, column = np.unravel_index(columns, places)
        r, c = row + geometry.padding[0] - i * down, column + geometry.padding[1] - j * right
        hit = (r % up == 0) & (c % left == 0)
        found = _pixels(errors[:, :outputs], n, o, np.where(hit, r // up, -1), np.where(hit, c // left, -1))
        return kernel[o, rows[None, :], i, j].T, found

    return Sample(
        shape=(kernel.shape[1], int(np.prod(window)), int(np.prod(places))),
        operands=operands,
        result=lambda rows, columns: _at(y, rows, columns, places),
        formats=formats,
    )


def _weight_sample(
    errors: np.ndarray, x: np.ndarray, y: np.ndarray, geometry: Geometry, formats: Any
) -> Sample | None:
    places = (len(errors), *errors.shape[2:])
    if y.size == 0 or 0 in places:
        return None

    def operands(rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        (above, before), (down, right) = geometry.padding, geometry.stride
        found = np.empty((len(columns), *places), np.float32)
        for number, (c, i, j) in enumerate(zip(*np.unravel_index(columns, y.shape[1:]), strict=True)):
            padded = np.pad(x[:, c], ((0, 0), (above, above), (before, before)))
            top, start = i * geometry.dilation[0], j * geometry.dilation[1]
            lines = slice(top, top + (places[1] - 1) * down + 1, down)
            found[number] = padded[:, lines, start : start + (places[2] - 1) * right + 1 : right]
        left = errors[:, rows].swapaxes(0, 1).reshape(len(rows), -1)
        return left, found.reshape(len(columns), -1).T

    return Sample(
        shape=(len(y) // geometry.groups, int(np.prod(places)), int(np.prod(y.shape[1:]))),
        operands=operands,
        result=lambda rows, columns: y.reshape(len(y), -1)[np.ix_(rows, columns)],
        formats=formats,
    )


def _at(y: np.ndarray, channels: np.ndarray, columns: np.ndarray, places: tuple[int, ...]) -> np.ndarray:
    n, row, column = np.unravel_index(columns, places)
    found: np.ndarray = y[n[None, :], channels[:, None], row[None, :], column[None, :]]
    return found
