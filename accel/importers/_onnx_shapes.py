"""Shapes of an ONNX graph, node by node, with what a training step must know of each tensor.

The rules are those of the ``onnx`` package. Integers from which shapes are computed are evaluated on
the way by its reference implementation, for its own data propagation knows few operators.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import onnx
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    helper,
    numpy_helper,
)
from onnx.shape_inference import InferenceError, infer_node_outputs

from accel.accumulations import NetworkError
from accel.importers._onnx_file import with_data
from accel.importers._onnx_inputs import InputSizes, how_to_give
from accel.importers._onnx_protos import (
    STANDARD_DOMAINS,
    attribute,
    bodies,
    first_line,
    known_shape,
    shape_of,
    tensor_type,
    title,
)

_MAX_INTEGERS = 4096  # a larger constant computes no shape
_MAX_FLOATS = 16  # floats compute shapes as the scales of a Resize
_SHAPE_INTEGERS = frozenset({TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL})
_UNTRAINED = _SHAPE_INTEGERS | {TensorProto.STRING}

# Another name, type or layout of the same constant: its gradient is that of the constant.
_SAME_WEIGHT = frozenset(
    {"Cast", "CastLike", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)
_SCALED = frozenset({"Resize", "Upsample"})  # by numbers that are no parameters
_RANDOM = frozenset({"Bernoulli", "Multinomial", "RandomNormal", "RandomUniform"})


class ContradictionError(NetworkError):
    """Shapes that do not fit each other."""


@dataclass(slots=True)
class Value:
    """What is known of a tensor.

    Attributes
    ----------
    fixed
        It does not depend on the graph's inputs.
    trained
        It is a parameter, or depends on one, so that errors flow back to it.
    origin
        Of a fixed one: the constant of which it is another layout.
    data
        Its value, where a shape may be computed from it.
    cause
        Where its shape is unknown: the tensor with which that began, and the node that made this.
    """

    type: TypeProto
    fixed: bool = False
    trained: bool = False
    origin: str = ""
    data: TensorProto | None = None
    cause: tuple[str, str] | None = None


class Shapes:
    """The values of a graph, which grow as its nodes are inferred in order."""

    def __init__(self, model: ModelProto, sizes: InputSizes, folder: Path | None) -> None:
        self.values: dict[str, Value] = {}
        self._sizes = sizes
        self._folder = folder
        self._opsets = list(model.opset_import)
        self._versions = {opset.domain: opset.version for opset in model.opset_import}
        self._declared: dict[str, TypeProto] = {}
        self._stored: set[str] = set()  # constants that stand in the graph

    def enter(self, graph: GraphProto) -> None:
        """Take in the inputs and constants of a graph, or of a branch that is read in its place."""
        self._declared |= {value.name: value.type for value in (*graph.value_info, *graph.output)}
        for value in graph.input:
            self.values[value.name] = Value(self._sizes.types.get(value.name, value.type))
        for tensor in graph.initializer:
            self.values[tensor.name] = self._constant(tensor.name, tensor)
        for sparse in graph.sparse_initializer:
            self.add_weight(sparse.values.name, sparse.values.name, tuple(sparse.dims))

    def add_weight(self, name: str, origin: str, shape: tuple[int, ...]) -> None:
        """Declare a weight that is no plain constant of the graph."""
        self.values[name] = Value(
            tensor_type(TensorProto.FLOAT, shape), fixed=True, trained=True, origin=origin
        )

    def transposed(self, name: str) -> str:
        """Declare the transpose of a tensor, of its last two axes, and return its name."""
        value, made = self.values[name], f"{name}.transposed"
        shape = shape_of(value.type)
        swapped = shape if shape is None else (*shape[:-2], *shape[-2:][::-1])
        self.values[made] = replace(value, type=tensor_type(TensorProto.FLOAT, swapped), data=None)
        return made

    def known(self, name: str) -> tuple[int, ...] | None:
        """Shape of a tensor, if there is one of that name and all of its sizes are known."""
        value = self.values.get(name)
        return None if value is None else known_shape(value.type)

    def sizes(self, node: NodeProto, name: str) -> tuple[int, ...]:
        """Shape of a tensor that a node needs."""
        if (shape := self.known(name)) is not None:
            return shape
        value = self.values[name]
        tensor, maker = value.cause or (name, title(node))
        partly = shape_of(self.values[tensor].type)
        if partly is None:
            what, keys = "an unknown shape", [f"{tensor}[0]", f"{tensor}[1]"]
        else:
            what = f"the shape ({', '.join('?' if size is None else str(size) for size in partly)})"
            keys = [f"{tensor}[{axis}]" for axis, size in enumerate(partly) if size is None]
        raise NetworkError(
            f"{title(node)} ({node.op_type}) needs the shape of {name}, but {maker} gives {tensor} {what}; "
            f"{how_to_give(keys)}{'' if partly else ' and so on for all axes'}"
        )

    def version(self, domain: str) -> int:
        """Version of an operator set that the model asks for."""
        known = self._versions.get(domain, self._versions.get("ai.onnx") if not domain else 1)
        return int(onnx.defs.onnx_opset_version() if known is None else known)

    def infer(self, node: NodeProto) -> bool:
        """Make the values of a node's outputs; whether the operator is known."""
        inputs = [self.values[name] for name in node.input if name]
        types = self._inferred(node, inputs)
        # A body may read whatever stands outside of it.
        has_body = next(bodies(node), None) is not None
        fixed = all(value.fixed for value in inputs) and node.op_type not in _RANDOM and not has_body
        for name in filter(None, node.output):
            value = Value(
                self._completed(name, (types or {}).get(name)),
                fixed=fixed or node.op_type in ("Shape", "Size"),
            )
            if known_shape(value.type) is None:
                value.cause = next((v.cause for v in inputs if v.cause is not None), (name, title(node)))
            if value.type.tensor_type.elem_type not in _UNTRAINED:
                operands = inputs[:1] if node.op_type in _SCALED else inputs
                value.trained = has_body or any(found.trained for found in operands)
            if value.fixed:
                value.origin = inputs[0].origin if node.op_type in _SAME_WEIGHT and inputs else name
            self.values[name] = value
        if node.op_type == "Constant":
            self._read_constant(node)
        elif node.op_type == "ConstantOfShape":
            # So the light graphs of the onnx package write weights; a computed shape makes a mask.
            made, shape_name = self.values[node.output[0]], node.input[0]
            made.trained = shape_name in self._stored and _is_parameter(made.type)
        self._fold(node, inputs)
        return types is not None

    def _constant(self, name: str, tensor: TensorProto) -> Value:
        found = tensor_type(tensor.data_type, list(tensor.dims))
        self._stored.add(name)
        small = prod(tensor.dims) <= _most(tensor.data_type)
        return Value(
            found,
            fixed=True,
            trained=_is_parameter(found),
            origin=name,
            data=with_data(tensor, self._folder) if small else None,
        )

    def _read_constant(self, node: NodeProto) -> None:
        """The value of a Constant, in whichever attribute it stands."""
        name = node.output[0]
        for found in node.attribute:
            tensor: TensorProto | None = None
            if found.HasField("t"):
                tensor = found.t
            elif found.name in ("value_int", "value_float"):
                kind = TensorProto.INT64 if found.name == "value_int" else TensorProto.FLOAT
                tensor = helper.make_tensor("", kind, [], [helper.get_attribute_value(found)])
            elif found.name in ("value_ints", "value_floats"):
                kind = TensorProto.INT64 if found.name == "value_ints" else TensorProto.FLOAT
                numbers = list(helper.get_attribute_value(found))
                tensor = helper.make_tensor("", kind, [len(numbers)], numbers)
            if tensor is not None:
                self.values[name] = self._constant(name, tensor)

    def _inferred(self, node: NodeProto, inputs: list[Value]) -> Mapping[str, TypeProto] | None:
        """Types of the outputs by the rules of ``onnx``; ``None`` for an operator that it lacks."""
        if node.op_type == "Identity":  # also stands for operators with more outputs
            return dict.fromkeys(node.output, inputs[0].type)
        domain = "" if node.domain in STANDARD_DOMAINS else node.domain
        try:
            schema = onnx.defs.get_schema(node.op_type, self.version(domain), domain)
        except onnx.defs.SchemaError:
            return None
        names = self.values if next(bodies(node), None) else filter(None, node.input)
        types = {name: self.values[name].type for name in names}
        try:
            try:
                made = self._applied(schema, node, types)
            except onnx.checker.ValidationError:
                # A quantised operator's stand-in takes no integers; they have the same shapes.
                made = self._applied(schema, node, {name: _as_float(found) for name, found in types.items()})
        except (InferenceError, RuntimeError, onnx.checker.ValidationError) as error:
            if any(value.cause is not None for value in inputs):
                return {}  # perhaps it lacks only what is unknown already
            raise ContradictionError(f"{title(node)} ({node.op_type}): {first_line(error)}") from error
        if node.op_type == "Reshape":
            before, after = known_shape(inputs[0].type), known_shape(made[node.output[0]])
            if before is not None and after is not None and prod(before) != prod(after):
                raise ContradictionError(f"{title(node)} (Reshape): {before} does not fit {after}")
        return made

    def _applied(
        self, schema: Any, node: NodeProto, types: Mapping[str, TypeProto]
    ) -> Mapping[str, TypeProto]:
        data = {name: d for name in node.input if name and (d := self.values[name].data) is not None}
        made: Mapping[str, TypeProto] = infer_node_outputs(
            schema, node, dict(types), data, opset_imports=self._opsets
        )
        return made

    def _completed(self, name: str, inferred: TypeProto | None) -> TypeProto:
        """Inferred type, with what the caller gave or the file declares where that is unknown."""
        found = tensor_type(TensorProto.FLOAT, None) if inferred is None else inferred
        given, shape = self._sizes.given(name), shape_of(found)
        if not found.HasField("tensor_type") or (not given and known_shape(found) is not None):
            return found
        declared = self._declared.get(name, found)
        stated = shape_of(self._sizes.resolved(name, declared))
        if shape is None:
            shape = stated
        elif stated is not None and len(stated) == len(shape):
            shape = tuple(b if a is None else a for a, b in zip(shape, stated, strict=True))
        for axis, size in given.items():
            if shape is None or axis >= len(shape):
                raise NetworkError(f"{name}[{axis}] was given, but not all axes of {name} up to its last")
            if shape[axis] != size:
                raise NetworkError(f"{name}[{axis}] was given as {size}, but the shape is {shape}")
        element = declared.tensor_type.elem_type if inferred is None else found.tensor_type.elem_type
        return tensor_type(element or TensorProto.FLOAT, shape)

    def _fold(self, node: NodeProto, inputs: list[Value]) -> None:
        """Evaluate what later shapes may be computed from."""
        if len(node.output) != 1 or node.domain not in STANDARD_DOMAINS or node.op_type in _RANDOM:
            return
        value = self.values[node.output[0]]
        shape = known_shape(value.type)
        if value.data is not None or shape is None or prod(shape) > _most(value.type.tensor_type.elem_type):
            return
        if node.op_type in ("Shape", "Size"):
            if (known := known_shape(inputs[0].type)) is None:
                return
            start, end = attribute(node, "start", None), attribute(node, "end", None)
            numbers = list(known[start:end]) if node.op_type == "Shape" else [prod(known)]
            value.data = helper.make_tensor("", TensorProto.INT64, shape, numbers)
        elif inputs and all(v.data is not None for v in inputs) and next(bodies(node), None) is None:
            feeds = {
                name: numpy_helper.to_array(data)
                for name in node.input
                if name and (data := self.values[name].data) is not None
            }
            value.data = self._evaluated(node, feeds)

    def _evaluated(self, node: NodeProto, feeds: dict[str, Any]) -> TensorProto | None:
        """Output of a node, or ``None`` if that cannot be computed; a product that needs it says so."""
        from onnx.reference import ReferenceEvaluator

        function = helper.make_function(
            "bitfront", "fold", list(feeds), list(node.output), [node], opset_imports=self._opsets
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of NumPy, about values that nobody may need
                outputs: Any = ReferenceEvaluator(function).run(None, feeds, {})
            return numpy_helper.from_array(outputs[0])
        except Exception:  # whatever the implementation of some operator raises
            return None


def _as_float(found: TypeProto) -> TypeProto:
    if not found.HasField("tensor_type"):
        return found
    return tensor_type(TensorProto.FLOAT, shape_of(found))


def _most(elem_type: int) -> int:
    return _MAX_INTEGERS if elem_type in _SHAPE_INTEGERS else _MAX_FLOATS


def _is_parameter(found: TypeProto) -> bool:
    """Whether a constant of this type is taken to be trained."""
    return found.tensor_type.elem_type not in _UNTRAINED and prod(known_shape(found) or ()) > 1
