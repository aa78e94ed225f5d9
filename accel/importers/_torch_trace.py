"""Tracing PyTorch modules with ``torch.export`` on the meta device, and what their graphs say of a node."""

from __future__ import annotations

import copy
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from typing import Any, TypeAlias

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from accel.accumulations import NetworkError, einsum

Module: TypeAlias = torch.nn.Module  # so that callers need not import PyTorch for a type
TorchTensor: TypeAlias = torch.Tensor

LONGEST = 200  # characters of an exception in a message

# Compositions of other operators that are read as these: the products inside them are then seen.
_DECOMPOSED = ("chain_matmul", "inner", "linalg_multi_dot", "tensordot")


def brief(error: BaseException) -> str:
    """Type and first line of an exception."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0] if lines else ""
    shortened = line if len(line) <= LONGEST else f"{line[:LONGEST]}..."
    return f"{type(error).__name__}: {shortened}" if line else type(error).__name__


def without_data(name: str, module: Module) -> Module:
    """Copy on the meta device in which tied weights stay tied, made without copying any data."""
    memo: dict[int, Any] = {}
    for part in module.modules():
        for tensor in (*part._parameters.values(), *part._buffers.values(), *vars(part).values()):
            if isinstance(tensor, torch.nn.Parameter):
                empty = tensor.detach().to("meta")
                memo[id(tensor)] = torch.nn.Parameter(empty, requires_grad=tensor.requires_grad)
            elif isinstance(tensor, torch.Tensor):
                memo[id(tensor)] = tensor.detach().to("meta")
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:  # anything that the user's module raises
        raise NetworkError(f"{name} cannot be copied: {brief(error)}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Neither warnings nor PyTorch's own log: what matters of an error is in the exception.

    A part of PyTorch whose log was asked for by name, as by ``TORCH_LOGS``, keeps its own level. What is
    written to standard error comes out afterwards, unless it ends in an error: then it is the graph so far.
    """
    log = logging.getLogger("torch")
    level = log.level
    log.setLevel(logging.CRITICAL)
    written = StringIO()
    try:
        with warnings.catch_warnings(), redirect_stderr(written):
            warnings.simplefilter("ignore")  # of PyTorch about PyTorch, and of the user's module
            yield
    finally:
        log.setLevel(level)
    if text := written.getvalue():
        sys.stderr.write(text)


def exported(name: str, module: Module, inputs: Sequence[TorchTensor]) -> ExportedProgram:
    """Program of a module on the meta device, as it was written: with views and in-place operators.

    Raises
    ------
    NetworkError
        The module cannot be exported with these inputs.
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it hides its products in one fused operator
    try:
        # What the module makes without naming a device must be where its weights are.
        with quiet(), torch.device("meta"), torch.enable_grad():
            return torch.export.export(module, tuple(inputs), strict=False)
    except Exception as error:  # anything that the exporter or the user's module raises
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
        raise NetworkError(f"{name} cannot be exported for inputs {shapes}: {brief(error)}") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def functional(name: str, program: ExportedProgram) -> ExportedProgram:
    """The same program without in-place operators, and without regions of its own under ``no_grad``.

    Writing in place becomes a new result that later readers read. A reshape becomes a view where one
    is possible and a copy where the layout forces one. Layers stay whole.

    Raises
    ------
    NetworkError
        The program cannot be written so.
    """
    aten = torch.ops.aten
    table: dict[Any, Callable[..., Any]] = {
        operator: _composition(operator) for operator in (getattr(aten, name).default for name in _DECOMPOSED)
    }
    table[aten.einsum.default] = _einsum
    try:
        with quiet():
            decomposed: ExportedProgram = program.run_decompositions(table)
    except Exception as error:  # anything that PyTorch raises
        raise NetworkError(f"{name} cannot be written without in-place operators: {brief(error)}") from error
    return decomposed


def _composition(operator: torch._ops.OpOverload) -> Callable[..., Any]:
    """What a composite operator does, in terms of others."""

    def call(*arguments: Any, **named: Any) -> Any:
        key = torch._C.DispatchKey.CompositeImplicitAutograd
        return operator._op_dk(key, *arguments, **named)

    return call


def _einsum(equation: str, operands: Sequence[TorchTensor], *, path: Any = None) -> Any:
    """Leave an einsum that is one product per index as it is, and write any other in simpler steps."""
    if len(operands) == 2:
        try:
            if einsum("", equation, [tuple(operand.shape) for operand in operands]) is not None:
                return NotImplemented
        except ValueError:  # no matrix product: a sum or a diagonal of one operand alone
            pass
    return _composition(torch.ops.aten.einsum.default)(equation, operands, path=path)


def kind_of(node: Node) -> str:
    """Name of the function that a node calls: ``relu`` of ``aten.relu.default``."""
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target._schema.name.partition("::")[2]
    return getattr(node.target, "__name__", str(node.target))


def arguments_of(node: Node) -> dict[str, Any]:
    """All arguments of an operator by name, with the defaults of those that were left out."""
    assert isinstance(node.target, torch._ops.OpOverload)
    declared = node.target._schema.arguments
    given = dict(zip((argument.name for argument in declared), node.args, strict=False))
    return {
        argument.name: given.get(argument.name, node.kwargs.get(argument.name, argument.default_value))
        for argument in declared
    }


def operands_of(node: Node) -> list[Node]:
    """Tensors that a node reads, in order, one that is read twice twice."""
    found: list[Node] = []
    for argument in node.args:
        several = argument if isinstance(argument, list | tuple) else (argument,)
        found += [part for part in several if isinstance(part, Node)]
    return found


def shape_of(node: Node) -> tuple[int, ...]:
    """Shape of the one result of a node.

    Raises
    ------
    NetworkError
        It depends on the data.
    """
    return fixed_shape(node, node.meta["val"])


def fixed_shape(node: Node, value: TorchTensor) -> tuple[int, ...]:
    """Shape of one result of a node, which must not depend on the data."""
    sizes = value.shape
    if not all(isinstance(size, int) for size in sizes):
        text = ", ".join(map(str, sizes))
        raise NetworkError(f"the shape ({text}) of {node.name} depends on the data: it has no fixed length")
    return tuple(sizes)


def is_view(node: Node) -> bool:
    """Whether a result shares the memory of what it is made of."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    return any(found.alias_info is not None for found in node.target._schema.returns)


def module_of(node: Node) -> tuple[str, str]:
    """Path and class of the innermost module that a node belongs to."""
    path, owner = (list(node.meta.get("nn_module_stack", {}).values()) or [("", "")])[-1]
    return str(path), str(owner)


def is_layer(owner: str) -> bool:
    """Whether a module of this class makes at most one product, which can bear its name."""
    several = (".container.", ".activation.", ".transformer.", ".rnn.")
    return owner.startswith("torch.nn.") and not any(part in owner for part in several)
