"""Operator graphs as JSON files.

The plain schema tells bytes alone: ``name``; ``inputs``, ``outputs``: names of tensors; ``tensors``: bytes by
name; ``operators``: a list, in an order in which they can run, of ``name``, ``kind``, ``inputs``,
``outputs`` and ``weight_bytes``. Every tensor is then flat, one byte (``int8``) per element, and an operator
with ``weight_bytes`` reads a weight ``<operator>.weight`` of that many after its first input:

.. code-block:: json

    {"name": "two layers", "inputs": ["x"], "outputs": ["y"],
     "tensors": {"x": 784, "h": 128, "y": 10},
     "operators": [
       {"name": "fc1", "kind": "linear+relu", "inputs": ["x"], "outputs": ["h"], "weight_bytes": 100480},
       {"name": "fc2", "kind": "linear", "inputs": ["h"], "outputs": ["y"], "weight_bytes": 1290}]}

What a `Workload` knows besides is optional, so that one written by `to_json` reads back as the same: the
graph's ``batch``; a tensor as ``{"shape": [4, 8], "format": "e4m3fn", "role": "weight"}``; and of an
operator ``phase``, ``gemm``, ``window``, ``vector_ops`` and ``in_place``. A weight is then listed in
``tensors`` and among the inputs, and does not count in ``weight_bytes``.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, model_validator

from accel._cycles import find_cycle
from accel._given import LIMIT
from accel.importers._schema import (
    NotNegative,
    Positive,
    Table,
    format_text,
    key_path,
    read_text,
    validated,
    without_twins,
)
from accel.workload import Gemm, Operator, Phase, Role, Tensor, Window, Workload
from numerics.block import parse_any_format
from numerics.formats import FixedFormat

_BYTE = FixedFormat.parse("int8")


def _one_of(kinds: type[Role] | type[Phase]) -> AfterValidator:
    def check(text: str) -> str:
        if text not in list(kinds):
            raise ValueError(f"must be one of {', '.join(kinds)}, got {text!r}")
        return text

    return AfterValidator(check)


class _Tensor(Table):
    shape: list[NotNegative]
    format: Annotated[str, AfterValidator(format_text)] = str(_BYTE)
    role: Annotated[str, _one_of(Role)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_bytes(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return value
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"must be a number of bytes or a table with a shape, got {value!r}")
        if value < 0:
            raise ValueError(f"must be at least 0 bytes, got {value}")
        if value >= LIMIT:
            raise ValueError(f"must be below 2**62 bytes, got {value}")
        return {"shape": [value]}


class _Gemm(Table):
    m: Positive
    n: Positive
    k: Positive
    count: Positive = 1


class _Window(Table):
    batch: Positive
    channels: Positive
    input: list[Positive]
    output: list[Positive]
    kernel: list[Positive]
    stride: list[Positive]
    dilation: list[Positive]
    padding: list[NotNegative]


class _Operator(Table):
    name: str
    kind: str
    inputs: list[str]
    outputs: list[str]
    weight_bytes: NotNegative
    phase: Annotated[str, _one_of(Phase)] = str(Phase.FORWARD)
    gemm: _Gemm | None = None
    window: _Window | None = None
    vector_ops: NotNegative = 0
    in_place: bool = False


class _Graph(Table):
    name: str
    inputs: list[str]
    outputs: list[str]
    tensors: dict[str, _Tensor]
    operators: list[_Operator]
    batch: Positive = 1


def from_json(path: str | Path) -> Workload:
    """Workload in a JSON file, in either form of the schema.

    Raises
    ------
    ValueError
        The file cannot be read, is not JSON, does not fit the schema, or is no graph that can run; one
        line with the file, the key's path and what is wrong.
    """
    text = read_text(path)
    try:
        data = json.loads(text, object_pairs_hook=without_twins)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: is not JSON: {error}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None
    graph = validated(_Graph, data, path)
    if problem := _first_problem(graph):
        raise ValueError(f"{path}: {problem}")
    return _workload(graph, path)


def to_json(workload: Workload, path: str | Path | None = None) -> str:
    """Text of `workload` as JSON, one tensor and one operator per line; written to `path` if there is one."""
    given = set(workload.inputs)
    tensors = {name: _tensor_entry(tensor, name in given) for name, tensor in workload.tensors.items()}
    operators = [_operator_entry(operator) for operator in workload.operators]
    head = {"name": workload.name, "batch": workload.batch, "inputs": workload.inputs}
    head["outputs"] = workload.outputs
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    named = [f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in tensors.items()]
    lines.append(_block("tensors", "{", named, "}"))
    lines.append(_block("operators", "[", [f"  {json.dumps(entry)}" for entry in operators], "]"))
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text


def _block(key: str, begin: str, lines: list[str], end: str) -> str:
    inside = ",\n".join(lines)
    return f'"{key}": {begin}\n{inside}\n{end}' if lines else f'"{key}": {begin}{end}'


def _default_role(given: bool) -> Role:
    return Role.INPUT if given else Role.ACTIVATION


def _tensor_entry(tensor: Tensor, given: bool) -> int | dict[str, Any]:
    plain = len(tensor.shape) == 1 and tensor.format == _BYTE
    if plain and tensor.role is _default_role(given):
        return tensor.shape[0]
    return {"shape": tensor.shape, "format": str(tensor.format), "role": str(tensor.role)}


def _operator_entry(operator: Operator) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": operator.name,
        "kind": operator.kind,
        "inputs": operator.inputs,
        "outputs": operator.outputs,
        "weight_bytes": 0,
    }
    if operator.phase is not Phase.FORWARD:
        entry["phase"] = str(operator.phase)
    if operator.gemm is not None:
        entry["gemm"] = asdict(operator.gemm)
    if operator.window is not None:
        entry["window"] = asdict(operator.window)
    if operator.vector_ops:
        entry["vector_ops"] = operator.vector_ops
    if operator.in_place:
        entry["in_place"] = True
    return entry


def _workload(graph: _Graph, path: str | Path) -> Workload:
    given = set(graph.inputs)
    tensors = {
        name: Tensor(
            name=name,
            shape=tuple(entry.shape),
            role=Role(entry.role) if entry.role else _default_role(name in given),
            format=parse_any_format(entry.format),
        )
        for name, entry in graph.tensors.items()
    }
    weights: list[str] = []
    operators: list[Operator] = []
    for place, entry in enumerate(graph.operators):
        inputs = list(entry.inputs)
        if entry.weight_bytes:
            weight = f"{entry.name}.weight"
            if weight in tensors:
                raise ValueError(
                    f"{path}: operators[{place}].weight_bytes would make a tensor {weight!r}, "
                    f"which is declared already"
                )
            tensors[weight] = Tensor(name=weight, shape=(entry.weight_bytes,), role=Role.WEIGHT, format=_BYTE)
            weights.append(weight)
            inputs.insert(1, weight)
        try:
            operators.append(_operator(entry, tuple(inputs)))
        except ValueError as error:  # a window that is not that of the product, two outputs in place
            raise ValueError(f"{path}: operators[{place}]: {error}") from None
    return Workload(
        name=graph.name,
        operators=tuple(operators),
        tensors=tensors,
        inputs=(*graph.inputs, *weights),
        outputs=tuple(graph.outputs),
        batch=graph.batch,
    )


def _operator(entry: _Operator, inputs: tuple[str, ...]) -> Operator:
    sizes: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in entry.window or ()
    }
    return Operator(
        name=entry.name,
        kind=entry.kind,
        inputs=inputs,
        outputs=tuple(entry.outputs),
        phase=Phase(entry.phase),
        gemm=Gemm(**dict(entry.gemm)) if entry.gemm else None,
        window=Window(**sizes) if sizes else None,
        vector_ops=entry.vector_ops,
        in_place=entry.in_place,
    )


def _first_problem(graph: _Graph) -> str:
    """Why the graph cannot run, or nothing."""
    maker: dict[str, str] = {}  # where each tensor comes from

    def declared(name: str, *location: int | str) -> str:
        known = name in graph.tensors
        return "" if known else f"{key_path(location)} names {name!r}, which tensors does not declare"

    for place, name in enumerate(graph.inputs):
        if problem := declared(name, "inputs", place):
            return problem
        if name in maker:
            return f"inputs[{place}] names {name!r} a second time"
        maker[name] = "the graph's inputs"
    producer: dict[str, int] = {}
    names: dict[str, int] = {}
    for place, operator in enumerate(graph.operators):
        if (first := names.setdefault(operator.name, place)) != place:
            return f"operators[{place}].name {operator.name!r} is that of operators[{first}] already"
        for slot, name in enumerate(operator.outputs):
            if problem := declared(name, "operators", place, "outputs", slot):
                return problem
            if name in maker:
                return (
                    f"operators[{place}].outputs[{slot}]: tensor {name!r} has two producers, "
                    f"{maker[name]} and {operator.name}"
                )
            maker[name], producer[name] = operator.name, place
    for place, operator in enumerate(graph.operators):
        for slot, name in enumerate(operator.inputs):
            where = f"operators[{place}].inputs[{slot}]"
            if problem := declared(name, "operators", place, "inputs", slot):
                return problem
            if name not in maker:
                return f"{where}: tensor {name!r} has no producer and is no input of the graph"
            if producer.get(name, -1) >= place:
                if cycle := find_cycle([found.inputs for found in graph.operators], producer, place):
                    way = " -> ".join(graph.operators[step].name for step in cycle)
                    return f"{where}: the operators form a cycle: {way}"
                later = producer[name]
                return f"{where}: tensor {name!r} is produced by a later one, operators[{later}]"
    for place, name in enumerate(graph.outputs):
        if problem := declared(name, "outputs", place):
            return problem
        if name not in maker:
            return f"outputs[{place}]: tensor {name!r} has no producer and is no input of the graph"
    return ""
