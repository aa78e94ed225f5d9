"""Workloads: a network as a graph of operators and tensors, with shapes, bytes and matrix products.

A graph holds what a chip must do once: an inference pass, or a whole training step (forward,
backward, weight gradient, update). Every tensor has one producer or is a graph input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from accel._cycles import why_too_late
from accel._given import whole, wholes, word
from numerics.block import BlockFormat, parse_any_format
from numerics.formats import BINARY32, Format

if TYPE_CHECKING:
    import pandas as pd

    from accel.fusion import Fuse
    from accel.importers.torch_export import Module, TorchTensor

#: How the elements of a tensor are stored: each on its own, or blocks that share a scale.
ElementFormat: TypeAlias = Format | BlockFormat


class Role(StrEnum):
    """What a tensor is; formats are assigned by role.

    INPUT is data with a derivative, INDEX whole numbers that pick rows (token ids), LABEL what a
    loss compares with, WEIGHT every trained parameter, CONSTANT what is neither data nor trained
    (a buffer, a mask, running statistics). WEIGHT_GRADIENT is the gradient of a parameter or of what
    is computed from parameters alone, ERROR that of anything else.
    """

    INPUT = "input"
    INDEX = "index"
    LABEL = "label"
    ACTIVATION = "activation"
    WEIGHT = "weight"
    CONSTANT = "constant"
    ERROR = "error"
    WEIGHT_GRADIENT = "weight_gradient"
    OPTIMIZER_STATE = "optimizer_state"

    @property
    def holds_integers(self) -> bool:
        """Whether its elements are whole numbers that no policy of formats touches."""
        return self in (Role.INDEX, Role.LABEL)

    @property
    def is_parameter(self) -> bool:
        """Whether its size depends on the network alone, not on the batch."""
        return self in (Role.WEIGHT, Role.CONSTANT, Role.WEIGHT_GRADIENT, Role.OPTIMIZER_STATE)


#: One format for all tensors; by role or name; or a function of the tensor (``None`` keeps its own).
Formats: TypeAlias = (
    ElementFormat | str | Mapping[Any, ElementFormat | str] | Callable[["Tensor"], ElementFormat | str | None]
)


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
        What it is, and the format of its elements; texts are parsed.

    Raises
    ------
    TypeError
        A size is no whole number.
    ValueError
        A size is negative or 2**62 or more, or a text names no role or no format.

    Examples
    --------
    >>> Tensor(name="x", shape=(2, 3), role="input", format="int8").bytes
    6
    """

    name: str
    shape: tuple[int, ...]
    role: Role
    format: ElementFormat = BINARY32

    def __post_init__(self) -> None:
        shape = wholes(f"the shape of tensor {self.name}", self.shape, least=0)
        role = word(f"role of tensor {self.name}", Role, self.role)
        try:
            parsed = parse_any_format(self.format)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"tensor {self.name}: {error}") from None
        for name, value in (("shape", shape), ("role", role), ("format", parsed)):
            object.__setattr__(self, name, value)

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def bits(self) -> int:
        """Packed bits. Blocks run along the last axis, and a shorter last block has a scale as well.

        The float32 scale that formats such as NVFP4 have per tensor is not counted.
        """
        if not isinstance(self.format, BlockFormat):
            return self.elements * self.format.bits
        scales = prod(self.format.blocks_in(self.shape or (1,)))
        return self.elements * self.format.element.bits + scales * self.format.scale_bits

    @property
    def bytes(self) -> int:
        """Packed bytes, rounded up to a whole byte."""
        return -(-self.bits // 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemm:
    """``count`` independent products ``O[m, n] += A[m, k] W[k, n]``; `k` is the accumulation length.

    A convolution is lowered: forward has m = batch x output pixels, k = window x input channels per
    group, n = output channels per group, count = groups.

    Raises
    ------
    TypeError
        A size is no whole number.
    ValueError
        A size is below 1, or 2**62 or more.
    """

    m: int
    n: int
    k: int
    count: int = 1

    def __post_init__(self) -> None:
        for name in ("m", "n", "k", "count"):
            object.__setattr__(self, name, whole(name, getattr(self, name)))

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
    TypeError
        A size is no whole number.
    ValueError
        A size is below 1, a padding below 0, one of them 2**62 or more, or the entries differ in number.
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
        for name in ("batch", "channels"):
            object.__setattr__(self, name, whole(f"{name} of a window", getattr(self, name)))
        for name in ("output", "input", "kernel", "stride", "dilation", "padding"):
            sizes = wholes(f"{name} of a window", getattr(self, name), least=int(name != "padding"))
            object.__setattr__(self, name, sizes)
            if len(sizes) != (axes := len(self.output)) or not sizes:
                raise ValueError(f"{name} of a window must have {axes or 'at least 1'} entries, got {sizes}")

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
    in_place
        Whether its one output may take the place in memory of an input that nothing reads afterwards.

    Raises
    ------
    TypeError
        `vector_ops` is no whole number.
    ValueError
        A matrix product has fewer than two inputs or no output, a window is not that of the product,
        a text names no phase, `vector_ops` is negative or 2**62 or more, or an operator in place has no
        input or not one output.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    phase: Phase = Phase.FORWARD
    gemm: Gemm | None = None
    window: Window | None = None
    vector_ops: int = 0
    in_place: bool = False

    def __post_init__(self) -> None:
        phase = word(f"phase of operator {self.name}", Phase, self.phase)
        object.__setattr__(self, "phase", phase)
        operations = whole(f"vector_ops of operator {self.name}", self.vector_ops, least=0)
        object.__setattr__(self, "vector_ops", operations)
        if self.gemm is not None and (len(self.inputs) < 2 or not self.outputs):
            raise ValueError(
                f"operator {self.name}: a matrix product needs its operands A and W as inputs and an output, "
                f"got inputs {tuple(self.inputs)} and outputs {tuple(self.outputs)}"
            )
        if self.in_place and (not self.inputs or len(self.outputs) != 1):
            raise ValueError(
                f"operator {self.name}: in place it must have an input and one output, "
                f"got inputs {tuple(self.inputs)} and outputs {tuple(self.outputs)}"
            )
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


@dataclass(frozen=True, kw_only=True, repr=False)
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
    TypeError
        The batch is no whole number.
    ValueError
        The batch is below 1, or a tensor is unknown, has two producers, or is read before it is produced, of
        which the message tells whether the operators form a cycle.

    Examples
    --------
    >>> Workload.named("resnet8")
    Workload(resnet8: 17 operators, 10 products, 77,706 parameters, 12.5 M MACs, batch 1)
    """

    name: str
    operators: tuple[Operator, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    batch: int = field(default=1)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))
        object.__setattr__(self, "batch", whole("batch", self.batch))
        available = set(self.inputs)
        for name in (*self.inputs, *self.outputs):
            self._known(name, "the graph")
        maker: dict[str, int] = {}
        for place, operator in enumerate(self.operators):
            for name in operator.outputs:
                self._known(name, operator.name)
                if name in available or name in maker:
                    first = "the graph's inputs" if name in available else self.operators[maker[name]].name
                    raise ValueError(f"tensor {name} has two producers, {first} and {operator.name}")
                maker[name] = place
        for place, operator in enumerate(self.operators):
            for name in operator.inputs:
                self._known(name, operator.name)
                if name not in available and maker.get(name, place) >= place:
                    names = [found.name for found in self.operators]
                    reads = [found.inputs for found in self.operators]
                    raise ValueError(why_too_late(names, reads, maker, place, name))
        available.update(maker)
        if missing := [name for name in self.outputs if name not in available]:
            raise ValueError(f"graph output {missing[0]} has no producer")

    def __repr__(self) -> str:
        counts = (
            (len(self.operators), "operator"),
            (len(self.gemms()), "product"),
            (self.parameters, "parameter"),
        )
        numbers = ", ".join(f"{number:,} {word}{'s' * (number != 1)}" for number, word in counts)
        return f"Workload({self.name}: {numbers}, {_short(self.macs)} MACs, batch {self.batch})"

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

    @property
    def parameters(self) -> int:
        """Elements of all trained parameters that the graph reads."""
        return sum(tensor.elements for tensor in self._parameters)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all trained parameters that the graph reads."""
        return sum(tensor.bytes for tensor in self._parameters)

    @property
    def activation_bytes(self) -> int:
        """Bytes of all activations, as if each had a place of its own."""
        return sum(tensor.bytes for tensor in self.tensors.values() if tensor.role is Role.ACTIVATION)

    @property
    def _parameters(self) -> tuple[Tensor, ...]:
        found = (self.tensors[name] for name in dict.fromkeys(self.inputs))
        return tuple(tensor for tensor in found if tensor.role is Role.WEIGHT)

    def with_formats(self, formats: Formats) -> Workload:
        """Copy whose tensors have other element formats, and so other bytes.

        Parameters
        ----------
        formats
            A format or its text for every tensor; or a mapping to formats from roles (or their
            texts), names of tensors, or patterns of names such as ``layer1.*``; or a function that
            returns the format of a tensor, ``None`` for its own. A name counts before a pattern, the
            first pattern that matches before later ones, and a pattern before a role; a text that is
            both a role and a name is the role. Labels and indices keep their format under a format
            for all and under patterns.

        Raises
        ------
        ValueError
            A key is no role and fits no tensor, or a text is no format.
        """
        from accel._format_choice import format_chooser

        choose = format_chooser(formats, self.tensors)
        tensors = {}
        for name, tensor in self.tensors.items():
            found = choose(tensor)
            tensors[name] = tensor if found is None else replace(tensor, format=parse_any_format(found))
        return replace(self, tensors=tensors)

    def with_batch(self, batch: int) -> Workload:
        """Copy of the same graph for another number of samples, see ``accel.rescaling``."""
        from accel.rescaling import rescaled

        return rescaled(self, batch)

    def fused(self) -> Workload:
        """Copy with element-wise operators joined to what makes their operands, see ``accel.fusion``."""
        from accel.fusion import fuse_elementwise

        return fuse_elementwise(self)

    def folded(self) -> Workload:
        """Copy whose operators that read parameters alone are done beforehand, see ``accel.folding``."""
        from accel.folding import fold_parameters

        return fold_parameters(self)

    def training(self, batch: int | None = None) -> Workload:
        """Graph of a whole training step of this forward graph, see ``accel.training``.

        `batch` rescales the forward graph first.
        """
        from accel.training import training_step

        return training_step(self if batch is None else self.with_batch(batch))

    def table(self) -> pd.DataFrame:
        """One row per operator: phase, matrix product, multiply-accumulates, bytes, formats."""
        from accel.workload_table import workload_table

        return workload_table(self)

    def to_json(self, path: str | Path | None = None) -> str:
        """Graph as JSON, written to `path` if there is one, see ``accel.importers.json_graph``."""
        from accel.importers.json_graph import to_json

        return to_json(self, path)

    @classmethod
    def from_json(cls, path: str | Path) -> Workload:
        """Graph in a JSON file, see ``accel.importers.json_graph``."""
        from accel.importers.json_graph import from_json

        return from_json(path)

    @classmethod
    def from_toml(cls, path: str | Path) -> Workload:
        """List of matrix products and convolutions, see ``accel.importers.gemm_list``."""
        from accel.importers.gemm_list import from_toml

        return from_toml(path)

    @classmethod
    def from_onnx(cls, path: str | Path, **options: Any) -> Workload:
        """Graph of an ONNX file, see ``accel.importers.onnx_graph``."""
        from accel.importers.onnx_graph import from_onnx

        return from_onnx(path, **options)

    @classmethod
    def from_torch(
        cls,
        module: Module,
        *inputs: TorchTensor,
        name: str | None = None,
        fold_batch_norm: bool = True,
        fold_parameters: bool = True,
        fuse: Fuse = "compiler",
    ) -> Workload:
        """Graph of one inference pass of a PyTorch module, see ``accel.importers.torch_export``."""
        from accel.importers.torch_export import from_torch

        return from_torch(
            module,
            *inputs,
            name=name,
            fold_batch_norm=fold_batch_norm,
            fold_parameters=fold_parameters,
            fuse=fuse,
        )

    @classmethod
    def named(cls, name: str, **options: Any) -> Workload:
        """Graph of a well-known network, see ``accel.networks``."""
        from accel.networks import named_workload

        return named_workload(name, **options)


def _short(number: int) -> str:
    """Three digits of a number and its prefix: ``12.5 M``."""
    scaled, prefixes = float(f"{number:.3g}"), list(" kMGTPE")
    while scaled >= 1000 and len(prefixes) > 1:
        scaled, _ = scaled / 1000, prefixes.pop(0)
    return f"{scaled:.3g} {prefixes[0]}".rstrip()
