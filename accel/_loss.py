"""The loss behind the logits of a forward graph."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from accel.workload import Operator, Phase, Role, Tensor, Workload
from numerics.formats import FixedFormat

_LABEL_FORMAT = FixedFormat.parse("int32")
_OPS_PER_LOGIT = 4  # of a softmax: maximum, difference, exponential, sum


def with_loss(workload: Workload) -> Workload:
    """Forward graph, with a cross-entropy behind its logits if these are its one output.

    Raises
    ------
    ValueError
        The graph has no operator or no output, is no forward graph, or uses a name that is needed.
    """
    if not workload.outputs or not workload.operators:
        raise ValueError(f"a training step needs operators and an output, {workload.name} has none")
    if any(operator.phase is not Phase.FORWARD for operator in workload.operators):
        raise ValueError(f"a training step needs a forward graph, {workload.name} is more than that")
    logits = workload.tensors[workload.outputs[0]]
    # A pool that is flattened keeps its ones.
    if len(workload.outputs) > 1 or len(logits.shape) < 2 or prod(logits.shape[2:]) != 1:
        return workload
    for name in ("labels", "loss"):
        if name in workload.tensors:
            raise ValueError(f"a tensor is already called {name}")
    labels = Tensor(name="labels", shape=logits.shape[:1], role=Role.LABEL, format=_LABEL_FORMAT)
    value = Tensor(name="loss", shape=(), role=Role.ACTIVATION, format=logits.format)
    loss = Operator(
        name="loss",
        kind="cross_entropy",
        inputs=(logits.name, labels.name),
        outputs=(value.name,),
        vector_ops=_OPS_PER_LOGIT * logits.elements,
    )
    return replace(
        workload,
        operators=(*workload.operators, loss),
        tensors={**workload.tensors, labels.name: labels, value.name: value},
        inputs=(*workload.inputs, labels.name),
        outputs=(value.name,),
    )
