"""Sizes of the inputs of an ONNX graph: what the file says, the batch, and what the caller gives."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from onnx import GraphProto, TensorProto, TypeProto, ValueInfoProto

from accel.accumulations import NetworkError
from accel.importers._onnx_protos import attribute, axis_size, shape_of, tensor_type

RECURRENT = frozenset({"GRU", "LSTM", "RNN"})

_PLACE = re.compile(r"(.+)\[(\d+)\]")


class InputSizes:
    """Sizes of the inputs' axes: those of the file, the batch, and those that were given.

    Parameters
    ----------
    shapes
        Sizes by name of a symbolic dimension, or by ``tensor[axis]``.
    trace
        Samples to infer shapes for, where the file leaves them open.
    replace_batch
        Take `trace` where the file fixes the batch, too.

    Attributes
    ----------
    traced
        Samples for which shapes will be inferred.
    types
        Of the inputs, without unknown sizes.
    notes
        What was assumed about the batch.
    """

    def __init__(
        self,
        graph: GraphProto,
        shapes: Mapping[str, int],
        *,
        batch: int,
        trace: int,
        replace_batch: bool = False,
    ) -> None:
        self.traced = trace
        self.types: dict[str, TypeProto] = {}
        self.notes: list[str] = []
        self._stated: int | None = None  # the batch, if the caller gave it as a size
        self._symbols: dict[str, int] = {}
        self._given: dict[str, dict[int, int]] = {}
        self._take_given(graph, shapes)
        constants = {tensor.name for tensor in graph.initializer}
        inputs = [
            value
            for value in graph.input
            if value.name not in constants and value.type.HasField("tensor_type")
        ]
        self._bind_batch(inputs, _with_batch_second(graph), batch, replace_batch=replace_batch)
        if self.traced != batch:
            where = "in its reshapes" if self.traced == trace else "in the file"
            self.notes.append(f"the batch is {self.traced} {where}: lengths are rescaled to {batch}")
        self._resolve(inputs)

    @property
    def samples(self) -> int:
        """Samples that the shapes hold."""
        return self._stated or self.traced

    def given(self, name: str) -> Mapping[int, int]:
        """Sizes by axis that the caller gave for a tensor."""
        return self._given.get(name, {})

    def resolved(self, name: str, declared: TypeProto) -> TypeProto:
        """Copy of a type in which the sizes that are known stand as numbers."""
        shape, given = shape_of(declared), self.given(name)
        if shape is None and given and set(given) == set(range(len(given))):
            shape = (None,) * len(given)
        if shape is None:
            return declared
        if beyond := [axis for axis in given if axis >= len(shape)]:
            raise NetworkError(f"{name}[{beyond[0]}] was given, but {name} has {len(shape)} axes")
        symbols = [dim.dim_param for dim in declared.tensor_type.shape.dim] or [""] * len(shape)
        sizes = [
            given.get(axis, size or self._symbols.get(symbol))  # exporters write 0 for unknown
            for axis, (size, symbol) in enumerate(zip(shape, symbols, strict=True))
        ]
        return tensor_type(declared.tensor_type.elem_type or TensorProto.FLOAT, sizes)

    def _take_given(self, graph: GraphProto, shapes: Mapping[str, int]) -> None:
        """Sort the sizes that were given into symbols and axes of tensors."""
        declared = [*graph.input, *graph.value_info, *graph.output]
        symbols = {dim.dim_param for value in declared for dim in value.type.tensor_type.shape.dim} - {""}
        tensors = {value.name for value in declared} | {name for node in graph.node for name in node.output}
        for key, size in shapes.items():
            if size < 1:
                raise NetworkError(f"{key} must be at least 1, got {size}")
            place = _PLACE.fullmatch(key)
            if place and place[1] in tensors:
                self._given.setdefault(place[1], {})[int(place[2])] = size
            elif key in symbols:
                self._symbols[key] = size
            else:
                raise NetworkError(
                    f"the graph has no dimension {key!r}; symbolic ones are "
                    f"{', '.join(sorted(symbols)) or 'none'}, and an axis of a tensor is TENSOR[AXIS]"
                )

    def _bind_batch(
        self, inputs: Sequence[ValueInfoProto], second: set[str], batch: int, *, replace_batch: bool
    ) -> None:
        """Give open batch axes the size `traced`, or take the batch that the file fixes."""
        told = set(self._symbols)
        fixed: list[tuple[str, int, int]] = []  # name, axis, size
        open_ = False
        for value in inputs:
            axis = 1 if value.name in second else 0
            dims = value.type.tensor_type.shape.dim
            if len(dims) <= axis:
                continue
            symbol, size = dims[axis].dim_param, axis_size(dims[axis]) or None
            stated = self.given(value.name).get(axis, self._symbols[symbol] if symbol in told else None)
            if stated is not None:
                open_ = True
                self._stated = self._stated or stated
                if stated != batch:
                    place = symbol if symbol in told else f"{value.name}[{axis}]"
                    self.notes.append(f"{place} was given as {stated} and is not rescaled to {batch}")
            elif size is not None:
                fixed.append((value.name, axis, size))
            else:
                open_ = True
                if symbol:
                    self._symbols[symbol] = self.traced
                else:
                    self._given.setdefault(value.name, {})[axis] = self.traced
        if open_:
            return
        if not fixed or not replace_batch:
            self.traced = fixed[0][2] if fixed else batch
            return
        for name, axis, size in fixed:
            if size == fixed[0][2]:  # another size is that of something else
                self._given.setdefault(name, {})[axis] = self.traced

    def _resolve(self, inputs: Sequence[ValueInfoProto]) -> None:
        where: list[str] = []
        keys: dict[str, None] = {}
        for value in inputs:
            found = self.resolved(value.name, value.type)
            shape = shape_of(found)
            if shape is None:
                where.append(f"all axes of {value.name}")
                keys[f"{value.name}[0]"] = None
            for axis, size in enumerate(shape or ()):
                if size is None:
                    symbol = value.type.tensor_type.shape.dim[axis].dim_param
                    where.append(f"axis {axis} of {value.name}" + (f" ({symbol})" if symbol else ""))
                    keys[symbol or f"{value.name}[{axis}]"] = None
            self.types[value.name] = found
        if where:
            raise NetworkError(f"the size is unknown of {', '.join(where)}; {how_to_give(keys)}")


def how_to_give(keys: Sequence[str] | Mapping[str, None]) -> str:
    """The end of an error: what to give, and where."""
    return f"give {', '.join(f'{key}=NUMBER' for key in keys)} (shapes, or --dim)"


def _with_batch_second(graph: GraphProto) -> set[str]:
    """Inputs whose second axis is the batch: sequences and states of recurrent operators."""
    found: set[str] = set()
    for node in graph.node:
        if node.op_type in RECURRENT and not attribute(node, "layout", 0):
            found.update(name for place, name in enumerate(node.input) if place in (0, 5, 6))
    return found
