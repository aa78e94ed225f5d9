"""Operators joined as a compiler for inference joins them, so that what is left is what runs.

- What a convolution, a linear layer or a batch normalisation makes for each channel is scaled or shifted by
  constants: a batch normalisation in evaluation mode, a bias that stands apart, the scale of Caffe. A scale
  disappears into the weights, and the first shift becomes the bias; further shifts disappear into it. A
  weight that several operators read is not scaled, for each of them would need a copy.
- A ReLU of a product becomes part of it (``conv2d+relu``).

Both only where nothing else reads what is between. The tensor that is left has the name of the last result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from accel.workload import Operator, Role, Tensor
from numerics.formats import FloatFormat

Shape = tuple[int, ...]

_SCALES = frozenset({"batch_norm", "div", "mul"})
_SHIFTS = frozenset({"add", "batch_norm", "sub"})
_PARAMETERS = (Role.WEIGHT, Role.CONSTANT)


def without_dead(operators: Iterable[Operator], outputs: Collection[str]) -> list[Operator]:
    """The operators that the outputs need, with the results that are read."""
    needed = set(outputs)
    alive = []
    for operator in reversed(list(operators)):
        read = tuple(name for name in operator.outputs if name in needed)
        if read:
            alive.append(replace(operator, outputs=read))
            needed.update(operator.inputs)
    return alive[::-1]


def fused(
    operators: Iterable[Operator],
    tensors: Mapping[str, Tensor],
    outputs: Collection[str],
    channels: Mapping[str, int],
    layouts: Mapping[str, Collection[Shape]],
    *,
    fold_batch_norm: bool,
) -> list[Operator]:
    """Joined operators, in an order in which they can run.

    Parameters
    ----------
    outputs
        Names of the graph's outputs.
    channels
        By operator that may be scaled and shifted: the axis of its result that counts its channels.
    layouts
        By constant: the shapes in which it is read, which may be others than that of the tensor.
    fold_batch_norm
        Whether a scale may disappear into the weights of a product.
    """
    return _Fuser(list(operators), tensors, outputs, channels, layouts, fold_batch_norm=fold_batch_norm).run()


class _Fuser:
    def __init__(
        self,
        operators: list[Operator],
        tensors: Mapping[str, Tensor],
        outputs: Collection[str],
        channels: Mapping[str, int],
        layouts: Mapping[str, Collection[Shape]],
        *,
        fold_batch_norm: bool,
    ) -> None:
        self.operators = operators
        self.tensors = tensors
        self.channels = channels
        self.layouts = layouts
        self.fold_batch_norm = fold_batch_norm
        self.readers = Counter(name for operator in operators for name in operator.inputs)
        self.readers.update(list(outputs))
        self.joined: list[Operator] = []
        self.place: dict[str, int] = {}  # of the operator among the joined ones that makes a tensor

    def run(self) -> list[Operator]:
        for operator in self.operators:
            flowing = [name for name in operator.inputs if self.tensors[name].role not in _PARAMETERS]
            place = self.place.get(flowing[0]) if len(flowing) == 1 else None
            whole = None
            if place is not None and self.readers[flowing[0]] == 1:
                whole = self._with_relu(self.joined[place], operator) or self._with_affine(
                    self.joined[place], operator, flowing[0]
                )
            if place is None or whole is None:
                self.place.update(dict.fromkeys(operator.outputs, len(self.joined)))
                self.joined.append(operator)
            else:
                self.joined[place] = whole
                self.place[whole.outputs[0]] = place
        return self.joined

    def _with_relu(self, producer: Operator, operator: Operator) -> Operator | None:
        if operator.kind != "relu" or producer.gemm is None or len(producer.outputs) != 1:
            return None
        if "+" in producer.kind or producer.kind.endswith(("_input", "_recurrent")):
            return None
        return replace(
            producer,
            kind=f"{producer.kind}+relu",
            outputs=operator.outputs,
            vector_ops=producer.vector_ops + operator.vector_ops,
        )

    def _with_affine(self, producer: Operator, operator: Operator, source: str) -> Operator | None:
        """`producer` with a scale or a shift of its channels, or ``None`` if `operator` is none of that."""
        axis = self.channels.get(producer.name)
        constants = [name for name in operator.inputs if name != source]
        if axis is None or operator.kind not in _SCALES | _SHIFTS or "+" in producer.kind:
            return None
        if not constants or len(producer.outputs) != 1 or len(operator.outputs) != 1:
            return None
        if operator.inputs[0] != source and operator.kind in ("div", "sub"):
            return None
        shape = self.tensors[source].shape
        if self.tensors[operator.outputs[0]].shape != shape:
            return None
        if operator.kind == "batch_norm":
            if axis != 1 or operator.name not in self.channels:
                return None
        elif not all(
            _by_channel(layout, shape, axis) for name in constants for layout in self.layouts.get(name, [()])
        ):
            return None
        if operator.kind in _SCALES and not self._scalable(producer):
            return None
        inputs, added = producer.inputs, 0
        if operator.kind in _SHIFTS and producer.kind != "batch_norm" and not self._has_bias(producer, axis):
            inputs, added = (*inputs, constants[-1]), self.tensors[source].elements
        return replace(
            producer, inputs=inputs, outputs=operator.outputs, vector_ops=producer.vector_ops + added
        )

    def _scalable(self, producer: Operator) -> bool:
        if producer.kind == "batch_norm":
            return True
        weight = self.tensors[producer.inputs[1]]
        return (
            self.fold_batch_norm
            and weight.role is Role.WEIGHT
            and isinstance(weight.format, FloatFormat)
            and self.readers[weight.name] == 1
        )

    def _has_bias(self, producer: Operator, axis: int) -> bool:
        channels = self.tensors[producer.outputs[0]].shape[axis]
        extra = (self.tensors[name] for name in producer.inputs[2:])
        return any(tensor.role is Role.WEIGHT and tensor.elements == channels for tensor in extra)


def _by_channel(constant: Shape, shape: Shape, axis: int) -> bool:
    """Whether a constant that broadcasts to `shape` has one element for each place on `axis`."""
    padded = (1,) * (len(shape) - len(constant)) + constant
    return padded == tuple(size if place == axis else 1 for place, size in enumerate(shape))
