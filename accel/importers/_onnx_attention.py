"""Attention operators of ONNX, the standard one and those of ONNX Runtime, as products and a softmax.

Each becomes ``QK^T`` (matmul), ``softmax`` and ``PV`` (matmul), with the keys and values of earlier tokens
joined to the new ones first (cat). A causal mask leaves out no product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

from onnx import NodeProto

from accel.accumulations import NetworkError, attention
from accel.importers._onnx_draft import Draft
from accel.importers._onnx_protos import attribute, tensor_type, title
from accel.importers._vector_ops import PER_ELEMENT, bias_ops
from accel.workload import Gemm, Role

Shape = tuple[int, ...]

_ROTARY_OPS = 3  # per element: two products and a sum
_SOFTCAP_OPS = 3  # division, hyperbolic tangent, product


@dataclass(slots=True, kw_only=True)
class _Heads:
    """Operands of one attention, each as (batch, heads, positions, features).

    Attributes
    ----------
    tensors
        Names of query, key and value.
    past
        Names of the earlier keys and values, or nothing.
    results
        Names of the output, of the keys and of the values of all tokens; empty where not wanted.
    masks
        Names of what is added to the scores.
    """

    query: Shape
    key: Shape
    value: Shape
    tensors: tuple[str, str, str]
    past: tuple[str, str] | tuple[()] = ()
    results: tuple[str, str, str]
    masks: tuple[str, ...] = ()
    score_ops: int = 0
    biases: tuple[str, ...] = ()


def read_attention(draft: Draft, node: NodeProto) -> None:
    """Append the operators of an attention node, and declare the shapes that it makes.

    Raises
    ------
    NetworkError
        The node's heads do not fit its shapes, or a form that is not known.
    """
    heads = _FORMS[(node.domain == "com.microsoft", node.op_type)](draft, node)
    name, elem_type = title(node), draft.values[node.input[0]].type.tensor_type.elem_type
    key, value = heads.tensors[1:]
    if heads.past:
        earlier = _shape(draft, node, heads.past[0])[-2]
        heads.key = (*heads.key[:2], heads.key[2] + earlier, heads.key[3])
        heads.value = (*heads.value[:2], heads.value[2] + earlier, heads.value[3])
        joined = []
        for what, found, past, shape, made in zip(
            ("keys", "values"),
            (key, value),
            heads.past,
            (heads.key, heads.value),
            heads.results[1:],
            strict=True,
        ):
            whole = draft.made(made or f"{name} {what}", shape, elem_type)
            _tell(draft, made, shape)
            draft.add(f"{name} {what}", "cat", [*draft.read(past), *draft.read(found)], (whole,))
            joined.append(whole)
        key, value = joined
    else:
        for found, made, shape in zip((key, value), heads.results[1:], (heads.key, heads.value), strict=True):
            if made:
                draft.alias(made, found)
                _tell(draft, made, shape)
    products = attention(name, heads.query, heads.key, heads.value)
    gemms = [Gemm(m=row.m, n=row.n, k=row.k, count=row.count) for row in products]
    scored = (*heads.query[:3], heads.key[2])
    scores, weights = (draft.made(f"{name} {what}", scored, elem_type) for what in ("scores", "weights"))
    if node.domain != "com.microsoft" and (shown := _wanted(draft, node, 3)):
        # Scaled, masked and capped scores take the place of the plain ones; mode 3 is after the softmax.
        draft.alias(shown, weights if attribute(node, "qk_matmul_output_mode", 0) == 3 else scores)
    query = heads.tensors[0]
    draft.add(
        products[0].layer,
        "matmul",
        [found for source in (query, key) for found in draft.read(source, single=True)],
        (scores,),
        gemm=gemms[0],
    )
    masks = [found for mask in heads.masks for found in draft.read(mask)]
    per_score = PER_ELEMENT["softmax"] + 1 + len(masks) + heads.score_ops  # 1: the scale
    draft.add(f"{name} softmax", "softmax", (scores, *masks), (weights,), vector_ops=per_score * prod(scored))
    # In rows of the query's rank: the heads stand beside each other where the query has three axes.
    result = draft.made(heads.results[0], _output(draft, node, heads), elem_type)
    draft.add(
        products[1].layer, "matmul", (weights, *draft.read(value, single=True)), (result,), gemm=gemms[1]
    )


def _output(draft: Draft, node: NodeProto, heads: _Heads) -> Shape:
    batch, count, rows, _ = heads.query
    if node.domain != "com.microsoft" and len(_shape(draft, node, node.input[0])) == 4:
        return (batch, count, rows, heads.value[3])
    shape = (batch, rows, count * heads.value[3])
    _tell(draft, node.output[0], shape)
    return shape


def _tell(draft: Draft, name: str, shape: Shape) -> None:
    """Give a result its shape, which operators of ONNX Runtime do not tell."""
    if name:
        found = draft.values[name]
        found.type, found.cause = tensor_type(found.type.tensor_type.elem_type, shape), None


def _shape(draft: Draft, node: NodeProto, name: str) -> Shape:
    return draft.shapes.sizes(node, name)


def _input(node: NodeProto, place: int) -> str:
    return str(node.input[place]) if place < len(node.input) else ""


def _wanted(draft: Draft, node: NodeProto, place: int) -> str:
    name = str(node.output[place]) if place < len(node.output) else ""
    return name if name in draft.used else ""


def _split(node: NodeProto, shape: Shape, heads: int) -> Shape:
    """(batch, heads, positions, features) of a tensor (batch, positions, width)."""
    if len(shape) == 4:
        return shape
    if len(shape) != 3 or heads < 1 or shape[-1] % heads:
        raise NetworkError(
            f"{title(node)} ({node.op_type}): a tensor of shape {shape} does not fall into {heads} heads"
        )
    return (shape[0], heads, shape[1], shape[2] // heads)


def _results(draft: Draft, node: NodeProto) -> tuple[str, str, str]:
    keys, values = (_wanted(draft, node, place) for place in (1, 2))
    return (str(node.output[0]), keys, values)


def _past(node: NodeProto, place: int) -> tuple[str, str] | tuple[()]:
    keys, values = _input(node, place), _input(node, place + 1)
    return (keys, values) if keys and values else ()


def _standard(draft: Draft, node: NodeProto) -> _Heads:
    """``Attention`` of the standard operators."""
    names = (node.input[0], node.input[1], node.input[2])
    counts = [int(attribute(node, f"{which}_num_heads", 1)) for which in ("q", "kv", "kv")]
    query, key, value = (
        _split(node, _shape(draft, node, name), count) for name, count in zip(names, counts, strict=True)
    )
    return _Heads(
        query=query,
        key=key,
        value=value,
        tensors=names,
        past=_past(node, 4),
        results=_results(draft, node),
        masks=(_input(node, 3),),
        score_ops=_SOFTCAP_OPS * (attribute(node, "softcap", 0.0) != 0.0),
    )


def _multi_head(draft: Draft, node: NodeProto) -> _Heads:
    """``MultiHeadAttention`` of ONNX Runtime, with query, key and value apart."""
    names = (_input(node, 0), _input(node, 1), _input(node, 2))
    _require_apart(node, names)
    count = int(attribute(node, "num_heads", 1))
    query, key, value = (_split(node, _shape(draft, node, name), count) for name in names)
    bias = _input(node, 3)
    if bias:
        names = _biased(draft, node, names, bias)
    return _Heads(
        query=query,
        key=key,
        value=value,
        tensors=names,
        past=_past(node, 6),
        results=_results(draft, node),
        masks=(_input(node, 4), _input(node, 5)),
    )


def _biased(draft: Draft, node: NodeProto, names: tuple[str, str, str], bias: str) -> tuple[str, str, str]:
    """Query, key and value with the parts of a bias added."""
    sources = [found for name in names for found in draft.read(name)]
    made = []
    for name, what in zip(names, ("query", "key", "value"), strict=True):
        elem_type = draft.values[name].type.tensor_type.elem_type
        made.append(draft.made(f"{title(node)} {what}", _shape(draft, node, name), elem_type))
    draft.add(
        f"{title(node)} bias",
        "add",
        (*sources, *draft.read(bias, Role.WEIGHT)),
        made,
        vector_ops=bias_ops(sum(prod(_shape(draft, node, name)) for name in names)),
    )
    return (made[0], made[1], made[2])


def _grouped_query(draft: Draft, node: NodeProto) -> _Heads:
    """``GroupQueryAttention`` of ONNX Runtime, with query, key and value apart."""
    names = (_input(node, 0), _input(node, 1), _input(node, 2))
    _require_apart(node, names)
    counts = [int(attribute(node, f"{which}num_heads", 1)) for which in ("", "kv_", "kv_")]
    shapes = [_shape(draft, node, name) for name in names]
    query, key, value = (_split(node, shape, count) for shape, count in zip(shapes, counts, strict=True))
    if attribute(node, "do_rotary", 0):
        turned = []
        tables = [found for place in (7, 8) for found in draft.read(_input(node, place))]
        for name, shape, what in zip(names[:2], shapes[:2], ("query", "key"), strict=True):
            elem_type = draft.values[name].type.tensor_type.elem_type
            made = draft.made(f"{title(node)} rotated {what}", shape, elem_type)
            draft.add(
                f"{title(node)} rotary {what}",
                "rotaryembedding",
                (*draft.read(name), *tables),
                (made,),
                vector_ops=_ROTARY_OPS * prod(shape),
            )
            turned.append(made)
        names = (turned[0], turned[1], names[2])
    return _Heads(
        query=query,
        key=key,
        value=value,
        tensors=names,
        past=_past(node, 3),
        results=_results(draft, node),
        score_ops=_SOFTCAP_OPS * (attribute(node, "softcap", 0.0) != 0.0),
    )


def _projected(draft: Draft, node: NodeProto) -> _Heads:
    """``Attention`` of ONNX Runtime: one product makes query, key and value."""
    name, elem_type = title(node), draft.values[node.input[0]].type.tensor_type.elem_type
    batch, rows, features = _shape(draft, node, node.input[0])
    width = _shape(draft, node, node.input[1])[1]
    widths = tuple(attribute(node, "qkv_hidden_sizes", (width // 3,) * 3))
    if sum(widths) != width:
        raise NetworkError(f"{name} (Attention): widths {widths} do not add up to {width}")
    if _input(node, 4) or _wanted(draft, node, 1):
        raise NetworkError(f"{name} (Attention): past keys and values in one tensor are not read")
    whole = draft.made(f"{name} projected", (batch, rows, width), elem_type)
    bias = draft.read(_input(node, 2), Role.WEIGHT)
    draft.add(
        f"{name} projection",
        "linear",
        (*draft.read(node.input[0]), *draft.read(node.input[1], Role.WEIGHT), *bias),
        (whole,),
        gemm=Gemm(m=batch * rows, n=width, k=features),
        vector_ops=bias_ops(batch * rows * width, len(bias)),
        channels=2,
    )
    parts = [
        draft.made(f"{name} {what}", (batch, rows, size), elem_type)
        for what, size in zip(("query", "key", "value"), widths, strict=True)
    ]
    draft.add(f"{name} split", "split", (whole,), parts)
    count = int(attribute(node, "num_heads", 1))
    query, key, value = (_split(node, (batch, rows, size), count) for size in widths)
    return _Heads(
        query=query,
        key=key,
        value=value,
        tensors=(parts[0], parts[1], parts[2]),
        results=(str(node.output[0]), "", ""),
        masks=(_input(node, 3), _input(node, 5)),
    )


def _require_apart(node: NodeProto, names: tuple[str, str, str]) -> None:
    if not all(names):
        raise NetworkError(f"{title(node)} ({node.op_type}): query, key and value in one tensor are not read")


_FORMS: Mapping[tuple[bool, str], Callable[[Draft, NodeProto], _Heads]] = {
    (False, "Attention"): _standard,
    (True, "Attention"): _projected,
    (True, "GroupQueryAttention"): _grouped_query,
    (True, "MultiHeadAttention"): _multi_head,
}


def is_attention(node: NodeProto) -> bool:
    """Whether a node is an attention of a known form."""
    return (node.domain == "com.microsoft", node.op_type) in _FORMS
