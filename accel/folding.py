"""Operators that read parameters alone, done beforehand: their results are parameters at inference.

Standardised weights, tables of position biases picked by constant indices, interpolated position embeddings:
no sample changes what comes of them, so a pass that is run many times with the same weights reads the result.
In training they run at every step, and what they read gets the gradient: such a graph must not be folded
before its training step is made.

An operator is folded if all it reads are parameters, constants or results of folded operators, it reads at
least one of them, and it draws no random numbers. Each of its results that is still read, or is an output of
the graph, becomes a graph input of the same name, shape and format: a weight if a weight went into it, else a
constant. What only folded operators read leaves the graph; the rest stays as it is.
"""

from __future__ import annotations

from dataclasses import replace

from accel.workload import Operator, Phase, Role, Workload

# Kinds that give another result at every run, in the words of the importers and of ONNX in lower case.
_OF_TORCH = """
    alpha_dropout bernoulli binomial cauchy dropout exponential feature_alpha_dropout feature_dropout
    geometric log_normal multinomial native_dropout normal normal_functional poisson rand rand_like randint
    randint_like randn randn_like random randperm rrelu rrelu_with_noise uniform
"""
_OF_ONNX = "randomnormal randomnormallike randomuniform randomuniformlike"
_RANDOM = frozenset(f"{_OF_TORCH} {_OF_ONNX}".split())


def fold_parameters(workload: Workload) -> Workload:
    """Copy of `workload`, a forward graph, without the operators that read parameters alone.

    Raises
    ------
    ValueError
        The graph holds a part of a training step; the message names an operator of it.

    Examples
    --------
    >>> from accel.workload import Tensor
    >>> graph = Workload(
    ...     name="biased",
    ...     operators=(
    ...         Operator(name="pick", kind="index", inputs=("table", "places"), outputs=("bias",)),
    ...         Operator(name="add", kind="add", inputs=("x", "bias"), outputs=("y",)),
    ...     ),
    ...     tensors={
    ...         "table": Tensor(name="table", shape=(13,), role="weight"),
    ...         "places": Tensor(name="places", shape=(7, 7), role="constant", format="int32"),
    ...         "bias": Tensor(name="bias", shape=(7, 7), role="activation"),
    ...         "x": Tensor(name="x", shape=(7, 7), role="input"),
    ...         "y": Tensor(name="y", shape=(7, 7), role="activation"),
    ...     },
    ...     inputs=("x", "table", "places"),
    ...     outputs=("y",),
    ... )
    >>> folded = graph.folded()
    >>> [operator.name for operator in folded.operators], folded.inputs, folded.parameters
    (['add'], ('x', 'bias'), 49)
    """
    for operator in workload.operators:
        if operator.phase is not Phase.FORWARD:
            raise ValueError(
                f"{workload.name} must be a forward graph to fold what reads parameters alone, "
                f"got operator {operator.name} of phase {operator.phase}"
            )
    tensors = workload.tensors
    roles = {
        name: tensors[name].role
        for name in workload.inputs
        if tensors[name].role in (Role.WEIGHT, Role.CONSTANT)
    }
    kept: list[Operator] = []
    made: dict[str, None] = {}
    gone: set[str] = set()
    for operator in workload.operators:
        kinds = {kind.rstrip("_") for kind in operator.kind.split("+")}
        if not operator.inputs or not roles.keys() >= set(operator.inputs) or kinds & _RANDOM:
            kept.append(operator)
            continue
        of_weights = any(roles[name] is Role.WEIGHT for name in operator.inputs)
        roles.update(dict.fromkeys(operator.outputs, Role.WEIGHT if of_weights else Role.CONSTANT))
        made.update(dict.fromkeys(operator.outputs))
        gone.update((*operator.inputs, *operator.outputs))
    gone -= {name for operator in kept for name in operator.inputs} | set(workload.outputs)
    given = (*workload.inputs, *made)
    return replace(
        workload,
        operators=tuple(kept),
        tensors={
            name: replace(tensor, role=roles[name]) if name in made else tensor
            for name, tensor in tensors.items()
            if name not in gone
        },
        inputs=tuple(name for name in given if name not in gone),
    )
