"""Recurrent layers and cells of PyTorch as their input and recurrent products.

The input product takes all time steps at once: m = steps x batch. The recurrent one takes a step after
the other: m = batch, count = steps; its operand A is its own result of the step before, in whose place
the graph has the result of the input product, and after it the initial state if one is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from torch.fx import Node

from accel.accumulations import NetworkError
from accel.importers._torch_graph import TorchGraph, gemm_of, results_of
from accel.importers._torch_trace import arguments_of, kind_of, shape_of
from accel.importers._vector_ops import RECURRENT_OPS, bias_ops
from accel.workload import Gemm

#: Layers, and cells that take one step.
RECURRENT = frozenset(
    {"lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"}
)

_GATES = {"lstm": 4, "gru": 3, "rnn": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weights:
    """Matrices and biases of one direction of one layer; `projection` shortens the state of an LSTM."""

    input: Node
    recurrent: Node
    input_bias: Node | None
    recurrent_bias: Node | None
    projection: Node | None


def read_recurrent(graph: TorchGraph, node: Node) -> None:
    """Every layer and direction in turn; the results of two directions are joined by a ``cat``."""
    if str(node.target).endswith(".data"):
        raise NetworkError(f"operator {node.target} ({node.name}) has sequences whose lengths are data")
    given = arguments_of(node)
    shape = shape_of(given["input"])
    is_cell = "params" not in given
    steps = 1 if is_cell else shape[1] if given["batch_first"] and len(shape) == 3 else shape[0]
    results = results_of(node)
    layers = _Layers(
        graph=graph,
        node=node,
        state=list(given["hx"]) if isinstance(given["hx"], list | tuple) else [given["hx"]],
        leading=shape[:-1],
        steps=steps,
        batch=prod(shape[:-1]) // max(steps, 1),
        states=len(results) - 1,
    )
    directions = 2 if given.get("bidirectional") else 1
    source = graph.tensor(given["input"])
    made: list[list[str]] = []
    for weights in _directions(given):
        made.append(layers.read(weights, source))
        if len(made) % directions == 0:
            hidden = [result for result, *_ in made[-directions:]]
            source = layers.joined(hidden, layers.wide(hidden))
    states = zip(*(final for _, *final in made), strict=True)
    joined = [
        layers.joined(list(parts), shape_of_state.shape)
        for parts, shape_of_state in zip(states, results[1:], strict=True)
    ]
    graph.stand_for(node, source, *joined)


def _directions(given: Mapping[str, Any]) -> Iterator[_Weights]:
    """Weights of every layer and direction, in the order of PyTorch."""
    if "params" not in given:
        yield _Weights(
            input=given["w_ih"],
            recurrent=given["w_hh"],
            input_bias=given["b_ih"],
            recurrent_bias=given["b_hh"],
            projection=None,
        )
        return
    biases = 2 if given["has_biases"] else 0
    parts = (2 if given["bidirectional"] else 1) * given["num_layers"]
    each = len(given["params"]) // parts
    for start in range(0, parts * each, each):
        found = given["params"][start : start + each]
        yield _Weights(
            input=found[0],
            recurrent=found[1],
            input_bias=found[2] if biases else None,
            recurrent_bias=found[3] if biases else None,
            projection=found[2 + biases] if each > 2 + biases else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layers:
    """What the directions and layers of one node have in common.

    Attributes
    ----------
    state
        Initial states.
    leading
        Shape of the input without its features.
    states
        How many kinds of final states are read: of the hidden state, then of the cell.
    """

    graph: TorchGraph
    node: Node
    state: list[Node]
    leading: tuple[int, ...]
    steps: int
    batch: int
    states: int

    def read(self, weights: _Weights, source: str) -> list[str]:
        """Operators of one direction; names of its result and of its final states."""
        family = kind_of(self.node).partition("_")[0]
        gates, inputs = shape_of(weights.input)
        _, length = shape_of(weights.recurrent)
        width = gates // _GATES[family]
        elements = self.steps * self.batch * gates
        (before,) = self._append(
            f"{family}_input",
            (source, self.graph.tensor(weights.input), *self.graph.read(weights.input_bias)),
            [(*self.leading, gates)],
            weight=weights.input,
            gemm=gemm_of(self.node, m=self.steps * self.batch, n=gates, k=inputs),
            vector_ops=bias_ops(elements, int(weights.input_bias is not None)),
        )
        # A projection makes the hidden state, so that of the cell alone is left here.
        kept = max(self.states - 1, 0) if weights.projection is not None else self.states
        hidden, *final = self._append(
            f"{family}_recurrent",
            (
                before,
                self.graph.tensor(weights.recurrent),
                *self.graph.read(weights.recurrent_bias, *self.state),
            ),
            [(*self.leading, width), *[(self.batch, width)] * kept],
            weight=weights.recurrent,
            gemm=gemm_of(self.node, m=self.batch, n=gates, k=length, count=self.steps),
            vector_ops=bias_ops(elements, int(weights.recurrent_bias is not None))
            + RECURRENT_OPS[family] * self.steps * self.batch * width,
        )
        if weights.projection is None:
            return [hidden, *final]
        projected = self._append(
            "linear",
            (hidden, self.graph.tensor(weights.projection)),
            [(*self.leading, length), *[(self.batch, length)] * min(self.states, 1)],
            weight=weights.projection,
            gemm=gemm_of(self.node, m=self.batch, n=length, k=width, count=self.steps),
        )
        return [*projected, *final]

    def joined(self, parts: list[str], shape: tuple[int, ...]) -> str:
        """One tensor of several, by a ``cat`` if there are several."""
        return parts[0] if len(parts) == 1 else self._append("cat", parts, [shape])[0]

    def wide(self, parts: list[str]) -> tuple[int, ...]:
        """Shape of results that are joined along their features."""
        return (*self.leading, sum(self.graph.tensors[part].shape[-1] for part in parts))

    def _append(
        self,
        kind: str,
        inputs: Sequence[str],
        shapes: Sequence[tuple[int, ...]],
        *,
        weight: Node | None = None,
        gemm: Gemm | None = None,
        vector_ops: int = 0,
    ) -> tuple[str, ...]:
        return self.graph.append(
            self.graph.operator_name(self.node, kind, weight),
            kind,
            inputs,
            shapes,
            formats=[self.graph.format_of(self.node)] * len(shapes),
            gemm=gemm,
            vector_ops=vector_ops,
        )
