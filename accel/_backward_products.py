"""The matrix products that give the errors of both operands of a matrix product.

For a forward product (m, n, k) x count:

- *error of W*, or the gradient of a weight: (k, n, m) x count; the sum runs over batch and pixels.
- *error of A*: (m, k, n) x count.
- Where several of the count products share an operand (query heads that share a key), their errors are
  summed in the same product: its accumulation length grows by that factor and its count shrinks.
- *error of the input of a convolution*, for kh x kw taps: m = batch x input pixels, n = input channels per
  group, k = taps x output channels per group. Where the layer has fewer output than input pixels (stride,
  or a window that covers much of the input), most taps of that product are structural zeros; it is then
  m = batch x output pixels, n = s x input channels per group, k = taps x output channels per group / s:
  each output pixel owns the s input pixels that some tap of it reaches alone, and k is the mean number of
  products per sum; pixels that no tap reaches have no product. Should s not divide the dividend, their
  greatest common divisor takes its place. Either way the multiply-accumulates are the true ones, those
  of the forward product, up to the zeros of padding.

With stride 1 the error of a convolution's input is itself the convolution of the error with the turned
kernel, padded by dilation x (kernel - 1) - padding, so it has a window.
"""

from __future__ import annotations

from math import gcd, prod

from accel.workload import Gemm, Operator, Window

Shape = tuple[int, ...]


def error_of_a(
    operator: Operator, gemm: Gemm, a: Shape, w: Shape, output: Shape
) -> tuple[Gemm, Window | None]:
    """Product that gives the error of the first operand, from the shapes of both and of the result."""
    if not operator.kind.startswith("conv") or operator.kind.startswith("conv_transpose"):
        shared = _shared(gemm.count, gemm.m * gemm.k, prod(a))
        return Gemm(m=gemm.m, n=gemm.k, k=gemm.n * shared, count=gemm.count // shared), None
    window = operator.window
    if window is not None:
        channels, before, after, kernel = window.channels, window.input, window.output, window.kernel
        pixels = window.batch * prod(before)
    elif len(w) > 2:
        axes = len(w) - 2
        channels, before, after, kernel = w[1], a[-axes:], output[-axes:], w[-axes:]
        pixels = prod(a) // (channels * gemm.count)
    else:
        return Gemm(m=gemm.m, n=gemm.k, k=gemm.n, count=gemm.count), None
    taps = gemm.n * gemm.k // channels  # summed for one input pixel: window x output channels
    ratios = [int(wide / narrow + 0.5) for wide, narrow in zip(before, after, strict=True)]
    if max(ratios) > 1:
        owned = gcd(taps, prod(min(pair) for pair in zip(ratios, kernel, strict=True)))
        return Gemm(m=gemm.m, n=owned * channels, k=taps // owned, count=gemm.count), None
    return Gemm(m=pixels, n=channels, k=taps, count=gemm.count), _turned(window, gemm.n)


def error_of_w(gemm: Gemm, w: Shape) -> Gemm:
    """Product that gives the error of the second operand, or its gradient."""
    shared = _shared(gemm.count, gemm.k * gemm.n, prod(w))
    return Gemm(m=gemm.k, n=gemm.n, k=gemm.m * shared, count=gemm.count // shared)


def _shared(count: int, elements: int, stored: int) -> int:
    """How many of `count` products use one and the same operand of so many elements."""
    distinct, rest = divmod(stored, elements)
    return count // distinct if distinct and not rest and count % distinct == 0 else 1


def _turned(window: Window | None, channels: int) -> Window | None:
    """Window of a convolution of stride 1, back to its input."""
    if window is None or set(window.stride) != {1}:
        return None
    sizes = zip(window.dilation, window.kernel, window.padding, strict=True)
    padding = tuple(dilation * (kernel - 1) - before for dilation, kernel, before in sizes)
    if min(padding) < 0:
        return None  # the forward pass reads rows of padding alone
    return Window(
        batch=window.batch,
        channels=channels,
        input=window.output,
        output=window.input,
        kernel=window.kernel,
        stride=window.stride,
        dilation=window.dilation,
        padding=padding,
    )
