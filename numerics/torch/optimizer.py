"""Weight updates in a narrow format: SGD, Adam and AdamW of which every operation is rounded as declared.

References
----------
.. [Wang18] N. Wang et al., "Training Deep Neural Networks with 8-bit Floating Point Numbers",
   NeurIPS 2018, arXiv 1812.08011.
.. [Kingma15] D. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, arXiv 1412.6980.
.. [Loshchilov19] I. Loshchilov, F. Hutter, "Decoupled Weight Decay Regularization", ICLR 2019,
   arXiv 1711.05101.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from torch.autograd.graph import increment_version

from numerics._target import check_seed
from numerics.elementwise import axpy, cast
from numerics.formats import FloatFormat, parse_format
from numerics.rounding import Rounding

_ADAM = ("lr", "betas", "eps", "weight_decay", "maximize")
_OPTIONS: dict[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.SGD: ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize"),
    torch.optim.Adam: (*_ADAM, "decoupled_weight_decay"),
    torch.optim.AdamW: _ADAM,
}
_REFUSED = ("amsgrad", "capturable", "differentiable")


class _Kind(IntEnum):
    """Roundings of a step, as the streams of random words number them."""

    DECAY = 1  # g + weight_decay w, or w - lr weight_decay w
    SHARE = 2  # (1 - dampening) g, or (1 - b1) g
    SQUARE = 3  # (1 - b2) g**2
    FIRST = 4  # momentum, first moment
    SECOND = 5  # second moment
    DIRECTION = 6  # what is scaled by the learning rate, where it is no moment itself
    WEIGHT = 7


_OF_STATE = (_Kind.SHARE, _Kind.SQUARE, _Kind.FIRST, _Kind.SECOND)
_STEP_BITS, _KIND_BITS = 40, 3


@dataclass(frozen=True, slots=True)
class _Step:
    """The roundings of one step of one parameter."""

    format: FloatFormat
    state_format: FloatFormat
    rounding: Rounding
    seed: int
    number: int  # of the parameter, in the order of the groups
    count: int  # of the steps of this parameter, this one included

    def axpy(
        self, kind: _Kind, alpha: float, x: np.ndarray, y: np.ndarray, out: np.ndarray | None = None
    ) -> np.ndarray:
        """``alpha * x + y``, rounded once."""
        return axpy(alpha, x, y, self._format(kind), **self._words(kind), out=out)

    def round(self, kind: _Kind, x: np.ndarray) -> np.ndarray:
        """Float64 `x`, rounded once, and in place; every format's values are float32 numbers."""
        return cast(x, self._format(kind), **self._words(kind), out=x).astype(np.float32)

    def _format(self, kind: _Kind) -> FloatFormat:
        return self.state_format if kind in _OF_STATE else self.format

    def _words(self, kind: _Kind) -> dict[str, Any]:
        # A kind is never 0, so that no stream of small number, as other uses of the seed have, is met.
        stream = (self.number << _KIND_BITS | kind) << _STEP_BITS | self.count
        return {"rounding": self.rounding, "seed": self.seed, "stream": stream}


class LowPrecision(torch.optim.Optimizer):
    """An optimizer whose weights, state and updates live on narrow formats.

    Below, `round` rounds once to `format` and `round_s` once to `state_format`, as `rounding` says. What
    stands inside is exact, its scalar factor first rounded to float32 (`numerics.axpy`), unless marked
    ``f64``: there each operation is one of float64, to nearest even. `g` is the gradient in float32, with
    `maximize` its negative; t counts the steps of the parameter, from 1.

    **SGD**, the three AXPYs of [Wang18]_::

        g = round(g + weight_decay * w)                       without weight decay: g itself
        h = round_s((1 - dampening) * g)                      in the first step, or without dampening: g
        v = round_s(momentum * v + h)                         from v = 0
        n = round(momentum * v + g)                           without Nesterov: v; without momentum: g
        w = round(w - lr * n)

    **Adam** [Kingma15]_::

        g = round(g + weight_decay * w)                       without weight decay: g itself
        m = round_s(b1 * m + round_s((1 - b1) * g))           from m = 0
        s = round_s(f64((1 - b2) * g**2))                     g**2 is exact, the product is rounded
        v = round_s(b2 * v + s)                               from v = 0
        u = round(f64(m / (1 - b1**t) / (sqrt(v / (1 - b2**t)) + eps)))
        w = round(w - lr * u)

    **AdamW** [Loshchilov19]_: the same, with ``w = round(w - (lr * weight_decay) * w)`` in place of the
    first line.

    A narrow second moment loses small gradients. Rounded to nearest, s is 0 for ``|g|`` below
    ``sqrt(min_subnormal / (2 (1 - b2)))``: with b2 of 0.999 below 3e-5 in e6m9 and below 1 in e4m3fn. With
    m not 0 and v = 0, u is m / eps, which may be huge. And v does not decay where ``(1 - b2) v`` is less than
    half a unit in its last place: with b2 of 0.999 wherever there are less than 8 fraction bits. A v that
    overflows to infinity stays there, and its weight where it is. A wider `state_format` mends all of it
    (``"fp32"``; ``"bf16"`` the range alone), stochastic rounding the decay.

    NaN and infinite gradients are not looked for: the weights become what the equations say. A
    `LossScaler` skips such a step.

    Parameters
    ----------
    optimizer
        A `torch.optim.SGD`, `Adam` or `AdamW` that has not stepped yet. Its groups are shared, so that a
        scheduler may be built on it or on this object. `foreach` and `fused` choose how torch computes
        and say nothing here.
    format, rounding
        Of weights and updates, signed. The weights are rounded to nearest on construction; what is
        put into them later is on the format after its next step.
    seed
        Key of stochastic rounding, in 0..2**63 - 1. The random words depend on it, on the number of the
        parameter in the order of the groups, on the line of the equations and on t; not on other parameters.
    state_format
        Of h, v, m and s; `format` if not given.

    Raises
    ------
    TypeError, ValueError
        Another optimizer or option, a parameter or gradient that is not dense float32 on the CPU; the
        message names it and what is allowed. A failed check changes nothing.

    Examples
    --------
    >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
    >>> sgd = LowPrecision(torch.optim.SGD([weight], lr=2.0**-12), format="e6m9")
    >>> weight.grad = torch.ones(1)
    >>> sgd.step()  # 1 - 2**-12 rounds to 1
    >>> weight.item()
    1.0
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        format: FloatFormat | str,  # noqa: A002  the noun of the field
        rounding: Rounding | str = Rounding.NEAREST_EVEN,
        seed: int = 0,
        state_format: FloatFormat | str | None = None,
    ) -> None:
        if type(optimizer) not in _OPTIONS:
            kinds = ", ".join(f"torch.optim.{kind.__name__}" for kind in _OPTIONS)
            raise ValueError(f"optimizer must be one of {kinds}; got {type(optimizer).__name__}")
        if optimizer.state:
            raise ValueError(
                f"optimizer must not have stepped yet, got {type(optimizer).__name__} "
                f"with the state of {len(optimizer.state)} parameters"
            )
        self.optimizer = optimizer
        self.format = _signed_format(format, "format")
        self.state_format = (
            self.format if state_format is None else _signed_format(state_format, "state_format")
        )
        self.rounding = Rounding.parse(rounding)
        self.seed, _ = check_seed(self.rounding, seed, 0)
        self._check()
        super().__init__(list(optimizer.param_groups), optimizer.defaults)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of the inner optimizer."""
        return self.optimizer.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.optimizer.param_groups = groups

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, and round its weights."""
        before = list(self.param_groups)
        super().add_param_group(param_group)
        try:
            self._check()
        except (TypeError, ValueError):
            self.param_groups = before
            raise
        for parameter in self.param_groups[-1]["params"]:
            _assign(parameter, cast(parameter.detach().numpy(), self.format, overflow="saturate"))

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient.

        Parameters
        ----------
        closure
            Computes the loss and its gradients first; optional.

        Returns
        -------
        The loss of the closure.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._check()
        for number, parameter, group in self._numbered():
            if parameter.grad is not None:
                # What is infinite or NaN goes through.
                with np.errstate(divide="ignore", invalid="ignore"):
                    self._update(number, parameter, parameter.grad, group)
        self.optimizer._opt_called = True  # type: ignore[attr-defined]  # what its schedulers look for
        return loss

    def _update(
        self, number: int, parameter: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]
    ) -> None:
        state = self.state[parameter]
        count = state.get("step", 0) + 1
        rounded = _Step(self.format, self.state_format, self.rounding, self.seed, number, count)
        held, g = parameter.detach().numpy(), gradient.detach().numpy()
        if group["maximize"]:
            g = np.negative(g, out=np.empty(g.shape, np.float32))
        if isinstance(self.optimizer, torch.optim.SGD):
            n, w = _sgd(rounded, group, state, held, g), held
        else:
            # Torch 2.6 has no such option, and another class for AdamW.
            is_adamw = isinstance(self.optimizer, torch.optim.AdamW)
            n, w = _adam(rounded, group, state, held, g, group.get("decoupled_weight_decay", is_adamw))
        lr = float(group["lr"])
        if held.flags.c_contiguous:
            rounded.axpy(_Kind.WEIGHT, -lr, n, w, out=held)
            increment_version(parameter)  # torch cannot see that a graph's values have changed
        else:
            _assign(parameter, rounded.axpy(_Kind.WEIGHT, -lr, n, w))
        state["step"] = count

    def state_dict(self) -> dict[str, Any]:
        """State of the optimizer, to be saved beside the weights.

        Returns
        -------
        The dictionary of torch's optimizers, with the settings of this class as ``"low_precision"``.
        No later step changes its tensors.
        """
        saved = super().state_dict()
        # A step sets entries of these dictionaries; it replaces tensors and writes to none.
        saved["state"] = {number: dict(state) for number, state in saved["state"].items()}
        return {**saved, "low_precision": self._settings()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state: with equal weights, bit for bit as the run that saved it.

        Options of the groups, the learning rate among them, become those of the saved state.

        Raises
        ------
        ValueError
            The state of other formats, rounding, seed, optimizer or parameters; nothing is loaded then.
        """
        if "low_precision" not in state_dict:
            raise ValueError(
                f"state_dict must come from LowPrecision.state_dict, got one with {', '.join(state_dict)}"
            )
        for name, value in self._settings().items():
            saved = state_dict["low_precision"].get(name)
            if saved != value:
                raise ValueError(
                    f"the state was saved with {name} {saved}, this optimizer has {name} {value}"
                )
        ours, theirs = (
            [len(g["params"]) for g in groups] for groups in (self.param_groups, state_dict["param_groups"])
        )
        if ours != theirs:
            raise ValueError(f"the state has groups of {theirs} parameters, this optimizer has {ours}")
        for number, parameter, _ in self._numbered():
            for name, value in state_dict["state"].get(number, {}).items():
                if isinstance(value, torch.Tensor) and value.shape != parameter.shape:
                    raise ValueError(
                        f"{name} of {self._name(number)} must have shape {tuple(parameter.shape)}, "
                        f"got {tuple(value.shape)}"
                    )
        super().load_state_dict(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        # Without the `step` of a scheduler, which torch's optimizers leave behind as well.
        return {name: value for name, value in self.__dict__.items() if name != "step"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Of a copy, and of torch's load_state_dict, which hands over new groups.
        state = dict(state)
        groups = state.pop("param_groups", None)
        super().__setstate__(state)
        if groups is not None:
            self.param_groups = groups

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value}" for name, value in self._settings().items())
        return f"LowPrecision({settings})"

    def _settings(self) -> dict[str, Any]:
        return {
            "optimizer": type(self.optimizer).__name__,
            "format": str(self.format),
            "rounding": str(self.rounding),
            "seed": self.seed,
            "state_format": str(self.state_format),
        }

    def _numbered(self) -> Iterator[tuple[int, torch.Tensor, dict[str, Any]]]:
        pairs = ((parameter, group) for group in self.param_groups for parameter in group["params"])
        return ((number, parameter, group) for number, (parameter, group) in enumerate(pairs))

    def _check(self) -> None:
        kind = type(self.optimizer)
        for group in self.param_groups:
            for option in _REFUSED:
                if group.get(option):
                    raise ValueError(
                        f"{kind.__name__} option {option} must be off, got {group[option]!r}; "
                        f"supported are {', '.join(_OPTIONS[kind])}"
                    )
        for number, parameter, _ in self._numbered():
            for what, tensor in (("", parameter), ("gradient of ", parameter.grad)):
                if tensor is None:
                    continue
                if (tensor.dtype, tensor.layout, tensor.device.type) != (torch.float32, torch.strided, "cpu"):
                    raise TypeError(
                        f"{what}{self._name(number)} must be dense float32 on the CPU, got {tensor.dtype}, "
                        f"{tensor.layout} on {tensor.device}"
                    )

    def _name(self, number: int) -> str:
        unnamed = ([None] * len(group["params"]) for group in self.param_groups)
        names = [
            group.get("param_names", none) for group, none in zip(self.param_groups, unnamed, strict=True)
        ]
        name = [name for group in names for name in group][number]
        return f"parameter {number}" if name is None else f"parameter {number} ({name})"


def _sgd(
    rounded: _Step, group: dict[str, Any], state: dict[str, Any], w: np.ndarray, g: np.ndarray
) -> np.ndarray:
    """The direction n; the equations are in the docstring of `LowPrecision`."""
    if decay := float(group["weight_decay"]):
        g = rounded.axpy(_Kind.DECAY, decay, w, g)
    n = g
    if momentum := float(group["momentum"]):
        h, v = g, _moment(state, "momentum_buffer", w)
        if (dampening := float(group["dampening"])) and "momentum_buffer" in state:
            h = rounded.round(_Kind.SHARE, _product(1.0 - dampening, g))
        # From zero, momentum * v + h is h on the format, as a first step should be.
        n = v = rounded.axpy(_Kind.FIRST, momentum, v, h)
        state["momentum_buffer"] = torch.from_numpy(v)
        if group["nesterov"]:
            n = rounded.axpy(_Kind.DIRECTION, momentum, v, g)
    return n


def _adam(
    rounded: _Step,
    group: dict[str, Any],
    state: dict[str, Any],
    w: np.ndarray,
    g: np.ndarray,
    decoupled: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """The direction u and the decayed weights; the equations are in the docstring of `LowPrecision`."""
    lr, eps, decay = (float(group[name]) for name in ("lr", "eps", "weight_decay"))
    b1, b2 = (float(beta) for beta in group["betas"])
    if decay:
        if decoupled:
            w = rounded.axpy(_Kind.DECAY, -(lr * decay), w, w)
        else:
            g = rounded.axpy(_Kind.DECAY, decay, w, g)
    m = rounded.axpy(
        _Kind.FIRST, b1, _moment(state, "exp_avg", w), rounded.round(_Kind.SHARE, _product(1.0 - b1, g))
    )
    s = np.multiply(g, g, out=np.empty(g.shape), dtype=np.float64)
    s *= 1.0 - b2
    v = rounded.axpy(_Kind.SECOND, b2, _moment(state, "exp_avg_sq", w), rounded.round(_Kind.SQUARE, s))
    state["exp_avg"], state["exp_avg_sq"] = torch.from_numpy(m), torch.from_numpy(v)
    root = np.divide(v, 1.0 - b2**rounded.count, out=np.empty(v.shape), dtype=np.float64)
    np.sqrt(root, out=root)
    root += eps
    u = np.divide(m, 1.0 - b1**rounded.count, out=np.empty(m.shape), dtype=np.float64)
    u /= root
    return rounded.round(_Kind.DIRECTION, u), w


def _moment(state: dict[str, Any], name: str, w: np.ndarray) -> np.ndarray:
    held: torch.Tensor | None = state.get(name)
    return np.zeros(w.shape, np.float32) if held is None else held.numpy()


def _product(alpha: float, x: np.ndarray) -> np.ndarray:
    """``alpha * x`` in float64, exact as both have 24 bits."""
    product = np.empty(x.shape)
    np.multiply(x, float(np.float32(alpha)), out=product, dtype=np.float64)
    return product


def _assign(parameter: torch.Tensor, values: np.ndarray) -> None:
    """Set in place by torch, which notices when a graph still needs the old values."""
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(values))


def _signed_format(value: FloatFormat | str, name: str) -> FloatFormat:
    fmt = parse_format(value)
    if not isinstance(fmt, FloatFormat) or not fmt.signed:
        raise ValueError(f"{name} must be a signed floating-point format, got {fmt}")
    return fmt
