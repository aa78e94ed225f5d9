"""The training products of an ONNX graph, from its shapes alone: no weight is loaded.

A constant, or what is computed from constants, is a weight where a product reads it beside an
activation, and is taken to be trained unless it is a scalar or made of 64-bit integers. Quantised
operators count as those that they stand for. Functions of the model are inlined; of an ``If`` with a
known condition the branch that runs is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Literal, cast

import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from accel.accumulations import (
    Network,
    NetworkBuilder,
    NetworkError,
    TrainingProducts,
    attention,
    contraction,
    convolution,
    einsum,
    matmul_equation,
    transposed_convolution,
)
from accel.importers._onnx_file import inlined, load
from accel.importers._onnx_protos import STANDARD_DOMAINS, attribute, bodies, known_shape, title
from accel.importers._onnx_shapes import RECURRENT, ContradictionError, InputSizes, Shapes

# Operators read as a standard one, with the inputs that this one takes. Those that keep the shape
# of their first input stand for an Identity.
_PAIR, _QUANTIZED_PAIR, _FIRST = slice(0, 2), slice(0, 4, 3), slice(0, 1)
_STAND_INS: Mapping[str, tuple[str, slice]] = {
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
            "QuickGelu",
            "SimplifiedLayerNormalization",
            "SkipLayerNormalization",
            "SkipSimplifiedLayerNormalization",
        ),
        ("Identity", _FIRST),
    ),
}

_UNCOVERED = frozenset(
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


def read_onnx(
    source: str | Path | ModelProto,
    *,
    batch: int = 256,
    shapes: Mapping[str, int] = MappingProxyType({}),
    name: str | None = None,
) -> Network:
    """Training products of an ONNX model.

    Parameters
    ----------
    source
        A file, or a model in memory. The data of weights kept in other files are not read, but
        those files must exist.
    batch
        Samples per step. The first axis of an input is the batch (the second one of the sequence
        of an LSTM, GRU or RNN). Where the file fixes it, what holds the batch is rescaled.
    shapes
        Sizes of symbolic dimensions by name (``sequence``), and of single axes (``tokens[1]``) of
        inputs or of tensors that an unknown operator makes. An axis that would be the batch but is
        given here is not rescaled.
    name
        Of the network; that of the file or graph by default.

    Raises
    ------
    NetworkError
        This is no ONNX model, a dimension is unknown, or shapes contradict each other.
    FileNotFoundError
        The file, or one in which it keeps weights, is missing.
    """
    if isinstance(source, ModelProto):
        model, folder, name = source, None, name or source.graph.name or "onnx"
    else:
        path = Path(source)
        model, folder, name = load(path), path.parent, name or path.stem
    model = inlined(name, model)
    try:
        return _read(name, model, folder, shapes, batch=batch, trace=batch)
    except ContradictionError as error:
        # An exporter may leave the axis open and yet write its own batch of 1 into a Reshape.
        try:
            return _read(name, model, folder, shapes, batch=batch, trace=1)
        except NetworkError:
            raise error from None


def _read(
    name: str, model: ModelProto, folder: Path | None, shapes: Mapping[str, int], *, batch: int, trace: int
) -> Network:
    sizes = InputSizes(model.graph, shapes, batch=batch, trace=trace)
    builder = NetworkBuilder(name, batch=batch, traced=sizes.traced)
    for note in sizes.notes:
        builder.note(note)
    reader = _Reader(builder, Shapes(model, sizes, folder))
    reader.read_graph(model.graph)
    reader.note_uncovered()
    return builder.network()


class _Reader:
    """Walks a graph in order and hands its products to a builder."""

    def __init__(self, builder: NetworkBuilder, shapes: Shapes) -> None:
        self.builder = builder
        self.shapes = shapes
        self.values = shapes.values
        self._uncovered: dict[str, list[str]] = {}

    def read_graph(self, graph: GraphProto) -> None:
        """Take in a graph, or the branch that takes the place of an ``If``."""
        self.shapes.enter(graph)
        for node in graph.node:
            self.shapes.require_inputs(node)
            branch = self._taken(node)
            if branch is None:
                self._read(self._stand_in(node))
            else:
                self.read_graph(branch)
                for name, made in zip(node.output, branch.output, strict=True):
                    self.values[name] = self.values[made.name]

    def note_uncovered(self) -> None:
        """Hand the notes on operators that were skipped to the builder, one for each kind."""
        for what, titles in self._uncovered.items():
            more = f" and {len(titles) - 3} more" if len(titles) > 3 else ""
            self.builder.note(f"{what} is not covered: {', '.join(titles[:3])}{more}")

    def _read(self, node: NodeProto) -> None:
        known = self.shapes.infer(node)
        if not known:
            domain = "" if node.domain in STANDARD_DOMAINS else f"{node.domain}."
            self._skip(f"unknown operator {domain}{node.op_type}", node)
        elif node.op_type in _UNCOVERED:
            self._skip(node.op_type, node)
        elif (reader := _READERS.get(node.op_type)) is not None:
            try:
                reader(self, node)
            except NetworkError:
                raise
            except ValueError as error:
                raise ContradictionError(f"{title(node)} ({node.op_type}): {error}") from error
        elif held := Counter(operator for body in bodies(node) for operator in _products(body)):
            inside = ", ".join(f"{count} {operator}" for operator, count in held.items())
            self._skip(f"{node.op_type} around {inside}", node)

    def _skip(self, what: str, node: NodeProto) -> None:
        self._uncovered.setdefault(what, []).append(title(node))

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
        if node.op_type not in _STAND_INS:
            return node
        operator, taken = _STAND_INS[node.op_type]
        allowed = onnx.defs.get_schema(operator, self.shapes.version("")).attributes
        made = helper.make_node(operator, list(node.input)[taken], node.output, title(node))
        made.attribute.extend(found for found in node.attribute if found.name in allowed)
        return made

    def read_convolution(self, node: NodeProto) -> None:
        """Convolution, plain or transposed."""
        source, weight = node.input[:2]
        transposed = node.op_type == "ConvTranspose"
        pixels = self.shapes.sizes(node, source if transposed else node.output[0])
        make = transposed_convolution if transposed else convolution
        row = make(
            title(node),
            self.shapes.sizes(node, weight),
            positions=pixels[0] * prod(pixels[2:]),
            groups=int(attribute(node, "group", 1)),
            stride=attribute(node, "strides", ()),
            dilation=attribute(node, "dilations", ()),
        )
        self._add(row, source, weight)

    def read_matmul(self, node: NodeProto) -> None:
        """Matrix product of any rank."""
        shapes = [self.shapes.sizes(node, name) for name in node.input[:2]]
        self._contract(node, matmul_equation(*shapes), shapes)

    def read_gemm(self, node: NodeProto) -> None:
        """Matrix product of two matrices, each transposed or not."""
        left = "km" if attribute(node, "transA", 0) else "mk"
        right = "nk" if attribute(node, "transB", 0) else "kn"
        shapes = [self.shapes.sizes(node, name) for name in node.input[:2]]
        self._contract(node, f"{left},{right}->mn", shapes)

    def read_einsum(self, node: NodeProto) -> None:
        """Products that an einsum of two operands stands for."""
        equation = helper.get_attribute_value(node.attribute[0]).decode()
        shapes = [self.shapes.sizes(node, name) for name in node.input]
        weight = self._weight(*node.input) if len(node.input) == 2 else None
        try:
            row = einsum(title(node), equation, shapes, weight=weight)
        except ValueError as error:
            self.builder.note(f"Einsum {title(node)} with equation {equation} is not covered: {error}")
        else:
            if row is not None:
                self._add_contraction(row, *node.input)

    def read_attention(self, node: NodeProto) -> None:
        """Scores and weighted sum of the attention operator."""
        query, key, value = (self.shapes.sizes(node, name) for name in node.input[:3])
        if len(query) == 3:
            heads, shared = (int(attribute(node, f"{name}_num_heads", 1)) for name in ("q", "kv"))
            query = (query[0], heads, query[1], query[2] // heads)
            key, value = ((s[0], shared, s[1], s[2] // shared) for s in (key, value))
        if len(node.input) > 4 and node.input[4]:
            positions = key[2] + self.shapes.sizes(node, node.input[4])[2]
            key, value = ((*s[:2], positions, s[3]) for s in (key, value))
        causal = bool(attribute(node, "is_causal", 0))
        scores, context = attention(title(node), query, key, value, causal=causal)
        flows = [self.values[name].trained for name in node.input[:3]]
        batched = not all(self.values[name].fixed for name in node.input[:3])
        self.builder.add(scores, batched=batched, backward=flows[0], gradient=flows[1])
        self.builder.add(context, batched=batched, backward=flows[0] or flows[1], gradient=flows[2])

    def read_recurrent(self, node: NodeProto) -> None:
        """Products of a recurrent layer with the input and with its own state."""
        source, weight, recurrence = node.input[:3]
        positions = prod(self.shapes.sizes(node, source)[:2])
        for what, name in (("input", weight), ("recurrent", recurrence)):
            directions, _, features = sizes = self.shapes.sizes(node, name)
            row = contraction(
                f"{title(node)} {what}",
                node.op_type.lower(),
                "dmk,dnk->dmn",
                (directions, positions, features),
                sizes,
                weight=1,
            )
            self._add(row, source, name, state=name == recurrence)

    def read_lookup(self, node: NodeProto) -> None:
        """Embedding: rows of a table taken by an index that depends on the input."""
        table, index = (self.values[name] for name in node.input[:2])
        shape = known_shape(table.type) or ()
        by_row = len(shape) > 1 and not attribute(node, "axis", 0)
        if by_row and table.fixed and table.trained and not index.fixed:
            rows = prod(self.shapes.sizes(node, node.input[1]))
            self.builder.look_up(title(node), table.origin, rows)

    def _contract(self, node: NodeProto, equation: str, shapes: list[tuple[int, ...]]) -> None:
        weight = self._weight(*node.input[:2])
        kind = "matmul" if weight is None else "linear"
        row = contraction(title(node), kind, equation, *shapes, weight=weight)
        self._add_contraction(row, *node.input[:2])

    def _weight(self, first: str, second: str) -> Literal[0, 1] | None:
        """Place of the operand that is a weight, if one is and the other is not."""
        a, b = self.values[first], self.values[second]
        marks = (a.fixed, b.fixed) if a.fixed != b.fixed else (a.fixed and a.trained, b.fixed and b.trained)
        return None if marks[0] == marks[1] else 0 if marks[0] else 1

    def _add_contraction(self, row: TrainingProducts, first: str, second: str) -> None:
        weight = self._weight(first, second)
        if weight is None:
            a, b = self.values[first], self.values[second]
            self.builder.add(row, batched=not a.fixed, backward=a.trained, gradient=b.trained)
        else:
            self._add(row, *((second, first) if weight == 0 else (first, second)))

    def _add(self, row: TrainingProducts, source: str, weight: str, *, state: bool = False) -> None:
        """Hand over a product of the activation `source` and a weight; a `state` always needs errors."""
        activation, parameter = self.values[source], self.values[weight]
        self.builder.add(
            row,
            weight=parameter.origin or weight,
            batched=not activation.fixed,
            backward=activation.trained or state,
            gradient=parameter.trained or not parameter.fixed,
        )


_READERS: Mapping[str, Callable[[_Reader, NodeProto], None]] = {
    "Attention": _Reader.read_attention,
    "Conv": _Reader.read_convolution,
    "ConvTranspose": _Reader.read_convolution,
    "Einsum": _Reader.read_einsum,
    "Gather": _Reader.read_lookup,
    "Gemm": _Reader.read_gemm,
    "MatMul": _Reader.read_matmul,
    **dict.fromkeys(RECURRENT, _Reader.read_recurrent),
}


def _products(graph: GraphProto) -> Iterator[str]:
    """Kinds of the operators with matrix products in a subgraph and its own subgraphs."""
    for node in graph.node:
        operator = _STAND_INS.get(node.op_type, (node.op_type,))[0]
        if operator in _READERS and operator != "Gather":
            yield node.op_type
        for body in bodies(node):
            yield from _products(body)
