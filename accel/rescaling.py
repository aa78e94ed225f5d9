"""A workload for another number of samples, without reading its model again.

What holds the batch is found by data flow. A graph input that is an activation or an error holds it. One of
data, indices or labels does if one of its axes has the batch's size; where that is true of none, as in graphs
whose tensors are flat, all of them do. A result holds it if an operand does, except for
scalars such as a loss, and for gradients and new values of parameters. What is computed from
parameters and constants alone does not, but for an ``expand`` of them whose leading axis is a batch
of two or more.

What holds the batch grows along the first axis whose size is the batch; if none is, as where samples
and heads share one, along the first that gives a whole number. In a product of an activation and of
what does not depend on the batch m grows; in one of two activations the count; where the result is the
gradient of a parameter, k.

Two things are not known. A reduction over the batch, other than a sum of gradients or a scalar loss, cannot
be told from other reductions: its result grows too. And a model read for one sample may do without
copies that several need, where samples and positions change places.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from accel._given import whole
from accel.workload import Gemm, Operator, Role, Tensor, Workload


def rescaled(workload: Workload, batch: int) -> Workload:
    """Copy of `workload` for `batch` samples, which equals the same model read at that batch.

    Raises
    ------
    TypeError
        The batch is no whole number.
    ValueError
        The batch is below 1, or a size would be no whole number; the message names the tensor or
        the operator.
    """
    batch = whole("batch", batch)
    ratio = Fraction(batch, workload.batch)
    held = holders_of_the_batch(workload)
    tensors = {
        name: _grown(tensor, workload.batch, ratio) if name in held else tensor
        for name, tensor in workload.tensors.items()
    }
    operators = tuple(_operator(operator, held, ratio) for operator in workload.operators)
    return replace(workload, operators=operators, tensors=tensors, batch=batch)


def holders_of_the_batch(workload: Workload) -> frozenset[str]:
    """Names of the tensors whose size is proportional to the batch."""

    def may(name: str) -> bool:
        return not workload.tensors[name].role.is_parameter and workload.tensors[name].shape != ()

    given = {name: workload.tensors[name] for name in workload.inputs if may(name)}
    held = {name for name, tensor in given.items() if tensor.role in (Role.ACTIVATION, Role.ERROR)}
    data = given.keys() - held
    held |= {name for name in data if workload.batch in given[name].shape} or data
    for operator in workload.operators:
        if any(name in held for name in operator.inputs) or _expands_to_the_batch(operator, workload):
            held.update(name for name in operator.outputs if may(name))
    return frozenset(held)


def _expands_to_the_batch(operator: Operator, workload: Workload) -> bool:
    if operator.kind != "expand" or workload.batch < 2:
        return False
    return any(workload.tensors[name].shape[:1] == (workload.batch,) for name in operator.outputs)


def _grown(tensor: Tensor, old: int, ratio: Fraction) -> Tensor:
    """`tensor` with the axis multiplied that holds the batch."""
    sizes = tensor.shape
    axes = range(len(sizes))
    order = [axis for axis in axes if sizes[axis] == old]
    axis = next((axis for axis in (*order, *axes) if (sizes[axis] * ratio).denominator == 1), None)
    if axis is None:
        raise ValueError(
            f"tensor {tensor.name} of shape {sizes} cannot be rescaled to {ratio} of its elements"
        )
    return replace(tensor, shape=(*sizes[:axis], int(sizes[axis] * ratio), *sizes[axis + 1 :]))


def _operator(operator: Operator, held: frozenset[str], ratio: Fraction) -> Operator:
    if not any(name in held for name in (*operator.inputs, *operator.outputs)):
        return operator

    def times(size: int, what: str) -> int:
        if (grown := size * ratio).denominator != 1:
            raise ValueError(f"{what} {size} of operator {operator.name} times {ratio} is no whole number")
        return int(grown)

    window = operator.window and replace(operator.window, batch=times(operator.window.batch, "batch"))
    gemm = operator.gemm
    if gemm is not None:
        size = _size_that_grows(operator, gemm, held, ratio)
        gemm = replace(gemm, **{size: times(getattr(gemm, size), size)})
    vector_ops = times(operator.vector_ops, "vector_ops")
    return replace(operator, gemm=gemm, window=window, vector_ops=vector_ops)


def _size_that_grows(operator: Operator, gemm: Gemm, held: frozenset[str], ratio: Fraction) -> str:
    a, w = (name in held for name in operator.inputs[:2])
    if operator.outputs[0] not in held:
        return "k"  # the gradient of a parameter sums over the batch
    if a and not w:
        return "m"
    # Two activations are one product per sample; so is a constant times an activation, unless the
    # samples lie side by side in one product.
    return "count" if a or (gemm.count * ratio).denominator == 1 else "n"
