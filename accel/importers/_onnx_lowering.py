"""Matrix products of ONNX operators: convolutions, linear layers, recurrent layers, quantised ones.

Kinds are ``conv2d``, ``conv_transpose2d`` and their like of one or three axes, ``linear`` for a product with
a constant, ``matmul`` for one of two activations, and ``lstm_input``, ``lstm_recurrent`` and their like.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Literal

from onnx import NodeProto

from accel.accumulations import (
    TrainingProducts,
    contraction,
    convolution,
    einsum,
    matmul_equation,
    transposed_convolution,
)
from accel.importers._onnx_draft import Draft
from accel.importers._onnx_operators import DEQUANTIZE_OPS, QUANTIZE_OPS
from accel.importers._onnx_protos import attribute, title
from accel.importers._vector_ops import PER_ELEMENT, RECURRENT_OPS, bias_ops
from accel.workload import Gemm, Role, Window
from numerics.formats import FixedFormat

WeightPlace = Callable[[str, str], Literal[0, 1] | None]

# Inputs beside the operands that a product reads, and which of them is added to the result.
_BESIDE: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "Conv": ((2,), (2,)),
    "ConvInteger": ((3,), ()),
    "ConvTranspose": ((2,), (2,)),
    "DynamicQuantizeMatMul": ((2, 3, 4), (4,)),
    "FusedConv": ((2, 3), (2, 3)),
    "FusedGemm": ((2,), (2,)),
    "Gemm": ((2,), (2,)),
    "MatMulInteger": ((3,), ()),
    "MatMulIntegerToFloat": ((3, 5, 6), (6,)),
    "MatMulNBits": ((2, 3, 5), (5,)),
    "QGemm": ((4, 5, 6), (6,)),
    "QLinearConv": ((4, 5, 8), (8,)),
    "QLinearMatMul": ((4, 5), ()),
}

# Operations per element of the result, beside a bias.
_AFTER: Mapping[str, int] = {
    "DynamicQuantizeMatMul": DEQUANTIZE_OPS,
    "MatMulIntegerToFloat": DEQUANTIZE_OPS,
    "QGemm": QUANTIZE_OPS,
    "QLinearConv": QUANTIZE_OPS,
    "QLinearMatMul": QUANTIZE_OPS,
}

_PEEPHOLE_OPS = 6  # product and sum for three gates
_GATES: Mapping[str, int] = {"LSTM": 4, "GRU": 3, "RNN": 1}


class Lowering:
    """Turns the products of a graph into operators of a draft.

    Every reader takes the node of the file, and a standard operator that makes the same products.
    """

    def __init__(self, draft: Draft, weight_place: WeightPlace) -> None:
        self.draft = draft
        self.shapes = draft.shapes
        self._weight_place = weight_place

    def read_convolution(self, node: NodeProto, standard: NodeProto) -> None:
        """Convolution, plain or transposed."""
        source, weight = (self.shapes.sizes(node, name) for name in standard.input[:2])
        output = self.shapes.sizes(node, node.output[0])
        transposed = standard.op_type == "ConvTranspose"
        pixels = source if transposed else output
        groups = int(attribute(node, "group", 1))
        row = (transposed_convolution if transposed else convolution)(
            title(node), weight, positions=pixels[0] * prod(pixels[2:]), groups=groups
        )
        axes = len(weight) - 2
        overlaps = max(0, row.m * row.n * row.count - prod(output)) if transposed else 0
        self._add(
            node,
            f"conv_transpose{axes}d" if transposed else f"conv{axes}d",
            standard.input[:2],
            row,
            window=None if transposed else _window(node, source, weight, output),
            vector_ops=overlaps,
            channels=1,
        )

    def read_matmul(self, node: NodeProto, standard: NodeProto) -> None:
        """Matrix product of any rank."""
        shapes = [self.shapes.sizes(node, name) for name in standard.input[:2]]
        scaled = node.op_type == "FusedMatMul" and attribute(node, "alpha", 1.0) != 1.0
        self._contract(node, standard, matmul_equation(*shapes), scaled=scaled)

    def read_gemm(self, node: NodeProto, standard: NodeProto) -> None:
        """Matrix product of two matrices, each transposed or not, plus a third."""
        left = "km" if attribute(node, "transA", 0) else "mk"
        right = "nk" if attribute(node, "transB", 0) else "kn"
        self._contract(node, standard, f"{left},{right}->mn", scaled=attribute(node, "alpha", 1.0) != 1.0)

    def read_einsum(self, node: NodeProto, standard: NodeProto) -> None:
        """Product of two operands; any other einsum multiplies and adds on the vector unit."""
        equation = attribute(node, "equation", b"").decode()
        shapes = [self.shapes.sizes(node, name) for name in node.input]
        weight = self._weight_place(*node.input) if len(node.input) == 2 else None
        try:
            row = einsum(title(node), equation, shapes, weight=weight)
        except ValueError:
            row = None
        if row is not None:
            kind = "matmul" if weight is None else "linear"
            self._add(node, kind, _operands(standard, weight), row)
            return
        spanned: dict[str, int] = {}
        for term, shape in zip(equation.replace(" ", "").split("->")[0].split(","), shapes, strict=True):
            # The axes of an ellipsis align at their end.
            before, _, after = term.partition("...")
            hidden = [f"...{place}" for place in reversed(range(len(shape) - len(before) - len(after)))]
            for label, size in zip([*before, *hidden, *after], shape, strict=True):
                spanned[label] = max(spanned.get(label, 1), size)
        products = len(shapes) - 1
        output = prod(self.shapes.sizes(node, node.output[0]))
        terms = prod(spanned.values())
        sums = terms > output
        self.draft.add(
            title(node),
            "mul" if products == 1 and not sums else "transpose" if not products and not sums else "einsum",
            [found for name in node.input for found in self.draft.read(name)],
            self.draft.outputs(node),
            vector_ops=terms * (products + sums),
        )

    def read_recurrent(self, node: NodeProto, _: NodeProto) -> None:
        """Products of a recurrent layer with its input, of all steps at once, and with its own state.

        The recurrent product takes a step after the other: m = batch, count = directions x steps. Its operand
        A is its own result of the step before, in whose place it reads the result of the input product.
        """
        draft, name, family = self.draft, title(node), node.op_type.lower()
        source, weight, recurrence = node.input[:3]
        steps, samples = self.shapes.sizes(node, source)[:2]
        if attribute(node, "layout", 0):
            steps, samples = samples, steps
        directions, wide, features = self.shapes.sizes(node, weight)
        hidden = self.shapes.sizes(node, recurrence)[2]
        if wide != _GATES[node.op_type] * hidden:
            raise ValueError(f"{weight} makes {wide} gates, {recurrence} a state of {hidden}")
        bias, peepholes = (
            draft.read(node.input[place], Role.WEIGHT) if place < len(node.input) else () for place in (3, 7)
        )
        elem_type = draft.values[source].type.tensor_type.elem_type
        gates = draft.made(f"{name} gates", (directions, steps, samples, wide), elem_type)
        draft.add(
            f"{name} input",
            f"{family}_input",
            (*draft.read(source, single=True), *draft.read(weight, Role.WEIGHT, single=True), *bias),
            (gates,),
            gemm=Gemm(m=steps * samples, n=wide, k=features, count=directions),
            vector_ops=bias_ops(directions * steps * samples * wide, 2 * len(bias)),  # of input and state
        )
        states: list[str] = []
        for state in filter(None, node.input[5:7]):
            fixed = draft.values[draft.root(state)].fixed
            states += draft.read(state, Role.CONSTANT if fixed else None)
        per_state = RECURRENT_OPS[family] + _PEEPHOLE_OPS * len(peepholes)
        draft.add(
            f"{name} recurrent",
            f"{family}_recurrent",
            (gates, *draft.read(recurrence, Role.WEIGHT, single=True), *states, *peepholes),
            draft.outputs(node),
            gemm=Gemm(m=samples, n=wide, k=hidden, count=directions * steps),
            vector_ops=per_state * directions * steps * samples * hidden,
        )

    def _contract(self, node: NodeProto, standard: NodeProto, equation: str, *, scaled: bool) -> None:
        shapes = [self.shapes.sizes(node, name) for name in standard.input[:2]]
        weight = self._weight_place(*standard.input[:2])
        kind = "matmul" if weight is None else "linear"
        row = contraction(title(node), kind, equation, *shapes, weight=weight)
        output = self.shapes.sizes(node, node.output[0])
        # A constant factor of a weight is folded into it.
        scale = prod(output) if scaled and weight is None else 0
        rank = len(output)
        channels = None if weight is None or not rank else rank - 1 if weight == 1 else rank - 2
        if weight is not None and min(map(len, shapes)) < 2:
            channels = None  # a vector has no axis of its own in the result
        packed = node.op_type == "MatMulNBits"
        if packed:
            bits = int(attribute(node, "bits", 4))
            self.draft.constant(standard.input[1], FixedFormat.parse(f"uint{bits}"))
        self._add(
            node,
            kind,
            _operands(standard, weight),
            row,
            vector_ops=scale + (DEQUANTIZE_OPS * prod(shapes[1]) if packed else 0),
            channels=channels,
        )

    def _add(
        self,
        node: NodeProto,
        kind: str,
        operands: tuple[str, str],
        row: TrainingProducts,
        *,
        window: Window | None = None,
        vector_ops: int = 0,
        channels: int | None = None,
    ) -> None:
        """Append a product, with what else its operator reads and does."""
        draft = self.draft
        read, added = _BESIDE.get(node.op_type, ((), ()))
        source, weight = operands
        role = Role.WEIGHT if kind != "matmul" else None
        if kind == "linear" and not draft.values[weight].fixed:
            role = None
        inputs = [*draft.read(source, single=True), *draft.read(weight, role, single=True)]
        output = prod(self.shapes.sizes(node, node.output[0]))
        for place in read:
            if place < len(node.input) and node.input[place]:
                constant = draft.values[draft.root(node.input[place])].fixed
                beside = draft.read(node.input[place], Role.WEIGHT if constant else None)
                inputs += beside
                vector_ops += bias_ops(output) if place in added else 0
        vector_ops += _AFTER.get(node.op_type, 0) * output
        if node.op_type == "DynamicQuantizeMatMul":
            vector_ops += QUANTIZE_OPS * prod(self.shapes.sizes(node, source))
        gemm = Gemm(m=row.m, n=row.n, k=row.k, count=row.count)
        activation = _activation(node)
        if not activation:
            outputs = draft.outputs(node)
        elif activation == "relu":
            outputs, kind, vector_ops = draft.outputs(node), f"{kind}+relu", vector_ops + output
        else:
            shape = self.shapes.sizes(node, node.output[0])
            elem_type = draft.values[node.output[0]].type.tensor_type.elem_type
            outputs = (draft.made(f"{title(node)} product", shape, elem_type),)
        draft.add(
            title(node),
            kind,
            inputs,
            outputs,
            gemm=gemm,
            window=window,
            vector_ops=vector_ops,
            channels=channels,
        )
        if activation and activation != "relu":
            draft.add(
                f"{title(node)} {activation}",
                activation,
                outputs,
                draft.outputs(node),
                vector_ops=PER_ELEMENT.get(activation, 1) * output,
            )


_ACTIVATIONS: Mapping[str, str] = {
    "Clip": "clamp",
    "HardSigmoid": "hardsigmoid",
    "LeakyRelu": "leaky_relu",
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
}


def _activation(node: NodeProto) -> str:
    """Kind of the activation function that ONNX Runtime has joined to a product."""
    name = attribute(node, "activation", b"").decode() if node.op_type.startswith("Fused") else ""
    return _ACTIVATIONS.get(name, name.lower())


def _operands(standard: NodeProto, weight: int | None) -> tuple[str, str]:
    """A and W: a weight is the second."""
    first, second = standard.input[:2]
    return (second, first) if weight == 0 else (first, second)


def _window(
    node: NodeProto, source: tuple[int, ...], weight: tuple[int, ...], output: tuple[int, ...]
) -> Window:
    axes = len(weight) - 2
    stride = tuple(attribute(node, "strides", (1,) * axes))
    dilation = tuple(attribute(node, "dilations", (1,) * axes))
    padding = tuple(attribute(node, "pads", (0,) * 2 * axes))[:axes]
    auto = attribute(node, "auto_pad", b"NOTSET").decode()
    if auto.startswith("SAME"):
        spans = [spread * (taps - 1) + 1 for taps, spread in zip(weight[2:], dilation, strict=True)]
        sums = [
            max(0, (after - 1) * step + span - before)
            for before, after, step, span in zip(source[2:], output[2:], stride, spans, strict=True)
        ]
        padding = tuple((total + (auto == "SAME_LOWER")) // 2 for total in sums)
    elif auto == "VALID":
        padding = (0,) * axes
    return Window(
        batch=output[0],
        channels=weight[1],
        input=source[2:],
        output=output[2:],
        kernel=weight[2:],
        stride=stride,
        dilation=dilation,
        padding=padding,
    )


READERS: Mapping[str, Callable[[Lowering, NodeProto, NodeProto], None]] = {
    "Conv": Lowering.read_convolution,
    "ConvTranspose": Lowering.read_convolution,
    "Einsum": Lowering.read_einsum,
    "GRU": Lowering.read_recurrent,
    "Gemm": Lowering.read_gemm,
    "LSTM": Lowering.read_recurrent,
    "MatMul": Lowering.read_matmul,
    "RNN": Lowering.read_recurrent,
}
