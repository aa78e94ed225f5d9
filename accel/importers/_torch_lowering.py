"""Products of PyTorch modules: convolutions, contractions of two tensors, and attention."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from torch.fx import Node

from accel.accumulations import NetworkError, attention, contraction, matmul_equation
from accel.importers._torch_graph import TorchGraph, gemm_of
from accel.importers._torch_trace import arguments_of, kind_of, operands_of, shape_of
from accel.importers._vector_ops import bias_ops, vector_ops
from accel.workload import Window

_SCALED = 1  # operation per attention score for its scale, and one more for a mask


def read_convolution(graph: TorchGraph, node: Node) -> None:
    """Convolution over one, two or three axes, plain or transposed.

    A transposed one is m = batch x input positions, k = input channels per group, n = window x output
    channels per group; the windows that overlap are added by the vector unit.
    """
    given = arguments_of(node)
    source, weight, bias = given["input"], given["weight"], given["bias"]
    sizes, before, after = shape_of(weight), shape_of(source), shape_of(node)
    axes, groups = len(sizes) - 2, given["groups"]
    window: Window | None = None
    outputs = prod(after)
    operations = bias_ops(outputs) if bias is not None else 0
    if "transpose" in kind_of(node) or given.get("transposed"):
        kind = f"conv_transpose{axes}d"
        gemm = gemm_of(
            node, m=prod(before) // sizes[0], n=prod(sizes[1:]), k=sizes[0] // groups, count=groups
        )
        operations += max(gemm.m * gemm.n * gemm.count - outputs, 0)
    else:
        kind = f"conv{axes}d"
        gemm = gemm_of(node, m=outputs // sizes[0], n=sizes[0] // groups, k=prod(sizes[1:]), count=groups)
        stride, dilation = (per_axis(given[name], axes) for name in ("stride", "dilation"))
        window = Window(
            batch=before[0] if len(before) == axes + 2 else 1,
            channels=sizes[1],
            input=before[-axes:],
            output=after[-axes:],
            kernel=sizes[2:],
            stride=stride,
            dilation=dilation,
            padding=_padding(given["padding"], sizes[2:], dilation),
        )
    graph.emit(
        node,
        kind,
        (graph.tensor(source), graph.tensor(weight), *graph.read(bias)),
        name=graph.operator_name(node, kind, weight),
        gemm=gemm,
        window=window,
        vector_ops=operations,
    )


def _padding(given: Any, kernel: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    """Padding before the first element of each axis; PyTorch puts the odd one of "same" at the end."""
    if given == "valid":
        return (0,) * len(kernel)
    if given == "same":
        return tuple(spread * (taps - 1) // 2 for taps, spread in zip(kernel, dilation, strict=True))
    return per_axis(given, len(kernel))


def per_axis(given: Any, axes: int) -> tuple[int, ...]:
    """Sizes per axis, of one number for all axes or of one each."""
    sizes = tuple(given) if isinstance(given, list | tuple) else (given,)
    return sizes if len(sizes) == axes else sizes * axes


def read_linear(graph: TorchGraph, node: Node) -> None:
    """``x @ weight.T + bias``."""
    given = arguments_of(node)
    weight = given["weight"]
    equation = "...k,nk->...n" if len(shape_of(weight)) == 2 else "...k,k->..."
    _read_product(graph, node, equation, given["input"], weight, given["bias"])


def read_matmul(graph: TorchGraph, node: Node) -> None:
    """Matrix product of any rank, to which a tensor may be added."""
    given = list(arguments_of(node).values())
    added = given.pop(0) if kind_of(node) in ("addmm", "addmv", "baddbmm") else None
    a, b = given[:2]
    _read_product(graph, node, matmul_equation(shape_of(a), shape_of(b)), a, b, added)


def read_scaled_matmul(graph: TorchGraph, node: Node) -> None:
    """Product of two matrices in 8-bit formats whose result is scaled by both their scales."""
    given = arguments_of(node)
    scales = graph.read(given["scale_a"], given["scale_b"])
    operations = 2 * prod(shape_of(node))
    a, b = given["self"], given["mat2"]
    _read_product(graph, node, "mk,kn->mn", a, b, given["bias"], extra=scales, operations=operations)


def read_einsum(graph: TorchGraph, node: Node) -> None:
    """One product per index that both operands keep; other equations were written in simpler steps."""
    a, b = operands_of(node)
    _read_product(graph, node, str(node.args[0]), a, b)


def _read_product(
    graph: TorchGraph,
    node: Node,
    equation: str,
    first: Node,
    second: Node,
    added: Node | None = None,
    *,
    extra: tuple[str, ...] = (),
    operations: int = 0,
) -> None:
    """Product with a parameter, which is then operand W, or of two activations."""
    weight: Node | None = None
    if graph.is_weight(second):
        weight, kind = second, "linear"
    elif graph.is_weight(first):
        weight, kind = first, "linear"
    else:
        kind = "matmul"
    sides = (second, first) if weight is first else (first, second)
    for side in sides:
        if 0 in shape_of(side):
            raise NetworkError(f"operator {node.name} has an empty operand, of shape {shape_of(side)}")
    row = contraction(
        node.name, kind, equation, shape_of(first), shape_of(second), weight=0 if weight is first else None
    )
    outputs = prod(shape_of(node))
    graph.emit(
        node,
        kind,
        (*map(graph.tensor, sides), *graph.read(added), *extra),
        name=graph.operator_name(node, kind, weight),
        gemm=gemm_of(node, m=row.m, n=row.n, k=row.k, count=row.count),
        vector_ops=operations + (bias_ops(outputs) if added is not None else 0),
    )


def read_bilinear(graph: TorchGraph, node: Node) -> None:
    """``x1 W x2``: a product with the weight, whose rows are then weighted by x2 and summed."""
    given = arguments_of(node)
    source, weight = given["input1"], given["weight"]
    out, left, right = shape_of(weight)
    m = prod(shape_of(source)[:-1])
    biases = int(given["bias"] is not None)
    graph.emit(
        node,
        "linear",
        (graph.tensor(source), graph.tensor(weight), *graph.read(given["input2"], given["bias"])),
        name=graph.operator_name(node, "linear", weight),
        gemm=gemm_of(node, m=m, n=out * right, k=left),
        vector_ops=2 * m * out * right + bias_ops(m * out, biases),
    )


def read_attention(graph: TorchGraph, node: Node) -> None:
    """Scores, softmax and weighted sum. Heads that share a key are rows of one product."""
    given = arguments_of(node)
    query, key, value, mask = (given[name] for name in ("query", "key", "value", "attn_mask"))
    shapes = [shape_of(operand) for operand in (query, key, value)]
    rows = attention(node.name, *shapes)
    gemms = [gemm_of(node, m=row.m, n=row.n, k=row.k, count=row.count) for row in rows]
    scores_shape = (*shapes[0][:-1], shapes[1][-2])
    masked = mask is not None or bool(given["is_causal"])
    formats = [graph.format_of(node)]
    name, soft = (graph.operator_name(node, kind) for kind in ("matmul", "softmax"))
    (scores,) = graph.append(
        name,
        "matmul",
        (graph.tensor(query), graph.tensor(key)),
        [scores_shape],
        formats=formats,
        gemm=gemms[0],
    )
    (weights,) = graph.append(
        soft,
        "softmax",
        (scores, *graph.read(mask)),
        [scores_shape],
        formats=formats,
        vector_ops=vector_ops("softmax", output=prod(scores_shape)) + (_SCALED + masked) * prod(scores_shape),
    )
    (result,) = graph.append(
        name,
        "matmul",
        (weights, graph.tensor(value)),
        [shape_of(node)],
        formats=formats,
        gemm=gemms[1],
    )
    graph.stand_for(node, result)
