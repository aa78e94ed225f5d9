"""A walk over the nodes of an ONNX graph in order: branches resolved, other dialects translated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal, cast

import onnx
from onnx import GraphProto, NodeProto, helper, numpy_helper

from accel._cycles import why_too_late
from accel.accumulations import NetworkError
from accel.importers._onnx_protos import attribute, title
from accel.importers._onnx_shapes import Shapes

# Operators read as a standard one, with the inputs that this one takes. Those that keep the shape
# of their first input stand for an Identity.
_PAIR, _QUANTIZED_PAIR, _FIRST = slice(0, 2), slice(0, 4, 3), slice(0, 1)
STAND_INS: Mapping[str, tuple[str, slice]] = {
    "QLinearConv": ("Conv", _QUANTIZED_PAIR),
    "ConvInteger": ("Conv", _PAIR),
    "FusedConv": ("Conv", _PAIR),
    "QLinearMatMul": ("MatMul", _QUANTIZED_PAIR),
    "MatMulInteger": ("MatMul", _PAIR),
    "MatMulIntegerToFloat": ("MatMul", _PAIR),
    "DynamicQuantizeMatMul": ("MatMul", _PAIR),
    "QGemm": ("Gemm", _QUANTIZED_PAIR),
    "FusedGemm": ("Gemm", _PAIR),
    "QLinearAdd": ("Add", _QUANTIZED_PAIR),
    "QLinearMul": ("Mul", _QUANTIZED_PAIR),
    "QLinearAveragePool": ("AveragePool", _FIRST),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", _FIRST),
    "QLinearConcat": ("Concat", slice(2, None, 3)),
    **dict.fromkeys(
        (
            "QuantizeLinear",
            "DequantizeLinear",
            "QLinearLeakyRelu",
            "QLinearSigmoid",
            "QLinearSoftmax",
            "BiasGelu",
            "FastGelu",
            "Gelu",
            "GroupNorm",
            "GroupNormalization",
            "MeanVarianceNormalization",
            "QuickGelu",
            "RotaryEmbedding",
            "SimplifiedLayerNormalization",
            "SkipLayerNormalization",
            "SkipSimplifiedLayerNormalization",
        ),
        ("Identity", _FIRST),
    ),
}

# Their products follow from more than the shapes of their operands, or are none of two matrices.
UNMODELLED = frozenset(
    {
        "CausalConvWithState",
        "DFT",
        "DeformConv",
        "FlexAttention",
        "LinearAttention",
        "LinearClassifier",
        "LinearRegressor",
        "STFT",
        "SVMClassifier",
        "SVMRegressor",
        "TreeEnsemble",
        "TreeEnsembleClassifier",
        "TreeEnsembleRegressor",
    }
)


class GraphWalker(ABC):
    """Visits the nodes of a graph; of an ``If`` with a known condition those of the branch that runs."""

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes
        self.values = shapes.values

    def walk(self, graph: GraphProto) -> None:
        """Visit a graph, or the branch that takes the place of an ``If``."""
        self.shapes.enter(graph)
        _require_one_producer(graph)
        for place, node in enumerate(graph.node):
            self._require_inputs(graph, place)
            branch = self._taken(node)
            if branch is None:
                self.visit(node, self._stand_in(node))
            else:
                self.walk(branch)
                for name, made in zip(node.output, branch.output, strict=True):
                    self.rename(made.name, name)

    def _require_inputs(self, graph: GraphProto, place: int) -> None:
        """Raise if a node reads what no node before it makes."""
        for name in graph.node[place].input:
            if name and name not in self.values:
                names = [title(node) for node in graph.node]
                reads = [node.input for node in graph.node]
                producer = {made: at for at, node in enumerate(graph.node) for made in node.output}
                raise NetworkError(why_too_late(names, reads, producer, place, name))

    @abstractmethod
    def visit(self, node: NodeProto, standard: NodeProto) -> None:
        """Take in one node: as it stands in the file, and as an operator whose shapes are known."""

    def rename(self, made: str, name: str) -> None:
        """Give what a branch has made the name by which its graph knows it."""
        self.values[name] = self.values[made]

    def weight_place(self, first: str, second: str) -> Literal[0, 1] | None:
        """Place of the operand that is a weight, if one is and the other is not."""
        a, b = self.values[first], self.values[second]
        marks = (a.fixed, b.fixed) if a.fixed != b.fixed else (a.fixed and a.trained, b.fixed and b.trained)
        return None if marks[0] == marks[1] else 0 if marks[0] else 1

    def _taken(self, node: NodeProto) -> GraphProto | None:
        """Branch of an ``If`` whose condition is known."""
        condition = self.values[node.input[0]].data if node.op_type == "If" else None
        if condition is None:
            return None
        branch = "then_branch" if numpy_helper.to_array(condition).item() else "else_branch"
        return cast("GraphProto | None", attribute(node, branch, None))

    def _stand_in(self, node: NodeProto) -> NodeProto:
        """`node`, or the standard operator that makes the same products from the same operands."""
        if node.op_type == "MatMulNBits":
            source, packed = node.input[:2]
            weight = f"{packed}.unpacked"
            self.shapes.add_weight(weight, packed, (attribute(node, "K", 0), attribute(node, "N", 0)))
            return helper.make_node("MatMul", [source, weight], node.output[:1], title(node))
        if node.op_type == "FusedMatMul":
            operands = [
                self.shapes.transposed(name) if attribute(node, f"trans{which}", 0) else name
                for which, name in zip("AB", node.input, strict=False)
            ]
            return helper.make_node("MatMul", operands, node.output, title(node))
        if node.op_type not in STAND_INS:
            return node
        operator, taken = STAND_INS[node.op_type]
        allowed = onnx.defs.get_schema(operator, self.shapes.version("")).attributes
        made = helper.make_node(operator, list(node.input)[taken], node.output, title(node))
        made.attribute.extend(found for found in node.attribute if found.name in allowed)
        return made


def _require_one_producer(graph: GraphProto) -> None:
    """Raise if two nodes make the same tensor, or a node makes one that the graph is given."""
    maker = dict.fromkeys((value.name for value in graph.input), "the graph's inputs")
    maker |= dict.fromkeys((tensor.name for tensor in graph.initializer), "the graph's constants")
    for node in graph.node:
        for name in filter(None, node.output):
            if name in maker:
                raise NetworkError(f"tensor {name} has two producers, {maker[name]} and {title(node)}")
            maker[name] = title(node)
