"""Fixed-point formats of a PyTorch model's training, measured and tried.

`assign_fixed_point` trains a copy of a model for a while in float32, measures what the rules of
`numerics.theory.fixed_point` want, and gives every tensor of every layer its format. `fixed_point_twin` and
`FixedPointSGD` train under them. Biases stay in float32, as in [PTFP]_, and so does what happens between
the layers.

References
----------
.. [PTFP] C. Sakr, N. Shanbhag, "Per-Tensor Fixed-Point Quantization of the Back-Propagation Algorithm",
   ICLR 2019, arXiv 1812.11732.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.grad import conv2d_weight

from numerics.theory.assignment import FixedPointAssignment, LayerStatistics, ProductName, assign_formats
from numerics.theory.fixed_point import check_target

Batch: TypeAlias = tuple[torch.Tensor, torch.Tensor]
Loss: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Layer: TypeAlias = nn.Linear | nn.Conv2d
_POWER_STEPS = 1000
_POWER_TOLERANCE = 1e-7


def assign_fixed_point(
    model: nn.Module,
    loss: Loss,
    data: Iterable[Batch],
    *,
    learning_rate: float = 0.1,
    smallest_learning_rate: float | None = None,
    steps: int = 200,
    gain_batches: int = 8,
    mismatch: float = 0.01,
    min_bits: int | None = None,
    seed: int = 0,
) -> FixedPointAssignment:
    """Fixed-point formats for training `model`, from a short run in float32 [PTFP]_.

    A copy of the model is trained by plain stochastic gradient descent. Over the run the largest weights
    and activations, the standard deviations of both gradients at each step, and ``lambda_max`` are
    recorded; after it the gains, each the mean over the samples of the last batches of

        sum over classes i != y of  |d(Z_i - Z_y)/dT|**2 / (24 (Z_i - Z_y)**2)

    with the logits Z, the predicted class y, and T the weights or the input of a layer; exactly, by one
    backward pass for each class. A sample whose largest logit is not unique has no predicted class and does
    not count. `numerics.theory.assign_formats` does the rest.

    ``lambda_max``: an element of GW is ``sum over n of GA[n, o] * A[n, i]``, so that the matrix of the
    squared derivatives is, for each output feature o, the (i, n) matrix of the squared inputs. A
    convolution has the squared input windows there: the matrix multiplies as a convolution with the squared
    input. Its largest singular value is found by power iteration; a vector of ones is no bad start, for the
    singular vector of a non-negative matrix has no negative element.

    Parameters
    ----------
    model
        Of `torch.nn.Linear` and `torch.nn.Conv2d` layers, in float32 on the CPU, with modules without
        parameters between them; each layer is called once, and the first axis of its input is the batch.
        The model is left as it is.
    loss
        Function of the logits (n, classes) and the labels.
    data
        Batches ``(x, y)`` as they will be trained on: gradients depend on the size of a batch. They are
        gone through again if there are fewer than `steps`.
    learning_rate
        Of the baseline run.
    smallest_learning_rate
        Of the training to come, if its schedule lowers the rate.
    steps
        Of the baseline run. Gradients get smaller and weights larger as training proceeds: a run that is
        too short gives too large steps and too small ranges.
    gain_batches
        How many of the last batches the gains are measured on.
    mismatch
        Probability that rounding W and A changes a prediction; B_min is the least with a bound not above
        it. The bound is a mean of ``1 / (Z_i - Z_y)**2``, in which the few samples near a border between
        classes weigh most: expect some bits more than training needs, and `numerics.theory.slack` to find
        them.
    min_bits
        B_min itself, in place of `mismatch`; at least 2.
    seed
        Of dropout in the baseline run.

    Returns
    -------
    The formats and the statistics.

    Raises
    ------
    ValueError
        An argument out of its range, a model that is not supported (the message names the module), data
        that ends too early, a loss that is not finite, or logits without any predicted class.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> x = torch.rand(64, 4)
    >>> batches = list(zip(x.split(16), (x.sum(1) > 2).long().split(16)))
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> found = assign_fixed_point(model, nn.CrossEntropyLoss(), batches, learning_rate=0.1, steps=40)
    >>> found.layers["2"].weight.range, found.layers["2"].activation.signed
    (0.5, False)
    """
    smallest = learning_rate if smallest_learning_rate is None else smallest_learning_rate
    _check_run(learning_rate, smallest, steps, gain_batches)
    check_target(mismatch, min_bits)
    supported_layers(model)
    copied = copy.deepcopy(model).train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probes, last = _baseline(copied, loss, data, learning_rate, steps, gain_batches)
    gains = _gains(copied.eval(), last)
    statistics = {name: probe.statistics(*gains[name]) for name, probe in probes.items()}
    return assign_formats(statistics, smallest_learning_rate=smallest, mismatch=mismatch, min_bits=min_bits)


def _check_run(learning_rate: float, smallest: float, steps: int, gain_batches: int) -> None:
    for name, rate in (("learning_rate", learning_rate), ("smallest_learning_rate", smallest)):
        if not (isfinite(rate) and rate > 0.0):
            raise ValueError(f"{name} must be positive and finite, got {rate!r}")
    if smallest > learning_rate:
        raise ValueError(
            f"smallest_learning_rate must be at most learning_rate {learning_rate!r}, got {smallest!r}"
        )
    for name, count in (("steps", steps), ("gain_batches", gain_batches)):
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count!r}")


def supported_layers(model: nn.Module) -> dict[str, Layer]:
    """Layers of a supported model by name, in the order of its modules."""
    layers: dict[str, Layer] = {}
    owners: dict[torch.Tensor, str] = {}
    for name, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        if type(module) not in (nn.Linear, nn.Conv2d):
            if own:
                raise ValueError(
                    f"module {name!r} ({type(module).__name__}) has parameters and must be Linear or Conv2d"
                )
            continue
        assert isinstance(module, nn.Linear | nn.Conv2d)
        if isinstance(module, nn.Conv2d) and (
            module.padding_mode != "zeros" or isinstance(module.padding, str)
        ):
            raise ValueError(
                f"padding of module {name!r} must be numbers of zeros, "
                f"got padding={module.padding!r}, padding_mode={module.padding_mode!r}"
            )
        for parameter in own:
            if parameter.dtype != torch.float32 or parameter.device.type != "cpu":
                raise ValueError(
                    f"parameters of module {name!r} must be float32 on the CPU, "
                    f"got {parameter.dtype} on {parameter.device}"
                )
        if (owner := owners.setdefault(module.weight, name)) != name:
            raise ValueError(f"modules must have their own weights, {owner!r} and {name!r} share them")
        layers[name] = module
    if not layers:
        raise ValueError("the model must have a Linear or Conv2d layer, got none")
    return layers


def listed(names: Iterable[str]) -> str:
    """Names in quotes, one after the other."""
    return ", ".join(map(repr, names))


@dataclass(slots=True)
class _Tap:
    """Input and output of a layer in one forward pass."""

    layer: Layer
    inputs: list[torch.Tensor] = field(default_factory=list)
    outputs: list[torch.Tensor] = field(default_factory=list)

    def enter(self, _: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        # A clone for each layer: the gradient of a tensor that several take is that of this layer's use.
        self.inputs.append(args[0].clone())
        return (self.inputs[-1], *args[1:])

    def leave(self, _: nn.Module, __: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        self.outputs.append(output)
        return output.clone()  # what changes its input in place changes the clone


@contextmanager
def _tapped(model: nn.Module) -> Iterator[dict[str, _Tap]]:
    taps = {name: _Tap(layer) for name, layer in supported_layers(model).items()}
    hooks = []
    for tap in taps.values():
        hooks.append(tap.layer.register_forward_pre_hook(tap.enter))
        hooks.append(tap.layer.register_forward_hook(tap.leave))
    try:
        yield taps
    finally:
        for hook in hooks:
            hook.remove()


def _run(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, _Tap]]:
    """Logits (n, classes), and what went through the layers."""
    with _tapped(model) as taps:
        logits: torch.Tensor = model(x)
    for name, tap in taps.items():
        if len(tap.inputs) != 1:
            raise ValueError(f"layer {name!r} must be called once for a batch, got {len(tap.inputs)} calls")
        shape = tap.inputs[0].shape
        if shape[0] != len(x) or len(shape) < (4 if isinstance(tap.layer, nn.Conv2d) else 2):
            raise ValueError(
                f"the input of layer {name!r} must have the batch of {len(x)} as its first axis, "
                f"got shape {tuple(shape)}"
            )
    if logits.ndim != 2 or len(logits) != len(x) or logits.shape[1] < 2:
        raise ValueError(
            f"logits must be of shape ({len(x)}, classes) with 2 classes or more, got {tuple(logits.shape)}"
        )
    return logits, taps


@dataclass(slots=True)
class _Probe:
    """Running statistics of a layer."""

    weight_max: float = 0.0
    activation_max: float = 0.0
    activation_signed: bool = False
    lambda_max: float = 0.0
    weight_gradients: list[float] = field(default_factory=list)
    activation_gradients: list[float] = field(default_factory=list)
    products: dict[ProductName, tuple[int, int]] = field(default_factory=dict)

    def look(self, tap: _Tap) -> None:
        """Take in one step, after its backward pass."""
        x, y, weight = tap.inputs[0].detach(), tap.outputs[0], tap.layer.weight
        self.weight_max = max(self.weight_max, weight.detach().abs().max().item())
        self.activation_max = max(self.activation_max, x.abs().max().item())
        self.activation_signed |= bool((x < 0.0).any())
        self.lambda_max = max(self.lambda_max, _square_jacobian_norm(tap.layer, x))
        for gradient, sigmas in ((weight.grad, self.weight_gradients), (y.grad, self.activation_gradients)):
            if gradient is not None and (sigma := _deviation(gradient)) > 0.0:
                sigmas.append(sigma)
        groups = tap.layer.groups if isinstance(tap.layer, nn.Conv2d) else 1
        outputs, fan_in = len(weight), weight[0].numel()
        self.products = {"forward": (y.numel(), fan_in)}
        if tap.inputs[0].requires_grad:
            self.products["backward"] = (x.numel(), outputs // groups * weight[0, 0].numel())
        self.products["gradient"] = (weight.numel(), y.numel() // outputs)

    def statistics(self, weight_gain: float, activation_gain: float) -> LayerStatistics:
        """All of them, with the gains."""
        return LayerStatistics(
            weight_gain=weight_gain,
            activation_gain=activation_gain,
            weight_max=self.weight_max,
            activation_max=self.activation_max,
            activation_signed=self.activation_signed,
            weight_gradient_sigma=_extremes(self.weight_gradients),
            activation_gradient_sigma=_extremes(self.activation_gradients),
            lambda_max=self.lambda_max,
            products=dict(self.products),
        )


def _deviation(gradient: torch.Tensor) -> float:
    return float(gradient.double().std(correction=min(1, gradient.numel() - 1)))


def _extremes(sigmas: list[float]) -> tuple[float, float]:
    return (min(sigmas), max(sigmas)) if sigmas else (0.0, 0.0)


def _batches(data: Iterable[Batch], steps: int) -> Iterator[Batch]:
    taken = 0
    while taken < steps:
        before = taken
        for x, y in data:
            yield x, y
            taken += 1
            if taken == steps:
                return
        if taken == before:
            raise ValueError(
                f"data must hold {steps} batches or be iterable again, as a list or a DataLoader is; "
                f"got {taken} batches"
            )


def _baseline(
    model: nn.Module, loss: Loss, data: Iterable[Batch], learning_rate: float, steps: int, kept: int
) -> tuple[dict[str, _Probe], list[torch.Tensor]]:
    """Train `model`; the statistics of its layers, and the inputs of the last batches."""
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    probes = {name: _Probe() for name in supported_layers(model)}
    last: deque[torch.Tensor] = deque(maxlen=kept)
    for step, (x, y) in enumerate(_batches(data, steps)):
        last.append(x)
        optimizer.zero_grad()
        logits, taps = _run(model, x)
        for tap in taps.values():
            if tap.outputs[0].requires_grad:
                tap.outputs[0].retain_grad()
        value = loss(logits, y)
        if not torch.isfinite(value):
            raise ValueError(
                f"loss of the baseline run must be finite, got {value.item()} at step {step} "
                f"with learning_rate {learning_rate!r}"
            )
        value.backward()  # type: ignore[no-untyped-call]
        for name, probe in probes.items():
            probe.look(taps[name])
        optimizer.step()
    return probes, list(last)


def _square_jacobian_norm(layer: Layer, x: torch.Tensor) -> float:
    """Largest singular value of the matrix of the squared entries of ``dGW/dGA`` for the input `x`."""
    squares = x.double().square()
    if isinstance(layer, nn.Linear):
        matrix = squares.reshape(-1, layer.in_features)
        return _largest_singular_value(
            lambda v: matrix @ v, lambda u: matrix.mT @ u, matrix.new_ones(layer.in_features)
        )
    # The output channels of a group all have the same block of the matrix: one of each group will do.
    shape = (layer.groups, *layer.weight.shape[1:])
    geometry: Any = (layer.stride, layer.padding, layer.dilation, layer.groups)
    return _largest_singular_value(
        lambda v: functional.conv2d(squares, v, None, *geometry),
        lambda u: conv2d_weight(squares, shape, u, *geometry),  # type: ignore[no-untyped-call]
        squares.new_ones(shape),
    )


def _largest_singular_value(
    forth: Callable[[torch.Tensor], torch.Tensor],
    back: Callable[[torch.Tensor], torch.Tensor],
    start: torch.Tensor,
) -> float:
    """By power iteration; `forth` and `back` multiply by a non-negative matrix and its transpose."""
    v = start / start.norm()
    value = 0.0
    for _ in range(_POWER_STEPS):
        u = forth(v)
        before, value = value, float(u.norm())
        if value - before <= _POWER_TOLERANCE * value:  # it only grows, and is 0 of a matrix of zeros
            break
        v = back(u)
        v /= v.norm()
    return value


def _gains(model: nn.Module, batches: list[torch.Tensor]) -> dict[str, tuple[float, float]]:
    """E_W and E_A of every layer, over the samples of all batches that have a predicted class."""
    sums = {name: np.zeros(2) for name in supported_layers(model)}
    samples = 0
    for x in batches:
        logits, taps = _run(model, x.detach().requires_grad_().clone())
        if not torch.isfinite(logits).all():
            raise ValueError("logits after the baseline run must be finite, got others: it diverged")
        predicted = logits.argmax(1, keepdim=True)
        margins = logits - logits.gather(1, predicted)
        others = torch.ones_like(margins, dtype=torch.bool).scatter_(1, predicted, value=False)
        unique = ~((margins == 0.0) & others).any(1)
        samples += int(unique.sum())
        weights = torch.where(others & unique[:, None], 1.0 / (24.0 * margins.detach().double() ** 2), 0.0)
        tapped = [tensor for tap in taps.values() for tensor in (tap.outputs[0], tap.inputs[0])]
        for i in range(logits.shape[1]):
            # Samples do not meet: the gradient of the sum is, in each sample, that of its own margin.
            found = torch.autograd.grad(margins[:, i].sum(), tapped, retain_graph=True, allow_unused=True)
            for (name, tap), errors, gradient in zip(taps.items(), found[::2], found[1::2], strict=True):
                # Without a gradient the logits do not depend on this layer.
                if errors is not None:
                    squares = _squared_weight_gradients(tap.layer, errors, tap.inputs[0].detach())
                    sums[name][0] += float(squares.double() @ weights[:, i])
                if gradient is not None:
                    sums[name][1] += float(gradient.flatten(1).square().sum(1).double() @ weights[:, i])
    if samples == 0:
        raise ValueError("a sample must have one largest logit for the gains, got ties in all samples")
    return {name: (float(total[0]) / samples, float(total[1]) / samples) for name, total in sums.items()}


def _squared_weight_gradients(layer: Layer, errors: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(n,) squared norms of the weight gradient of each sample."""
    if isinstance(layer, nn.Linear):
        rows = [tensor.reshape(len(x), -1, tensor.shape[-1]) for tensor in (errors, x)]
        return _squared_products(*rows)
    window: Any = (layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    total = x.new_zeros(len(x))
    for part, images in zip(errors.chunk(layer.groups, 1), x.chunk(layer.groups, 1), strict=True):
        total += _squared_products(part.flatten(2).mT, functional.unfold(images, *window).mT)
    return total


def _squared_products(errors: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(n,) squared Frobenius norms of ``errors.T @ x`` for (n, p, o) and (n, p, i)."""
    if x.shape[1] ** 2 < errors.shape[2] * x.shape[2]:
        # The same sum over p x p products of rows, without the o x i gradient.
        return ((errors @ errors.mT) * (x @ x.mT)).sum((1, 2))
    return (errors.mT @ x).square().sum((1, 2))
