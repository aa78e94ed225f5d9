"""Kinds and vector operations of the ONNX operators that are no matrix product.

The count of operations is that of ``accel.importers._vector_ops``. An operator that is not listed here
has its lower-case ONNX name as its kind and does one operation per element that it makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from onnx import NodeProto

from accel.importers._onnx_protos import attribute
from accel.importers._vector_ops import (
    PER_ELEMENT,
    pool_ops,
    response_norm_ops,
    upsample_ops,
    vector_ops,
)

# Of one element: an integer becomes a float (difference, product), and back (product, rounding, clamp).
DEQUANTIZE_OPS = 2
QUANTIZE_OPS = 3

#: Kind by ONNX operator, where they differ and nothing but the name decides.
KINDS: Mapping[str, str] = {
    # unary
    "Elu": "elu",
    "HardSigmoid": "hardsigmoid",
    "HardSwish": "hardswish",
    "LeakyRelu": "leaky_relu",
    "PRelu": "prelu",
    "QuickGelu": "silu",
    "QLinearLeakyRelu": "leaky_relu",
    "QLinearSigmoid": "sigmoid",
    "Swish": "silu",
    "ThresholdedRelu": "thresholded_relu",
    # binary
    "Max": "maximum",
    "Min": "minimum",
    "QLinearAdd": "add",
    "QLinearMul": "mul",
    "Sum": "add",
    # rows and norms
    "BatchNormalization": "batch_norm",
    "GroupNorm": "group_norm",
    "GroupNormalization": "group_norm",
    "InstanceNormalization": "instance_norm",
    "LRN": "local_response_norm",
    "LayerNormalization": "layer_norm",
    "LogSoftmax": "log_softmax",
    "QLinearSoftmax": "softmax",
    "RMSNormalization": "rms_norm",
    "SimplifiedLayerNormalization": "rms_norm",
    "SkipLayerNormalization": "layer_norm",
    "SkipSimplifiedLayerNormalization": "rms_norm",
    "SoftmaxCrossEntropyLoss": "cross_entropy",
    # reductions
    "ReduceMax": "amax",
    "ReduceMean": "mean",
    "ReduceMin": "amin",
    "ReduceProd": "prod",
    "ReduceSum": "sum",
    # movement
    "Concat": "cat",
    "DepthToSpace": "depth_to_space",
    "GatherElements": "gather",
    "GatherND": "gather",
    "QLinearConcat": "cat",
    "ScatterElements": "scatter",
    "ScatterND": "scatter",
    "Resize": "upsample",
    "SpaceToDepth": "space_to_depth",
}

_POOLS: Mapping[str, str] = {
    "AveragePool": "avg_pool",
    "GlobalAveragePool": "avg_pool",
    "GlobalMaxPool": "max_pool",
    "MaxPool": "max_pool",
    "QLinearAveragePool": "avg_pool",
    "QLinearGlobalAveragePool": "avg_pool",
}

# Operations per element that they read, beside the reductions of the shared table.
_REDUCTIONS: Mapping[str, int] = {
    "lpnormalization": 3,  # magnitude or square, sum, division
    "meanvariancenormalization": 5,  # as of a norm
    "reducel1": 2,  # magnitude, sum
    "reducel2": 2,
    "reducelogsum": 1,
    "reducelogsumexp": 4,  # maximum, difference, exponential, sum
    "reducesumsquare": 2,
}

#: Operators of which only the first so many inputs are data where the rest are constants: the others
#: say what to do with them.
DATA_INPUTS: Mapping[str, int] = {
    **dict.fromkeys(
        (
            "CenterCropPad",
            "Clip",
            "CumSum",
            "Expand",
            "OneHot",
            "Pad",
            "Resize",
            "Slice",
            "Split",
            "Tile",
            "TopK",
            "Trilu",
            "Upsample",
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceProd",
            "ReduceSum",
            "ReduceSumSquare",
        ),
        1,
    ),
    "BatchNormalization": 3,  # its statistics are folded into scale and shift
}

#: Place of the zero point whose type is that of the result.
ZERO_POINTS: Mapping[str, int] = {
    "QGemm": 8,
    "QLinearAdd": 7,
    "QLinearAveragePool": 4,
    "QLinearConcat": 1,
    "QLinearConv": 7,
    "QLinearGlobalAveragePool": 4,
    "QLinearLeakyRelu": 4,
    "QLinearMatMul": 7,
    "QLinearMul": 7,
    "QLinearSigmoid": 4,
    "QLinearSoftmax": 4,
    "QuantizeLinear": 2,
}

_MOVED = frozenset({"cat", "split", "upsample"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What counts of one use of an operator.

    Attributes
    ----------
    source, output
        Shapes of its first input and its first output.
    operands
        How many inputs it has.
    bounds
        Limits of a clamp, where they are known.
    constant_source
        Its first input is a constant.
    """

    node: NodeProto
    source: tuple[int, ...]
    output: tuple[int, ...]
    operands: int
    bounds: tuple[float | None, float | None] = (None, None)
    constant_source: bool = False


def kind_of(call: Call) -> str:
    """Kind of the operator that a node becomes."""
    operator = call.node.op_type
    if (pool := _POOLS.get(operator)) is not None:
        return f"{pool}{len(call.source) - 2}d"
    if operator == "Clip":
        return "relu6" if call.bounds == (0.0, 6.0) else "clamp"
    if operator in ("Gelu", "BiasGelu", "FastGelu"):
        return "gelu"
    if operator == "Trilu":
        return "triu" if attribute(call.node, "upper", 1) else "tril"
    if operator == "Gather":
        by_row = call.constant_source and len(call.source) > 1 and not attribute(call.node, "axis", 0)
        return "embedding" if by_row else "gather"
    return KINDS.get(operator, operator.lower())


def operations(call: Call, kind: str) -> int:
    """Vector operations of a node of that kind."""
    node, output = call.node, prod(call.output)
    counted = _COUNTED.get(node.op_type)
    if counted is not None:
        made = counted(call, kind)
    elif kind in _REDUCTIONS:
        made = _REDUCTIONS[kind] * prod(call.source)
    elif kind in _MOVED:
        made = 0
    elif node.op_type in ("Max", "Mean", "Min", "Sum"):  # of any number of operands
        made = (call.operands - (node.op_type != "Mean")) * output
    else:
        made = vector_ops(kind, output=output, source=prod(call.source))
    if node.op_type.startswith("QLinear") and kind not in _MOVED:
        inputs = 2 if kind in ("add", "mul") else 1
        made += (inputs * DEQUANTIZE_OPS + QUANTIZE_OPS) * output
    return made


def _pool(call: Call, kind: str) -> int:
    if "Global" in call.node.op_type:
        return prod(call.source)
    window = prod(attribute(call.node, "kernel_shape", ()))
    return pool_ops(kind, output=prod(call.output), window=window)


def _lp_pool(call: Call, _: str) -> int:
    """Magnitude or square, and sum, of each element of a window."""
    if "Global" in call.node.op_type:
        return 2 * prod(call.source)
    window: tuple[int, ...] = tuple(attribute(call.node, "kernel_shape", ()))
    return 2 * prod(window) * prod(call.output)


def _grid_sample(call: Call, _: str) -> int:
    mode = attribute(call.node, "mode", b"linear").decode()
    return upsample_ops(mode, output=prod(call.output), axes=len(call.output) - 2)


def _response_norm(call: Call, _: str) -> int:
    return response_norm_ops(output=prod(call.output), window=int(attribute(call.node, "size", 1)))


def _norm(call: Call, kind: str) -> int:
    """A norm whose inputs after the first are its scale and its shift."""
    return vector_ops(kind, output=prod(call.output), affine=min(call.operands - 1, 2))


def _skip_norm(call: Call, kind: str) -> int:
    """The sum of two inputs, and perhaps a bias, then a norm with a scale and perhaps a shift."""
    sums = 1 + (call.operands > 3 + (kind == "layer_norm"))
    affine = 2 if kind == "layer_norm" and call.operands > 3 else 1
    return prod(call.output) * sums + vector_ops(kind, output=prod(call.output), affine=affine)


def _batch_norm(call: Call, _: str) -> int:
    output = prod(call.output)
    if attribute(call.node, "training_mode", 0):
        return vector_ops("layer_norm", output=output, affine=2)
    return vector_ops("batch_norm", output=output)


def _gelu(call: Call, _: str) -> int:
    by_tanh = call.node.op_type == "FastGelu" or attribute(call.node, "approximate", b"none") == b"tanh"
    bias = call.operands - 1
    return (PER_ELEMENT["gelu_tanh" if by_tanh else "gelu"] + bias) * prod(call.output)


def _upsample(call: Call, _: str) -> int:
    axes = sum(a != b for a, b in zip(call.source, call.output, strict=True))
    mode = attribute(call.node, "mode", b"nearest").decode()
    return upsample_ops(mode, output=prod(call.output), axes=axes)


def _per_element(factor: int) -> Callable[[Call, str], int]:
    return lambda call, _: factor * prod(call.output)


_COUNTED: Mapping[str, Callable[[Call, str], int]] = {
    **dict.fromkeys(_POOLS, _pool),
    **dict.fromkeys(
        (
            "GroupNorm",
            "GroupNormalization",
            "InstanceNormalization",
            "LayerNormalization",
            "RMSNormalization",
            "SimplifiedLayerNormalization",
        ),
        _norm,
    ),
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), _skip_norm),
    **dict.fromkeys(("BiasGelu", "FastGelu", "Gelu"), _gelu),
    **dict.fromkeys(("Resize", "Upsample"), _upsample),
    "BatchNormalization": _batch_norm,
    "DequantizeLinear": _per_element(DEQUANTIZE_OPS),
    "DynamicQuantizeLinear": _per_element(QUANTIZE_OPS + 2),  # minimum, maximum
    "GlobalLpPool": _lp_pool,
    "GridSample": _grid_sample,
    "LRN": _response_norm,
    "LpPool": _lp_pool,
    "QuantizeLinear": _per_element(QUANTIZE_OPS),
    "RotaryEmbedding": _per_element(3),  # two products and a sum
}


def is_view(node: NodeProto, source: Sequence[int], output: Sequence[int], *, steps: Sequence[int]) -> bool:
    """Whether a node that has one input of data gives it another name or shape and moves nothing.

    Parameters
    ----------
    source, output
        Shapes before and after.
    steps
        Of a Slice, as far as they are known.
    """
    same = tuple(source) == tuple(output)
    if node.op_type in ("Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"):
        return True
    if node.op_type == "Transpose":  # axes of size 1 may go anywhere
        order = attribute(node, "perm", tuple(reversed(range(len(source)))))
        moved = [axis for axis in order if source[axis] != 1]
        return moved == sorted(moved)
    if node.op_type == "Slice":
        return same and all(step > 0 for step in steps)
    if node.op_type in ("Concat", "Max", "Mean", "Min", "Sum"):
        return len(node.input) == 1
    if node.op_type == "Split":
        return len(node.output) == 1
    return same and node.op_type in ("CenterCropPad", "Expand", "Pad", "Resize", "Tile", "Upsample")
