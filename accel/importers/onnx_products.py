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

from onnx import GraphProto, ModelProto, NodeProto, helper

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
from accel.importers._onnx_inputs import RECURRENT, InputSizes
from accel.importers._onnx_protos import STANDARD_DOMAINS, attribute, bodies, known_shape, title
from accel.importers._onnx_shapes import ContradictionError, Shapes
from accel.importers._onnx_walk import STAND_INS, UNMODELLED, GraphWalker


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
    reader.walk(model.graph)
    reader.note_uncovered()
    return builder.network()


class _Reader(GraphWalker):
    """Walks a graph in order and hands its products to a builder."""

    def __init__(self, builder: NetworkBuilder, shapes: Shapes) -> None:
        super().__init__(shapes)
        self.builder = builder
        self._uncovered: dict[str, list[str]] = {}

    def note_uncovered(self) -> None:
        """Hand the notes on operators that were skipped to the builder, one for each kind."""
        for what, titles in self._uncovered.items():
            more = f" and {len(titles) - 3} more" if len(titles) > 3 else ""
            self.builder.note(f"{what} is not covered: {', '.join(titles[:3])}{more}")

    def visit(self, node: NodeProto, standard: NodeProto) -> None:
        """Take in one node, as the standard operator that makes the same products."""
        node = standard
        known = self.shapes.infer(node)
        if not known:
            domain = "" if node.domain in STANDARD_DOMAINS else f"{node.domain}."
            self._skip(f"unknown operator {domain}{node.op_type}", node)
        elif node.op_type in UNMODELLED:
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
        weight = self.weight_place(*node.input) if len(node.input) == 2 else None
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
        weight = self.weight_place(*node.input[:2])
        kind = "matmul" if weight is None else "linear"
        row = contraction(title(node), kind, equation, *shapes, weight=weight)
        self._add_contraction(row, *node.input[:2])

    def _add_contraction(self, row: TrainingProducts, first: str, second: str) -> None:
        weight = self.weight_place(first, second)
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
        operator = STAND_INS.get(node.op_type, (node.op_type,))[0]
        if operator in _READERS and operator != "Gather":
            yield node.op_type
        for body in bodies(node):
            yield from _products(body)
