"""PyTorch modules as workloads, by ``torch.export`` on the meta device: shapes only, no arithmetic.

Operators are named after their module (``layer1.0.conv2``), or after what they do where a function
was called (``relu``, ``block.add``); a repeated name gets a number (``relu_1``). A parameter keeps
its name and the result of operator ``conv1`` is ``conv1.output``. A view, a reshape, a flatten and
a dropout in evaluation mode are other names of the same tensor: no operator, no bytes. A ReLU that
alone reads the result of a convolution or a linear layer becomes part of it (``conv2d+relu``).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from typing import TypeAlias

import torch
from torch.fx import Node

from accel.workload import Gemm, Operator, Role, Tensor, Workload
from numerics.formats import BINARY32, FixedFormat

Module: TypeAlias = torch.nn.Module  # so that callers need not import PyTorch for a type
TorchTensor: TypeAlias = torch.Tensor

_LABEL_FORMAT = FixedFormat.parse("int32")

_ALIASES = frozenset(
    {
        "aten.view.default",
        "aten.reshape.default",
        "aten.flatten.using_ints",
        "aten.dropout.default",
        "aten.dropout_.default",
    }
)


def from_torch(module: Module, *inputs: TorchTensor, name: str | None = None) -> Workload:
    """Graph of one inference pass of `module`, in evaluation mode.

    Parameters
    ----------
    module
        Not changed; a copy without data is exported.
    inputs
        Example inputs; only shapes and types count, so they may be on the meta device. The first
        axis of the first one is the batch.
    name
        Of the workload; the module's class by default.

    Raises
    ------
    ValueError
        An operator that is not supported, by name with the supported ones; or one used in a way
        that is not, such as an addition that broadcasts.
    """
    if not inputs:
        raise ValueError("from_torch needs at least one example input")
    twin = copy.deepcopy(module).to("meta").eval()
    on_meta = tuple(tensor.detach().to("meta") for tensor in inputs)
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):  # PyTorch about PyTorch
            warnings.filterwarnings("ignore", category=category, module=r"torch\.")
        program = torch.export.export(twin, on_meta)
    reader = _Reader(program.graph_signature.inputs_to_parameters)
    for node in program.graph.nodes:
        reader.read(node)
    return Workload(
        name=name or type(module).__name__,
        operators=tuple(reader.operators),
        tensors=reader.tensors,
        inputs=tuple(reader.inputs),
        outputs=tuple(dict.fromkeys(reader.outputs)),
        batch=inputs[0].shape[0] if inputs[0].ndim else 1,
    )


class _Reader:
    """Collects operators and tensors while it walks the exported graph in order."""

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self.parameters = parameters  # parameter by the name of its placeholder
        self.operators: list[Operator] = []
        self.tensors: dict[str, Tensor] = {}
        self.inputs: list[str] = []
        self.outputs: list[str] = []
        self._tensor_of: dict[Node, str] = {}
        self._operator_of: dict[Node, int] = {}  # place of the operator that a node became

    def read(self, node: Node) -> None:
        """Take in one node."""
        if node.op == "placeholder":
            if node.users:  # an unused parameter is no part of the work
                self._read_input(node)
        elif node.op == "output":
            self.outputs = [self._name(found) for found in node.all_input_nodes]
        elif node.op != "call_function":
            raise ValueError(f"{node.op} {node.name} in the exported graph is not supported")
        elif str(node.target) in _ALIASES:
            self._tensor_of[node] = self._name(node.all_input_nodes[0])
        elif (reader := _READERS.get(str(node.target))) is not None:
            reader(self, node)
        else:
            known = ", ".join(sorted({_aten(target) for target in (*_READERS, *_ALIASES)}))
            raise ValueError(f"operator {node.target} ({node.name}) is not supported; supported are {known}")

    def _read_input(self, node: Node) -> None:
        parameter = self.parameters.get(node.name)
        if parameter is not None:
            role = Role.WEIGHT
        elif any(_is_label(user, node) for user in node.users):
            role = Role.LABEL
        else:
            role = Role.INPUT
        name = parameter or node.name
        element = _LABEL_FORMAT if role is Role.LABEL else BINARY32
        tensor = Tensor(name=name, shape=_shape(node), role=role, format=element)
        self._declare(tensor)
        self.inputs.append(name)
        self._tensor_of[node] = name

    def read_gemm(self, node: Node) -> None:
        """Convolution or linear layer: ``(x, weight, bias, ...)``, groups in seventh place."""
        kind = _kind(node)
        x, weight = node.all_input_nodes[:2]
        groups = _argument(node, 6, 1) if kind == "conv2d" else 1
        out_channels, per_output = _shape(weight)[0], prod(_shape(weight)[1:])
        elements = prod(_shape(node))
        gemm = Gemm(m=elements // out_channels, n=out_channels // groups, k=per_output, count=groups)
        bias = node.all_input_nodes[2:]
        self._append(node, (x, weight, *bias), gemm=gemm, vector_ops=elements * len(bias))

    def read_relu(self, node: Node) -> None:
        """ReLU, joined to its producer where nothing else reads that result."""
        (source,) = node.all_input_nodes
        place = self._operator_of.get(source)
        if place is not None and self.operators[place].gemm is not None and len(source.users) == 1:
            producer = self.operators[place]
            self.operators[place] = replace(
                producer,
                kind=f"{producer.kind}+relu",
                vector_ops=producer.vector_ops + prod(_shape(node)),
            )
            self._tensor_of[node] = self._name(source)
        else:
            self._append(node, (source,), vector_ops=prod(_shape(node)))

    def read_pool(self, node: Node) -> None:
        """Pooling: one addition or comparison per window element, one less for a maximum."""
        (source,) = node.all_input_nodes
        if str(node.target) == "aten.adaptive_avg_pool2d.default":
            operations = prod(_shape(source))
        else:
            kernel = node.args[1]
            sizes = kernel if isinstance(kernel, list | tuple) else (kernel, kernel)
            window = prod(int(str(size)) for size in sizes) ** (2 // len(sizes))
            operations = prod(_shape(node)) * (window - (_kind(node) == "max_pool2d"))
        self._append(node, (source,), vector_ops=operations)

    def read_elementwise(self, node: Node) -> None:
        """Sum or product of two tensors of one shape."""
        operands = tuple(operand for operand in node.args if isinstance(operand, Node))
        if len(operands) != 2 or len(node.args) != 2 or node.kwargs:
            raise ValueError(f"operator {node.name} must have two tensors and no factor, got {node.args}")
        if _shape(operands[0]) != _shape(operands[1]):
            raise ValueError(
                f"operator {node.name} must not broadcast, got "
                f"{_shape(operands[0])} and {_shape(operands[1])}"
            )
        self._append(node, operands, vector_ops=prod(_shape(node)))

    def read_loss(self, node: Node) -> None:
        """Mean cross-entropy of logits and class labels."""
        if len(node.args) != 2 or node.kwargs:
            raise ValueError(f"{node.name} must be the mean over (logits, labels), got {node.args[2:]}")
        logits, labels = node.all_input_nodes
        if _shape(labels) != _shape(logits)[:1]:
            raise ValueError(f"{node.name} must have one class label per row, got {_shape(labels)}")
        # Per logit: maximum, difference, exponential, sum.
        self._append(node, (logits, labels), vector_ops=4 * prod(_shape(logits)))

    def _append(
        self, node: Node, sources: tuple[Node, ...], *, gemm: Gemm | None = None, vector_ops: int
    ) -> None:
        name = self._operator_name(node)
        output = Tensor(name=f"{name}.output", shape=_shape(node), role=Role.ACTIVATION)
        self._declare(output)
        self._tensor_of[node] = output.name
        self._operator_of[node] = len(self.operators)
        self.operators.append(
            Operator(
                name=name,
                kind=_kind(node),
                inputs=tuple(self._name(source) for source in sources),
                outputs=(output.name,),
                gemm=gemm,
                vector_ops=vector_ops,
            )
        )

    def _operator_name(self, node: Node) -> str:
        path, owner = (list(node.meta.get("nn_module_stack", {}).values()) or [("", "")])[-1]
        built_in = str(owner).startswith("torch.nn.modules.") and ".container." not in str(owner)
        base = path if path and built_in else f"{path}.{_kind(node)}".removeprefix(".")
        taken = {operator.name for operator in self.operators}
        if base not in taken:
            return base
        number = 1
        while f"{base}_{number}" in taken:
            number += 1
        return f"{base}_{number}"

    def _declare(self, tensor: Tensor) -> None:
        if tensor.name in self.tensors:
            raise ValueError(f"two tensors would be called {tensor.name}")
        self.tensors[tensor.name] = tensor

    def _name(self, node: Node) -> str:
        return self._tensor_of[node]


def _shape(node: Node) -> tuple[int, ...]:
    return tuple(int(size) for size in node.meta["val"].shape)


def _aten(target: str) -> str:
    """Name of an ATen function, in place or not: ``relu`` of ``aten.relu_.default``."""
    return target.split(".")[1].rstrip("_")


def _kind(node: Node) -> str:
    """Kind of operator a node becomes."""
    kind = _aten(str(node.target))
    return {"cross_entropy_loss": "cross_entropy", "adaptive_avg_pool2d": "avg_pool2d"}.get(kind, kind)


def _argument(node: Node, place: int, default: int) -> int:
    found = node.args[place] if len(node.args) > place else default
    if not isinstance(found, int):
        raise ValueError(f"argument {place} of {node.name} must be a whole number, got {found!r}")
    return found


def _is_label(user: Node, node: Node) -> bool:
    return _kind(user) == "cross_entropy" and len(user.args) > 1 and user.args[1] is node


_READERS: Mapping[str, Callable[[_Reader, Node], None]] = {
    "aten.conv2d.default": _Reader.read_gemm,
    "aten.conv2d.padding": _Reader.read_gemm,
    "aten.linear.default": _Reader.read_gemm,
    "aten.relu.default": _Reader.read_relu,
    "aten.relu_.default": _Reader.read_relu,
    "aten.max_pool2d.default": _Reader.read_pool,
    "aten.avg_pool2d.default": _Reader.read_pool,
    "aten.adaptive_avg_pool2d.default": _Reader.read_pool,
    "aten.add.Tensor": _Reader.read_elementwise,
    "aten.add_.Tensor": _Reader.read_elementwise,
    "aten.mul.Tensor": _Reader.read_elementwise,
    "aten.cross_entropy_loss.default": _Reader.read_loss,
}
