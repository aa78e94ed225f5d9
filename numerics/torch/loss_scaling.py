"""Loss scaling: small errors leave the subnormal range, overflowed steps are skipped.

References
----------
.. [Micikevicius18] P. Micikevicius et al., "Mixed Precision Training", ICLR 2018, arXiv 1710.03740.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import Any

import numpy as np
import torch

from numerics.formats import Format, parse_format
from numerics.torch.optimizer import LowPrecision

_LEAST, _LARGEST = float(np.finfo(np.float32).smallest_subnormal), float(np.finfo(np.float32).max)


class LossScaler:
    """A factor of the loss, constant or dynamic [Micikevicius18]_, that gradients lose again before a step.

    A step with an infinite or NaN gradient is skipped. The dynamic scaler (`LossScaler.dynamic`) then
    multiplies its scale by `backoff`, and after `interval` steps in a row that were not skipped by
    `growth`; a scale that would leave ``minimum .. maximum`` stays as it is.

    A gradient g becomes ``fl32(g / fl32(scale))``. With a power of two this changes no bit of g, unless
    the result is subnormal in float32.

    Parameters
    ----------
    scale
        The constant factor, positive.
    format
        Format of the errors, if a scale beyond its largest value is to be refused.

    Attributes
    ----------
    scale
        Factor of the next loss.
    skipped
        Steps skipped so far.

    Raises
    ------
    ValueError
        A scale that is not positive and finite in float32, or that `format` cannot hold.

    Examples
    --------
    >>> scaler = LossScaler.dynamic(initial=8.0, interval=1)
    >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
    >>> sgd = torch.optim.SGD([weight], lr=0.5)
    >>> scaler.backward(weight.sum())
    >>> scaler.step(sgd), weight.item(), scaler.scale
    (True, 0.5, 16.0)
    """

    def __init__(
        self,
        scale: float = 1024.0,
        *,
        format: Format | str | None = None,  # noqa: A002  the noun of the field
    ) -> None:
        self._start(scale, {"scale": float(scale)}, format)

    @classmethod
    def dynamic(
        cls,
        initial: float = 65536.0,
        growth: float = 2.0,
        backoff: float = 0.5,
        interval: int = 2000,
        maximum: float = 2.0**24,
        minimum: float = 1.0,
        *,
        format: Format | str | None = None,  # noqa: A002  the noun of the field
    ) -> LossScaler:
        """A scaler whose scale follows the overflows, as `torch.amp.GradScaler` does within its range.

        Parameters
        ----------
        initial
            The first scale, in `minimum` .. `maximum`.
        growth, backoff
            Factors above 1, and between 0 and 1.
        interval
            Steps in a row without overflow before the scale grows, at least 1.
        maximum, minimum
            Range of the scale.
        format
            Format of the errors: `initial` must be among its values' range, and the scale does not grow
            beyond its largest value, whatever `maximum` says.

        Raises
        ------
        TypeError, ValueError
            A setting out of its range; the message names it.
        """
        if isinstance(interval, bool) or not isinstance(interval, int):
            raise TypeError(f"interval must be an integer, got {interval!r}")
        if interval < 1:
            raise ValueError(f"interval must be at least 1, got {interval}")
        if not (isfinite(growth) and growth > 1.0):
            raise ValueError(f"growth must be finite and above 1, got {growth}")
        if not 0.0 < backoff < 1.0:
            raise ValueError(f"backoff must be between 0 and 1, got {backoff}")
        if not _LEAST <= minimum <= initial <= maximum <= _LARGEST:
            raise ValueError(
                f"0 < minimum <= initial <= maximum must hold in float32, "
                f"got minimum {minimum:g}, initial {initial:g}, maximum {maximum:g}"
            )
        scaler = cls.__new__(cls)
        settings = {
            "growth": float(growth),
            "backoff": float(backoff),
            "interval": interval,
            "maximum": float(maximum if format is None else min(maximum, parse_format(format).max)),
            "minimum": float(minimum),
        }
        scaler._start(initial, settings, format)
        return scaler

    def _start(self, scale: float, settings: dict[str, Any], fmt: Format | str | None) -> None:
        if not _LEAST <= scale <= _LARGEST:
            raise ValueError(f"scale must be positive and finite in float32, got {scale}")
        if fmt is not None and scale > (known := parse_format(fmt)).max:
            raise ValueError(
                f"scale must be at most {known.max:g}, the largest value of {known}, got {scale:g}"
            )
        self.scale = float(scale)
        self.skipped = 0
        self._settings = settings
        self._streak = 0  # steps since the scale changed or a step was skipped
        self._unscaled: dict[torch.optim.Optimizer, bool] = {}  # whether its gradients were finite

    @property
    def is_dynamic(self) -> bool:
        """Whether the scale changes."""
        return "growth" in self._settings

    def backward(self, loss: torch.Tensor) -> None:
        """Back-propagate the scaled loss."""
        (loss * self.scale).backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Unscale the gradients ahead of the step, to clip or to look at them.

        Raises
        ------
        RuntimeError
            The gradients of this step are unscaled already.
        """
        key = _inner(optimizer)
        if key in self._unscaled:
            raise RuntimeError("the gradients are unscaled already; unscale once between two steps")
        finite = all(_is_finite(gradient) for gradient in _gradients(optimizer))
        self._divide(optimizer)
        self._unscaled[key] = finite

    def step(self, *optimizers: torch.optim.Optimizer) -> bool:
        """Unscale the gradients and update, or skip the step.

        Parameters
        ----------
        *optimizers
            One, or all whose gradients are of the same backward pass: they step together or not at all.

        Returns
        -------
        Whether the gradients were finite and the weights were updated. Gradients of a skipped step stay
        as they are.
        """
        if not optimizers:
            raise TypeError("step needs an optimizer, got none")
        known, self._unscaled = self._unscaled, {}
        finite = all(
            known.get(_inner(optimizer), True) and all(map(_is_finite, _gradients(optimizer)))
            for optimizer in optimizers
        )
        if finite:
            for optimizer in optimizers:
                if _inner(optimizer) not in known:
                    self._divide(optimizer)
                optimizer.step()
        self._adapt(finite)
        return finite

    def state_dict(self) -> dict[str, Any]:
        """The scale, the counts and the settings, as plain numbers."""
        return {
            "scale": self.scale,
            "skipped": self.skipped,
            "streak": self._streak,
            "settings": dict(self._settings),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state.

        Raises
        ------
        ValueError
            The state of a scaler with other settings.
        """
        if "settings" not in state_dict:
            raise ValueError(
                f"state_dict must come from LossScaler.state_dict, got one with {', '.join(state_dict)}"
            )
        if state_dict["settings"] != self._settings:
            raise ValueError(
                f"the state is of {_text(state_dict['settings'])}, this is {_text(self._settings)}"
            )
        self.scale, self.skipped = state_dict["scale"], state_dict["skipped"]
        self._streak = state_dict["streak"]
        self._unscaled = {}

    def _divide(self, optimizer: torch.optim.Optimizer) -> None:
        with torch.no_grad():
            for gradient in _gradients(optimizer):
                gradient /= self.scale

    def _adapt(self, finite: bool) -> None:
        self.skipped += not finite
        if not self.is_dynamic:
            return
        self._streak = self._streak + 1 if finite else 0
        factor = 1.0
        if not finite:
            factor = self._settings["backoff"]
        elif self._streak == self._settings["interval"]:
            factor, self._streak = self._settings["growth"], 0
        scale = self.scale * factor
        if self._settings["minimum"] <= scale <= self._settings["maximum"]:
            self.scale = scale


def _inner(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The one that owns the parameters."""
    return optimizer.optimizer if isinstance(optimizer, LowPrecision) else optimizer


def _gradients(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                if parameter.grad.layout is not torch.strided:
                    raise TypeError(f"gradients must be dense, got {parameter.grad.layout}")
                yield parameter.grad


def _is_finite(gradient: torch.Tensor) -> bool:
    """Whether no element is infinite or NaN."""
    # An infinity or NaN makes every sum with it one. Finite elements may overflow; then look at each.
    with torch.no_grad():
        return bool(gradient.sum().isfinite()) or bool(gradient.isfinite().all())


def _text(settings: dict[str, Any]) -> str:
    kind = "dynamic" if "growth" in settings else "constant"
    return f"a {kind} scaler with " + ", ".join(f"{name} {value:g}" for name, value in settings.items())
