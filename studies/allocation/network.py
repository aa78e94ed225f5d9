"""Formats of the tensors of a trained network: weights, biases and what its layers pass on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from numerics import FloatFormat, cast
from numerics.block import parse_any_format
from studies.allocation.groups import TensorGroup, bits_per_value
from studies.allocation.held import scale_exponent
from studies.allocation.subject import Subject
from studies.tasks import Data, digits, digits_cnn

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMATS = ("bfloat16", "e4m3fn", "e3m2", "e2m1")
LOST_PERCENT = 2.0  # of accuracy, which may be lost
INPUT = "input"

_WRITTEN_AND_READ = 2.0


def digits_network(seed: int = 0) -> Subject:
    """The digits CNN, trained in float32; the quality is its accuracy on the 450 images held out.

    Traffic is that of one image: weights and biases are read, activations written and read, the image is
    read and the logits are written.
    """
    data = digits()
    network = trained(digits_cnn, data, seed=seed)
    held = HeldNetwork(network, data)
    exact = held.accuracy(None)
    return Subject(
        title="digits CNN, inference of one image",
        identity=f"digits-cnn seed={seed}",
        groups=held.groups,
        formats=FORMATS,
        oracle=held.accuracy,
        quality="accuracy, %",
        threshold=exact - LOST_PERCENT,
        higher_is_better=True,
    )


def trained(
    network: Callable[[], nn.Module], data: Data, *, seed: int, epochs: int = 20, batch: int = 64
) -> nn.Module:
    """Network after some epochs of Adam on the cross entropy, deterministic in the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = network()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(made.parameters(), lr=5e-3)
    for _ in range(epochs):
        order = torch.randperm(len(data.train_labels), generator=generator)
        for chosen in torch.split(order, batch):
            optimizer.zero_grad()
            outputs = made(data.train_inputs[chosen])
            loss = nn.functional.cross_entropy(outputs, data.train_labels[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return made.eval().requires_grad_(False)


class _Stage(NamedTuple):
    """A module of the sequence; `stores` if its output is a tensor of its own in memory."""

    name: str
    module: nn.Module
    parameters: tuple[str, ...]
    stores: bool


class HeldNetwork:
    """A sequential network whose tensors are rounded as they are stored.

    Tensors are the input, each parameter, and the output of each module, but for outputs that go right into a
    ReLU, which is applied before they are stored, and for changes of shape. Each has a scale, the largest
    power of two with which the largest magnitude fits: of a parameter its own, of an activation that of the
    network in float32 on the training set. Products and sums are computed in float32.

    Raises
    ------
    TypeError
        The network is not an ``nn.Sequential``.
    """

    def __init__(self, network: nn.Module, data: Data) -> None:
        if not isinstance(network, nn.Sequential):
            raise TypeError(f"network must be an nn.Sequential, got {type(network).__name__}")
        self._data = data
        modules = list(network.named_children())
        following = [*(module for _, module in modules[1:]), None]
        self._stages = [
            _Stage(
                name,
                module,
                tuple(name for name, _ in module.named_parameters()),
                not isinstance(module, nn.Flatten) and not isinstance(after, nn.ReLU),
            )
            for (name, module), after in zip(modules, following, strict=True)
        ]
        self._parameters = {name: value.detach() for name, value in network.named_parameters()}
        self._calibrate()
        self._rounded: dict[tuple[str, str], torch.Tensor] = {}

    def _calibrate(self) -> None:
        """Sizes of all tensors, and magnitudes of activations."""
        self._largest: dict[str, np.ndarray] = {INPUT: _magnitude(self._data.train_inputs)}
        elements, accesses = {INPUT: prod(self._data.train_inputs.shape[1:])}, {INPUT: 1.0}
        x = self._data.train_inputs
        with torch.no_grad():
            for stage in self._stages:
                x = stage.module(x)
                for parameter in stage.parameters:
                    name = f"{stage.name}.{parameter}"
                    self._largest[name] = _magnitude(self._parameters[name])
                    elements[name], accesses[name] = self._parameters[name].numel(), 1.0
                if stage.stores:
                    self._largest[stage.name] = _magnitude(x)
                    elements[stage.name], accesses[stage.name] = prod(x.shape[1:]), _WRITTEN_AND_READ
        accesses[self._stages[-1].name] = 1.0  # written for whoever asked
        self.groups = tuple(
            TensorGroup(name=name, elements=elements[name], accesses=accesses[name]) for name in elements
        )

    def accuracy(self, formats: Mapping[str, str] | None) -> float:
        """Accuracy on the test set in percent, in some formats or in float32."""
        x = self._data.test_inputs
        if formats is not None:
            x = self._round(INPUT, x, formats[INPUT])
        with torch.no_grad():
            for stage in self._stages:
                x = self._run(stage, x, formats)
                if stage.stores and formats is not None:
                    x = self._round(stage.name, x, formats[stage.name])
        return self._right(x)

    def _right(self, logits: torch.Tensor) -> float:
        return 100.0 * float((logits.argmax(1) == self._data.test_labels).double().mean())

    def _run(self, stage: _Stage, x: torch.Tensor, formats: Mapping[str, str] | None) -> torch.Tensor:
        if formats is None or not stage.parameters:
            return torch.as_tensor(stage.module(x))
        names = {parameter: f"{stage.name}.{parameter}" for parameter in stage.parameters}
        values = {parameter: self._parameter(name, formats[name]) for parameter, name in names.items()}
        return torch.as_tensor(functional_call(stage.module, values, (x,)))

    def _parameter(self, name: str, fmt: str) -> torch.Tensor:
        if (name, fmt) not in self._rounded:
            self._rounded[name, fmt] = self._round(name, self._parameters[name], fmt)
        return self._rounded[name, fmt]

    def _round(self, name: str, x: torch.Tensor, fmt: str) -> torch.Tensor:
        parsed = parse_any_format(fmt)
        if not isinstance(parsed, FloatFormat):
            raise ValueError(f"format of {name} must be a float format, got {fmt}")
        exponent = scale_exponent(self._largest[name], parsed)
        scaled = np.ldexp(np.ascontiguousarray(x.numpy()).astype(np.float64), exponent)
        rounded = np.ldexp(cast(scaled, parsed, overflow="saturate"), -exponent)
        return torch.from_numpy(rounded.astype(np.float32))

    def cheapest(
        self, formats: Sequence[str], *, at_least: float, below: float = float("inf")
    ) -> tuple[dict[str, str], float] | None:
        """Assignment of least traffic with an accuracy of at least so many percent: proven, no method.

        Layers are computed once for each prefix of the formats of the tensors before. A prefix is given up
        where it moves `below` bytes already with the narrowest formats after it, and of formats that round
        a tensor to the same values all but the narrowest are left out: what follows is the same.

        Returns
        -------
        Formats by group, and bytes; ``None`` if none below `below` is accurate enough.
        """
        ordered = sorted(formats, key=bits_per_value)
        narrowest = [group.bytes_in(ordered[0]) for group in self.groups]
        after = np.cumsum([0.0, *narrowest[::-1]])[::-1]  # of the groups from each place on
        place = {group.name: k for k, group in enumerate(self.groups)}
        best: list[tuple[dict[str, str], float]] = []
        limit = below

        def rounded(name: str, x: torch.Tensor, moved: float) -> Iterator[tuple[str, torch.Tensor, float]]:
            seen: list[torch.Tensor] = []
            for fmt in ordered:
                total = moved + self.groups[place[name]].bytes_in(fmt)
                if total + after[place[name] + 1] >= limit:
                    return
                value = self._round(name, x, fmt)
                if not any(torch.equal(value, other) for other in seen):
                    seen.append(value)
                    yield fmt, value, total

        def parameters(
            stage: _Stage, left: Sequence[str], moved: float
        ) -> Iterator[tuple[dict[str, str], dict[str, torch.Tensor], float]]:
            if not left:
                yield {}, {}, moved
                return
            name = f"{stage.name}.{left[0]}"
            for fmt, value, total in rounded(name, self._parameters[name], moved):
                for chosen, values, final in parameters(stage, left[1:], total):
                    yield {name: fmt, **chosen}, {left[0]: value, **values}, final

        def descend(k: int, x: torch.Tensor, chosen: dict[str, str], moved: float) -> None:
            nonlocal limit
            if k == len(self._stages):
                if moved < limit and self._right(x) >= at_least:
                    best[:], limit = [(chosen, moved)], moved
                return
            stage = self._stages[k]
            for taken, values, total in parameters(stage, stage.parameters, moved):
                if total + after[place[stage.name] if stage.stores else -1] >= limit:
                    continue
                y = functional_call(stage.module, values, (x,)) if values else stage.module(x)
                if not stage.stores:
                    descend(k + 1, y, {**chosen, **taken}, total)
                    continue
                for fmt, value, final in rounded(stage.name, y, total):
                    descend(k + 1, value, {**chosen, **taken, stage.name: fmt}, final)

        with torch.no_grad():
            for fmt, value, moved in rounded(INPUT, self._data.test_inputs, 0.0):
                descend(0, value, {INPUT: fmt}, moved)
        return best[0] if best else None


def _magnitude(x: torch.Tensor) -> np.ndarray:
    return np.array([float(x.abs().max())])
