"""The graph that grows while the nodes of an exported PyTorch program are read in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import getitem
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from accel.accumulations import NetworkError
from accel.importers._torch_trace import (
    TorchTensor,
    arguments_of,
    fixed_shape,
    is_view,
    kind_of,
    module_of,
)
from accel.workload import ElementFormat, Gemm, Operator, Role, Tensor, Window
from numerics.formats import (
    BFLOAT16,
    BINARY16,
    BINARY32,
    E4M3,
    E4M3FNUZ,
    E5M2,
    E5M2FNUZ,
    FixedFormat,
)

_INDEX = FixedFormat.parse("int32")  # wide enough for any index or label
_FORMATS: Mapping[torch.dtype, ElementFormat] = {
    torch.float32: BINARY32,
    torch.complex64: BINARY32,  # with a last axis for the two parts
    torch.float16: BINARY16,
    torch.bfloat16: BFLOAT16,
    torch.float8_e4m3fn: E4M3,
    torch.float8_e5m2: E5M2,
    torch.float8_e4m3fnuz: E4M3FNUZ,
    torch.float8_e5m2fnuz: E5M2FNUZ,
    torch.int64: _INDEX,
    torch.int32: _INDEX,
    torch.int16: FixedFormat.parse("int16"),
    torch.int8: FixedFormat.parse("int8"),
    torch.uint8: FixedFormat.parse("uint8"),
    torch.bool: FixedFormat.parse("uint1"),
}

# Other names of their first operand. Of `_KEEPING` the results are only that if the values are kept
# where they lie: in evaluation mode, in the same type, or without a change of layout.
_ALIASES = frozenset({"_unsafe_view", "lift", "lift_fresh", "lift_fresh_copy", "real_if_close"})
_DROPOUTS = frozenset({"alpha_dropout", "dropout", "feature_alpha_dropout", "feature_dropout"})
_CASTS = frozenset({"_to_copy", "to", "type_as"})

# What makes a tensor of one number, which no operator needs to read from memory.
_UNIFORM = frozenset(
    {
        "empty",
        "empty_like",
        "full",
        "full_like",
        "new_empty",
        "new_full",
        "new_ones",
        "new_zeros",
        "ones",
        "ones_like",
        "scalar_tensor",
        "zeros",
        "zeros_like",
    }
)
_SEVERAL = (".container.", ".transformer.", ".rnn.", ".MultiheadAttention")  # modules of several operators
_LABEL_READERS = frozenset({"cross_entropy_loss", "nll_loss", "nll_loss_nd", "nll_loss2d"})


@dataclass(slots=True)
class Source:
    """One tensor that a node stands for.

    Attributes
    ----------
    name
        In the workload; empty until an operator reads what is no result of one.
    role, wanted, value, node
        Of a graph input or a constant: what it is, the name it should get, and what it is declared
        from when an operator reads it.
    fixed
        It depends on no input.
    constant
        It depends on no parameter either.
    uniform
        All its elements are one number that is known beforehand.
    place
        Of the operator whose result it is, if no other node reads that.
    """

    name: str = ""
    role: Role = Role.ACTIVATION
    wanted: str = ""
    value: TorchTensor | None = None
    node: Node | None = None
    fixed: bool = False
    constant: bool = False
    uniform: bool = False
    place: int | None = None


class TorchGraph:
    """Operators and tensors of a workload, and what each node of the program stands for.

    Parameters
    ----------
    readers
        Function that takes in a node of a kind; `otherwise` for all other kinds.
    fold_batch_norm
        Whether a batch normalisation in evaluation mode becomes part of the convolution before it.
    join_relu
        Whether a ReLU becomes part of the product before it.
    """

    def __init__(
        self,
        program: ExportedProgram,
        readers: Mapping[str, Callable[[TorchGraph, Node], None]],
        otherwise: Callable[[TorchGraph, Node], None],
        *,
        fold_batch_norm: bool,
        join_relu: bool,
    ) -> None:
        self.fold_batch_norm = fold_batch_norm
        self.join_relu = join_relu
        self.operators: list[Operator] = []
        self.tensors: dict[str, Tensor] = {}
        self.outputs: list[str] = []
        self._readers, self._otherwise = readers, otherwise
        self._sources: dict[Node, tuple[Source, ...]] = {}
        self._inputs: list[Source] = []  # in the order of the program
        self._names: set[str] = set()
        signature = program.graph_signature
        self._parameters = dict(signature.inputs_to_parameters)
        self._constants = {**signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
        for node in program.graph.nodes:
            self._read(node)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the graph inputs that something reads, in the order of the program."""
        return tuple(source.name for source in self._inputs if source.name)

    # ------------------------------------------------------------------------------ nodes

    def _read(self, node: Node) -> None:
        if node.op in ("placeholder", "get_attr"):
            self._read_input(node)
        elif node.op == "output":
            self.outputs = [self.tensor(found) for found in node.all_input_nodes if found in self._sources]
        elif node.target is getitem:
            self._read_item(node)
        elif isinstance(node.target, torch._ops.OpOverload):
            if results := results_of(node):
                self._read_operator(node, results)
        elif isinstance(node.target, torch._ops.HigherOrderOperator):
            raise NetworkError(f"operator {node.target} ({node.name}) has a part of the graph of its own")
        elif results_of(node):  # other functions compute sizes
            raise NetworkError(f"function {node.target} ({node.name}) is no operator of PyTorch")

    def _read_input(self, node: Node) -> None:
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            return
        parameter, constant = self._parameters.get(node.name), self._constants.get(node.name)
        constant = constant or (str(node.target) if node.op == "get_attr" else None)
        if parameter is not None:
            role = Role.WEIGHT if value.is_floating_point() or value.is_complex() else Role.CONSTANT
        elif constant is not None:
            role = Role.CONSTANT
        elif self._is_label(node):
            role = Role.LABEL
        else:
            role = Role.INPUT if value.is_floating_point() or value.is_complex() else Role.INDEX
        source = Source(
            role=role,
            wanted=parameter or constant or node.name,
            value=value,
            node=node,
            fixed=parameter is not None or constant is not None,
            constant=role is Role.CONSTANT,
            uniform=role is Role.CONSTANT and value.numel() == 1,
        )
        self._inputs.append(source)
        self._sources[node] = (source,)

    def _is_label(self, node: Node) -> bool:
        """Whether a loss compares with a graph input, or with another shape of it."""
        for user in node.users:
            if kind_of(user) in _LABEL_READERS and user.args[1] is node:
                return True
            if (is_view(user) or kind_of(user) in _ALIASES | _CASTS) and self._is_label(user):
                return True
        return False

    def _read_item(self, node: Node) -> None:
        made, place = node.args
        assert isinstance(made, Node)
        assert isinstance(place, int)
        sources = self._sources.get(made)
        if sources is not None:
            found = sources[0] if len(sources) == 1 else sources[place]
            self._sources[node] = (
                replace(found, place=None) if len(node.users) > 1 and found.name else found,
            )

    def _read_operator(self, node: Node, results: Sequence[TorchTensor]) -> None:
        kind = kind_of(node)
        for value in results:
            _shape(node, value)  # refuses what depends on the data before anything else
        read = [found for found in node.all_input_nodes if found in self._sources]
        if self._is_alias(node, kind, read):
            self._sources[node] = tuple(
                replace(source, place=None) if source.name else source for source in self._sources[read[0]]
            )
        elif kind == "copy":  # what was written in place over a whole tensor
            self._sources[node] = (self._sources[read[-1]][0],)
        elif kind == "broadcast_tensors":
            self._sources[node] = tuple(self._sources[found][0] for found in read)
        elif kind in _UNIFORM or (
            all(source.constant for found in read for source in self._sources[found]) and not _is_random(node)
        ):
            self._sources[node] = self._constant_results(node, kind, read, results)
        else:
            self._readers.get(kind, self._otherwise)(self, node)

    def _is_alias(self, node: Node, kind: str, read: Sequence[Node]) -> bool:
        if not read:
            return False
        before, after = read[0].meta.get("val"), node.meta["val"]
        if is_view(node) or kind in _ALIASES:
            return True
        if kind in _DROPOUTS:
            return arguments_of(node)["train"] is False
        if not isinstance(before, torch.Tensor):
            return False
        if kind in _CASTS:
            return bool(before.dtype == after.dtype)
        return kind in ("clone", "contiguous") and before.is_contiguous()

    def _constant_results(
        self, node: Node, kind: str, read: Sequence[Node], results: Sequence[TorchTensor]
    ) -> tuple[Source, ...]:
        """What can be computed once and for all; declared if an operator reads it."""
        pointwise = isinstance(node.target, torch._ops.OpOverload) and torch.Tag.pointwise in node.target.tags
        uniform = kind in _UNIFORM or (
            pointwise and all(source.uniform for found in read for source in self._sources[found])
        )
        sources = tuple(
            Source(
                role=Role.CONSTANT,
                wanted=node.name,
                value=value,
                node=node,
                fixed=True,
                constant=True,
                uniform=uniform or value.numel() == 1,
            )
            for value in results
        )
        self._inputs.extend(sources)
        return sources

    # ------------------------------------------------------------------------------ what readers use

    def source(self, node: Node) -> Source:
        """What a node stands for, its first result if there are several."""
        return self._sources[node][0]

    def tensor(self, node: Node) -> str:
        """Name of the tensor that a node stands for, which becomes a graph input if it must."""
        source = self.source(node)
        if not source.name:
            assert source.node is not None
            assert source.value is not None
            source.name = self._unique(source.wanted, self.tensors)
            shape, element = _shape(source.node, source.value), _format(source.node, source.value)
            self._declare(source.name, shape, source.role, element)
        return source.name

    def read(self, *nodes: Node | None) -> tuple[str, ...]:
        """Names of the tensors that an operator reads: all but numbers that are known beforehand."""
        return tuple(
            self.tensor(node)
            for node in nodes
            if node is not None and node in self._sources and not self.source(node).uniform
        )

    def is_weight(self, node: Node) -> bool:
        """Whether a node stands for a trained parameter, or for what is made of parameters alone."""
        source = self.source(node)
        return source.fixed and not source.constant

    @staticmethod
    def format_of(node: Node) -> ElementFormat:
        """Format of the first result of a node."""
        return _format(node, results_of(node)[0])

    def append(
        self,
        name: str,
        kind: str,
        inputs: Sequence[str],
        shapes: Sequence[tuple[int, ...]],
        *,
        formats: Sequence[ElementFormat] = (),
        gemm: Gemm | None = None,
        window: Window | None = None,
        vector_ops: int = 0,
    ) -> tuple[str, ...]:
        """Add an operator called `name`, or that and a number, and return the names of its results."""
        taken = self._unique(name, self._names)
        self._names.add(taken)
        outputs = []
        for place, shape in enumerate(map(tuple, shapes)):
            output = self._unique(f"{taken}.output" + (f"_{place}" if place else ""), self.tensors)
            self._declare(output, shape, Role.ACTIVATION, formats[place] if formats else BINARY32)
            outputs.append(output)
        try:
            added = Operator(
                name=taken,
                kind=kind,
                inputs=tuple(inputs),
                outputs=tuple(outputs),
                gemm=gemm,
                window=window,
                vector_ops=vector_ops,
            )
        except ValueError as error:  # more operations than can be counted
            raise NetworkError(str(error)) from None
        self.operators.append(added)
        return tuple(outputs)

    def stand_for(self, node: Node, *names: str) -> None:
        """Let a node stand for these results of the operator added last."""
        place = len(self.operators) - 1 if len(node.users) == 1 else None
        read = [source for found in node.all_input_nodes for source in self._sources.get(found, ())]
        fixed = all(source.fixed for source in read) and not _is_random(node)
        self._sources[node] = tuple(Source(name=name, place=place, fixed=fixed) for name in names)

    def emit(
        self,
        node: Node,
        kind: str,
        inputs: Sequence[str],
        *,
        name: str | None = None,
        gemm: Gemm | None = None,
        window: Window | None = None,
        vector_ops: int = 0,
    ) -> None:
        """Add the one operator that a node stands for, with all results of the node."""
        results = results_of(node)
        if gemm is not None and results[0].is_complex():
            raise NetworkError(f"operator {node.name} is a product of complex numbers, which has no model")
        outputs = self.append(
            name or self.operator_name(node, kind),
            kind,
            inputs,
            [_shape(node, value) for value in results],
            formats=[_format(node, value) for value in results],
            gemm=gemm,
            window=window,
            vector_ops=vector_ops,
        )
        self.stand_for(node, *outputs)

    def join(
        self, node: Node, source: Source, kind: str = "", *, extra: Sequence[str] = (), ops: int
    ) -> None:
        """Let a node become part of the operator that made `source`, whose result nothing else reads."""
        assert source.place is not None
        before = self.operators[source.place]
        self.operators[source.place] = replace(
            before,
            kind=f"{before.kind}+{kind}" if kind else before.kind,
            inputs=(*before.inputs, *extra),
            vector_ops=before.vector_ops + ops,
        )
        alone = len(node.users) == 1
        self._sources[node] = (replace(source, place=source.place if alone else None),)

    def operator_name(self, node: Node, kind: str, weight: Node | None = None) -> str:
        """Path of the layer; else that of its weight; else path of the module and kind."""
        path, owner = module_of(node)
        if path and owner.startswith("torch.nn.") and not any(part in owner for part in _SEVERAL):
            return path
        if weight is not None and self.source(weight).role is Role.WEIGHT:
            origin = self.tensor(weight)
            if "." in origin:
                return origin.removesuffix(".weight")
        return f"{path}.{kind}".removeprefix(".")

    def _declare(self, name: str, shape: tuple[int, ...], role: Role, element: ElementFormat) -> None:
        try:
            self.tensors[name] = Tensor(name=name, shape=shape, role=role, format=element)
        except ValueError as error:  # a size beyond 2**62
            raise NetworkError(str(error)) from None

    @staticmethod
    def _unique(name: str, taken: Any) -> str:
        number, found = 0, name
        while found in taken:
            number += 1
            found = f"{name}_{number}"
        return found


def results_of(node: Node) -> list[TorchTensor]:
    """Tensors that a node makes; of several only those up to the last that is read."""
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor):
        return [value]
    if not isinstance(value, list | tuple):
        return []
    read = [user.args[1] for user in node.users if user.target is getitem]
    last = max((place for place in read if isinstance(place, int)), default=-1)
    return [found for found in value[: last + 1] if isinstance(found, torch.Tensor)]


def gemm_of(node: Node, **sizes: int) -> Gemm:
    """Product of these sizes, or an error that names the node."""
    try:
        return Gemm(**sizes)
    except ValueError as error:
        raise NetworkError(f"operator {node.name}: {error}") from None


def _shape(node: Node, value: TorchTensor) -> tuple[int, ...]:
    sizes = fixed_shape(node, value)
    return (*sizes, 2) if value.is_complex() else sizes


def _format(node: Node, value: TorchTensor) -> ElementFormat:
    try:
        return _FORMATS[value.dtype]
    except KeyError:
        known = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in _FORMATS))
        found = str(value.dtype).removeprefix("torch.")
        raise NetworkError(f"{node.name} must have elements of type {known}, got {found}") from None


def _is_random(node: Node) -> bool:
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in target.tags
