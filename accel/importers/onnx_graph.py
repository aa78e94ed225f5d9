"""ONNX models as workloads, from their shapes alone: no weight is loaded.

Operators are named after their node (``conv1``), or after what they do and make where it has no name
(``Conv 112``); a repeated name gets a number. Tensors keep their ONNX names.

- What is computed from constants alone is no operator. A constant that an operator reads is a graph input:
  a ``WEIGHT`` if it may be trained, else a ``CONSTANT``, or an ``INDEX`` of integers; another layout of a
  constant is that constant. One of a single number is no tensor but part of the instruction, and so are
  shapes, axes and limits.
- Reshape, Flatten, Squeeze, Unsqueeze, Identity, Dropout, a Cast to the same type, a transposition that
  moves axes of size 1 alone, and whatever else neither moves nor changes an element, give a tensor another
  name: no operator, no bytes.
- What a compiler joins is joined: a batch normalisation or another scale and shift of the channels by
  constants with the convolution, the linear layer or the batch normalisation before it, and a ReLU with
  the product before it, see ``accel.importers._onnx_fusion``. A batch normalisation that stays reads a
  scale and a shift into which its statistics are folded.
- Quantised operators have the products of those that they stand for, between tensors of integers.
- Attention is two products and a softmax, a recurrent layer a product with its input and one with its
  state. Of an ``If`` with a known condition the branch that runs is read; functions are inlined.
- An operator of another kind has its lower-case name and does one vector operation per element that it
  makes; those with much arithmetic of their own, such as a Fourier transform, are refused.

Kinds of products are in ``accel.importers._onnx_lowering``, those of all others in
``accel.importers._onnx_operators``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from types import MappingProxyType

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from accel._given import whole
from accel.accumulations import NetworkError
from accel.fusion import Fuse, check_fuse
from accel.importers._onnx_attention import is_attention, read_attention
from accel.importers._onnx_draft import Draft
from accel.importers._onnx_file import inlined, load
from accel.importers._onnx_inputs import InputSizes
from accel.importers._onnx_lowering import READERS, Lowering
from accel.importers._onnx_operators import DATA_INPUTS, ZERO_POINTS, Call, is_view, kind_of, operations
from accel.importers._onnx_protos import attribute, bodies, shape_of, tensor_type, title
from accel.importers._onnx_rebatch import RebatchedShapes
from accel.importers._onnx_shapes import ContradictionError, Shapes
from accel.importers._onnx_walk import UNMODELLED, GraphWalker
from accel.workload import Role, Workload

# They make of a constant filled with one number another one.
_SPREADS = frozenset(
    {"Cast", "Expand", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
_STATISTICS = 3  # place of the first input of a batch normalisation that is not trained


def from_onnx(
    source: str | Path | ModelProto,
    *,
    batch: int | None = None,
    shapes: Mapping[str, int] = MappingProxyType({}),
    name: str | None = None,
    fold_batch_norm: bool = True,
    fuse: Fuse = "compiler",
) -> Workload:
    """Graph of one inference pass of an ONNX model.

    Parameters
    ----------
    source
        A file, or a model in memory. The data of weights kept in other files are not read, but
        those files must exist.
    batch
        Samples, in place of those of the file; by default what the file says, and 1 where it leaves them
        open. The first axis of an input is the batch (the second one of the sequence of an LSTM, GRU or
        RNN).
    shapes
        Sizes of symbolic dimensions by name (``sequence``), and of single axes (``tokens[1]``) of
        inputs or of tensors that an unknown operator makes.
    name
        Of the workload; that of the file or graph by default.
    fold_batch_norm
        Whether a batch normalisation, or another scale of the channels by constants, becomes part of the
        product before it, as for inference. Without it the graph is the one to train. It counts where
        `fuse` is ``"compiler"``.
    fuse
        What is joined: ``"compiler"`` as above. ``"none"``: one operator per node (but those of attention
        and recurrent layers) that reads all parameters as the file stores them, four vectors of a batch
        normalisation, and constants of a single number or of integers as well, as ``CONSTANT``; a slice or a
        split is another name of the whole tensor. ``"elementwise"``: as ``"none"``, then every element-wise
        operator is joined to the producer of its operand, see ``accel.fusion``.

    Raises
    ------
    NetworkError
        There is no such file or it is no ONNX model, a dimension is unknown or no positive number, shapes
        contradict each other, or an operator cannot be read; one line that names it.
    ValueError
        `fuse` is none of the three.

    Examples
    --------
    >>> from accel.networks import zoo
    >>> network = from_onnx(zoo()["zoo:squeezenet"], batch=4)
    >>> network.batch, network.operators[0].kind, network.operators[0].gemm
    (4, 'conv2d+relu', Gemm(m=49284, n=64, k=27, count=1))
    """
    check_fuse(fuse)
    if batch is not None:
        try:
            batch = whole("batch", batch)
        except ValueError as error:
            raise NetworkError(str(error)) from None
    if isinstance(source, ModelProto):
        model, folder, name = source, None, name or source.graph.name or "onnx"
    else:
        path = Path(source)
        model, folder, name = load(path), path.parent, name or path.stem
    model = inlined(name, model)
    wanted = 1 if batch is None else batch
    sizes = InputSizes(model.graph, shapes, batch=wanted, trace=wanted)
    try:
        reader = _Reader(Shapes(model, sizes, folder), model.graph, fuse)
        reader.walk(model.graph)
    except ContradictionError:
        # An exporter may leave the axis open and yet write its own batch of 1 into a Reshape.
        if sizes.traced == 1:
            raise
        sizes = InputSizes(model.graph, shapes, batch=wanted, trace=1)
        reader = _Reader(Shapes(model, sizes, folder), model.graph, fuse)
        reader.walk(model.graph)
    if batch is not None and sizes.traced != batch:
        reader = _rebatched(model, folder, shapes, reader.shapes, sizes.traced, batch, fuse)
        return reader.workload(name, batch, fold_batch_norm=fold_batch_norm)
    return reader.workload(name, sizes.samples, fold_batch_norm=fold_batch_norm)


def _rebatched(
    model: ModelProto,
    folder: Path | None,
    shapes: Mapping[str, int],
    reference: Shapes,
    stated: int,
    batch: int,
    fuse: Fuse,
) -> _Reader:
    """The graph for `batch` samples, where that of the file is for `stated`."""
    sizes = InputSizes(model.graph, shapes, batch=batch, trace=batch, replace_batch=True)
    reader = _Reader(RebatchedShapes(model, sizes, folder, reference), model.graph, fuse)
    try:
        reader.walk(model.graph)
    except ContradictionError as error:
        raise NetworkError(f"{error}; the file is for a batch of {stated}, got {batch}") from None
    return reader


class _Reader(GraphWalker):
    """Walks a graph in order and turns its nodes into operators."""

    def __init__(self, shapes: Shapes, graph: GraphProto, fuse: Fuse) -> None:
        super().__init__(shapes)
        self.outputs = [value.name for value in graph.output]
        self.draft = Draft(
            shapes,
            frozenset(value.name for value in graph.input),
            frozenset(self.outputs) | frozenset(_read_names(graph)),
            fuse=fuse,
        )
        self.lowering = Lowering(self.draft, self.weight_place)

    def workload(self, name: str, batch: int, *, fold_batch_norm: bool) -> Workload:
        """What was collected."""
        for output in self.outputs:
            if output not in self.values:
                raise NetworkError(f"output {output} of the graph is made by no node")
        return self.draft.workload(name, self.outputs, batch=batch, fold_batch_norm=fold_batch_norm)

    def rename(self, made: str, name: str) -> None:
        super().rename(made, name)
        self.draft.alias(name, made)

    def visit(self, node: NodeProto, standard: NodeProto) -> None:
        for name, stand_in in zip(node.input, standard.input, strict=False):
            if stand_in == f"{name}.transposed":  # the product reads it that way
                self.draft.alias(stand_in, name)
        self.shapes.infer(standard)
        made = [name for name in node.output if name]
        if all(self.values[name].fixed for name in made if name in self.values):
            self._note_uniform(node)
            return
        self._correct_type(node)
        if next(bodies(node), None) is not None:
            raise NetworkError(
                f"{title(node)} ({node.op_type}) runs what the data decide; only an If with a constant "
                "condition can be read"
            )
        if node.op_type in UNMODELLED:
            raise NetworkError(f"{title(node)} ({node.op_type}) has no model of its arithmetic")
        try:
            self._read(node, standard)
        except NetworkError:
            raise
        except ValueError as error:
            raise ContradictionError(f"{title(node)} ({node.op_type}): {error}") from error

    def _note_uniform(self, node: NodeProto) -> None:
        """Note a constant that is filled with one number; a stored one stands for a weight."""
        source = node.input[0] if node.input else ""
        if node.op_type == "ConstantOfShape":
            filled = not self.values[node.output[0]].trained
        elif node.op_type in _SPREADS:
            shape = self.shapes.known(source)
            filled = source in self.draft.uniform or (shape is not None and prod(shape) == 1)
        else:
            filled = False
        if filled:
            self.draft.uniform.add(node.output[0])

    def _read(self, node: NodeProto, standard: NodeProto) -> None:
        if is_attention(node):
            read_attention(self.draft, node)
        elif (reader := READERS.get(standard.op_type)) is not None:
            reader(self.lowering, node, standard)
        elif self._is_view(node):
            self.draft.alias(node.output[0], node.input[0])
        elif self._is_part(node):
            for part in filter(None, node.output):
                self.draft.alias(part, node.input[0])
        elif not self._add_loss(node):
            self._add(node)

    def _correct_type(self, node: NodeProto) -> None:
        """The type of a quantised operator's result, which its stand-in does not tell."""
        kind: int | None = None
        place = ZERO_POINTS.get(node.op_type)
        if node.op_type in ("ConvInteger", "MatMulInteger"):
            kind = TensorProto.INT32
        elif node.op_type in ("DequantizeLinear", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"):
            kind = TensorProto.FLOAT
            if node.op_type == "DequantizeLinear":
                kind = self.values[node.input[1]].type.tensor_type.elem_type
        elif place is not None and place < len(node.input) and node.input[place]:
            kind = self.values[node.input[place]].type.tensor_type.elem_type
        elif node.op_type == "QuantizeLinear":
            kind = attribute(node, "output_dtype", 0) or TensorProto.UINT8
        if kind is not None:
            value = self.values[node.output[0]]
            value.type = tensor_type(kind, shape_of(value.type))

    def _is_view(self, node: NodeProto) -> bool:
        if node.op_type == "Dropout":  # its mask is of no use in evaluation mode
            return not self.draft.used.intersection(node.output[1:])
        if not node.input or not node.input[0] or len(node.output) != 1:
            return False
        source, made = self.values[node.input[0]], self.values[node.output[0]]
        before, after = (self.shapes.known(name) for name in (node.input[0], node.output[0]))
        if node.op_type in ("Cast", "CastLike"):
            return source.type.tensor_type.elem_type == made.type.tensor_type.elem_type
        if before is None or after is None:
            return node.op_type == "Identity"
        steps = self._numbers(node.input[4]) if node.op_type == "Slice" and len(node.input) > 4 else ()
        return is_view(node, before, after, steps=steps)

    def _is_part(self, node: NodeProto) -> bool:
        """Whether a node's results are parts of its operand, which stays where it is as a whole."""
        parts = node.op_type in ("Slice", "Split") and self.draft.fuse != "compiler"
        return parts and not set(self.outputs).intersection(node.output)

    def _numbers(self, name: str) -> tuple[int, ...]:
        """Integers of a constant; one that is not known counts as a zero."""
        data = self.values[name].data if name else None
        return () if not name else (0,) if data is None else tuple(map(int, numpy_helper.to_array(data).flat))

    def _bounds(self, node: NodeProto) -> tuple[float | None, float | None]:
        """Limits of a Clip, which were attributes once."""
        found: list[float | None] = []
        for place, name in enumerate(("min", "max"), start=1):
            limit = attribute(node, name, None)
            if place < len(node.input) and node.input[place]:
                data = self.values[node.input[place]].data
                limit = None if data is None else float(numpy_helper.to_array(data).item())
            found.append(limit)
        return found[0], found[1]

    def _add_loss(self, node: NodeProto) -> bool:
        """A loss, whose second input is labels."""
        if node.op_type not in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"):
            return False
        draft, logits = self.draft, node.input[0]
        call = self._call(node)
        kind = kind_of(call)
        draft.add(
            title(node),
            kind,
            (*draft.read(logits), *draft.read(node.input[1], Role.LABEL)),
            draft.outputs(node),
            vector_ops=operations(call, kind),
        )
        return True

    def _add(self, node: NodeProto) -> None:
        """An operator that is no product."""
        draft, call = self.draft, self._call(node)
        kind = kind_of(call)
        frozen = node.op_type == "BatchNormalization" and not attribute(node, "training_mode", 0)
        inputs: list[str] = []
        for place, name in enumerate(node.input):
            if not name or (self._instructs(node, place) and self.values[draft.root(name)].fixed):
                continue
            of_statistics = frozen and place >= _STATISTICS
            inputs += draft.read(name, Role.CONSTANT if of_statistics else None)
        draft.add(
            title(node),
            kind,
            inputs,
            draft.outputs(node),
            vector_ops=operations(call, kind),
            channels=1 if frozen else None,
        )

    def _instructs(self, node: NodeProto, place: int) -> bool:
        """Whether an input says what to do with the data."""
        if node.op_type == "QLinearConcat":
            return place < 2 or place % 3 != 2
        if node.op_type == "BatchNormalization" and self.draft.fuse != "compiler":
            return False
        return place >= DATA_INPUTS.get(node.op_type, len(node.input))

    def _call(self, node: NodeProto) -> Call:
        first = next(filter(None, node.input), "")
        result = next(filter(None, node.output))
        return Call(
            node=node,
            source=self.shapes.sizes(node, first) if first else (),
            output=self.shapes.sizes(node, result),
            operands=len([name for name in node.input if name]),
            bounds=self._bounds(node) if node.op_type == "Clip" else (None, None),
            constant_source=bool(first) and self.values[first].fixed,
        )


def _read_names(graph: GraphProto) -> Iterator[str]:
    """Names that the nodes of a graph and its subgraphs read."""
    for node in graph.node:
        yield from node.input
        for body in bodies(node):
            yield from (value.name for value in body.output)
            yield from _read_names(body)
