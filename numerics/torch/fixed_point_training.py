"""Training in fixed point: the twin of a model under an assignment of formats, and its optimizer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from numerics.theory.assignment import FixedPointAssignment, LayerFixedPoint
from numerics.theory.fixed_point import FixedPoint
from numerics.torch.fixed_point import listed, supported_layers

ModuleT = TypeVar("ModuleT", bound=nn.Module)
_FLOAT32_BITS = 25  # codes of so many bits, with the sign, are exact in float32


def fixed_point_twin(model: ModuleT, assignment: FixedPointAssignment) -> ModuleT:
    """Copy of `model` that rounds W, A, GW and GA to their formats, where products take or make them.

    Forward, weights and inputs are rounded and the products summed in float32. Backward, the gradient of
    the output is rounded before both products, the gradient of the weights after its product. Rounding
    itself counts as the identity there, except that an activation that saturates passes no gradient.

    Parameters
    ----------
    model
        The one that the assignment was made for, or another with layers of the same names.

    Raises
    ------
    ValueError
        A model that is not supported, layers that are not those of the assignment, or weights of more than
        25 bits, which float32 cannot hold.

    Examples
    --------
    >>> formats = LayerFixedPoint(weight=FixedPoint.parse("s1.2"), activation=FixedPoint.parse("s1.1"))
    >>> twin = fixed_point_twin(nn.Linear(1, 1), FixedPointAssignment(layers={"": formats}, statistics={}))
    >>> twin.weight.data[:], twin.bias.data[:] = 0.7, 0.1
    >>> twin(torch.tensor([[1.3]])).item() == 0.75 * 1.5 + torch.tensor(0.1)
    tensor(True)
    """
    layers = supported_layers(model)
    if set(layers) != set(assignment.layers):
        raise ValueError(
            f"layers of the model must be those of the assignment, {listed(assignment.layers)}; "
            f"got {listed(layers)}"
        )
    for name, formats in assignment.layers.items():
        if formats.weight is not None and formats.weight.bits > _FLOAT32_BITS:
            raise ValueError(
                f"weights of layer {name!r} must have at most {_FLOAT32_BITS} bits, got {formats.weight.bits}"
            )
    twin = copy.deepcopy(model)
    for name, module in list(twin.named_modules()):
        if name in layers:
            module.__class__ = _TWINS[type(module)]
            module.formats = assignment.layers[name]
    return twin


class FixedPointSGD:
    """Stochastic gradient descent with split weights: what is below their step has its own accumulator.

    The step of [PTFP]_, with the quantizers Q of the layer's formats::

        t = W + acc - lr * GW
        W = Q_W(t)
        acc = Q_acc(t - W)

    in float64 up to the two roundings. Where the accumulator has no format because no update is below the
    step of W, it stays 0; where weights or their gradients have none, it is not rounded. Other parameters,
    such as biases, make plain steps.

    Parameters
    ----------
    optimizer
        A `torch.optim.SGD` without momentum or weight decay, whose parameters and learning rate are taken
        over; the rate may be scheduled as usual.
    twin
        What `fixed_point_twin` made. Its weights w are split on construction: ``W = Q_W(w)`` and
        ``acc = Q_acc(w - W)``.

    Attributes
    ----------
    accumulators
        The array acc of each weight tensor, of its shape.

    Raises
    ------
    ValueError
        Another optimizer or setting, an optimizer of other weights, or a model without formats.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, twin: nn.Module) -> None:
        if type(optimizer) is not torch.optim.SGD:
            raise ValueError(f"optimizer must be torch.optim.SGD, got {type(optimizer).__name__}")
        for group in optimizer.param_groups:
            for name in ("momentum", "weight_decay", "dampening", "nesterov", "maximize"):
                if group[name]:
                    raise ValueError(f"SGD option {name} must be off, got {group[name]!r}")
        known = {parameter for group in optimizer.param_groups for parameter in group["params"]}
        self._formats: dict[torch.Tensor, LayerFixedPoint] = {}
        for name, layer in twin.named_modules():
            if isinstance(layer, _Formatted):
                if layer.weight not in known:
                    raise ValueError(
                        f"optimizer must have all weights of the twin, got one without layer {name!r}"
                    )
                self._formats[layer.weight] = layer.formats
        if not self._formats:
            raise ValueError(
                f"twin must come from fixed_point_twin, got a {type(twin).__name__} without formats"
            )
        self.optimizer = optimizer
        self.accumulators: dict[torch.Tensor, np.ndarray] = {}
        for weight in self._formats:
            self._split(weight, weight.detach().double().numpy())

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad()

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                total = parameter.detach().double().numpy() - group["lr"] * parameter.grad.double().numpy()
                if parameter in self._formats:
                    self._split(parameter, total + self.accumulators[parameter])
                else:
                    _assign(parameter, total)

    def _split(self, parameter: torch.Tensor, total: np.ndarray) -> None:
        formats = self._formats[parameter]
        _assign(parameter, total if formats.weight is None else formats.weight.quantize(total))
        rest = total - parameter.detach().double().numpy()
        if formats.accumulator is not None:
            rest = formats.accumulator.quantize(rest)
        elif formats.weight is not None and formats.weight_gradient is not None:
            rest = np.zeros_like(rest)
        self.accumulators[parameter] = rest


class _Operand(torch.autograd.Function):
    """Rounds an activation; its gradient passes where it did not saturate."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, fmt: FixedPoint) -> torch.Tensor:
        half = fmt.step / 2.0
        ctx.save_for_backward((x > fmt.min - half) & (x < fmt.max + half))
        return _quantized(x, fmt)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None


class _Weight(torch.autograd.Function):
    """Rounds weights forward and their gradient backward."""

    @staticmethod
    def forward(
        ctx: Any, weight: torch.Tensor, fmt: FixedPoint | None, gradient_fmt: FixedPoint | None
    ) -> torch.Tensor:
        ctx.fmt = gradient_fmt
        return weight.clone() if fmt is None else _quantized(weight, fmt)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return grads[0] if ctx.fmt is None else _quantized(grads[0], ctx.fmt), None, None


class _Error(torch.autograd.Function):
    """Rounds the gradient of a layer's output."""

    @staticmethod
    def forward(ctx: Any, y: torch.Tensor, fmt: FixedPoint) -> torch.Tensor:
        ctx.fmt = fmt
        return y.clone()  # autograd forbids to change a view in place

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _quantized(grads[0], ctx.fmt), None


class _Formatted(nn.Module):
    """Mixed into a layer: its formats, and its product between roundings."""

    formats: LayerFixedPoint
    weight: torch.Tensor

    def _rounded(
        self, x: torch.Tensor, product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        formats = self.formats
        if formats.activation is not None:
            x = _Operand.apply(x, formats.activation)  # type: ignore[no-untyped-call]
        weight = _Weight.apply(self.weight, formats.weight, formats.weight_gradient)  # type: ignore[no-untyped-call]
        y = product(x, weight)
        if formats.activation_gradient is not None:
            y = _Error.apply(y, formats.activation_gradient)  # type: ignore[no-untyped-call]
        return y


class _FixedPointLinear(_Formatted, nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  torch's own name
        return self._rounded(input, lambda x, weight: functional.linear(x, weight, self.bias))


class _FixedPointConv2d(_Formatted, nn.Conv2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        return self._rounded(input, lambda x, weight: self._conv_forward(x, weight, self.bias))


_TWINS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: _FixedPointLinear,
    nn.Conv2d: _FixedPointConv2d,
}


def _quantized(x: torch.Tensor, fmt: FixedPoint) -> torch.Tensor:
    return torch.from_numpy(fmt.quantize(x.detach().contiguous().numpy()))


def _assign(parameter: torch.Tensor, values: np.ndarray) -> None:
    """Set in place by torch, which notices when a graph still needs the old values."""
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(values))
