"""Leave-one-out predictions of a Gaussian process in closed form, and what they say of a model.

References
----------
.. [Sundararajan01] S. Sundararajan, S. S. Keerthi, "Predictive Approaches for Choosing Hyperparameters
   in Gaussian Processes", Neural Computation 13(5), 2001: equations for the left-out mean and variance.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """Predictions of each training target by the model fitted without it.

    Attributes
    ----------
    y, mean, variance
        Targets, and the prediction of a measurement of each, (n,).
    rmse
        Root of the mean squared error, in units of the target.
    log_densities, log_density
        Natural logarithm of the predictive density of each target, (n,), and their mean.
    """

    y: Float[np.ndarray, " n"]
    mean: Float[np.ndarray, " n"]
    variance: Float[np.ndarray, " n"]
    rmse: float = field(init=False)
    log_densities: Float[np.ndarray, " n"] = field(init=False)
    log_density: float = field(init=False)

    def __post_init__(self) -> None:
        if not self.y.shape == self.mean.shape == self.variance.shape or self.y.ndim != 1:
            raise ValueError(
                f"y, mean and variance must be (n,), got {self.y.shape}, {self.mean.shape}, "
                f"{self.variance.shape}"
            )
        if not (self.variance > 0).all():
            raise ValueError(f"variance must be positive, got {self.variance.min()}")
        error = self.y - self.mean
        densities = -0.5 * (np.log(2 * np.pi * self.variance) + error**2 / self.variance)
        object.__setattr__(self, "rmse", float(np.sqrt(np.mean(error**2))))
        object.__setattr__(self, "log_densities", densities)
        object.__setattr__(self, "log_density", float(densities.mean()))

    @property
    def standardised(self) -> Float[np.ndarray, " n"]:
        """Errors in units of their predicted standard deviation, (n,)."""
        result: Float[np.ndarray, " n"] = (self.y - self.mean) / np.sqrt(self.variance)
        return result


def leave_one_out(inverse: Float[np.ndarray, "n n"], y: Float[np.ndarray, " n"]) -> LeaveOneOut:
    """Leave-one-out predictions from the inverse covariance A of the measurements.

    ``mean_i = y_i - [A y]_i / A_ii`` and ``variance_i = 1 / A_ii`` [Sundararajan01]_, for a process
    whose prior mean was subtracted from y, and whose covariance contains the noise.

    Parameters
    ----------
    inverse : (n, n)
        Inverse of the covariance of y, noise included.
    y : (n,)
        Measurements.

    Examples
    --------
    Two measurements of correlation 1/2: each is predicted as half of the other.

    >>> covariance = np.array([[1.0, 0.5], [0.5, 1.0]])
    >>> loo = leave_one_out(np.linalg.inv(covariance), np.array([2.0, 4.0]))
    >>> loo.mean.round(6), loo.variance.round(6)
    (array([2., 1.]), array([0.75, 0.75]))
    """
    precision = np.diagonal(inverse)
    return LeaveOneOut(y, y - inverse @ y / precision, 1.0 / precision)
