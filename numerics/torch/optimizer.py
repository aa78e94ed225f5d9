"""Weight updates in a narrow format, and static loss scaling.

References
----------
.. [Wang18] N. Wang et al., "Training Deep Neural Networks with 8-bit Floating Point Numbers",
   NeurIPS 2018, arXiv 1812.08011.
"""

from __future__ import annotations

import numpy as np
import torch

from numerics.elementwise import axpy, cast
from numerics.formats import FloatFormat
from numerics.rounding import Rounding


class LowPrecision:
    """Stochastic gradient descent whose weights, momenta and updates live on a narrow format.

    The step of [Wang18]_: three AXPYs, each rounded once to `format`::

        g = round(g + weight_decay * w)
        v = round(momentum * v + g)
        w = round(w - lr * v)

    The first is left out without weight decay, the second without momentum.

    Parameters
    ----------
    optimizer
        A `torch.optim.SGD` (plain or with momentum, no dampening, no Nesterov), whose settings and
        parameters are taken over and may be scheduled as usual.
    format, rounding
        Of weights, momenta and every AXPY. The weights are rounded to nearest on construction.
    seed
        Key of stochastic rounding.

    Raises
    ------
    ValueError
        Another optimizer or setting; the message names it.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        format: FloatFormat | str,  # noqa: A002  the noun of the field
        rounding: Rounding | str = Rounding.NEAREST_EVEN,
        seed: int = 0,
    ) -> None:
        if type(optimizer) is not torch.optim.SGD:
            raise ValueError(f"optimizer must be torch.optim.SGD, got {type(optimizer).__name__}")
        for group in optimizer.param_groups:
            for name in ("dampening", "nesterov", "maximize"):
                if group[name]:
                    raise ValueError(f"SGD option {name} must be off, got {group[name]!r}")
        self.optimizer = optimizer
        self.format = FloatFormat.parse(format) if isinstance(format, str) else format
        self.rounding = Rounding.parse(rounding)
        self.seed = seed
        self._momenta: dict[torch.Tensor, np.ndarray] = {}
        self._stream = 0
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                _assign(parameter, cast(parameter.detach().numpy(), self.format, overflow="saturate"))

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad()

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group["lr"], group["momentum"], group["weight_decay"])

    def _update(self, parameter: torch.Tensor, lr: float, momentum: float, decay: float) -> None:
        assert parameter.grad is not None
        weights = parameter.detach().numpy()
        step = np.ascontiguousarray(parameter.grad.numpy())
        if decay:
            step = self._axpy(decay, weights, step)
        if momentum:
            # From zero, momentum * v + g is g on the format, as a first step should be.
            velocity = self._momenta.get(parameter, np.zeros_like(weights))
            step = self._momenta[parameter] = self._axpy(momentum, velocity, step)
        _assign(parameter, self._axpy(-lr, step, weights))

    def _axpy(self, alpha: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        self._stream += 1
        return axpy(alpha, x, y, self.format, rounding=self.rounding, seed=self.seed, stream=self._stream)


def _assign(parameter: torch.Tensor, values: np.ndarray) -> None:
    """Set in place by torch, which notices when a graph still needs the old values."""
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(values))


class LossScaler:
    """Constant loss scaling: small errors leave the subnormal range, overflowed steps are skipped.

    Parameters
    ----------
    scale
        Factor of the loss; a power of two makes scaling and unscaling exact.
    """

    def __init__(self, scale: float = 1024.0) -> None:
        if not (np.isfinite(scale) and scale > 0.0):
            raise ValueError(f"scale must be positive and finite, got {scale}")
        self.scale = float(scale)
        self.skipped = 0

    def backward(self, loss: torch.Tensor) -> None:
        """Back-propagate the scaled loss."""
        (loss * self.scale).backward()  # type: ignore[no-untyped-call]

    def step(self, optimizer: LowPrecision | torch.optim.Optimizer) -> bool:
        """Unscale the gradients and update; a non-finite gradient skips the step and is counted."""
        inner = optimizer.optimizer if isinstance(optimizer, LowPrecision) else optimizer
        gradients = [
            parameter.grad
            for group in inner.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        if not all(torch.isfinite(gradient).all() for gradient in gradients):
            self.skipped += 1
            return False
        for gradient in gradients:
            gradient /= self.scale
        optimizer.step()
        return True
