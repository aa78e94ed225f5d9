"""Workloads: a network as a graph of operators and tensors, with shapes, bytes and matrix products.

A graph holds what a chip must do once: an inference pass, or a whole training step (forward,
backward, weight gradient, update). Every tensor has one producer or is a graph input.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING

from numerics.formats import BINARY32, Format

if TYPE_CHECKING:
    import pandas as pd

    from accel.importers.torch_export import Module, TorchTensor


class Role(StrEnum):
    """What a tensor is; formats are assigned by role."""

    INPUT = "input"
    LABEL = "label"
    ACTIVATION = "activation"
    WEIGHT = "weight"
    ERROR = "error"
    WEIGHT_GRADIENT = "weight_gradient"
    OPTIMIZER_STATE = "optimizer_state"


class Phase(StrEnum):
    """Part of a training step an operator belongs to; inference has only the first."""

    FORWARD = "forward"
    BACKWARD = "backward"
    GRADIENT = "gradient"
    UPDATE = "update"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A dense tensor, stored without padding.

    Attributes
    ----------
    name
        Unique in its workload.
    shape
        Sizes in elements; ``()`` is a scalar, a size of 0 makes an empty tensor.
    role, format
        What it is, and the format of one element.
    """

    name: str
    shape: tuple[int, ...]
    role: Role
    format: Format = BINARY32

    def __post_init__(self) -> None:
        if any(size < 0 for size in self.shape):
            raise ValueError(f"tensor {self.name}: sizes must not be negative, got {self.shape}")

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Packed bytes, rounded up to a whole byte."""
        return -(-self.elements * self.format.bits // 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemm:
    """``count`` independent products ``O[m, n] += A[m, k] W[k, n]``; `k` is the accumulation length.

    A convolution is lowered: forward has m = batch x output pixels, k = window x input channels per
    group, n = output channels per group, count = groups.
    """

    m: int
    n: int
    k: int
    count: int = 1

    def __post_init__(self) -> None:
        for name in ("m", "n", "k", "count"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.m * self.n * self.k * self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How the window of a convolution slides over operand A, one entry per spatial axis, outermost first.

    It tells what its lowered product cannot: neighbouring outputs share inputs, so a tile of outputs
    needs fewer elements of A than the product has rows and columns.

    Attributes
    ----------
    batch, channels
        Samples, and input channels per group.
    input, output
        Sizes before (without padding) and after.
    kernel, stride, dilation, padding
        Of the window; padding is that before the first element.

    Raises
    ------
    ValueError
        A size is below 1, a padding below 0, or the entries differ in number.
    """

    batch: int
    channels: int
    input: tuple[int, ...]
    output: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]

    def __post_init__(self) -> None:
        axes = len(self.output)
        for name in ("batch", "channels"):
            if (size := getattr(self, name)) < 1:
                raise ValueError(f"{name} of a window must be at least 1, got {size}")
        for name in ("input", "output", "kernel", "stride", "dilation", "padding"):
            sizes = getattr(self, name)
            if len(sizes) != axes or not sizes:
                raise ValueError(f"{name} of a window must have {axes} entries, got {sizes}")
            if min(sizes) < (name != "padding"):
                raise ValueError(f"{name} of a window must be at least {int(name != 'padding')}, got {sizes}")

    @property
    def m(self) -> int:
        """Rows of the lowered product: samples times output positions."""
        return self.batch * prod(self.output)

    @property
    def k(self) -> int:
        """Accumulation length of the lowered product: input channels per group times window."""
        return self.channels * prod(self.kernel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One step of a workload.

    Attributes
    ----------
    inputs, outputs
        Names of the tensors it reads and writes. For an operator with a matrix product the first
        two inputs are its operands A and W.
    gemm
        Its matrix product, or ``None`` for an element-wise operator, a pooling, a loss, an update.
    window
        Of a convolution whose `gemm` it lowers: ``gemm.m == window.m`` and ``gemm.k == window.k``.
    vector_ops
        Arithmetic operations outside the matrix product, done on the vector unit.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    phase: Phase = Phase.FORWARD
    gemm: Gemm | None = None
    window: Window | None = None
    vector_ops: int = 0

    def __post_init__(self) -> None:
        if self.window is None:
            return
        if self.gemm is None or (self.gemm.m, self.gemm.k) != (self.window.m, self.window.k):
            raise ValueError(
                f"operator {self.name}: a window of m {self.window.m} and k {self.window.k} needs a matrix "
                f"product of that m and k, got {self.gemm}"
            )

    @property
    def macs(self) -> int:
        """Multiply-accumulates of its matrix product."""
        return self.gemm.macs if self.gemm else 0


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A directed acyclic graph of operators, listed in an order in which they can run.

    Attributes
    ----------
    operators
        In file order, which is a topological order.
    tensors
        By name.
    inputs, outputs
        Names of the graph's inputs (data, parameters, optimizer state) and outputs.

    Raises
    ------
    ValueError
        A tensor is unknown, has two producers, or is read before it is produced.
    """

    name: str
    operators: tuple[Operator, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    batch: int = field(default=1)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))
        available = set(self.inputs)
        for name in (*self.inputs, *self.outputs):
            self._known(name, "the graph")
        for operator in self.operators:
            for name in operator.inputs:
                self._known(name, operator.name)
                if name not in available:
                    raise ValueError(
                        f"operator {operator.name} reads {name} before anything produces it "
                        f"(a cycle, or an order that cannot run)"
                    )
            for name in operator.outputs:
                self._known(name, operator.name)
                if name in available:
                    raise ValueError(f"tensor {name} has two producers, the second is {operator.name}")
                available.add(name)
        if missing := [name for name in self.outputs if name not in available]:
            raise ValueError(f"graph output {missing[0]} has no producer")

    def _known(self, name: str, user: str) -> None:
        if name not in self.tensors:
            raise ValueError(f"{user} uses tensor {name!r}, which is not declared")

    @cached_property
    def producer(self) -> Mapping[str, Operator]:
        """Producer by tensor name; graph inputs are absent."""
        return {name: operator for operator in self.operators for name in operator.outputs}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Operator, ...]]:
        """Operators that read a tensor, in file order; one that reads it twice counts once."""
        readers: dict[str, list[Operator]] = {name: [] for name in self.tensors}
        for operator in self.operators:
            for name in dict.fromkeys(operator.inputs):
                readers[name].append(operator)
        return {name: tuple(found) for name, found in readers.items()}

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all matrix products."""
        return sum(operator.gemm.macs for operator in self.operators if operator.gemm)

    def gemms(self) -> tuple[Operator, ...]:
        """Operators that are matrix products, in file order."""
        return tuple(operator for operator in self.operators if operator.gemm)

    def with_formats(self, formats: Mapping[Role, Format]) -> Workload:
        """Copy in which the tensors of each role named have that element format."""
        tensors: Iterable[Tensor] = (
            replace(tensor, format=formats.get(tensor.role, tensor.format))
            for tensor in self.tensors.values()
        )
        return replace(self, tensors={tensor.name: tensor for tensor in tensors})

    @classmethod
    def from_torch(cls, module: Module, *inputs: TorchTensor) -> Workload:
        """Graph of one inference pass of a PyTorch module, see ``accel.importers.torch_export``."""
        from accel.importers.torch_export import from_torch

        return from_torch(module, *inputs)

    def training(self) -> Workload:
        """Graph of a whole training step of this forward graph, see ``accel.training``."""
        from accel.training import training_step

        return training_step(self)

    def table(self) -> pd.DataFrame:
        """One row per operator: phase, matrix product, multiply-accumulates, bytes."""
        from accel.tables import workload_table

        return workload_table(self)
