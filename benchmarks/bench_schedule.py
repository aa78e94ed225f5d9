"""Seconds and traffic of optimal schedules of CNN training steps, against layer-by-layer execution.

    python benchmarks/bench_schedule.py [GRAPH.json ...]

Graphs are JSON files with the keys name, inputs, outputs, tensors (bytes by name) and operators (name,
kind, inputs, outputs), such as those of the reference data set; without any, only the training steps
built here are timed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter

from accel.schedule import Schedule, schedule, working_set_minimum
from accel.workload import Operator, Role, Tensor, Workload
from numerics.formats import parse_format

BATCH = 256
TIME_LIMIT_S = 30.0
BYTE = parse_format("int8")


class Builder:
    """Collects tensors of one byte per element, and operators."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.operators: list[Operator] = []

    def tensor(self, name: str, *shape: int, role: Role = Role.ACTIVATION) -> str:
        """Declare a tensor and return its name."""
        self.tensors[name] = Tensor(name=name, shape=shape, role=role, format=BYTE)
        return name

    def run(self, name: str, inputs: tuple[str, ...], *outputs: str) -> None:
        """Append an operator; its kind is the last part of its name."""
        kind = name.split(".")[-1]
        self.operators.append(Operator(name=name, kind=kind, inputs=inputs, outputs=outputs))

    def update(self, layer: str, weight: str, gradient: str) -> None:
        """Gradient descent with momentum."""
        shape = self.tensors[weight].shape
        momentum = self.tensor(f"{weight}.momentum", *shape, role=Role.OPTIMIZER_STATE)
        after = [
            self.tensor(f"{name}.next", *shape, role=self.tensors[name].role) for name in (weight, momentum)
        ]
        self.run(f"{layer}.update", (weight, gradient, momentum), *after)

    def workload(self, name: str) -> Workload:
        """All of it; what nobody makes is a graph input, what nobody reads an output."""
        made = {t for op in self.operators for t in op.outputs}
        read = {t for op in self.operators for t in op.inputs}
        return Workload(
            name=name,
            operators=tuple(self.operators),
            tensors=self.tensors,
            inputs=tuple(t for t in self.tensors if t not in made),
            outputs=tuple(t for t in self.tensors if t not in read),
            batch=BATCH,
        )


def training_step(channels: tuple[int, ...], *, pixels: int = 28, classes: int = 10) -> Workload:
    """Convolution, ReLU and pooling by layer, a classifier, and backward through all of it."""
    b = Builder()
    x, width = b.tensor("x", BATCH, 1, pixels, pixels, role=Role.INPUT), 1
    label = b.tensor("label", BATCH, role=Role.LABEL)
    layers = []
    for k, wide in enumerate(channels, start=1):
        w = b.tensor(f"conv{k}.weight", wide, width, 3, 3, role=Role.WEIGHT)
        y, a = (b.tensor(f"conv{k}.{part}", BATCH, wide, pixels, pixels) for part in ("out", "relu"))
        pixels //= 2
        p = b.tensor(f"conv{k}.pooled", BATCH, wide, pixels, pixels)
        b.run(f"conv{k}.forward", (x, w), y)
        b.run(f"conv{k}.relu", (y,), a)
        b.run(f"conv{k}.pool", (a,), p)
        layers.append((k, x, w, y, a, p))
        x, width = p, wide
    w = b.tensor("fc.weight", width * pixels**2, classes, role=Role.WEIGHT)
    b.run("fc.forward", (x, w), b.tensor("scores", BATCH, classes))
    error = b.tensor("scores.error", BATCH, classes, role=Role.ERROR)
    b.run("loss", ("scores", label), error)

    def backward(layer: str, x: str, w: str, error: str, *, first: bool) -> str:
        gradient = b.tensor(f"{w}.gradient", *b.tensors[w].shape, role=Role.WEIGHT_GRADIENT)
        b.run(f"{layer}.weight_gradient", (x, error), gradient)
        if not first:
            before = b.tensor(f"{x}.error", *b.tensors[x].shape, role=Role.ERROR)
            b.run(f"{layer}.backward", (error, w), before)
            error = before
        b.update(layer, w, gradient)
        return error

    error = backward("fc", x, w, error, first=False)
    for k, x, w, y, a, p in reversed(layers):
        for name, needs in ((a, (error, a, p)), (y, (f"{a}.error", a))):
            error = b.tensor(f"{name}.error", *b.tensors[name].shape, role=Role.ERROR)
            b.run(f"{name}.backward", needs, error)
        error = backward(f"conv{k}", x, w, error, first=k == 1)
    return b.workload(f"{len(channels)}-conv training step")


def load_graph(path: Path) -> Workload:
    """Workload of a JSON graph; weights are not among its tensors."""
    text = json.loads(path.read_text())
    return Workload(
        name=text["name"],
        operators=tuple(
            Operator(
                name=op["name"], kind=op["kind"], inputs=tuple(op["inputs"]), outputs=tuple(op["outputs"])
            )
            for op in text["operators"]
        ),
        tensors={
            name: Tensor(name=name, shape=(size,), role=Role.ACTIVATION, format=BYTE)
            for name, size in text["tensors"].items()
        },
        inputs=tuple(text["inputs"]),
        outputs=tuple(text["outputs"]),
    )


def layer_by_layer_bytes(graph: Workload) -> int:
    """Traffic when every operator loads all it reads and stores all it writes."""
    return sum(graph.tensors[name].bytes for op in graph.operators for name in {*op.inputs, *op.outputs})


def file_order_peak_bytes(graph: Workload) -> int:
    """Scratchpad in which nothing ever has to leave in file order, but for fragmentation."""
    uses: dict[str, list[int]] = {}
    for step, op in enumerate(graph.operators):
        for name in (*op.inputs, *op.outputs):
            uses.setdefault(name, []).append(step)
    return max(
        sum(graph.tensors[name].bytes for name, steps in uses.items() if steps[0] <= step <= steps[-1])
        for step in range(len(graph.operators))
    )


def report(graph: Workload) -> None:
    minimum, peak = working_set_minimum(graph), file_order_peak_bytes(graph)
    baseline = layer_by_layer_bytes(graph)
    print(
        f"\n{graph.name}: {len(graph.operators)} operators, {len(graph.tensors)} tensors, "
        f"working set {minimum}, peak {peak}, layer by layer {baseline} bytes"
    )
    print("scratchpad_bytes  seconds  status    method      noncompulsory  offchip / layer by layer")
    for scratchpad in sorted({minimum + (peak - minimum) * k // 4 for k in range(5)}):
        start = perf_counter()
        plan: Schedule = schedule(graph, scratchpad, time_limit_s=TIME_LIMIT_S)
        print(
            f"{scratchpad:16d}  {perf_counter() - start:7.3f}  {plan.status:8}  {plan.method:10}"
            f"{plan.noncompulsory_bytes:15d}  {plan.offchip_bytes / baseline:.4f}"
        )


def main(paths: list[str]) -> None:
    for channels in ((16, 32), (16, 32, 64)):
        report(training_step(channels))
    if not paths:
        print("\nno JSON graphs given")
    for path in paths:
        report(load_graph(Path(path)))


if __name__ == "__main__":
    main(sys.argv[1:])
