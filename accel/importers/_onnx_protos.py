"""Short ways to read the protocol buffers of ONNX."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from onnx import GraphProto, NodeProto, TypeProto, helper

STANDARD_DOMAINS = ("", "ai.onnx")


def title(node: NodeProto) -> str:
    """Name of a node, or what it does and makes if it has none."""
    return str(node.name or f"{node.op_type} {next(filter(None, node.output), '')}".strip())


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """Value of an attribute, or `default` if the node has none of that name."""
    for found in node.attribute:
        if found.name == name:
            return helper.get_attribute_value(found)
    return default


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    """Subgraphs of a node."""
    for found in node.attribute:
        if found.HasField("g"):
            yield found.g
        yield from found.graphs


def axis_size(dim: Any) -> int | None:
    """Size of an axis; exporters also write -1 for an unknown one."""
    return int(dim.dim_value) if dim.HasField("dim_value") and dim.dim_value >= 0 else None


def shape_of(found: TypeProto) -> tuple[int | None, ...] | None:
    """Shape of a type; ``None`` for a size, or for all of it, is unknown."""
    if not found.tensor_type.HasField("shape"):
        return None
    return tuple(axis_size(dim) for dim in found.tensor_type.shape.dim)


def known_shape(found: TypeProto) -> tuple[int, ...] | None:
    """Shape of a type of which every size is known."""
    shape = shape_of(found)
    if shape is None:
        return None
    known = tuple(size for size in shape if size is not None)
    return known if len(known) == len(shape) else None


def tensor_type(elem_type: int, sizes: Sequence[int | None] | None) -> TypeProto:
    """Type of a tensor, with unknown sizes or of unknown rank."""
    return helper.make_tensor_type_proto(elem_type, sizes)


def first_line(error: BaseException) -> str:
    """What an exception says, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].removeprefix("[ShapeInferenceError] ") if lines else type(error).__name__
