"""What each ATen operator becomes in a workload; see ``accel.importers.torch_export`` for the rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch
from torch.fx import Node

from accel.accumulations import NetworkError
from accel.importers._torch_graph import TorchGraph, results_of
from accel.importers._torch_lowering import (
    per_axis,
    read_attention,
    read_bilinear,
    read_convolution,
    read_einsum,
    read_linear,
    read_matmul,
    read_scaled_matmul,
)
from accel.importers._torch_recurrent import RECURRENT, read_recurrent
from accel.importers._torch_trace import arguments_of, kind_of, operands_of, shape_of
from accel.importers._vector_ops import (
    bias_ops,
    pool_ops,
    transform_ops,
    upsample_ops,
    vector_ops,
)

_COMPLEX = {"mul": 6, "div": 11}  # real operations for one of complex numbers; others take 2

# Kinds of operators whose ATen name is another.
_KINDS: Mapping[str, str] = {
    "_log_softmax": "log_softmax",
    "_softmax": "softmax",
    "_to_copy": "cast",
    "clamp_max": "clamp",
    "clamp_min": "clamp",
    "clip": "clamp",
    "clone": "copy",
    "concat": "cat",
    "concatenate": "cat",
    "constant_pad_nd": "pad",
    "contiguous": "copy",
    "cross_entropy_loss": "cross_entropy",
    "hstack": "cat",
    "vstack": "cat",
    "masked_fill": "where",
    "rsub": "sub",
    "special_erf": "erf",
    "stack": "cat",
    "subtract": "sub",
    "to": "cast",
    "true_divide": "div",
    "type_as": "cast",
}
# Fused operators whose products cannot be told from their arguments.
_HIDDEN = frozenset(
    {
        "_grouped_mm",
        "_native_multi_head_attention",
        "_transformer_encoder_layer_fwd",
        "_trilinear",
        "_weight_int4pack_mm",
        "_weight_int8pack_mm",
        "addbmm",
        "conv_tbc",
    }
)


def read_other(graph: TorchGraph, node: Node) -> None:
    """Any operator that has no reader of its own: its arithmetic is that of its kind."""
    name = kind_of(node)
    if name in _HIDDEN:
        raise NetworkError(f"operator {node.target} ({node.name}) hides products that cannot be told from it")
    kind = _KINDS.get(name, name.strip("_"))
    inputs = graph.read(*operands_of(node), *node_arguments(node.kwargs.values()))
    graph.emit(node, kind, inputs, vector_ops=_vector_ops(node, kind))


def _vector_ops(node: Node, kind: str, *, affine: int = 0) -> int:
    results = results_of(node)
    read = [found for found in operands_of(node) if isinstance(found.meta.get("val"), torch.Tensor)]
    source = prod(shape_of(read[0])) if read else 0
    operations = vector_ops(
        kind, output=sum(value.numel() for value in results), source=source, affine=affine
    )
    return operations * _COMPLEX.get(kind, 2) if results[0].is_complex() else operations


def node_arguments(values: Any) -> list[Node]:
    """Nodes among arguments."""
    return [value for value in values if isinstance(value, Node)]


# ---------------------------------------------------------------------------------- element-wise and rows


def read_relu(graph: TorchGraph, node: Node) -> None:
    """ReLU, joined to the product before it where nothing else reads that result."""
    (source,) = node.all_input_nodes
    found, operations = graph.source(source), vector_ops("relu", output=prod(shape_of(node)))
    before = graph.operators[found.place] if found.place is not None else None
    product = before is not None and before.gemm is not None and "+" not in before.kind
    if product and graph.join_relu:
        graph.join(node, found, "relu", ops=operations)
    else:
        graph.emit(node, "relu", graph.read(source), vector_ops=operations)


def read_batch_norm(graph: TorchGraph, node: Node) -> None:
    """Batch normalisation: scale and shift, or with the statistics of the batch the work of a layer norm.

    The scale of one in evaluation mode goes into the weights of the convolution that alone it reads,
    and its shift into the bias.
    """
    given = arguments_of(node)
    source, weight, bias, mean = given["input"], given["weight"], given["bias"], given.get("running_mean")
    of_batch = bool(given.get("training")) or mean is None
    found, elements = graph.source(source), prod(shape_of(source))
    if graph.fold_batch_norm and not of_batch and found.place is not None:
        before = graph.operators[found.place]
        if before.gemm is not None and before.kind.startswith("conv") and "+" not in before.kind:
            if len(before.inputs) > 2:
                graph.join(node, found, ops=0)
            else:
                shift = graph.read(bias if bias is not None else mean)
                graph.join(node, found, extra=shift, ops=bias_ops(elements))
            return
    affine = sum(operand is not None for operand in (weight, bias))
    operations = vector_ops("layer_norm" if of_batch else "batch_norm", output=elements, affine=affine)
    statistics = () if of_batch else (mean, given["running_var"])
    graph.emit(node, "batch_norm", graph.read(source, weight, bias, *statistics), vector_ops=operations)


def read_norm(graph: TorchGraph, node: Node) -> None:
    """Layer, group, instance or root-mean-square norm."""
    given = arguments_of(node)
    kind = kind_of(node).removeprefix("native_").removeprefix("_fused_")
    source, weight, bias = given["input"], given.get("weight"), given.get("bias")
    affine = sum(operand is not None for operand in (weight, bias))
    operations = vector_ops(kind, output=prod(shape_of(source)), affine=affine)
    graph.emit(node, kind, graph.read(source, weight, bias), vector_ops=operations)


def read_pool(graph: TorchGraph, node: Node) -> None:
    """Pool of fixed windows, or of windows that are fitted to a number of outputs."""
    source = node.all_input_nodes[0]
    name = kind_of(node).strip("_")
    kind = name.removeprefix("adaptive_").removesuffix("_with_indices")
    if name.startswith("adaptive"):
        operations = prod(shape_of(source))
    else:
        axes = int(kind[-2])
        window = prod(per_axis(arguments_of(node)["kernel_size"], axes))
        operations = pool_ops(kind, output=results_of(node)[0].numel(), window=window)
    graph.emit(node, kind, graph.read(source), vector_ops=operations)


def read_gelu(graph: TorchGraph, node: Node) -> None:
    """GELU by the error function, or approximated by a hyperbolic tangent."""
    exact = arguments_of(node)["approximate"] == "none"
    operations = vector_ops("gelu" if exact else "gelu_tanh", output=prod(shape_of(node)))
    graph.emit(node, "gelu", graph.read(*operands_of(node)), vector_ops=operations)


def read_hardtanh(graph: TorchGraph, node: Node) -> None:
    """Clamp between two numbers; between 0 and 6 it is ReLU6."""
    given = arguments_of(node)
    kind = "relu6" if (given["min_val"], given["max_val"]) == (0, 6) else "hardtanh"
    graph.emit(node, kind, graph.read(*operands_of(node)), vector_ops=_vector_ops(node, kind))


def read_extremum(graph: TorchGraph, node: Node) -> None:
    """``max`` and ``min``: of two tensors, or over an axis."""
    bound = kind_of(node)
    kind = f"{bound}imum" if str(node.target).endswith(".other") else f"a{bound}"
    graph.emit(node, kind, graph.read(*operands_of(node)), vector_ops=_vector_ops(node, kind))


def read_scaled_sum(graph: TorchGraph, node: Node) -> None:
    """Sum or difference, of which the second operand may have a factor."""
    kind = _KINDS.get(kind_of(node), kind_of(node))
    operations = _vector_ops(node, kind)
    if arguments_of(node).get("alpha", 1) != 1:
        operations += prod(shape_of(node))
    graph.emit(node, kind, graph.read(*operands_of(node)), vector_ops=operations)


def read_where(graph: TorchGraph, node: Node) -> None:
    """Selection by a condition; ``masked_fill`` has the condition second."""
    read = operands_of(node)
    if kind_of(node) == "masked_fill":
        read[:2] = read[1], read[0]
    graph.emit(node, "where", graph.read(*read), vector_ops=vector_ops("where", output=prod(shape_of(node))))


def read_upsample(graph: TorchGraph, node: Node) -> None:
    """Interpolation to a larger or smaller grid."""
    source = node.all_input_nodes[0]
    operations = upsample_ops(kind_of(node), output=prod(shape_of(node)), axes=len(shape_of(source)) - 2)
    graph.emit(node, "upsample", graph.read(source), vector_ops=operations)


def read_embedding(graph: TorchGraph, node: Node) -> None:
    """Rows of a table."""
    table, index = operands_of(node)[:2]
    graph.emit(node, "embedding", (graph.tensor(table), graph.tensor(index)))


def read_embedding_bag(graph: TorchGraph, node: Node) -> None:
    """Sums of rows of a table: one addition per element of every row that is read."""
    table, index = operands_of(node)[:2]
    operations = prod(shape_of(index)) * shape_of(table)[-1]
    graph.emit(node, "embedding_bag", graph.read(*operands_of(node)), vector_ops=operations)


def read_transform(graph: TorchGraph, node: Node) -> None:
    """Fast Fourier transform, over the last axis if none is named."""
    (source,) = node.all_input_nodes
    before, after = shape_of(source), shape_of(node)
    given = arguments_of(node)
    axes = given.get("dim", -1)
    if axes is None:
        axes = range(len(before))
    lengths = tuple(max(before[axis], after[axis]) for axis in ([axes] if isinstance(axes, int) else axes))
    elements = max(prod(before), prod(after))
    operations = transform_ops(elements=elements, lengths=lengths)
    graph.emit(node, kind_of(node).strip("_"), graph.read(source), vector_ops=operations)


def read_distance(graph: TorchGraph, node: Node) -> None:
    """Distances of all pairs of rows: difference, power and sum per feature."""
    a, b = operands_of(node)[:2]
    operations = 3 * prod(shape_of(node)) * shape_of(a)[-1]
    graph.emit(node, "cdist", graph.read(a, b), vector_ops=operations)


_POOLS = [
    f"{before}{kind}_pool{axes}d{after}"
    for kind in ("max", "avg")
    for axes in (1, 2, 3)
    for before in ("", "adaptive_", "_adaptive_")
    for after in ("", "_with_indices")
]
_UPSAMPLES = [
    f"{before}upsample_{mode}"
    for before in ("", "_")
    for mode in (
        *(f"{kind}{axes}d" for kind in ("nearest", "nearest_exact", "nearest-exact") for axes in (1, 2, 3)),
        "linear1d",
        "bilinear2d",
        "trilinear3d",
        "bicubic2d",
        "bilinear2d_aa",
        "bicubic2d_aa",
        "nearest_exact1d",
    )
]
_TRANSFORMS = [
    f"fft_{kind}{axes}"
    for kind in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")
    for axes in ("", "2", "n")
]

READERS: Mapping[str, Callable[[TorchGraph, Node], None]] = {
    **dict.fromkeys(
        (
            *(f"conv{axes}d" for axes in (1, 2, 3)),
            *(f"conv_transpose{axes}d" for axes in (1, 2, 3)),
            "convolution",
            "_convolution",
        ),
        read_convolution,
    ),
    **dict.fromkeys(
        (
            "_int_mm",
            "addmm",
            "addmv",
            "baddbmm",
            "bmm",
            "dot",
            "linalg_matmul",
            "linalg_vecdot",
            "matmul",
            "mm",
            "mv",
            "vdot",
        ),
        read_matmul,
    ),
    **dict.fromkeys(RECURRENT, read_recurrent),
    **dict.fromkeys(
        (
            "batch_norm",
            "_native_batch_norm_legit",
            "_native_batch_norm_legit_no_training",
            "native_batch_norm",
        ),
        read_batch_norm,
    ),
    **dict.fromkeys(
        (
            "group_norm",
            "instance_norm",
            "layer_norm",
            "native_group_norm",
            "native_layer_norm",
            "rms_norm",
            "_fused_rms_norm",
        ),
        read_norm,
    ),
    **dict.fromkeys(_POOLS, read_pool),
    **dict.fromkeys(_UPSAMPLES, read_upsample),
    **dict.fromkeys(_TRANSFORMS, read_transform),
    **dict.fromkeys(("add", "sub", "subtract", "rsub"), read_scaled_sum),
    **dict.fromkeys(("max", "min"), read_extremum),
    **dict.fromkeys(("where", "masked_fill"), read_where),
    **dict.fromkeys(("embedding_bag", "_embedding_bag"), read_embedding_bag),
    **dict.fromkeys(("cdist", "_cdist_forward", "_euclidean_dist"), read_distance),
    "_scaled_mm": read_scaled_matmul,
    "bilinear": read_bilinear,
    "einsum": read_einsum,
    "embedding": read_embedding,
    "gelu": read_gelu,
    "hardtanh": read_hardtanh,
    "linear": read_linear,
    "relu": read_relu,
    "scaled_dot_product_attention": read_attention,
}
