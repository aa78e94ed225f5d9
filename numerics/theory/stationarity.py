"""When has gradient descent at a constant step size stopped to descend? Pflug's test, and its drift.

Far from a minimum two gradients in a row point the same way; once the iterates only jump about it, a step
too far along one gradient makes the next point back. The test adds up their inner products [Chee18]_::

    S = 0
    for k = 1, 2, ...:
        g_k = stochastic gradient at w_(k-1), of a new sample
        if k > burn_in + 1: S += g_k . g_(k-1)
        w_k = w_(k-1) - gamma g_k
        if k > burn_in + 1 and S < 0: stationary; halve gamma, start anew

Three caveats. A product scatters by O(1) while its mean is O(gamma), so that S may be negative by chance soon
after it starts [Pesme20]_: `min_count` lets it count first, `band` asks for more than a negative sum, and
both together are best, for a few products tell little of their scatter. What a descent from w_0 adds to S,
for the quadratic loss with M = I and noise of variance s**2 about ``||w_0 - w*||**2 / (2 gamma)``, is worked
off at rest by about ``gamma p s**2 / 2`` a step: `burn_in` should pass over most of the descent. And with
momentum beta the mean is negative at rest for beta < 1/2 only, as `heavy_ball_drift` tells [Chee20]_: above,
the test would wait forever, and it refuses to.

References
----------
.. [Chee18] J. Chee, P. Toulis, "Convergence diagnostics for stochastic gradient descent with constant
   learning rate", AISTATS 2018, arXiv 1710.06382.
.. [Chee20] J. Chee, P. Li, "Understanding and Detecting Convergence for Stochastic Gradient Descent with
   Momentum", 2020, arXiv 2008.12224.
.. [Pesme20] S. Pesme, A. Dieuleveut, N. Flammarion, "On Convergence-Diagnostic based Step Sizes for
   Stochastic Gradient Descent", ICML 2020, arXiv 2007.00534.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

#: An array, or the arrays of all parameters in a fixed order; None where there is no gradient, which is zero.
Gradient: TypeAlias = np.ndarray | Iterable[np.ndarray | None]

MOMENTUM_LIMIT = 0.5


class PflugTest:
    """Whether a run of stochastic gradient descent with a constant step size has become stationary.

    Parameters
    ----------
    burn_in
        Gradients that are passed over at the start and after every alarm.
    min_count
        Products that there must be before an alarm, at least 1.
    band
        Standard errors, estimated from the products, by which their mean must lie below zero. 0 is the plain
        test ``S < 0``. The sum is looked at after every step, so false alarms are more frequent than those of
        one look at a normal number.
    momentum
        beta of the run that is tested, in [0, 1/2).

    Attributes
    ----------
    statistic
        S, the sum of the products since the last start.
    count
        Products in it.
    alarms
        Times that the run was found stationary.

    Raises
    ------
    TypeError, ValueError
        A number out of its range. A momentum of 1/2 or more, for which the test has no power.

    Notes
    -----
    Gradients must be of consecutive iterates and of different samples: those of one batch at two points
    agree, and those of every tenth iterate hardly know of each other. Products and sums are in float64,
    whatever the dtype of the gradients, and do not depend on the number of threads.

    Examples
    --------
    >>> test = PflugTest()
    >>> [test.update(np.array([g]), 0.1) for g in (1.0, 0.5, -0.5, 1.0)]  # S: none, 0.5, 0.25, -0.25
    [False, False, False, True]
    """

    def __init__(
        self, burn_in: int = 0, *, min_count: int = 1, band: float = 0.0, momentum: float = 0.0
    ) -> None:
        _check_count("burn_in", burn_in, 0)
        _check_count("min_count", min_count, 1)
        if not (math.isfinite(band) and band >= 0.0):
            raise ValueError(f"band must be finite and not negative, got {band}")
        check_momentum(momentum)
        self.burn_in = burn_in
        self.min_count = min_count
        self.band = band
        self.momentum = momentum
        self.alarms = 0
        self.restart()

    def restart(self) -> None:
        """Forget all gradients and begin with the burn-in; alarms are kept."""
        self.statistic = 0.0
        self.count = 0
        self._squares = 0.0
        self._seen = 0
        self._step_size: float | None = None
        self._last: list[np.ndarray | None] | None = None

    def skip(self) -> None:
        """Forget the last gradient only: the next one is not of the iterate after it."""
        self._last = None

    def update(self, gradient: Gradient, step_size: float | None = None) -> bool:
        """Take the gradient of the next iterate, and say whether the run is stationary; if so, begin anew.

        Parameters
        ----------
        gradient
            One array or several, of the same shapes every time, finite. They are copied.
        step_size
            Of the step that this gradient makes; another one than before restarts the test, as the caller
            may after an alarm. ``None``: it has not changed.

        Raises
        ------
        TypeError, ValueError
            Gradients that are no arrays of real numbers, are not finite, are all None, or differ from the
            last ones in number or shape; a step size that is not positive.
        """
        parts = _parts(gradient)
        if step_size is not None:
            if not (math.isfinite(step_size) and step_size > 0.0):
                raise ValueError(f"step_size must be positive and finite, got {step_size}")
            if self._step_size is not None and step_size != self._step_size:
                self.restart()
            self._step_size = float(step_size)
        last = self._last
        if last is not None:
            _check_alike(parts, last)
        self._last, self._seen = parts, self._seen + 1
        if last is None or self._seen <= self.burn_in + 1:
            return False
        product = math.fsum(_inner(a, b) for a, b in zip(parts, last, strict=True))
        self.statistic += product
        self._squares += product**2
        self.count += 1
        if self.is_negative:
            self.alarms += 1
            self.restart()
            return True
        return False

    @property
    def is_negative(self) -> bool:
        """Whether the sum so far is negative, by the band, of enough products."""
        return self.count >= self.min_count and self.statistic < -self.band * self.deviation

    @property
    def deviation(self) -> float:
        """Standard deviation of the sum, of uncorrelated products; infinite for fewer than two."""
        if self.count < 2:
            return math.inf if self.band else 0.0
        spread = max(self._squares - self.statistic**2 / self.count, 0.0)
        return math.sqrt(spread * self.count / (self.count - 1))

    def state_dict(self) -> dict[str, Any]:
        """All that changes, as numbers and arrays; settings are not in it."""
        last = self._last if self._last is None else [None if g is None else g.copy() for g in self._last]
        return {
            "alarms": self.alarms,
            "statistic": self.statistic,
            "squares": self._squares,
            "count": self.count,
            "seen": self._seen,
            "step_size": self._step_size,
            "last": last,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken.

        Raises
        ------
        ValueError
            Keys that are missing or unknown.
        """
        if state.keys() != self.state_dict().keys():
            raise ValueError(
                f"state must have the keys {', '.join(self.state_dict())}, got {', '.join(state)}"
            )
        last = state["last"]
        self.alarms, self.count, self._seen = (int(state[key]) for key in ("alarms", "count", "seen"))
        self.statistic, self._squares = float(state["statistic"]), float(state["squares"])
        self._step_size = None if state["step_size"] is None else float(state["step_size"])
        self._last = None if last is None else [None if g is None else np.array(g) for g in last]


def check_momentum(momentum: float) -> None:
    """Refuse a momentum with which Pflug's test has no power.

    Raises
    ------
    ValueError
        Not in [0, 1/2).
    """
    if momentum >= MOMENTUM_LIMIT:
        raise ValueError(
            f"momentum must be in [0, 1/2), got {momentum}: from 1/2 on successive gradients agree at rest "
            "too, and the test would never end; run it on a momentum-free probe "
            "(numerics.torch.StationarityTest with probe=True)"
        )
    if not momentum >= 0.0:
        raise ValueError(f"momentum must be in [0, 1/2), got {momentum}")


def stationary_drift(
    step_size: float, second_moment: Float[np.ndarray, "p p"], *, noise_variance: float = 1.0
) -> float:
    """Mean of ``g_(k+1) . g_k`` at rest, for the quadratic loss and small step sizes.

    ``-(gamma s**2 / 2) tr(M**2)`` for the loss ``(y - x . w)**2 / 2`` with ``M = E[x x^T]`` and noise of
    variance s**2 in y, up to O(gamma**2) [Chee18]_.

    Parameters
    ----------
    step_size
        gamma, positive.
    second_moment : (p, p)
        M, symmetric.
    noise_variance
        s**2.

    Raises
    ------
    ValueError
        A number out of its range, a matrix that is not square and symmetric.

    Examples
    --------
    >>> stationary_drift(0.01, np.eye(10))
    -0.05
    """
    matrix = _check_matrix(second_moment)
    _check_drift(step_size, noise_variance)
    return -step_size * noise_variance / 2.0 * float(np.sum(matrix * matrix))


def gaussian_drift(
    step_size: float,
    second_moment: Float[np.ndarray, "p p"],
    displacement: Float[np.ndarray, " p"],
    *,
    noise_variance: float = 1.0,
) -> float:
    """Mean of ``g_2 . g_1`` from a point at `displacement` from the minimum, for x ~ N(0, M), exact.

    ``u^T (M**2 - gamma E[(x^T M x) x x^T]) u - gamma s**2 tr(M**2)`` with
    ``E[(x^T M x) x x^T] = 2 M**3 + tr(M**2) M`` for normal x.

    Parameters
    ----------
    step_size, second_moment, noise_variance
        As in `stationary_drift`.
    displacement : (p,)
        ``u = w - w*``, before the first of the two gradients.

    Raises
    ------
    ValueError
        As in `stationary_drift`; a displacement of another size.

    Examples
    --------
    >>> gaussian_drift(0.125, np.eye(2), np.ones(2))  # 2 (1 - 4 / 8) - 2 / 8
    0.75
    """
    matrix = _check_matrix(second_moment)
    _check_drift(step_size, noise_variance)
    u = np.asarray(displacement, np.float64)
    if u.shape != matrix.shape[:1]:
        raise ValueError(f"displacement must be of shape {matrix.shape[:1]}, got {u.shape}")
    square = matrix @ matrix
    trace = float(np.trace(square))
    fourth = 2.0 * square @ matrix + trace * matrix
    return float(u @ (square - step_size * fourth) @ u) - step_size * noise_variance * trace


def gaussian_stationary_drift(step_size: float, dimension: int, *, noise_variance: float = 1.0) -> float:
    """Mean of ``g_(k+1) . g_k`` at rest for x ~ N(0, I_p), exact: ``-gamma s**2 p / (2 - gamma (p + 2))``.

    Parameters
    ----------
    step_size, noise_variance
        As in `stationary_drift`.
    dimension
        p.

    Raises
    ------
    TypeError, ValueError
        A number out of its range; a step size of ``2 / (p + 2)`` or more, with which nothing comes to rest.

    Examples
    --------
    >>> round(gaussian_stationary_drift(0.01, 10), 5)
    -0.05319
    """
    _check_drift(step_size, noise_variance)
    _check_count("dimension", dimension, 1)
    if step_size * (dimension + 2) >= 2.0:
        raise ValueError(f"step_size must be below {2.0 / (dimension + 2)} to come to rest, got {step_size}")
    return -step_size * noise_variance * dimension / (2.0 - step_size * (dimension + 2))


def heavy_ball_drift(
    step_size: float, momentum: float, *, curvature: float = 1.0, noise_variance: float = 1.0
) -> float:
    """Mean of ``g_(k+1) g_k`` at rest along a direction of curvature h, with momentum beta, exact.

    ``h gamma s**2 [(1 + beta - gamma h) / ((1 - beta) (2 (1 + beta) - gamma h)) - 1]`` for
    ``w' = w - gamma g + beta (w - w_before)`` and gradients h w with additive noise of variance s**2.

    It is negative up to about ``beta = 1/2`` and positive above, for all small step sizes. To first order in
    gamma the bracket is ``1 / (2 (1 - beta)) - 1``; the same stands for a dampened or averaged momentum as
    Adam's, whose gradients enter by ``1 - beta``, and Nesterov's is negative up to ``beta = 0.7``.

    Parameters
    ----------
    step_size
        gamma, positive.
    momentum
        beta, in [0, 1).
    curvature
        h, positive.
    noise_variance
        s**2.

    Raises
    ------
    ValueError
        A number out of its range; ``gamma h`` of ``2 (1 + beta)`` or more, with which nothing comes to rest.

    Examples
    --------
    >>> [round(heavy_ball_drift(0.05, beta), 5) for beta in (0.0, 0.45, 0.55, 0.9)]
    [-0.02564, -0.00534, 0.00464, 0.19667]
    """
    _check_drift(step_size, noise_variance)
    if not 0.0 <= momentum < 1.0:
        raise ValueError(f"momentum must be in [0, 1), got {momentum}")
    if not (math.isfinite(curvature) and curvature > 0.0):
        raise ValueError(f"curvature must be positive and finite, got {curvature}")
    step = step_size * curvature
    if step >= 2.0 * (1.0 + momentum):
        limit = 2.0 * (1.0 + momentum) / curvature
        raise ValueError(f"step_size must be below {limit} to come to rest, got {step_size}")
    share = (1.0 + momentum - step) / ((1.0 - momentum) * (2.0 * (1.0 + momentum) - step))
    return step * noise_variance * (share - 1.0)


def _parts(gradient: Gradient) -> list[np.ndarray | None]:
    given: Sequence[Any] = [gradient] if isinstance(gradient, np.ndarray) else list(gradient)
    parts: list[np.ndarray | None] = []
    for index, part in enumerate(given):
        if part is None:
            parts.append(None)
            continue
        if not isinstance(part, np.ndarray) or part.dtype.kind not in "iuf":
            kind = getattr(part, "dtype", type(part).__name__)
            raise TypeError(f"gradient must be arrays of real numbers or None, got {kind} at {index}")
        if (bad := part[~np.isfinite(part)]).size:
            raise ValueError(f"gradient must be finite, got {bad.flat[0]} at {index}")
        parts.append(part.copy())
    if all(part is None for part in parts):
        raise ValueError("gradient must have at least one array, got none")
    return parts


def _check_alike(parts: list[np.ndarray | None], last: list[np.ndarray | None]) -> None:
    if len(parts) != len(last):
        raise ValueError(f"gradient must have {len(last)} arrays as before, got {len(parts)}")
    for index, (a, b) in enumerate(zip(parts, last, strict=True)):
        if a is not None and b is not None and a.shape != b.shape:
            raise ValueError(f"gradient must be of shape {b.shape} as before at {index}, got {a.shape}")


def _inner(a: np.ndarray | None, b: np.ndarray | None) -> float:
    """Inner product in float64, by numpy's own sum: that of BLAS depends on the number of threads."""
    if a is None or b is None:
        return 0.0
    return float(np.sum(np.multiply(a, b, dtype=np.float64)))


def _check_matrix(matrix: np.ndarray) -> np.ndarray:
    found = np.asarray(matrix, np.float64)
    if found.ndim != 2 or found.shape[0] != found.shape[1]:
        raise ValueError(f"second_moment must be of shape (p, p), got {found.shape}")
    if not (np.isfinite(found).all() and np.allclose(found, found.T)):
        raise ValueError("second_moment must be finite and symmetric")
    return found


def _check_drift(step_size: float, noise_variance: float) -> None:
    if not (math.isfinite(step_size) and step_size > 0.0):
        raise ValueError(f"step_size must be positive and finite, got {step_size}")
    if not (math.isfinite(noise_variance) and noise_variance >= 0.0):
        raise ValueError(f"noise_variance must be finite and not negative, got {noise_variance}")


def _check_count(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
