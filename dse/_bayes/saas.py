"""Sparse axis-aligned Gaussian processes for many columns of which few matter, by maximum a posteriori.

BoTorch's ensemble of several sparsities, behind the common interface.

References
----------
.. [Eriksson21] D. Eriksson, M. Jankowiak, "High-Dimensional Bayesian Optimization with Sparse
   Axis-Aligned Subspaces", arXiv 2103.00349.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float

from dse._bayes.columns import Columns, Rows, check_training
from dse._bayes.loo import LeaveOneOut, leave_one_out
from dse._bayes.surrogates import FitError

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=r".*torch\.jit.*", category=DeprecationWarning)
    import torch
    from botorch.exceptions.errors import ModelFittingError
    from botorch.exceptions.warnings import BotorchWarning
    from botorch.fit import fit_gpytorch_mll
    from botorch.models.map_saas import EnsembleMapSaasSingleTaskGP
    from gpytorch.mlls import ExactMarginalLogLikelihood
    from linear_operator.utils.warnings import NumericalWarning

_TAUS, _STEPS = 4, 75


class Saas:
    """A fitted ensemble; construct it by `fit_saas`."""

    def __init__(
        self,
        model: Any,
        encoder: _Inputs,
        rows: Rows,
        y: Float[np.ndarray, " n"],
        scale: tuple[float, float],
    ) -> None:
        self._model, self._encoder, (self._centre, self._spread) = model, encoder, scale
        noises = model.likelihood.noise.detach().reshape(-1).numpy()
        self.noise = float(noises.mean()) * self._spread**2
        self._inputs = encoder(rows)
        z = (y - self._centre) / self._spread
        with torch.no_grad():
            means = model.mean_module(self._inputs).numpy()
            kernels = model.covar_module(self._inputs).to_dense().numpy()
        parts = [
            leave_one_out(np.linalg.inv(kernel + noise * np.eye(len(y))), z - mean)
            for kernel, noise, mean in zip(kernels, noises, means, strict=True)
        ]
        left_out = np.array([part.mean for part in parts]) + means
        variance = np.array([part.variance for part in parts]).mean(axis=0) + left_out.var(axis=0)
        self.loo = LeaveOneOut(
            y, left_out.mean(axis=0) * self._spread + self._centre, variance * self._spread**2
        )

    def _posterior(self, rows: Rows) -> tuple[Float[np.ndarray, "t n"], Float[np.ndarray, "t n n"]]:
        # In double precision and without Lanczos approximations, which depend on the number of rows.
        with torch.no_grad():
            distribution = self._model.posterior(self._encoder(rows)).distribution
            return distribution.mean.numpy(), distribution.covariance_matrix.numpy()

    def predict(self, rows: Rows) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Mean and standard deviation of a new measurement of each row, (n,) each."""
        with torch.no_grad():
            distribution = self._model.posterior(self._encoder(rows)).distribution
            means, variances = distribution.mean.numpy(), distribution.variance.numpy()
        latent = (variances.mean(axis=0) + means.var(axis=0)) * self._spread**2
        return means.mean(axis=0) * self._spread + self._centre, np.sqrt(latent + self.noise)

    def covariance(self, rows_a: Rows, rows_b: Rows) -> Float[np.ndarray, "n m"]:
        """Posterior covariance of the function between rows, without noise, (n, m)."""
        same = rows_a is rows_b
        means, covariances = self._posterior(rows_a if same else np.concatenate([rows_a, rows_b]))
        centred = means - means.mean(axis=0)
        total = covariances.mean(axis=0) + centred.T @ centred / len(means)
        result: Float[np.ndarray, "n m"] = (
            self._spread**2 * total[: len(rows_a), 0 if same else len(rows_a) :]
        )
        return result


class _Inputs:
    """Ordered columns, and an indicator per category but one of each categorical column."""

    def __init__(self, rows: Rows, columns: Columns) -> None:
        varied = columns.varied(rows)
        self._ordered = list(varied.ordered)
        self._codes = [(c, code) for c in varied.categorical for code in np.unique(rows[:, c])[1:]]
        if not self._ordered and not self._codes:
            raise FitError("none of the columns varies over the rows")

    def __call__(self, rows: Rows) -> torch.Tensor:
        indicators = [(rows[:, c] == code).astype(np.float64) for c, code in self._codes]
        return torch.from_numpy(np.column_stack([rows[:, self._ordered], *indicators]))


def fit_saas(rows: Rows, y: Float[np.ndarray, " n"], columns: Columns, seed: int = 0) -> Saas:
    """Fit an ensemble of sparse processes.

    Parameters
    ----------
    rows, y
        Training rows (n, c) and targets (n,).
    columns
        What the columns are; categories become indicators.
    seed
        Of the sparsities, which are drawn from their prior.

    Raises
    ------
    FitError
        The fit failed, or no column varies.
    """
    check_training(rows, y)
    encoder = _Inputs(rows, columns)
    scale = (float(y.mean()), float(y.std()) or 1.0)
    target = torch.from_numpy((y - scale[0]) / scale[1]).unsqueeze(-1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # Standardised here, so that there is nothing to standardise there.
            warnings.simplefilter("ignore", NumericalWarning)
            warnings.simplefilter("ignore", BotorchWarning)
            torch.manual_seed(seed)
            model = EnsembleMapSaasSingleTaskGP(encoder(rows), target, num_taus=_TAUS, outcome_transform=None)
            fit_gpytorch_mll(
                ExactMarginalLogLikelihood(model.likelihood, model),
                optimizer_kwargs={"options": {"maxiter": _STEPS}},
            )
    except ModelFittingError as error:
        raise FitError(f"the fit failed: {error}") from error
    finally:
        torch.set_num_threads(threads)
    model.eval()
    return Saas(model, encoder, rows, y, scale)
