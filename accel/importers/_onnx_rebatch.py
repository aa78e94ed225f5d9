"""Shapes of an ONNX graph for another batch than that of its file.

Exporters write the batch of their example into constants: the target of a Reshape, a token that a Concat
joins to each sample, the initial state of a recurrent layer. Beside the shapes for the file's own batch
it can be told where it stands there: a reshape keeps the order of the elements, and so the number of
elements outside of the samples.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from accel.importers._onnx_inputs import InputSizes
from accel.importers._onnx_protos import attribute, tensor_type, title
from accel.importers._onnx_shapes import ContradictionError, Shapes

Shape = tuple[int, ...]

_KEEP_ORDER = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})


class RebatchedShapes(Shapes):
    """Shapes for another batch.

    Parameters
    ----------
    reference
        Shapes for the batch of the file, of the whole graph.
    """

    def __init__(self, model: ModelProto, sizes: InputSizes, folder: Path | None, reference: Shapes) -> None:
        super().__init__(model, sizes, folder)
        self._reference = reference
        # By tensor, of the axis that holds the samples: what is merged with them and varies more slowly.
        self._outer: dict[str, int] = {}

    def enter(self, graph: GraphProto) -> None:
        """Take in a graph; what it declares for other tensors than its inputs is for its own batch."""
        super().enter(graph)
        self._declared.clear()

    def infer(self, node: NodeProto) -> bool:
        """Make the values of a node's outputs."""
        changed = {"Reshape": self._reshaped, "Concat": self._joined, "Expand": self._expanded}
        made = changed[node.op_type](node) if node.op_type in changed else node
        known = super().infer(made)
        for name in filter(None, node.output):
            self._follow(node, name)
        return known

    def _follow(self, node: NodeProto, name: str) -> None:
        """Note what stands outside of the samples in the axis of a result that holds them."""
        if (after := self._changed(name)) is None:
            return
        shape, axis, _ = after
        for source in filter(None, node.input):
            if (before := self._changed(source)) is None:
                continue
            outer = self._outer.get(source, 1)
            if node.op_type in _KEEP_ORDER:
                outside, first = prod(before[0][: before[1]]) * outer, prod(shape[:axis])
                self._outer[name] = max(outside // first, 1)
                return
            if before[0][before[1]] == shape[axis]:
                self._outer[name] = outer
                return

    def _changed(self, name: str) -> tuple[Shape, int, tuple[int, int]] | None:
        """Shape of a tensor for the batch of the file, the axis that has another size now, and its sizes."""
        before, now = self._reference.known(name), self.known(name)
        if before is None or now is None or len(before) != len(now):
            return None
        axes = [axis for axis, (old, new) in enumerate(zip(before, now, strict=True)) if old != new]
        return (before, axes[0], (before[axes[0]], now[axes[0]])) if len(axes) == 1 else None

    def _reshaped(self, node: NodeProto) -> NodeProto:
        """The same Reshape with a target that holds the batch, unless it was computed from shapes."""
        (source, target), made = node.input[:2], node.output[0]
        before, after = self._reference.known(source), self._reference.known(made)
        if before is None or after is None or before == self.known(source):
            return node
        if self._reference.values[target].data != self.values[target].data:
            return node
        shape = None
        if (changed := self._changed(source)) is not None:
            _, axis, ratio = changed
            outside = prod(before[:axis]) * self._outer.get(source, 1)
            shape = rebatched(after, outside, ratio)
        if shape is None:
            raise ContradictionError(
                f"{title(node)} (Reshape): {self.known(source)} does not fit {after}, which holds the batch"
            )
        return self._with_shape(node, 1, shape, TensorProto.INT64)

    def _with_shape(self, node: NodeProto, place: int, numbers: Shape, elem_type: int) -> NodeProto:
        """`node` with another constant of integers in that place."""
        name = f"{node.output[0]}.shape"
        self.values[name] = replace(
            self.values[node.input[place]],
            type=tensor_type(elem_type, [len(numbers)]),
            data=helper.make_tensor("", elem_type, [len(numbers)], numbers),
        )
        return _with_input(node, place, name)

    def _repeated(self, node: NodeProto, place: int, shape: Shape) -> NodeProto:
        """`node` with a constant of another shape in that place, as far as shapes are concerned."""
        value, name = self.values[node.input[place]], f"{node.output[0]}.{place}"
        self.values[name] = replace(
            value, type=tensor_type(value.type.tensor_type.elem_type, shape), data=None
        )
        return _with_input(node, place, name)

    def _joined(self, node: NodeProto) -> NodeProto:
        """The same Concat with constants that are repeated for each sample."""
        flowing = [
            (before, now)
            for name in node.input
            if not self.values[name].fixed
            and (before := self._reference.known(name)) is not None
            and (now := self.known(name)) is not None
        ]
        if not flowing:
            return node
        before, now = flowing[0]
        joined_axis = attribute(node, "axis", 0) % len(before)
        for place, name in enumerate(node.input):
            shape = self.known(name)
            if not self.values[name].fixed or shape is None or len(shape) != len(before):
                continue
            wanted = tuple(
                size if axis == joined_axis or size != then else given
                for axis, (size, then, given) in enumerate(zip(shape, before, now, strict=True))
            )
            if wanted != shape:
                node = self._repeated(node, place, wanted)
        return node

    def _expanded(self, node: NodeProto) -> NodeProto:
        """The same Expand of one sample, where a constant holds those of the file."""
        source, target = node.input[:2]
        shape = self.known(source)
        data = [shapes.values[target].data for shapes in (self._reference, self)]
        if not self.values[source].fixed or shape is None or data[0] is None or data[1] is None:
            return node
        before, now = (tuple(numpy_helper.to_array(numbers)) for numbers in data if numbers is not None)
        if len(before) != len(now) or len(before) < len(shape):
            return node
        skipped = len(before) - len(shape)
        wanted = tuple(
            1 if old != new and size == old else size
            for size, old, new in zip(shape, before[skipped:], now[skipped:], strict=True)
        )
        return node if wanted == shape else self._repeated(node, 0, wanted)


def rebatched(after: Shape, outside: int, ratio: tuple[int, int]) -> Shape | None:
    """Target of a reshape for another batch, or ``None`` if there is none.

    Parameters
    ----------
    after
        Shape that it makes for the batch of the file.
    outside
        Elements that vary more slowly than the samples.
    ratio
        The batch of the file and the other one, or multiples of them.

    Examples
    --------
    >>> rebatched((12, 7, 64), 1, (1, 8))  # (samples x heads, positions, features)
    (96, 7, 64)
    >>> rebatched((14, 64), 7, (2, 8))  # (positions x samples, features)
    (56, 64)
    """
    for axis, size in enumerate(after):
        first = prod(after[:axis])
        # The samples begin in this axis, or a batch of 1 stands just before it: as the whole of it, as its
        # outer part, or as the inner part of the axis before; features, the last axis, hold no samples.
        if first != outside and not first < outside < first * size:
            continue
        place = axis - 1 if first == outside and 0 < axis == len(after) - 1 and size != ratio[0] else axis
        grown = after[place] * ratio[1]
        if grown % ratio[0] == 0:
            return (*after[:place], grown // ratio[0], *after[place + 1 :])
    return None


def _with_input(node: NodeProto, place: int, name: str) -> NodeProto:
    made = NodeProto()
    made.CopyFrom(node)
    made.input[place] = name
    return made
