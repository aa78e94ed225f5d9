"""The graph of a whole training step, made from the graph of its forward pass.

One step is forward, loss, gradient of the loss, then per layer from last to first the error of its
input (backward), the gradient of its parameters and their update by stochastic gradient descent
with momentum. Saved activations are simply read again by backward operators, so a scheduler sees
how long each must live.

Lowered matrix products, for a forward product (m, n, k) x count:

- *weight gradient*: m = k, n = n, k = m: the sum runs over batch and output pixels.
- *error of a linear layer's input*: m = m, n = k, k = n.
- *error of a convolution's input*, for kh x kw taps: m = batch x input pixels, n = input channels
  per group, k = taps x output channels per group. Where the layer has fewer output than input
  pixels by a factor s of 2 or more (stride, or a window that covers much of the input), most
  taps of that product are structural zeros; it is then m = batch x output pixels,
  n = s x input channels per group, k = taps x output channels per group / s: each output pixel owns
  s input pixels, and k is the mean number of products per sum. Should s not divide the dividend,
  their greatest common divisor takes its place. Either way the multiply-accumulates are the true
  ones, those of the forward product, up to the zeros of padding.

Not modelled: gradient clipping, weight decay, loss scaling, recomputation.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import gcd, prod

from accel.workload import Gemm, Operator, Phase, Role, Tensor, Workload
from numerics.formats import FixedFormat

_LABEL_FORMAT = FixedFormat.parse("int32")
_OPS_PER_UPDATE = 4  # momentum = mu momentum + gradient; weight = weight - rate momentum
_OPS_PER_LOGIT = 4  # of a softmax: maximum, difference, exponential, sum


def training_step(workload: Workload) -> Workload:
    """Forward, backward, weight gradients and momentum update of `workload`.

    Parameters
    ----------
    workload
        A forward graph that ends in ``cross_entropy``, or in one tensor of logits ``(batch,
        classes)``, to which a loss with an input ``labels`` is then added.

    Returns
    -------
    Workload
        Weights and their momentum (``conv1.weight.momentum``) are graph inputs; the loss, the new
        weights (``conv1.weight.new``) and the new momentum are the graph outputs. The gradient
        with respect to a tensor is ``<tensor>.error`` or ``<weight>.gradient``. Every tensor keeps
        the format of the one it belongs to.

    Raises
    ------
    ValueError
        There is no such loss, an operator has no known derivative, or two operators share a weight.
    """
    forward = _with_loss(workload)
    *body, loss = forward.operators
    graph = _Backward(forward)
    graph.add_loss_gradient(loss)
    for operator in reversed(body):
        graph.add(operator)
    return Workload(
        name=f"{workload.name} training",
        operators=(*forward.operators, *graph.operators),
        tensors=graph.tensors,
        inputs=(*forward.inputs, *graph.states),
        outputs=(*forward.outputs, *graph.updated),
        batch=workload.batch,
    )


def _with_loss(workload: Workload) -> Workload:
    """Forward graph whose last operator is the loss and whose only output is its value."""
    if len(workload.outputs) != 1 or not workload.operators:
        raise ValueError(f"a training step needs one output, got {', '.join(workload.outputs) or 'none'}")
    (output,) = workload.outputs
    if workload.operators[-1].kind == "cross_entropy":
        if workload.operators[-1].outputs != (output,):
            raise ValueError(f"the loss must be the output of the graph, got {output}")
        return workload
    logits = workload.tensors[output]
    if len(logits.shape) < 2 or prod(logits.shape[2:]) != 1:  # a pool that is flattened keeps its ones
        raise ValueError(f"logits must have shape (batch, classes), got {logits.shape} of {output}")
    for name in ("labels", "loss"):
        if name in workload.tensors:
            raise ValueError(f"a tensor is already called {name}")
    labels = Tensor(name="labels", shape=logits.shape[:1], role=Role.LABEL, format=_LABEL_FORMAT)
    value = Tensor(name="loss", shape=(), role=Role.ACTIVATION, format=logits.format)
    loss = Operator(
        name="loss",
        kind="cross_entropy",
        inputs=(output, labels.name),
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


@dataclass
class _Backward:
    """The operators after the loss, in the order in which they can run."""

    forward: Workload
    operators: list[Operator] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(init=False)
    states: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    # Errors that arrive at a tensor, one per use in the forward pass.
    arrived: dict[str, list[str]] = field(default_factory=dict)
    needs_error: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.tensors = dict(self.forward.tensors)
        self.needs_error = set()
        for operator in self.forward.operators:
            if any(
                self.tensors[name].role is Role.WEIGHT or name in self.needs_error for name in operator.inputs
            ):
                self.needs_error.update(operator.outputs)

    def add_loss_gradient(self, loss: Operator) -> None:
        """Softmax minus the labels, over the batch."""
        logits, _ = loss.inputs
        if logits in self.needs_error:
            self._add_error(
                loss, logits, loss.inputs, vector_ops=(_OPS_PER_LOGIT + 2) * self.tensors[logits].elements
            )

    def add(self, operator: Operator) -> None:
        """Everything that follows from one forward operator."""
        (output,) = operator.outputs
        if output not in self.arrived:
            return  # its result is not trained
        base, _, fused = operator.kind.partition("+")
        if fused not in ("", "relu"):
            raise ValueError(f"operator {operator.name} of kind {operator.kind} has no known derivative")
        error = self._whole_error(output, masked=fused == "relu")
        if operator.gemm is not None and base in ("conv2d", "linear"):
            self._add_layer(operator, operator.gemm, error)
        elif base == "add":
            for source in operator.inputs:
                if source in self.needs_error:
                    self.arrived.setdefault(source, []).append(error)
        elif base == "mul":
            left, right = operator.inputs
            for source, other in ((left, right), (right, left)):
                self._add_error(operator, source, (error, other), vector_ops=self._elements(source))
        elif base == "relu":
            (source,) = operator.inputs
            self._add_error(operator, source, (error, output), vector_ops=self._elements(source))
        elif base == "avg_pool2d":
            (source,) = operator.inputs
            self._add_error(operator, source, (error,), vector_ops=operator.vector_ops)
        elif base == "max_pool2d":
            # The maximum is found again from the saved input and output; no index is stored.
            (source,) = operator.inputs
            self._add_error(operator, source, (error, source, output), vector_ops=operator.vector_ops)
        else:
            raise ValueError(f"operator {operator.name} of kind {operator.kind} has no known derivative")

    def _add_layer(self, operator: Operator, gemm: Gemm, error: str) -> None:
        source, weight, *bias = operator.inputs
        if self.tensors[weight].role is not Role.WEIGHT:
            raise ValueError(f"operand {weight} of {operator.name} must be a weight")
        for parameter in (weight, *bias):
            if len(readers := self.forward.consumers[parameter]) > 1:
                raise ValueError(
                    f"weight {parameter} is shared by {', '.join(reader.name for reader in readers)}; "
                    f"a training step needs one operator per weight"
                )
        backward = _backward_gemm(gemm, *(self.tensors[name].shape for name in (source, weight, error)))
        self._add_error(operator, source, (error, weight), gemm=backward)
        parameters = (weight, *bias)
        gradients = [
            self._declare_like(name, f"{name}.gradient", Role.WEIGHT_GRADIENT) for name in parameters
        ]
        self.operators.append(
            Operator(
                name=f"{operator.name}.gradient",
                kind=f"{operator.kind.partition('+')[0]}_gradient",
                inputs=(source, error),
                outputs=tuple(gradients),
                phase=Phase.GRADIENT,
                gemm=Gemm(m=gemm.k, n=gemm.n, k=gemm.m, count=gemm.count),
                vector_ops=self._elements(error) * len(bias),  # the bias gradient sums the error
            )
        )
        momenta = [self._declare_like(name, f"{name}.momentum", Role.OPTIMIZER_STATE) for name in parameters]
        new = [
            self._declare_like(old, f"{old}.new", role)
            for name, momentum in zip(parameters, momenta, strict=True)
            for old, role in ((name, Role.WEIGHT), (momentum, Role.OPTIMIZER_STATE))
        ]
        self.states += momenta
        self.updated += new
        self.operators.append(
            Operator(
                name=f"{operator.name}.update",
                kind="sgd_momentum",
                inputs=tuple(
                    name for triple in zip(parameters, momenta, gradients, strict=True) for name in triple
                ),
                outputs=tuple(new),
                phase=Phase.UPDATE,
                vector_ops=_OPS_PER_UPDATE * sum(map(self._elements, parameters)),
            )
        )

    def _add_error(
        self,
        operator: Operator,
        source: str,
        inputs: tuple[str, ...],
        *,
        gemm: Gemm | None = None,
        vector_ops: int = 0,
    ) -> None:
        """Operator that makes the error that one use of `source` sends back."""
        if source not in self.needs_error:
            return
        uses = sum(reader.inputs.count(source) for reader in self.forward.operators)
        earlier = sum(name.startswith(f"{source}.error") for name in self.tensors)
        error = f"{source}.error" if uses == 1 else f"{source}.error.{earlier + 1}"
        self._declare_like(source, error, Role.ERROR)
        self.arrived.setdefault(source, []).append(error)
        names = {known.name for known in self.operators}
        name = f"{operator.name}.backward"
        self.operators.append(
            Operator(
                name=name if name not in names else f"{name}_1",
                kind=f"{operator.kind.partition('+')[0]}_backward",
                inputs=inputs,
                outputs=(error,),
                phase=Phase.BACKWARD,
                gemm=gemm,
                vector_ops=vector_ops,
            )
        )

    def _whole_error(self, output: str, *, masked: bool) -> str:
        """Sum of the errors that arrived at `output`, masked by its sign where a ReLU was fused."""
        parts = self.arrived[output]
        elements = self._elements(output)
        mask = (output,) if masked else ()
        if len(parts) == 1:
            (error,) = parts
            if not masked:
                return error
            maker = next(place for place, made in enumerate(self.operators) if error in made.outputs)
            if error.startswith(f"{output}.error"):  # made for this tensor alone
                found = self.operators[maker]
                self.operators[maker] = replace(
                    found,
                    inputs=found.inputs if output in found.inputs else (*found.inputs, output),
                    vector_ops=found.vector_ops + elements,
                )
                return error
        whole = self._declare_like(output, f"{output}.error", Role.ERROR)
        self.operators.append(
            Operator(
                name=f"{whole}.sum" if len(parts) > 1 else f"{whole}.mask",
                kind="add" if len(parts) > 1 else "relu_backward",
                inputs=(*parts, *mask),
                outputs=(whole,),
                phase=Phase.BACKWARD,
                vector_ops=elements * (len(parts) - 1 + masked),
            )
        )
        return whole

    def _declare_like(self, model: str, name: str, role: Role) -> str:
        if name in self.tensors:
            raise ValueError(f"a tensor is already called {name}")
        self.tensors[name] = replace(self.tensors[model], name=name, role=role)
        return name

    def _elements(self, name: str) -> int:
        return self.tensors[name].elements


def _backward_gemm(
    gemm: Gemm, source: tuple[int, ...], weight: tuple[int, ...], error: tuple[int, ...]
) -> Gemm:
    """Product that gives the error of a layer's input, see the module's text."""
    if len(weight) == 2:
        return Gemm(m=gemm.m, n=gemm.k, k=gemm.n)
    channels = weight[1]  # input channels per group
    taps = gemm.n * gemm.k // channels  # summed for one input pixel: window x output channels
    shrink = prod(int(before / after + 0.5) for before, after in zip(source[-2:], error[-2:], strict=True))
    if shrink <= 1:
        pixels = prod(source) // (channels * gemm.count)
        return Gemm(m=pixels, n=channels, k=taps, count=gemm.count)
    owned = gcd(taps, shrink)
    return Gemm(m=gemm.m, n=owned * channels, k=taps // owned, count=gemm.count)
