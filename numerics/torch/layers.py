"""Products of every kind as functions of tensors and an emulation, after those of `torch.nn.functional`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional

from numerics.convolution import Geometry
from numerics.torch.convolutions import ConvolutionProduct, TransposedProduct
from numerics.torch.emulation import Emulation
from numerics.torch.products import EmbeddingLookup, LinearProduct, MatrixProduct

Numbers = int | Sequence[int]


def linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, emulation: Emulation
) -> torch.Tensor:
    """``x @ weight.T + bias``."""
    y: torch.Tensor = LinearProduct.apply(x, weight, bias, emulation, emulation.streams(x, weight, bias))  # type: ignore[no-untyped-call]
    return y


def matrix_product(
    a: torch.Tensor,
    b: torch.Tensor,
    emulation: Emulation,
    roles: tuple[str, str] = ("activation", "activation"),
) -> torch.Tensor:
    """``a @ b`` with `torch.matmul`'s rules for vectors."""
    left = a.unsqueeze(0) if a.ndim == 1 else a
    right = b.unsqueeze(1) if b.ndim == 1 else b
    y: torch.Tensor = MatrixProduct.apply(left, right, emulation, emulation.streams(a, b), roles)  # type: ignore[no-untyped-call]
    if b.ndim == 1:
        y = y.squeeze(-1)
    return y.squeeze(-1 if b.ndim == 1 else -2) if a.ndim == 1 else y


def weighted_product(a: torch.Tensor, b: torch.Tensor, emulation: Emulation, *, left: bool) -> torch.Tensor:
    """``a @ b`` where one of them, the left or the right one, is a matrix or a vector of weights."""
    weight = a if left else b
    matrix = weight.unsqueeze(0) if weight.ndim == 1 else weight if left else weight.t()
    rows = (b if b.ndim == 1 else b.transpose(-1, -2)) if left else a
    y = linear(rows, matrix, None, emulation)
    if weight.ndim == 1:
        return y.squeeze(-1)
    return y.transpose(-1, -2) if left and b.ndim > 1 else y


def embedding(
    indices: torch.Tensor, weight: torch.Tensor, padding_idx: int | None, emulation: Emulation
) -> torch.Tensor:
    """Rows of `weight`."""
    y: torch.Tensor = EmbeddingLookup.apply(
        indices, weight, padding_idx, emulation, emulation.streams(weight)
    )  # type: ignore[no-untyped-call]
    return y


def convolution(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Numbers,
    padding: Numbers | str,
    dilation: Numbers,
    groups: int,
    emulation: Emulation,
) -> torch.Tensor:
    """Convolution over one or two axes, of a batch or of one sample."""
    axes = weight.ndim - 2
    strides, dilations = _each(stride, axes), _each(dilation, axes)
    if isinstance(padding, str):
        x, paddings = _pad_by_name(x, padding, weight.shape[2:], dilations), (0,) * axes
    else:
        paddings = _each(padding, axes)
    batch = x if x.ndim == weight.ndim else x.unsqueeze(0)
    geometry = Geometry(
        kernel=_pair(weight.shape[2:], 1),
        stride=_pair(strides, 1),
        padding=_pair(paddings, 0),
        dilation=_pair(dilations, 1),
        groups=groups,
    )
    y: torch.Tensor = ConvolutionProduct.apply(  # type: ignore[no-untyped-call]
        _images(batch), _images(weight), bias, geometry, emulation, emulation.streams(x, weight, bias)
    )
    return _as_before(y, x, weight)


def transposed_convolution(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Numbers,
    padding: Numbers,
    output_padding: Numbers,
    groups: int,
    dilation: Numbers,
    emulation: Emulation,
) -> torch.Tensor:
    """Transposed convolution over one or two axes, of a batch or of one sample."""
    axes = weight.ndim - 2
    geometry = Geometry(
        kernel=_pair(weight.shape[2:], 1),
        stride=_pair(_each(stride, axes), 1),
        padding=_pair(_each(padding, axes), 0),
        dilation=_pair(_each(dilation, axes), 1),
        groups=groups,
    )
    batch = _images(x if x.ndim == weight.ndim else x.unsqueeze(0))
    extra = _pair(_each(output_padding, axes), 0)
    rows, columns = (
        (batch.shape[2 + d] - 1) * geometry.stride[d]
        - 2 * geometry.padding[d]
        + geometry.dilation[d] * (geometry.kernel[d] - 1)
        + extra[d]
        + 1
        for d in (0, 1)
    )
    y: torch.Tensor = TransposedProduct.apply(  # type: ignore[no-untyped-call]
        batch, _images(weight), bias, geometry, (rows, columns), emulation, emulation.streams(x, weight, bias)
    )
    return _as_before(y, x, weight)


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scores: Emulation,
    mixture: Emulation,
    *,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Scaled dot-product attention: two emulated products, with mask and softmax in float32 between them.

    The scale multiplies the scores, not the queries. Arguments as those of
    `torch.nn.functional.scaled_dot_product_attention`.
    """
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    logits = matrix_product(query, key.transpose(-1, -2), scores) * factor
    if is_causal:
        if attn_mask is not None:
            raise ValueError("is_causal and attn_mask exclude each other")
        attn_mask = torch.ones(logits.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            logits = logits.masked_fill(~attn_mask, -math.inf)
        else:
            logits = logits + attn_mask
    shares = functional.dropout(torch.softmax(logits, -1), dropout_p, training=dropout_p > 0.0)
    return matrix_product(shares, value, mixture)


def _each(value: Numbers, axes: int) -> tuple[int, ...]:
    values = (value,) * axes if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values


def _pair(values: Sequence[int], missing: int) -> tuple[int, int]:
    """For both axes; the first one is missing where there is one axis."""
    rows, columns = (missing, *values) if len(values) == 1 else values
    return int(rows), int(columns)


def _images(x: torch.Tensor) -> torch.Tensor:
    """With an axis of one row where there is one spatial axis."""
    return x.unsqueeze(2) if x.ndim == 3 else x


def _as_before(y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    y = y.squeeze(2) if weight.ndim == 3 else y
    return y if x.ndim == weight.ndim else y.squeeze(0)


def _pad_by_name(
    x: torch.Tensor, padding: str, kernel: Sequence[int], dilation: Sequence[int]
) -> torch.Tensor:
    """Zeros for ``"same"``, as torch has them: where their number is odd there is one more at the end."""
    if padding == "valid":
        return x
    if padding != "same":
        raise ValueError(f"padding must be numbers, 'valid' or 'same', got {padding!r}")
    pads: list[int] = []
    for size, step in zip(reversed(kernel), reversed(dilation), strict=True):
        total = step * (size - 1)
        pads += [total // 2, total - total // 2]
    return functional.pad(x, pads)
