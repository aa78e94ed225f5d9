"""The training products of a PyTorch module, by ``torch.export`` on the meta device: shapes only.

Layers are named by the path of their module (``layer1.0.conv2``), or by that of the weight where a
function was called with it (``encoder.self_attn.out_proj``); a product of two activations by the
path of the module that makes it (``blocks.0.attn.matmul``). A repeated name gets a number.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from math import prod
from pathlib import Path
from typing import Any, Literal

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node

from accel.accumulations import (
    Network,
    NetworkBuilder,
    NetworkError,
    TrainingProducts,
    attention,
    contraction,
    convolution,
    einsum,
    matmul_equation,
    transposed_convolution,
)
from accel.importers._torch_trace import (
    Module,
    TorchTensor,
    arguments_of,
    brief,
    exported,
    is_layer,
    is_view,
    kind_of,
    module_of,
    operands_of,
    shape_of,
    without_data,
)

_LONGEST = 200  # characters of the history of a weight

# Another type or layout of the same weight: its gradient is that of the weight.
_SAME_WEIGHT = frozenset(
    {
        "_to_copy",
        "alias",
        "clone",
        "contiguous",
        "flatten",
        "mT",
        "movedim",
        "permute",
        "reshape",
        "squeeze",
        "t",
        "to",
        "transpose",
        "type_as",
        "unflatten",
        "unsqueeze",
        "view",
    }
)
_UNCOVERED = frozenset(
    {
        "_grouped_mm",
        "_int_mm",
        "_native_multi_head_attention",
        "_scaled_mm",
        "_transformer_encoder_layer_fwd",
        "_trilinear",
        "_weight_int8pack_mm",
        "addbmm",
        "addmv",
        "addr",
        "bilinear",
        "cdist",
        "chain_matmul",
        "conv_tbc",
        "embedding_bag",
        "fft_fft",
        "fft_ifft",
        "fft_irfft",
        "fft_rfft",
        "ger",
        "inner",
        "linalg_multi_dot",
        "linalg_vecdot",
        "outer",
        "tensordot",
    }
)
_STOPS = frozenset({"detach", "detach_"})
_REGIONS = frozenset(
    {
        "tag_activation_checkpoint",
        "wrap",
        "wrap_activation_checkpoint",
        "wrap_with_autocast",
        "wrap_with_set_grad_enabled",
    }
)


def read_torch(module: Module, *inputs: TorchTensor, batch: int = 256, name: str | None = None) -> Network:
    """Training products of a module, in evaluation mode so that nothing is left to chance.

    Parameters
    ----------
    module
        Not changed; a copy without data is exported.
    inputs
        Example inputs; only shapes and types count, so they may be on the meta device. The first
        axis of the first one is the batch, as are those of equal size of the others.
    batch
        Samples per step. The module is exported for that many; if it only runs for as many as the
        examples hold, what holds the batch is rescaled.
    name
        Of the network; the module's class by default.

    Raises
    ------
    NetworkError
        The module cannot be exported with these inputs.
    """
    name = name or type(module).__name__
    if not inputs:
        raise NetworkError(f"{name} needs at least one example input")
    NetworkBuilder(name, batch=batch, traced=batch)  # refuses a batch before the long work
    twin = without_data(name, module).eval()
    examples = [tensor.detach().to("meta") for tensor in inputs]
    traced = examples[0].shape[0] if examples[0].ndim else batch
    resized = [
        tensor.new_empty((batch, *tensor.shape[1:]))
        if tensor.ndim and tensor.shape[0] == traced and examples[0].ndim
        else tensor
        for tensor in examples
    ]
    note = ""
    try:
        program, traced = exported(name, twin, resized), batch
    except NetworkError:
        if traced == batch:
            raise
        program = exported(name, twin, examples)
        note = f"the module runs for a batch of {traced} only: lengths are rescaled to {batch}"
    builder = NetworkBuilder(name, batch=batch, traced=traced)
    if note:
        builder.note(note)
    _Reader(builder).read_program(program)
    return builder.network()


def load_module(text: str) -> Module:
    """Module that ``package.module:callable`` returns when it is called without arguments.

    The current directory is searched first, as by ``python -m``. A module that already exists
    under that name will do as well.

    Raises
    ------
    NetworkError
        The name cannot be found, the call fails, or what it returns is no module.
    """
    path, colon, attribute = text.partition(":")
    if not colon or not path or not attribute:
        raise NetworkError(f"a module is named as package.module:callable, got {text!r}")
    if "/" in path or path.endswith(".py"):
        raise NetworkError(f"a module is named with dots and without .py, got {path!r} in {text!r}")
    with _current_directory_first():
        found = _imported(path)
        try:
            made = reduce(getattr, attribute.split("."), found)
        except AttributeError:
            raise NetworkError(f"module {path} has no {attribute}") from None
        if not isinstance(made, torch.nn.Module):
            if not callable(made):
                raise NetworkError(f"{text} is not callable, it is a {type(made).__name__}")
            try:
                made = made()
            except (Exception, SystemExit) as error:  # anything that a user's code may raise
                raise NetworkError(f"{text} called without arguments raised {brief(error)}") from error
    if not isinstance(made, torch.nn.Module):
        raise NetworkError(f"{text} must return a torch.nn.Module, got {type(made).__name__}")
    return made


@contextmanager
def _current_directory_first() -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def _imported(path: str) -> Any:
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name and (path == error.name or path.startswith(f"{error.name}.")):
            raise NetworkError(f"there is no module {error.name}, needed for {path}") from None
        raise NetworkError(f"importing {path} raised {brief(error)}") from error
    except (Exception, SystemExit) as error:  # anything that a user's code may raise
        raise NetworkError(f"importing {path} raised {brief(error)}") from error


@dataclass(slots=True)
class _Value:
    """What is known of the result of a node.

    Attributes
    ----------
    fixed
        It does not depend on the inputs.
    trained
        It is a trained parameter, or depends on one, so that errors flow back to it.
    origin
        Of a fixed one: the parameter or buffer of which it is another layout.
    """

    fixed: bool
    trained: bool = False
    origin: str = ""


class _Reader:
    """Walks exported graphs in order and hands their products to a builder."""

    def __init__(self, builder: NetworkBuilder) -> None:
        self.builder = builder
        self.values: dict[Node, _Value] = {}
        self._names: set[str] = set()
        self._uncovered: dict[str, list[str]] = {}
        self._records = True  # gradients, outside of torch.no_grad

    def read_program(self, program: ExportedProgram) -> None:
        """Take in a whole program."""
        signature = program.graph_signature
        parameters = dict(program.named_parameters())
        frozen = not any(parameter.requires_grad for parameter in parameters.values())
        if frozen and parameters:
            self.builder.note("no parameter requires a gradient: all are taken to be trained")
        stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        stored |= signature.inputs_to_lifted_tensor_constants
        for node in program.graph.nodes:
            if node.op == "placeholder":
                origin = stored.get(node.name)
                parameter = parameters.get(origin) if origin else None
                trained = parameter is not None and (frozen or parameter.requires_grad)
                self.values[node] = _Value(origin is not None, trained, origin or "")
        self._read_graph(program.graph, program.graph_module)
        for what, names in self._uncovered.items():
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            self.builder.note(f"{what} is not covered: {', '.join(names[:3])}{more}")

    def _read_graph(self, graph: Graph, owner: GraphModule) -> tuple[_Value, ...]:
        """Read all nodes, whose placeholders have their values, and return those of the outputs."""
        outputs: tuple[_Value, ...] = ()
        for node in graph.nodes:
            if node.op == "call_function":
                self._read(node, owner)
            elif node.op == "get_attr":
                self.values[node] = _Value(fixed=True, origin=str(node.target))
            elif node.op == "output":
                outputs = tuple(self.values[found] for found in node.all_input_nodes)
        return outputs

    def _read(self, node: Node, owner: GraphModule) -> None:
        sources = [self.values[found] for found in node.all_input_nodes]
        value = _Value(
            fixed=all(source.fixed for source in sources),
            trained=self._records and any(source.trained for source in sources) and _is_floating(node),
        )
        kind = kind_of(node)
        if kind in _STOPS:
            value.trained = False
        if value.fixed:
            value.origin = self._origin(node, kind)
        self.values[node] = value
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            self._read_region(node, owner)
        elif isinstance(node.target, torch._ops.OpOverload):
            _mark_changed(node, self.values)
            if node.target.namespace not in ("aten", "prims"):
                self._skip(f"operator {node.target.namespace}.{kind}", node)
            elif kind in _UNCOVERED or (kind in _RECURRENT and str(node.target).endswith(".data")):
                self._skip(kind, node)
            elif (reader := _READERS.get(kind)) is not None:
                reader(self, node)

    def _origin(self, node: Node, kind: str) -> str:
        """Identity of a fixed value: what is made of the same weights in the same way is one weight."""
        sources = [self.values[found].origin for found in node.all_input_nodes]
        if len(sources) == 1 and kind in _SAME_WEIGHT:
            return sources[0]
        numbers = [str(found) for found in node.args if not isinstance(found, Node)]
        made = f"{'+'.join(sources)}|{kind}({','.join(numbers)})"
        return made if sources and len(made) <= _LONGEST else node.name

    def _read_region(self, node: Node, owner: GraphModule) -> None:
        """A part of the graph run under torch.no_grad or autocast; others are skipped."""
        operator = str(node.target)
        places = {
            place: getattr(owner, str(found.target), None)
            for place, found in enumerate(node.args)
            if isinstance(found, Node) and found.op == "get_attr"
        }
        place, body = next(((p, g) for p, g in places.items() if isinstance(g, GraphModule)), (0, None))
        if body is None or operator not in _REGIONS:
            self._skip(f"operator {operator}", node)
            return
        operands = node.args[place + 1 :]
        holders = [found for found in body.graph.nodes if found.op == "placeholder"]
        if len(operands) != len(holders):
            self._skip(f"operator {operator}", node)
            return
        for holder, operand in zip(holders, operands, strict=True):
            self.values[holder] = self.values[operand] if isinstance(operand, Node) else _Value(fixed=True)
        records = self._records
        if operator == "wrap_with_set_grad_enabled":
            self._records = bool(node.args[0])
        outputs = self._read_graph(body.graph, body)
        self._records = records
        self.values[node] = _Value(
            fixed=all(output.fixed for output in outputs),
            trained=any(output.trained for output in outputs),
            origin=node.name,
        )

    def _skip(self, what: str, node: Node) -> None:
        self._uncovered.setdefault(what, []).append(self._layer_base(node, None))

    # ------------------------------------------------------------------------------ products

    def read_convolution(self, node: Node) -> None:
        """Convolution over one, two or three axes, plain or transposed."""
        given = arguments_of(node)
        source, weight = given["input"], given["weight"]
        transposed = "transpose" in kind_of(node) or bool(given.get("transposed"))
        sizes = shape_of(weight)
        make, positions = (
            (transposed_convolution, prod(shape_of(source)) // sizes[0])
            if transposed
            else (convolution, prod(shape_of(node)) // sizes[0])
        )
        row = make(
            self._layer(node, weight),
            sizes,
            positions=positions,
            groups=given["groups"],
            stride=given["stride"],
            dilation=given["dilation"],
        )
        self._add(row, source, weight)

    def read_linear(self, node: Node) -> None:
        """``x @ weight.T``."""
        source, weight = operands_of(node)[:2]
        equation = "...k,nk->...n" if len(shape_of(weight)) == 2 else "...k,k->..."
        self._contract(node, equation, source, weight)

    def read_matmul(self, node: Node) -> None:
        """Matrix product of any rank, to which a tensor may be added."""
        given = arguments_of(node)
        if kind_of(node) in ("addmm", "baddbmm"):
            a, b = list(given.values())[1:3]
        else:
            a, b = list(given.values())[:2]
        self._contract(node, matmul_equation(shape_of(a), shape_of(b)), a, b)

    def read_einsum(self, node: Node) -> None:
        """Products that an einsum of two operands stands for."""
        equation, operands = str(node.args[0]), operands_of(node)
        weight = self._weight(*operands) if len(operands) == 2 else None
        layer = self._layer(node, operands[weight] if weight is not None else None)
        try:
            row = einsum(layer, equation, [shape_of(found) for found in operands], weight=weight)
        except ValueError as error:
            self.builder.note(f"einsum {layer} with equation {equation} is not covered: {error}")
        else:
            if row is not None:
                self._add_contraction(row, *operands)

    def read_attention(self, node: Node) -> None:
        """Scores and weighted sum of scaled dot-product attention."""
        query, key, value = operands = operands_of(node)[:3]
        causal = bool(arguments_of(node).get("is_causal"))
        layer = self._named(module_of(node)[0] or "attention")
        scores, context = attention(layer, shape_of(query), shape_of(key), shape_of(value), causal=causal)
        flows = [self.values[found].trained for found in operands]
        batched = not all(self.values[found].fixed for found in operands)
        self._hand_over(scores, batched=batched, backward=flows[0], gradient=flows[1])
        self._hand_over(context, batched=batched, backward=flows[0] or flows[1], gradient=flows[2])

    def read_recurrent(self, node: Node) -> None:
        """Products of a recurrent layer or cell: one row for each matrix of weights."""
        given = arguments_of(node)
        source = given["input"]
        operator = kind_of(node).split("_")[0]
        weights: list[Node] = given.get("params") or [given["w_ih"], given["w_hh"]]
        directions = 2 if given.get("bidirectional") else 1
        per_layer = len(weights) // (directions * given.get("num_layers", 1))
        for place, weight in enumerate(weights):
            sizes = shape_of(weight)
            if len(sizes) == 2:  # the others are biases
                rows = (prod(shape_of(source)[:-1]), sizes[1])
                layer = self._named(self.values[weight].origin)
                row = contraction(layer, operator, "mk,nk->mn", rows, sizes, weight=1)
                # Only the first layer reads data; states and what other layers read is trained.
                state = bool(place % per_layer) or place >= directions * per_layer
                self._add(row, source, weight, state=state)

    def read_lookup(self, node: Node) -> None:
        """Embedding: rows of a table taken by an index that depends on the input."""
        table, index = (self.values[found] for found in operands_of(node)[:2])
        if table.trained and table.fixed and not index.fixed:
            layer = self._layer(node, operands_of(node)[0])
            self.builder.look_up(layer, table.origin, prod(shape_of(operands_of(node)[1])))

    def _contract(self, node: Node, equation: str, first: Any, second: Any) -> None:
        weight = self._weight(first, second)
        kind = "matmul" if weight is None else "linear"
        layer = self._layer(node, None if weight is None else (first, second)[weight])
        row = contraction(layer, kind, equation, shape_of(first), shape_of(second), weight=weight)
        self._add_contraction(row, first, second)

    def _weight(self, first: Node, second: Node) -> Literal[0, 1] | None:
        """Place of the operand that is a weight, if one is and the other is not."""
        a, b = self.values[first], self.values[second]
        marks = (a.fixed, b.fixed) if a.fixed != b.fixed else (a.fixed and a.trained, b.fixed and b.trained)
        return None if marks[0] == marks[1] else 0 if marks[0] else 1

    def _add_contraction(self, row: TrainingProducts, first: Node, second: Node) -> None:
        weight = self._weight(first, second)
        if weight is None:
            a, b = self.values[first], self.values[second]
            self._hand_over(row, batched=not a.fixed, backward=a.trained, gradient=b.trained)
        else:
            self._add(row, *((second, first) if weight == 0 else (first, second)))

    def _add(self, row: TrainingProducts, source: Node, weight: Node, *, state: bool = False) -> None:
        """Hand over a product of an activation and a weight; a `state` always needs errors."""
        activation, parameter = self.values[source], self.values[weight]
        notes = () if parameter.trained else ("its weight is not trained",)
        self._hand_over(
            replace(row, notes=(*row.notes, *notes)),
            weight=parameter.origin or weight.name,
            batched=not activation.fixed,
            backward=activation.trained or state,
            gradient=parameter.trained,
        )

    def _hand_over(
        self,
        row: TrainingProducts,
        *,
        weight: str | None = None,
        batched: bool,
        backward: bool,
        gradient: bool,
    ) -> None:
        if not self._records:
            row = replace(row, notes=(*row.notes, "it runs without gradients"))
            backward = gradient = False
        self.builder.add(row, weight=weight, batched=batched, backward=backward, gradient=gradient)

    # ------------------------------------------------------------------------------ names

    def _layer(self, node: Node, weight: Any) -> str:
        return self._named(self._layer_base(node, weight))

    def _layer_base(self, node: Node, weight: Node | None) -> str:
        path, owner = module_of(node)
        if path and weight is not None and is_layer(owner):
            return path
        origin = self.values[weight].origin.partition("|")[0] if weight is not None else ""
        if "." in origin and "+" not in origin:
            return origin.removesuffix(".weight")
        return f"{path}.{kind_of(node)}".removeprefix(".")

    def _named(self, base: str) -> str:
        """`base`, with a number if it is taken."""
        name, number = base, 0
        while name in self._names:
            number += 1
            name = f"{base}_{number}"
        self._names.add(name)
        return name


_RECURRENT = frozenset({"gru", "lstm", "rnn_relu", "rnn_tanh"})

_READERS: Mapping[str, Callable[[_Reader, Node], None]] = {
    **dict.fromkeys(
        (
            "conv1d",
            "conv2d",
            "conv3d",
            "conv_transpose1d",
            "conv_transpose2d",
            "conv_transpose3d",
            "convolution",
            "_convolution",
        ),
        _Reader.read_convolution,
    ),
    **dict.fromkeys(
        ("addmm", "baddbmm", "bmm", "dot", "linalg_matmul", "matmul", "mm", "mv", "vdot"), _Reader.read_matmul
    ),
    **dict.fromkeys(_RECURRENT | {f"{kind}_cell" for kind in _RECURRENT}, _Reader.read_recurrent),
    "linear": _Reader.read_linear,
    "einsum": _Reader.read_einsum,
    "embedding": _Reader.read_lookup,
    "scaled_dot_product_attention": _Reader.read_attention,
}


def _is_floating(node: Node) -> bool:
    """Whether errors can flow back through a result."""
    value = node.meta.get("val")
    return value.is_floating_point() or value.is_complex() if isinstance(value, torch.Tensor) else True


def _mark_changed(node: Node, values: Mapping[Node, _Value]) -> None:
    """Let a tensor that is written in place, and those of which it is a view, take the new value."""
    assert isinstance(node.target, torch._ops.OpOverload)
    for argument, declared in zip(node.args, node.target._schema.arguments, strict=False):
        if declared.alias_info is None or not declared.alias_info.is_write:
            continue
        changed = argument
        while isinstance(changed, Node) and not (changed.op == "placeholder" and values[changed].fixed):
            values[changed].trained |= values[node].trained
            values[changed].fixed &= values[node].fixed
            changed = changed.args[0] if is_view(changed) else None
