"""The operators and tensors of a workload, collected while an ONNX graph is walked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from onnx import NodeProto

from accel.accumulations import NetworkError
from accel.fusion import Fuse, fuse_elementwise
from accel.importers._onnx_formats import element_format, is_index
from accel.importers._onnx_fusion import fused, without_dead
from accel.importers._onnx_shapes import Shapes
from accel.workload import Gemm, Operator, Role, Tensor, Window, Workload
from numerics.formats import Format


class Draft:
    """A workload that grows.

    Parameters
    ----------
    shapes
        Values of the graph that is read.
    inputs
        Names of the graph's inputs.
    used
        Names that something in the graph reads.
    fuse
        What is joined in the end; without a compiler constants of one number are kept, and those of integers
        are constants.
    """

    def __init__(
        self, shapes: Shapes, inputs: frozenset[str], used: frozenset[str], *, fuse: Fuse = "compiler"
    ) -> None:
        self.fuse = fuse
        self.inputs = inputs
        self.shapes = shapes
        self.values = shapes.values
        self.used = used
        self.operators: list[Operator] = []
        self.tensors: dict[str, Tensor] = {}
        self.channels: dict[str, int] = {}
        self.uniform: set[str] = set()  # constants filled with one number
        self.layouts: dict[str, set[tuple[int, ...]]] = {}  # shapes in which a constant is read
        self._alias: dict[str, str] = {}
        self._produced: set[str] = set()
        self._names: set[str] = set()

    def alias(self, name: str, source: str) -> None:
        """`name` is another name of the tensor `source`."""
        self._alias[name] = self.root(source)

    def root(self, name: str) -> str:
        """The tensor of which `name` is a view."""
        return self._alias.get(name, name)

    def read(self, name: str, role: Role | None = None, *, single: bool = False) -> tuple[str, ...]:
        """Name of the tensor that holds a value, as the inputs of an operator.

        Parameters
        ----------
        role
            What the tensor is if it is a graph input or a constant, where its use tells that.
        single
            Keep a constant of one number.

        Returns
        -------
        Nothing for an input that is left out, an empty constant, or a constant of one number: a
        compiler has that in the instruction.
        """
        if not name:
            return ()
        root = self.root(name)
        if root in self._produced:
            return (root,)
        value = self.values[root]
        elem_type = value.type.tensor_type.elem_type
        layout = self.shapes.known(root)
        if value.fixed:
            origin = self.values.get(value.origin)
            # A view or another layout of a constant is that constant, of another type it is another one.
            if origin is not None and origin.type.tensor_type.elem_type == elem_type:
                root, value = value.origin, origin
            index = is_index(elem_type) and self.fuse == "compiler"
            found = Role.WEIGHT if value.trained else Role.INDEX if index else Role.CONSTANT
        else:
            if root not in self.inputs:
                raise NetworkError(f"tensor {root} is read, but the operator that makes it is not modelled")
            found = Role.INDEX if is_index(elem_type) else Role.INPUT
        shape = self.shapes.known(root)
        if shape is None:
            raise NetworkError(f"the shape of tensor {root} is unknown")
        one = max(shape, default=1) == 1 or root in self.uniform
        if value.fixed and (0 in shape or (one and not single and self.fuse == "compiler")):
            return ()
        if layout is not None:
            self.layouts.setdefault(root, set()).add(layout)
        known = self.tensors.get(root)
        if known is None:
            self.tensors[root] = self._tensor(root, shape, role or found, elem_type)
        elif role is not None:
            self.tensors[root] = replace(known, role=role)
        return (root,)

    def constant(self, name: str, element: Format) -> None:
        """Declare a weight that is stored otherwise than its ONNX type says."""
        shape = self.shapes.known(name)
        assert shape is not None  # it was declared with it
        self.tensors[name] = Tensor(name=name, shape=shape, role=Role.WEIGHT, format=element)

    def made(self, name: str, shape: Sequence[int], elem_type: int) -> str:
        """Declare a tensor that the next operator makes, beside those of the graph."""
        self.tensors[name] = self._tensor(name, tuple(shape), Role.ACTIVATION, elem_type)
        self._produced.add(name)
        return name

    def outputs(self, node: NodeProto) -> tuple[str, ...]:
        """Declare the results of a node that something reads."""
        names = [name for name in node.output if name in self.used]
        for name in names:
            shape = self.shapes.sizes(node, name)
            self.made(name, shape, self.values[name].type.tensor_type.elem_type)
        return tuple(names)

    def add(
        self,
        name: str,
        kind: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        gemm: Gemm | None = None,
        window: Window | None = None,
        vector_ops: int = 0,
        channels: int | None = None,
    ) -> None:
        """Append an operator; `channels` is the axis of its result along which it may be scaled."""
        unique, number = name, 0
        while unique in self._names:
            number += 1
            unique = f"{name}_{number}"
        self._names.add(unique)
        if not outputs:
            return  # nothing reads its results
        if channels is not None:
            self.channels[unique] = channels
        self.operators.append(
            Operator(
                name=unique,
                kind=kind,
                inputs=tuple(inputs),
                outputs=tuple(outputs),
                gemm=gemm,
                window=window,
                vector_ops=vector_ops,
            )
        )

    def workload(self, name: str, outputs: Sequence[str], *, batch: int, fold_batch_norm: bool) -> Workload:
        """The finished graph: fused, and without what no output needs.

        Raises
        ------
        NetworkError
            Nothing is computed.
        """
        roots = {self.root(output): output for output in reversed(outputs)}
        roots = {root: roots[root] for root in map(self.root, outputs) if root in self._produced}
        operators = without_dead(self.operators, roots)
        if not operators:
            raise NetworkError(f"{name} computes nothing: no output depends on its inputs")
        if self.fuse == "compiler":
            operators = fused(
                operators,
                self.tensors,
                roots,
                self.channels,
                self.layouts,
                fold_batch_norm=fold_batch_norm,
            )
        operators = [_renamed(operator, roots) for operator in operators]
        made = {output for operator in operators for output in operator.outputs}
        read = dict.fromkeys(source for operator in operators for source in operator.inputs)
        back = {output: root for root, output in roots.items()}
        tensors = {
            named: replace(self.tensors[back.get(named, named)], name=named) for named in (*read, *made)
        }
        found = Workload(
            name=name,
            operators=tuple(operators),
            tensors=tensors,
            inputs=tuple(named for named in read if named not in made),
            outputs=tuple(roots.values()),
            batch=batch,
        )
        return fuse_elementwise(found) if self.fuse == "elementwise" else found

    def _tensor(self, name: str, shape: tuple[int, ...], role: Role, elem_type: int) -> Tensor:
        if any(size < 1 for size in shape):
            raise NetworkError(f"tensor {name} has the shape {shape}, every size must be at least 1")
        return Tensor(name=name, shape=shape, role=role, format=element_format(name, elem_type))


def _renamed(operator: Operator, names: Mapping[str, str]) -> Operator:
    """`operator` with the names by which the graph knows its outputs."""
    inputs = tuple(names.get(name, name) for name in operator.inputs)
    return replace(operator, inputs=inputs, outputs=tuple(names.get(name, name) for name in operator.outputs))
