"""The graph of a whole training step, made from the graph of its forward pass.

One step is forward, loss, gradient of the loss, then per operator from last to first the errors of its
inputs (backward), the gradients of its parameters and their update by stochastic gradient descent with
momentum, or by Adam. Saved activations are simply read again by backward operators, so a scheduler sees how
long each must live.

- Matrix products: ``accel._backward_products``. Other operators: ``accel._derivatives`` says what the
  backward pass of each kind reads and how much arithmetic it does.
- Loss: a graph whose one output are logits ``(batch, classes)`` gets a cross-entropy with an input
  ``labels``; a softmax that makes them is kept, and its result taken for logits. An output that is a
  scalar is a loss, its gradient is 1. The error of any other output arrives as a graph input,
  ``<output>.error``.
- A graph input with the role of an activation comes from layers outside of the graph: its error is an output.
- A parameter that several operators read (tied embeddings) gets the sum of their gradients.
- Gradients of embeddings are dense, as large as the table.

Not modelled: statistics of the batch in the forward pass (a forward graph is read in evaluation mode),
gradient clipping, weight decay, loss scaling, recomputation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Literal, TypeAlias

from accel._backward_products import error_of_a, error_of_w
from accel._derivatives import Derivative, Read, derivative, fused_derivative
from accel._loss import with_loss
from accel.workload import Gemm, Operator, Phase, Role, Tensor, Window, Workload

Update: TypeAlias = Literal["sgd", "adam"]


@dataclass(frozen=True, slots=True)
class _Rule:
    """An update: its kind, what it keeps for each parameter, and its operations on one."""

    kind: str
    states: tuple[str, ...]
    ops: int


_RULES: Mapping[Update, _Rule] = {
    # momentum = mu momentum + gradient; weight = weight - rate momentum
    "sgd": _Rule("sgd_momentum", ("momentum",), 4),
    # mean = b1 mean + (1 - b1) gradient; square = b2 square + (1 - b2) gradient^2;
    # weight = weight - rate mean / (sqrt(square) + eps), the corrections of the bias in rate and eps
    "adam": _Rule("adam", ("mean", "square"), 12),
}
_PRODUCTS = ("conv", "linear", "matmul", "lstm_", "gru_", "rnn_")


def training_step(workload: Workload, *, optimizer: Update = "sgd") -> Workload:
    """Forward, backward, weight gradients and update of `workload`.

    Parameters
    ----------
    workload
        A forward graph; the module's text says where its loss is. Of operators that were folded
        (``accel.folding``) the result is what is trained: import with ``fold_parameters=False``.
    optimizer
        ``"sgd"`` with momentum, or ``"adam"``, which keeps two values for each parameter
        (``conv1.weight.mean``, ``conv1.weight.square``).

    Returns
    -------
    Workload
        Weights and their momentum (``conv1.weight.momentum``) are graph inputs; the outputs, the new
        weights (``conv1.weight.new``) and the new momentum are the graph outputs. The gradient
        with respect to a tensor is ``<tensor>.error`` or ``<weight>.gradient``; the parts of one that is
        a sum are numbered. Every tensor keeps the format of the one it belongs to.

    Raises
    ------
    ValueError
        The graph has no operator or no output or holds a backward pass already; a function is fused whose
        derivative needs what is not stored; or a name that is needed is taken.
    """
    forward = with_loss(workload)
    graph = _Backward(forward, _RULES[optimizer])
    for operator in reversed(forward.operators):
        graph.add(operator)
    graph.close()
    return Workload(
        name=f"{workload.name} training",
        operators=(*forward.operators, *graph.operators),
        tensors=graph.tensors,
        inputs=(*forward.inputs, *graph.errors, *graph.states),
        outputs=(*forward.outputs, *graph.results),
        batch=workload.batch,
    )


def _plain(kind: str) -> str:
    """Kind without fused parts and without the underscore of functions that work in place."""
    return kind.partition("+")[0].rstrip("_")


def _is_product(operator: Operator) -> bool:
    """Whether its first two inputs are operands; sizes of the product may be unknown."""
    return operator.gemm is not None or (operator.kind.startswith(_PRODUCTS) and len(operator.inputs) > 1)


def _derivative(operator: Operator, place: int) -> Derivative | None:
    """Derivative by the operand in `place`; what a product reads after its operands is added to it."""
    if _is_product(operator):
        return Derivative(0)
    return derivative(_plain(operator.kind), place)


@dataclass
class _Backward:
    """The operators after the forward pass, in an order in which they can run."""

    forward: Workload
    rule: _Rule
    operators: list[Operator] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(init=False)
    errors: list[str] = field(default_factory=list)  # that arrive from outside
    states: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    # Tensors whose error is wanted: they depend on a parameter, and an output depends on them.
    live: set[str] = field(init=False)
    fixed: set[str] = field(init=False)  # parameters, constants, and what is computed from them alone
    arrived: dict[str, list[str]] = field(default_factory=dict)  # the parts of an error
    uses: Counter[str] = field(default_factory=Counter)  # how many parts there will be
    first_reader: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.tensors = dict(self.forward.tensors)
        self.names = {operator.name for operator in self.forward.operators}
        given = [self.tensors[name] for name in self.forward.inputs]
        self.fixed = {tensor.name for tensor in given if tensor.role.is_parameter}
        trained = {tensor.name for tensor in given if tensor.role in (Role.WEIGHT, Role.ACTIVATION)}
        for operator in self.forward.operators:
            if self.fixed.issuperset(operator.inputs):
                self.fixed.update(operator.outputs)
            if self._differentiable(operator, trained):
                trained.update(
                    name for name in operator.outputs if not self.tensors[name].role.holds_integers
                )
        self.live = {name for name in self.forward.outputs if name in trained}
        self._start_at_outputs()
        for operator in reversed(self.forward.operators):
            if self.live.intersection(operator.outputs):
                sources = self._differentiable(operator, trained)
                self.live.update(sources)
                self.uses.update(sources)
                self.first_reader.update(dict.fromkeys(sources, operator.name))

    def _differentiable(self, operator: Operator, trained: set[str]) -> list[str]:
        """Operands, once per use, through which an error can flow to a parameter."""
        return [
            name
            for place, name in enumerate(operator.inputs)
            if name in trained and _derivative(operator, place) is not None
        ]

    def _start_at_outputs(self) -> None:
        for name in dict.fromkeys(self.forward.outputs):
            if name not in self.live:
                continue
            if self.tensors[name].shape == ():
                self.arrived[name] = []  # a loss: its gradient is 1
                continue
            self.uses[name] += 1
            self.errors.append(self._declare_like(name, f"{name}.error", self._role_of_error(name)))
            self.arrived[name] = [self.errors[-1]]

    # ------------------------------------------------------------------------------ one operator

    def add(self, operator: Operator) -> None:
        """Everything that follows from one forward operator."""
        outputs = [name for name in operator.outputs if name in self.live]
        if outputs:
            errors = tuple(found for name in outputs if (found := self._whole_error(operator, name)))
            if _is_product(operator):
                self._add_product(operator, errors)
            else:
                self._add_other(operator, errors)
        self._add_update(operator)

    def close(self) -> None:
        """Return the errors of what came from layers outside of the graph."""
        for name in self.forward.inputs:
            if name in self.live and self.tensors[name].role is Role.ACTIVATION:
                self.results += self._summed(name)

    def _add_product(self, operator: Operator, errors: tuple[str, ...]) -> None:
        a, w, *rest = operator.inputs
        gemm = operator.gemm if errors else None  # the gradient of a loss is 1: nothing is multiplied
        # The states that a recurrent layer has gone through are needed to go back through them.
        recurrent = _plain(operator.kind).endswith("_recurrent")
        states = operator.outputs if recurrent else ()
        ops = operator.vector_ops if recurrent else 0
        product: Gemm | None = None
        window: Window | None = None
        if a in self.live:
            if gemm is not None:
                shapes = (self.tensors[name].shape for name in (a, w, operator.outputs[0]))
                product, window = error_of_a(operator, gemm, *shapes)
            # Operands of the product come first; the error of a loss is 1, which nothing stores.
            read = (*errors[:1], w, *errors[1:], *((a,) if recurrent else ()), *states)
            self._add_error(operator, a, read, product, window, ops)
        product = error_of_w(gemm, self.tensors[w].shape) if gemm is not None else None
        if w in self.live and not self._is_parameter(w):
            self._add_error(operator, w, (a, *errors, *states), product, vector_ops=ops)
        for source in rest:
            if source not in self.live or self._is_parameter(source):
                continue
            if recurrent:  # an initial state, which the errors of all steps reach
                self._add_error(operator, source, (*errors, w, *states), vector_ops=self._elements(source))
            else:
                self._add_sum(operator, source, errors)
        biases = [name for name in rest if self._is_parameter(name)]
        trained = self._is_parameter(w)
        if trained or biases:
            # The gradient of a recurrent weight multiplies states by errors of the gates, shaped as A.
            operands = (*states[:1], a, *errors, *states[1:]) if recurrent else (a, *errors)
            self._add_gradients(
                operator,
                (*((w,) if trained else ()), *biases),
                operands if trained else errors,
                product if trained else None,
                # The gradient of a bias sums the error.
                (ops if trained else 0) + len(biases) * sum(map(self._elements, errors)),
            )

    def _add_other(self, operator: Operator, errors: tuple[str, ...]) -> None:
        moved: dict[str, None] = {}
        parameters: list[str] = []
        read: dict[str, None] = {}
        gradient_ops = 0
        for place, source in enumerate(operator.inputs):
            found = _derivative(operator, place)
            if source not in self.live or found is None:
                continue
            if self._is_parameter(source):
                parameters.append(source)
                read |= dict.fromkeys(self._reads(operator, place, found.reads))
                gradient_ops += self._ops(operator, source, found, errors)
            elif found.hands_on:
                self._add_sum(operator, source, errors)
            elif found.moves and not found.reads and len(operator.inputs) > 1:
                moved[source] = None
            else:
                inputs = (*errors, *self._reads(operator, place, found.reads))
                ops = self._ops(operator, source, found, errors)
                self._add_error(operator, source, tuple(dict.fromkeys(inputs)), vector_ops=ops)
        if moved:  # one pass over the error gives all parts
            self._add_error(operator, tuple(moved), errors)
        if parameters:
            self._add_gradients(operator, tuple(parameters), (*read, *errors), None, gradient_ops)

    def _add_sum(self, operator: Operator, source: str, errors: tuple[str, ...]) -> None:
        """Hand an error on, summed where `source` was broadcast."""
        ops = self._ops(operator, source, Derivative(0), errors)
        if ops or len(errors) != 1:
            self._add_error(operator, source, errors, vector_ops=ops)
        else:
            self.arrived.setdefault(source, []).append(errors[0])

    def _ops(self, operator: Operator, source: str, found: Derivative, errors: tuple[str, ...]) -> int:
        """Operations of the error of `source`."""
        wide = max(map(self._elements, operator.outputs))
        narrow = self._elements(source)
        ops = operator.vector_ops if found.ops is None else found.ops * max(wide, narrow)
        # What is the same for all samples was broadcast, even to a batch of one.
        broadcast = narrow < wide or (source in self.fixed and not self.fixed.issuperset(operator.outputs))
        if found.sums == "always" or (found.sums == "broadcast" and broadcast):
            ops += sum(map(self._elements, errors))
        return ops

    def _reads(self, operator: Operator, place: int, reads: tuple[Read, ...]) -> list[str]:
        found: list[str] = []
        others = [(at, name) for at, name in enumerate(operator.inputs) if at != place]
        for read in reads:
            if read == "self":
                found.append(operator.inputs[place])
            elif read == "others":
                found += [name for _, name in others]
            elif read == "fixed":
                found += [name for _, name in others if name not in self.live]
            elif read == "output":
                found += operator.outputs
            elif isinstance(read, int) and read < len(operator.inputs):
                found.append(operator.inputs[read])
        return list(dict.fromkeys(found))

    # --------------------------------------------------------------------- errors and gradients

    def _add_error(
        self,
        operator: Operator,
        sources: str | tuple[str, ...],
        inputs: tuple[str, ...],
        gemm: Gemm | None = None,
        window: Window | None = None,
        vector_ops: int = 0,
    ) -> None:
        """Operator that makes the error that one use of each source sends back."""
        sources = (sources,) if isinstance(sources, str) else sources
        errors = tuple(self._declare_part(source) for source in sources)
        self.operators.append(
            Operator(
                name=self._new_name(f"{operator.name}.backward"),
                kind=f"{_plain(operator.kind)}_backward",
                inputs=inputs,
                outputs=errors,
                phase=Phase.GRADIENT if self.fixed.issuperset(sources) else Phase.BACKWARD,
                gemm=gemm,
                window=window,
                vector_ops=vector_ops,
            )
        )

    def _add_gradients(
        self,
        operator: Operator,
        parameters: tuple[str, ...],
        inputs: tuple[str, ...],
        gemm: Gemm | None,
        vector_ops: int,
    ) -> None:
        """Operator that makes the gradients of all parameters of one operator."""
        gradients = tuple(self._declare_part(name) for name in parameters)
        self.operators.append(
            Operator(
                name=self._new_name(f"{operator.name}.gradient"),
                kind=f"{_plain(operator.kind)}_gradient",
                inputs=tuple(dict.fromkeys(inputs)),
                outputs=gradients,
                phase=Phase.GRADIENT,
                gemm=gemm,
                vector_ops=vector_ops,
            )
        )

    def _add_update(self, operator: Operator) -> None:
        """Update of the parameters whose gradients are complete: no earlier operator reads them."""
        parameters = [
            name
            for name in dict.fromkeys(operator.inputs)
            if self._is_parameter(name) and self.first_reader.get(name) == operator.name
        ]
        if not parameters:
            return
        gradients = [self._summed(name)[0] for name in parameters]
        states = [
            [self._declare_like(name, f"{name}.{state}", Role.OPTIMIZER_STATE) for state in self.rule.states]
            for name in parameters
        ]
        new = [
            self._declare_like(old, f"{old}.new", role)
            for name, kept in zip(parameters, states, strict=True)
            for old, role in ((name, Role.WEIGHT), *((state, Role.OPTIMIZER_STATE) for state in kept))
        ]
        self.states += [state for kept in states for state in kept]
        self.results += new
        groups = zip(parameters, states, gradients, strict=True)
        self.operators.append(
            Operator(
                name=self._new_name(f"{operator.name}.update"),
                kind=self.rule.kind,
                inputs=tuple(name for weight, kept, grad in groups for name in (weight, *kept, grad)),
                outputs=tuple(new),
                phase=Phase.UPDATE,
                vector_ops=self.rule.ops * sum(map(self._elements, parameters)),
            )
        )

    def _whole_error(self, operator: Operator, output: str) -> str | None:
        """Sum of the errors that arrived at `output`, taken back through what the operator fused."""
        fused = [(kind, _fused_derivative(operator, kind)) for kind in operator.kind.split("+")[1:]]
        elements = self._elements(output)
        ops = elements * sum(found.ops or 0 for _, found in fused)
        mask = (output,) if any(found.reads for _, found in fused) else ()
        parts = self.arrived[output]
        if not fused or not parts:
            return next(iter(self._summed(output)), None)
        (error,) = parts if len(parts) == 1 else (None,)
        maker = next((place for place, made in enumerate(self.operators) if error in made.outputs), None)
        if error is not None and maker is not None and error.startswith(f"{output}.error"):
            found = self.operators[maker]  # it made the error for this tensor alone
            self.operators[maker] = replace(
                found,
                inputs=tuple(dict.fromkeys((*found.inputs, *mask))),
                vector_ops=found.vector_ops + ops,
            )
            return error
        kind = f"{_plain(fused[-1][0])}_backward"
        return self._sum(output, "mask" if len(parts) == 1 else "sum", kind, mask, ops)

    def _summed(self, name: str) -> tuple[str, ...]:
        """The one error or gradient of a tensor; none for that of a loss."""
        parts = self.arrived[name]
        return tuple(parts) if len(parts) < 2 else (self._sum(name, "sum", "add", (), 0),)

    def _sum(self, name: str, suffix: str, kind: str, mask: tuple[str, ...], ops: int) -> str:
        parts = tuple(self.arrived[name])
        whole = f"{name}.{'gradient' if self._is_parameter(name) else 'error'}"
        if whole in self.tensors:
            whole = f"{whole}.total"  # a part has arrived from outside under that name
        self._declare_like(name, whole, self._role_of_error(name))
        self.operators.append(
            Operator(
                name=self._new_name(f"{whole}.{suffix}"),
                kind="add" if len(parts) > 1 else kind,
                inputs=(*parts, *mask),
                outputs=(whole,),
                phase=Phase.GRADIENT if name in self.fixed else Phase.BACKWARD,
                vector_ops=self._elements(name) * (len(parts) - 1) + ops,
            )
        )
        self.arrived[name] = [whole]
        return whole

    def _declare_part(self, source: str) -> str:
        parts = self.arrived.setdefault(source, [])
        name = f"{source}.{'gradient' if self._is_parameter(source) else 'error'}"
        if self.uses[source] > 1:
            name = next(free for number in count(1) if (free := f"{name}.{number}") not in self.tensors)
        parts.append(self._declare_like(source, name, self._role_of_error(source)))
        return name

    def _role_of_error(self, name: str) -> Role:
        return Role.WEIGHT_GRADIENT if name in self.fixed else Role.ERROR

    def _is_parameter(self, name: str) -> bool:
        return name in self.live and self.tensors[name].role is Role.WEIGHT

    def _new_name(self, base: str) -> str:
        name, number = base, 0
        while name in self.names:
            number += 1
            name = f"{base}_{number}"
        self.names.add(name)
        return name

    def _declare_like(self, model: str, name: str, role: Role) -> str:
        if name in self.tensors:
            raise ValueError(f"a tensor is already called {name}")
        self.tensors[name] = replace(self.tensors[model], name=name, role=role)
        return name

    def _elements(self, name: str) -> int:
        return self.tensors[name].elements


def _fused_derivative(operator: Operator, kind: str) -> Derivative:
    """Derivative of a fused function, whose error names the operator."""
    try:
        return fused_derivative(kind)
    except ValueError as error:
        raise ValueError(f"operator {operator.name} of kind {operator.kind}: {error}") from None
