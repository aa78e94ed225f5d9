"""Element-wise operators joined to the operator that makes their operand, whatever that is.

This is the fusion that a study of on-chip memory takes for granted: the result of a convolution, a
concatenation or a pooling is normalised, clamped and scaled on its way out, so what is between never takes
place in memory. It is coarser than what the importers do by default (``accel.importers``), which fold scales
into weights: here every parameter is kept and read by the joined operator.

An operator is joined to the producer of its operand if

- its kind is in `ELEMENTWISE`, and it makes one tensor from one that is no parameter: a batch normalisation
  in evaluation mode, a function of one variable, a sum or a product with a constant;
- it has as many elements as its operand, and the same phase as the producer;
- nothing else reads the operand, which is no output of the graph.

Softmax, layer norms, pooling, local response normalisation, reductions and what moves data stay operators.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias, get_args

from accel.importers._vector_ops import vector_ops
from accel.workload import Operator, Workload

#: How much an importer joins: what a compiler for inference does, as the importer describes it; what
#: `fuse_elementwise` does; or nothing, one operator per node with all of its parameters.
Fuse: TypeAlias = Literal["compiler", "elementwise", "none"]

_FUNCTIONS = """
    abs acos acosh angle asin asinh atan atanh ceil celu clamp conj_physical cos cosh deg2rad digamma elu erf
    erfc erfinv exp exp2 expm1 floor frac gelu hardshrink hardsigmoid hardswish hardtanh i0 leaky_relu lgamma
    log log10 log1p log2 log_sigmoid logit mish mvlgamma nan_to_num neg polygamma positive prelu rad2deg
    reciprocal relu relu6 round rsqrt selu sgn sigmoid sign silu sin sinc sinh softplus softshrink softsign
    sqrt square tan tanh threshold thresholded_relu trunc
"""
_OF_TWO_OR_THREE = """
    add addcdiv addcmul atan2 copysign div float_power floor_divide fmax fmin fmod heaviside hypot igamma
    igammac ldexp lerp logaddexp logaddexp2 maximum minimum mul nextafter pow remainder sub where xlogy
"""
_OF_INTEGERS = """
    bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor eq gcd ge gt
    isfinite isinf isnan isneginf isposinf lcm le logical_and logical_not logical_or logical_xor lt ne signbit
"""
# Names of ONNX in lower case that differ from those of PyTorch.
_OF_ONNX = """
    and bitshift bitwiseand bitwisenot bitwiseor bitwisexor equal greater greaterorequal less lessorequal mod
    not or shrink xor
"""
_CHANGES_OF_FORMAT = "cast castlike dequantizelinear quantizelinear"

#: Kinds, in the words of the importers, whose result depends on the operands element by element. A kind
#: that is not listed is taken to depend on more.
ELEMENTWISE = frozenset(
    " ".join((_FUNCTIONS, _OF_TWO_OR_THREE, _OF_INTEGERS, _OF_ONNX, _CHANGES_OF_FORMAT, "batch_norm")).split()
)


def check_fuse(fuse: str) -> None:
    """Raise if `fuse` is no `Fuse`.

    Raises
    ------
    ValueError
        It is none; the message lists those there are.
    """
    if fuse not in get_args(Fuse):
        raise ValueError(f"fuse must be one of {', '.join(get_args(Fuse))}, got {fuse!r}")


def fuse_elementwise(workload: Workload) -> Workload:
    """Copy of `workload` whose element-wise operators are joined to the producers of their operands.

    A joined operator has the name, the place, the matrix product and the window of the producer, writes the
    last result (in the format of that), reads the parameters of both, does the vector operations of both and
    tells both kinds: ``conv2d+batch_norm+relu``. It is in place if the producer is.

    Examples
    --------
    >>> from accel.workload import Tensor
    >>> graph = Workload(
    ...     name="two",
    ...     operators=(
    ...         Operator(name="join", kind="cat", inputs=("x", "y"), outputs=("j",)),
    ...         Operator(name="act", kind="relu", inputs=("j",), outputs=("z",), vector_ops=8),
    ...     ),
    ...     tensors={
    ...         name: Tensor(name=name, shape=(size,), role="activation", format="int8")
    ...         for name, size in {"x": 4, "y": 4, "j": 8, "z": 8}.items()
    ...     },
    ...     inputs=("x", "y"),
    ...     outputs=("z",),
    ... )
    >>> [(operator.name, operator.kind, operator.outputs) for operator in graph.fused().operators]
    [('join', 'cat+relu', ('z',))]
    """
    parameters = frozenset(name for name in workload.inputs if workload.tensors[name].role.is_parameter)
    kept = frozenset(workload.outputs)
    joined: list[Operator] = []
    place: dict[str, int] = {}  # of the operator among the joined ones that makes a tensor
    between: set[str] = set()
    for operator in workload.operators:
        operand = _operand(workload, operator, parameters)
        at = None if operand is None or operand in kept else place.get(operand)
        alone = operand is not None and len(workload.consumers[operand]) == 1
        if operand is None or at is None or not alone or joined[at].phase is not operator.phase:
            place.update(dict.fromkeys(operator.outputs, len(joined)))
            joined.append(operator)
        else:
            joined[at] = _joined(joined[at], operator, operand)
            place[operator.outputs[0]] = at
            between.add(operand)
    tensors = {name: tensor for name, tensor in workload.tensors.items() if name not in between}
    return replace(workload, operators=tuple(joined), tensors=tensors)


def _operand(workload: Workload, operator: Operator, parameters: frozenset[str]) -> str | None:
    """The one tensor, element by element of which an element-wise operator computes its result."""
    kinds = [kind.rstrip("_") for kind in operator.kind.split("+")]
    operands = set(operator.inputs) - parameters
    if not ELEMENTWISE.issuperset(kinds) or operator.gemm or len(operands) != 1 or len(operator.outputs) != 1:
        return None
    (operand,) = operands
    elements = workload.tensors[operand].elements
    if workload.tensors[operator.outputs[0]].elements != elements:
        return None
    # With the statistics of the batch a normalisation does more than scale and shift.
    plain = sum(vector_ops(kind, output=elements) for kind in kinds)
    return None if "batch_norm" in kinds and operator.vector_ops > plain else operand


def _joined(producer: Operator, operator: Operator, operand: str) -> Operator:
    """`producer` with what `operator` does to its result `operand`."""
    read = dict.fromkeys(name for name in operator.inputs if name != operand)
    return replace(
        producer,
        kind=f"{producer.kind}+{operator.kind}",
        inputs=(*producer.inputs, *(name for name in read if name not in producer.inputs)),
        outputs=tuple(operator.outputs[0] if name == operand else name for name in producer.outputs),
        vector_ops=producer.vector_ops + operator.vector_ops,
    )
