"""Bootstrapped Gaussian process: intervals that include what few points leave open of the hyper-parameters.

1. Fit a process, and keep its left-out residuals, standardised: ``r_i = (y_i - m_i) / sqrt(v_i)``.
2. For each of B resamples make new targets, ``y*_i = mu(x_i) + sqrt(v_i) r_p(i)`` with p drawn with
   replacement (``"residual"``), or ``y* ~ N(mu(X), cov(X) + noise)`` (``"parametric"``).
3. Refit the hyper-parameters to them, in a few steps from the first fit's.
4. Combine: ``mu = mean_b mu_b`` and ``v = mean_b v_b + var_b mu_b``.

References
----------
.. [Ghaffari23] A. Ghaffari, M. Asgharian, Y. Savaria, "Statistical Hardware Design with Multi-model Active
   Learning", arXiv 2303.08054, names Gaussian regression bootstrapping; the definition above is this
   project's.
.. [denHertog06] D. den Hertog, J. P. C. Kleijnen, A. Y. D. Siem, "The Correct Kriging Variance Estimated
   by Bootstrapping", Journal of the Operational Research Society 57(4), 2006: the parametric bootstrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float

from dse._bayes.columns import Columns, Rows
from dse._bayes.committee import Committee
from dse._bayes.correlations import Shape
from dse._bayes.surrogates import SingleTarget, fit_gp, joint_draws, standardising

Resampling: TypeAlias = Literal["residual", "parametric"]

_STEPS = 20  # of L-BFGS per resample


class Bootstrapped(Committee):
    """A process and its resamples, which are a committee of equal weights; `fit_bootstrapped` makes it.

    Attributes
    ----------
    first
        Fitted to the data themselves.
    loo
        Of the first.
    """

    def __init__(self, first: SingleTarget, resampled: Sequence[SingleTarget]) -> None:
        names = [f"resample {i + 1}" for i in range(len(resampled))]
        super().__init__(dict(zip(names, resampled, strict=True)), dict.fromkeys(names, 1 / len(names)))
        self.first, self.loo = first, first.loo


def fit_bootstrapped(
    rows: Rows,
    y: Float[np.ndarray, " n"],
    columns: Columns,
    seed: int = 0,
    *,
    resamples: int = 20,
    resampling: Resampling = "residual",
    family: Shape = "matern32",
) -> Bootstrapped:
    """Fit a bootstrapped process.

    Parameters
    ----------
    rows, y
        Training rows (n, c) and targets (n,).
    columns
        What the columns are.
    seed
        Of the resamples.
    resamples
        Their number B, at least 2; 20 to 50 are usual.
    resampling
        ``"residual"`` or ``"parametric"``.
    family
        Of the kernel, as in `fit_gp`.
    """
    if resamples < 2:
        raise ValueError(f"resamples must be at least 2, got {resamples}")
    if resampling not in get_args(Resampling):
        raise ValueError(f"resampling must be one of {', '.join(get_args(Resampling))}, got {resampling!r}")
    first = fit_gp(rows, y, columns, family=family)
    rng = np.random.default_rng([seed, 5])
    fitted, _ = first.predict(rows)
    if resampling == "residual":
        spread, residuals = np.sqrt(first.loo.variance), first.loo.standardised

        def draw() -> Float[np.ndarray, " n"]:
            result: Float[np.ndarray, " n"] = fitted + spread * rng.choice(residuals, len(y))
            return result
    else:
        covariance = first.covariance(rows, rows) + first.noise * np.eye(len(y))
        drawn = iter(joint_draws(fitted, covariance, resamples, rng))

        def draw() -> Float[np.ndarray, " n"]:
            return next(drawn)

    # All on the scale of the data, for the prior of the hyper-parameters is relative to it.
    scale = standardising(y)
    members = [
        fit_gp(rows, draw(), columns, family=family, start=first.process.theta, steps=_STEPS, scale=scale)
        for _ in range(resamples)
    ]
    return Bootstrapped(first, members)


def pseudo_data(
    source_mean: Float[np.ndarray, " n"],
    source_covariance: Float[np.ndarray, "n n"],
    shift: Float[np.ndarray, " t"],
    seed: int,
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Draw from a source's posterior, to add to a scarce target, and the variance of its noise.

    Parameters
    ----------
    source_mean, source_covariance
        Posterior of the source at new rows, on the target's scale, (n,) and (n, n).
    shift : (t,)
        Residuals of the source's prediction at the target's rows.
    seed
        Of the draw.

    Returns
    -------
    Values (n,), and the variance ``v_s + tau**2`` of each, (n,), with tau the root mean square of the shift.
    """
    if len(shift) == 0:
        raise ValueError("shift must have at least one residual, got none")
    rng = np.random.default_rng([seed, 6])
    (drawn,) = joint_draws(source_mean, source_covariance, 1, rng)
    return drawn, np.diagonal(source_covariance) + float(np.mean(shift**2))
