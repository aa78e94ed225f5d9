"""Pflug's stationarity test as a callback of any PyTorch loop.

`numerics.theory.stationarity` has the test, its sources and what it cannot do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from numerics.theory.stationarity import MOMENTUM_LIMIT, PflugTest, check_momentum
from numerics.torch.optimizer import LowPrecision

# Optimizers whose weight decay is a gradient: that of a penalty in the loss.
_WITH_PENALTY = (
    torch.optim.SGD,
    torch.optim.Adam,
    torch.optim.Adamax,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.Adagrad,
    torch.optim.Adadelta,
    torch.optim.RMSprop,
    torch.optim.ASGD,
)


class StationarityTest:
    """Finds out when training at a constant learning rate has become stationary, and lowers the rate.

    Call `step` once an iteration, after the backward pass (and after the unscaling of a scaled loss) and
    before the optimizer's step::

        test = StationarityTest(optimizer, burn_in=500, min_count=100)
        for inputs, labels in batches:
            optimizer.zero_grad()
            loss_function(network(inputs), labels).backward()
            test.step()
            optimizer.step()

    The gradients of all parameters of the optimizer, with weight decay as part of them, enter
    `numerics.theory.stationarity.PflugTest`. They must be of consecutive iterates, each on new samples: call
    `step` for every step of the optimizer and for no other, once for accumulated gradients. A parameter
    without gradient counts as one of gradient zero. A change of a learning rate starts the test anew, as it
    asks about a constant one; a schedule that changes it at every iteration leaves nothing to test.

    The test has power only for a momentum below 1/2, which is read from the parameter groups at every step
    (``momentum``, or the first of ``betas``), since schedules change it. From 1/2 on, `step` raises, or with
    `probe` tests by other gradients. Every `probe_every` calls of `step` it

    1. keeps a copy of the parameters;
    2. from there, without momentum, makes `probe_steps` steps of plain gradient descent: `closure` evaluates
       the loss on a new batch, and a parameter p of gradient g, weight decay included, becomes
       ``p - scale * lr * g``. For SGD the scale is ``(1 - dampening) / (1 - momentum)``, the rate at which
       momentum moves in the long run: with it, and to first order with no other, plain descent is at rest
       where the run with momentum is;
    3. sums the inner products of successive gradients, and calls the run stationary if at the end of the
       probe, and only there, the sum is negative by the band;
    4. puts the parameters back to the last bit, also after an error of the closure.

    A probe changes neither gradients nor the optimizer's state. What else a forward pass changes stays
    changed: batches drawn, random numbers, running statistics of normalisation layers. Its steps are made in
    the parameters' own dtype, also for a `LowPrecision`.

    Parameters
    ----------
    optimizer
        Any optimizer that steps along the gradient, with momentum or not, or a `LowPrecision`. The theory is
        that of SGD; with coordinates scaled, as by Adam, the sign at rest is the same while scales are.
    burn_in, min_count, band
        Of the test, see `PflugTest`. A probe takes only the band.
    factor
        What learning rates are multiplied by when the run is stationary, in (0, 1).
    on_stationary
        Called instead, without arguments.
    probe
        Probe instead of raising where the momentum is 1/2 or more.
    closure
        Returns the loss, a scalar tensor with a graph, on a new batch, without a backward pass. For a probe.
    probe_every, probe_steps
        Iterations from one probe to the next, at least 1, and gradients in one, at least 2.
    probe_scale
        Instead of the scale above; needed for optimizers other than SGD.

    Attributes
    ----------
    alarms
        Times that the run was found stationary.
    skipped
        Iterations or probes without a verdict, for a gradient was infinite or NaN.

    Raises
    ------
    TypeError, ValueError
        A setting out of its range; a momentum of 1/2 or more without probe; a probe without closure, or for
        another optimizer than SGD without scale; weight decay that is not part of the gradient, as AdamW's,
        with which the gradient is not zero in the mean at rest.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | LowPrecision,
        *,
        burn_in: int = 0,
        min_count: int = 1,
        band: float = 0.0,
        factor: float = 0.5,
        on_stationary: Callable[[], object] | None = None,
        probe: bool = False,
        closure: Callable[[], torch.Tensor] | None = None,
        probe_every: int = 1000,
        probe_steps: int = 100,
        probe_scale: float | None = None,
    ) -> None:
        self.optimizer = optimizer.optimizer if isinstance(optimizer, LowPrecision) else optimizer
        if not 0.0 < factor < 1.0:
            raise ValueError(f"factor must be in (0, 1), got {factor}")
        for name, value, least in (("probe_every", probe_every, 1), ("probe_steps", probe_steps, 2)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an integer, got {value!r}")
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if probe and closure is None:
            raise ValueError("closure must be given with probe=True, got None")
        is_sgd = isinstance(self.optimizer, torch.optim.SGD)
        if probe and probe_scale is None and not is_sgd:
            kind = type(self.optimizer).__name__
            raise ValueError(f"probe_scale must be given for optimizers other than SGD, got None with {kind}")
        if probe_scale is not None and not (math.isfinite(probe_scale) and probe_scale > 0.0):
            raise ValueError(f"probe_scale must be positive and finite, got {probe_scale}")
        self.factor = factor
        self.on_stationary = on_stationary
        self.probe = probe
        self.closure = closure
        self.probe_every = probe_every
        self.probe_steps = probe_steps
        self.probe_scale = probe_scale
        self.alarms = 0
        self.skipped = 0
        self._test = PflugTest(burn_in, min_count=min_count, band=band)
        self._rates: list[float] | None = None
        self._known: list[torch.Tensor] = []
        self._waited = 0
        self._check_groups()

    @property
    def statistic(self) -> float:
        """Sum of the inner products since the test began, without those of probes."""
        return self._test.statistic

    def step(self) -> bool:
        """Take the gradients of this iteration; if the run is stationary, act on it and say so.

        Raises
        ------
        ValueError
            A momentum of 1/2 or more without probe, weight decay that is no gradient, no gradient at all.
        """
        if self._check_groups():
            self._test.restart()  # the gradients before and after are no neighbours
            self._waited += 1
            if self._waited < self.probe_every:
                return False
            self._waited = 0
            stationary = self._probe()
        else:
            self._waited = 0
            stationary = self._take()
        if stationary:
            self.alarms += 1
            self._act()
        return stationary

    def state_dict(self) -> dict[str, Any]:
        """All that changes, as numbers and tensors; settings and what the optimizer keeps are not in it."""
        state = self._test.state_dict()
        if state["last"] is not None:
            state["last"] = [None if g is None else torch.from_numpy(g) for g in state["last"]]
        rates = None if self._rates is None else list(self._rates)
        return {
            "test": state,
            "rates": rates,
            "waited": self._waited,
            "alarms": self.alarms,
            "skipped": self.skipped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken, with parameters in the same order.

        Raises
        ------
        ValueError
            Keys that are missing or unknown.
        """
        if state.keys() != self.state_dict().keys():
            raise ValueError(
                f"state must have the keys {', '.join(self.state_dict())}, got {', '.join(state)}"
            )
        test = dict(state["test"])
        if test.get("last") is not None:
            test["last"] = [None if g is None else g.cpu().numpy() for g in test["last"]]
        self._test.load_state_dict(test)
        self._rates = None if state["rates"] is None else [float(rate) for rate in state["rates"]]
        self._waited, self.alarms, self.skipped = (int(state[key]) for key in ("waited", "alarms", "skipped"))
        self._known = [parameter for _, parameter in self._entries()]

    def _check_groups(self) -> bool:
        """Whether the momentum calls for a probe; an error where it may not."""
        most = 0.0
        for group in self.optimizer.param_groups:
            momentum = _momentum(group)
            if not (self.probe and momentum >= MOMENTUM_LIMIT):
                check_momentum(momentum)
            most = max(most, momentum)
            if group.get("weight_decay") and not self._decays_by_gradient(group):
                raise ValueError(
                    f"weight_decay must be 0 or part of the gradient, got {group['weight_decay']} with "
                    f"{type(self.optimizer).__name__}, which decays weights apart from it"
                )
        return most >= MOMENTUM_LIMIT

    def _decays_by_gradient(self, group: dict[str, Any]) -> bool:
        apart = group.get("decoupled_weight_decay") or isinstance(self.optimizer, torch.optim.AdamW)
        return isinstance(self.optimizer, _WITH_PENALTY) and not apart

    def _entries(self) -> list[tuple[dict[str, Any], torch.Tensor]]:
        """All parameters in order, each with its group."""
        return [(group, parameter) for group in self.optimizer.param_groups for parameter in group["params"]]

    def _take(self) -> bool:
        """Enter the gradients of the run into the test."""
        parameters = [parameter for _, parameter in self._entries()]
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        known = len(parameters) == len(self._known) and all(map(_is, parameters, self._known))
        if rates != self._rates or not known:
            self._test.restart()
        self._rates, self._known = rates, parameters
        gradients = self._descended([parameter.grad for parameter in parameters])
        if all(gradient is None for gradient in gradients):
            raise ValueError("no parameter has a gradient: step() belongs after the backward pass")
        if not _are_finite(gradients):
            # The optimizer may leave this step out, and then the next gradient is of the same iterate.
            self._test.skip()
            self.skipped += 1
            return False
        return self._test.update(_array(gradient) for gradient in gradients)

    def _descended(self, gradients: list[torch.Tensor | None]) -> list[torch.Tensor | None]:
        """What the optimizer descends along: gradients with their sign and weight decay."""
        found: list[torch.Tensor | None] = []
        for (group, parameter), gradient in zip(self._entries(), gradients, strict=True):
            if gradient is None:  # such a parameter does not decay either
                found.append(None)
                continue
            whole = gradient.detach()
            whole = whole if whole.layout is torch.strided else whole.to_dense()
            whole = -whole if group.get("maximize") else whole
            decay = float(group.get("weight_decay") or 0.0)
            found.append(whole + decay * parameter.detach() if decay else whole)
        return found

    def _probe(self) -> bool:
        """Plain descent from here; whether its gradients say that the run is stationary."""
        assert self.closure is not None
        test = PflugTest(min_count=self.probe_steps - 1, band=self._test.band)  # one look, at the end
        parameters = [parameter for _, parameter in self._entries()]
        wanted = [parameter for parameter in parameters if parameter.requires_grad]
        stationary = False
        with _restored(wanted):
            for _ in range(self.probe_steps):
                with torch.enable_grad():
                    found = iter(torch.autograd.grad(self.closure(), wanted, allow_unused=True))
                gradients = self._descended([next(found) if p.requires_grad else None for p in parameters])
                if all(gradient is None for gradient in gradients):
                    raise ValueError("closure must return a loss of the parameters, got one without them")
                if not _are_finite(gradients):
                    self.skipped += 1
                    return False
                stationary = test.update(_array(gradient) for gradient in gradients)
                self._descend(gradients)
        return stationary

    @torch.no_grad()
    def _descend(self, gradients: list[torch.Tensor | None]) -> None:
        for (group, parameter), gradient in zip(self._entries(), gradients, strict=True):
            if gradient is None:
                continue
            scale = self.probe_scale
            if scale is None:
                momentum = group["momentum"]
                scale = (1.0 - (group["dampening"] if momentum else 0.0)) / (1.0 - momentum)
            parameter.sub_(scale * float(group["lr"]) * gradient)

    def _act(self) -> None:
        if self.on_stationary is not None:
            self.on_stationary()
            return
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].mul_(self.factor)
            else:
                group["lr"] *= self.factor


def _momentum(group: dict[str, Any]) -> float:
    """Of a parameter group; 0 if it has none."""
    betas = group.get("betas")
    return float(group.get("momentum", 0.0) if betas is None else betas[0])


def _is(one: object, other: object) -> bool:
    return one is other


def _are_finite(gradients: list[torch.Tensor | None]) -> bool:
    return all(gradient is None or bool(torch.isfinite(gradient).all()) for gradient in gradients)


def _array(gradient: torch.Tensor | None) -> Any:
    """As an array; numpy does not know all the short formats of torch, and float32 holds their values."""
    if gradient is None:
        return None
    short = gradient.is_floating_point() and gradient.element_size() < 4
    return (gradient.float() if short else gradient).cpu().numpy()


@contextmanager
def _restored(parameters: list[torch.Tensor]) -> Iterator[None]:
    """Put parameters back to what they were, whatever happens."""
    kept = [parameter.detach().clone() for parameter in parameters]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, values in zip(parameters, kept, strict=True):
                parameter.copy_(values)
