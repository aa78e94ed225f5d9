"""Gaussian processes and acquisition functions. The only module that knows PyTorch and BoTorch.

Import it inside functions: it costs seconds, which storing and reading campaigns should not.

Everything is float64 and minimised outside; BoTorch maximises, so signs turn here and nowhere else.

References
----------
.. [Daulton21] S. Daulton, M. Balandat, E. Bakshy, "Parallel Bayesian Optimization of Multiple Noisy
   Objectives with Expected Hypervolume Improvement", NeurIPS 2021.
.. [Ament23] S. Ament et al., "Unexpected Improvements to Expected Improvement for Bayesian
   Optimization", NeurIPS 2023.
.. [Knowles06] J. Knowles, "ParEGO: A Hybrid Algorithm with On-Line Landscape Approximation for
   Expensive Multiobjective Optimization Problems", IEEE Trans. Evolutionary Computation 10(1), 2006.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Float

from dse.surrogate import Known, Learnt, Source, SurrogateError

with warnings.catch_warnings():
    # Importing GPyTorch compiles with torch.jit, which recent PyTorch deprecates: not our doing.
    warnings.filterwarnings("ignore", message=r".*torch\.jit.*", category=DeprecationWarning)
    import torch
    from botorch.acquisition.logei import qLogNoisyExpectedImprovement
    from botorch.acquisition.multi_objective import logei
    from botorch.acquisition.multi_objective.parego import qLogNParEGO
    from botorch.acquisition.multi_objective.utils import prune_inferior_points_multi_objective
    from botorch.exceptions.errors import ModelFittingError
    from botorch.exceptions.warnings import InputDataWarning, OptimizationWarning
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import MixedSingleTaskGP, ModelList, SingleTaskGP
    from botorch.models.deterministic import DeterministicModel
    from botorch.models.model import Model
    from botorch.posteriors import GPyTorchPosterior
    from botorch.sampling.index_sampler import IndexSampler
    from botorch.sampling.list_sampler import ListSampler
    from botorch.sampling.normal import IIDNormalSampler, SobolQMCNormalSampler
    from gpytorch.distributions import MultivariateNormal
    from gpytorch.mlls import ExactMarginalLogLikelihood
    from linear_operator import to_linear_operator
    from linear_operator.utils.errors import NanError, NotPSDError
    from linear_operator.utils.warnings import NumericalWarning
    from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # public, but not in the stubs

# BoTorch would try to compile a C++ kernel on first use: a minute's wait, other last bits on other
# machines, and a lock file that a killed process leaves behind for the next one to wait on for ever.
logei._load_attempted = True

# Samples of the coarse and of the fine estimate. Of three objectives a front cuts the space into ten
# times as many boxes as of two, in each sample anew.
_SAMPLES, _SAMPLES_OF_THREE, _PRUNE_SAMPLES = (8, 32), (4, 16), 256
_HYPERVOLUME_OBJECTIVES = 3  # above, the boxes are too many
_KEPT = 128  # candidates that pass from the coarse estimate to the fine one
# The likelihood of tens of points is flat along many hyper-parameters: full convergence takes a
# thousand steps and finds no better designs.
_FIT_STEPS = 30
_ROWS = 256  # candidates per call of the acquisition function, which bounds its memory


class _KnownColumn(DeterministicModel):  # type: ignore[misc]  # BoTorch is untyped
    """The exact objective, maximised: one column of the input, without variance."""

    def __init__(self, column: int) -> None:
        super().__init__()
        self.column = column
        self._num_outputs = 1

    @property
    def batch_shape(self) -> torch.Size:
        return torch.Size()

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return -X[..., [self.column]]


class _OnColumns(Model):  # type: ignore[misc]
    """A Gaussian process that sees only some columns of the input.

    Acquisition functions ask for many small joint posteriors that share most of their points: every
    candidate after all of the baseline. Here one joint posterior over the baseline and all
    candidates is computed, and each small one is a block of it: the same at a third of the work.
    """

    def __init__(self, model: Any, columns: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.columns = list(columns)

    @property
    def num_outputs(self) -> int:
        return 1

    @property
    def batch_shape(self) -> torch.Size:
        return torch.Size()

    def posterior(self, X: torch.Tensor, **options: Any) -> Any:
        inputs = X[..., self.columns]
        if inputs.ndim != 3 or not torch.equal(inputs[:, :-1], inputs[:1, :-1].expand_as(inputs[:, :-1])):
            return self.model.posterior(inputs, **options)
        shared, last = inputs[0, :-1], inputs[:, -1]
        joint = self.model.posterior(torch.cat([shared, last]), **options).distribution
        first = torch.arange(len(shared)).expand(len(last), -1)
        index = torch.cat([first, len(shared) + torch.arange(len(last)).unsqueeze(-1)], dim=1)
        covariance = joint.covariance_matrix[index.unsqueeze(-1), index.unsqueeze(-2)]
        # As an operator, whose factorization adds jitter where a candidate repeats a baseline's inputs.
        return GPyTorchPosterior(MultivariateNormal(joint.mean[index], to_linear_operator(covariance)))


class Acquisition:
    """Log noisy expected improvement of rows.

    Of the hypervolume for two and three objectives [Daulton21]_, [Ament23]_, of the objective itself
    for one, and of a random Chebyshev scalarisation for more [Knowles06]_.

    Parameters
    ----------
    rows : (n, c)
        Finished designs: encoding, then the columns of known objectives.
    costs : (n, m)
        Their objectives, minimised and roughly standardised; noise is learnt.
    sources
        Where each of the m objectives comes from.
    reference : (m,)
        Worst costs of interest; used with two and three objectives.
    pending : (p, c)
        Designs being evaluated, whose outcome is integrated over.
    seed
        Of the Monte Carlo samples, the scalarisation, and restarts of the fit.

    Attributes
    ----------
    notes
        What the fit complained about, for the record.

    Raises
    ------
    SurrogateError
        An objective varies with nothing it may depend on, or its fit failed.
    """

    def __init__(
        self,
        rows: Float[np.ndarray, "n c"],
        costs: Float[np.ndarray, "n m"],
        sources: Sequence[Source],
        *,
        reference: Float[np.ndarray, " m"],
        pending: Float[np.ndarray, "p c"],
        seed: int,
    ) -> None:
        self.notes: list[str] = []
        with _reproducible(seed), _noting(self.notes):
            baseline, targets = torch.from_numpy(rows), torch.from_numpy(-costs)
            models = [
                _KnownColumn(source.column)
                if isinstance(source, Known)
                else _fit(baseline, targets[:, [index]], source)
                for index, source in enumerate(sources)
            ]
            self.model = ModelList(*models) if len(models) > 1 else models[0]
            pruned = _prune(self.model, baseline, -reference)
            weights = np.random.default_rng(seed).dirichlet(np.ones(len(sources)))
            self._coarse, self._fine = (
                _function(
                    self.model,
                    _samplers(sources, samples, seed),
                    pruned,
                    reference=-reference,
                    pending=pending,
                    weights=weights,
                )
                for samples in (_SAMPLES_OF_THREE if len(sources) == 3 else _SAMPLES)
            )
        self._seed = seed

    def __call__(self, rows: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " n"]:
        """Log acquisition value of each row, (n,); where it is not a number, minus infinity.

        Of many rows, only those are estimated that a coarser estimate ranks among the best; the
        others get minus infinity.
        """
        values = np.full(len(rows), -np.inf)
        kept = np.arange(len(rows))
        # A candidate may equal the baseline in all inputs of an objective: jitter there is expected.
        with _reproducible(self._seed), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore", NumericalWarning)
            if len(rows) > _KEPT:
                kept = np.argsort(-_values(self._coarse, rows), kind="stable")[:_KEPT]
            values[kept] = _values(self._fine, rows[kept])
        return values


def _values(function: Any, rows: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " n"]:
    points = torch.from_numpy(rows).unsqueeze(-2)
    result = torch.cat([function(chunk) for chunk in torch.split(points, _ROWS)]).numpy()
    return np.where(np.isnan(result), -np.inf, result)


def _prune(model: Any, baseline: torch.Tensor, reference: Float[np.ndarray, " m"]) -> torch.Tensor:
    """Return the rows that may be on the front; all of them if none may beat the reference."""
    if not 1 < len(reference) <= _HYPERVOLUME_OBJECTIVES:
        return baseline
    pruned: torch.Tensor = prune_inferior_points_multi_objective(
        model, baseline, torch.from_numpy(reference), num_samples=_PRUNE_SAMPLES
    )
    return pruned if len(pruned) else baseline


def _function(
    model: Any,
    samplers: Sequence[Any],
    baseline: torch.Tensor,
    *,
    reference: Float[np.ndarray, " m"],
    pending: Float[np.ndarray, "p c"],
    weights: Float[np.ndarray, " m"],
) -> Any:
    options: dict[str, Any] = {
        "X_baseline": baseline,
        "X_pending": torch.from_numpy(pending) if len(pending) else None,
        # No root to cache: a known column has no covariance.
        "cache_root": False,
    }
    if len(samplers) == 1:
        return qLogNoisyExpectedImprovement(model, sampler=samplers[0], prune_baseline=True, **options)
    options["sampler"] = ListSampler(*samplers)
    if len(samplers) > _HYPERVOLUME_OBJECTIVES:
        return qLogNParEGO(
            model, scalarization_weights=torch.from_numpy(weights), prune_baseline=True, **options
        )
    return logei.qLogNoisyExpectedHypervolumeImprovement(model, torch.from_numpy(reference), **options)


def _samplers(sources: Sequence[Source], samples: int, seed: int) -> list[Any]:
    """One sampler of base samples per objective.

    Scrambled Sobol samples of two objectives would be correlated with each other, for the first bits
    of a scrambled sequence follow its index: two learnt objectives get independent draws instead.
    """
    learnt = sum(isinstance(source, Learnt) for source in sources)
    shape = torch.Size([samples])
    normal = SobolQMCNormalSampler if learnt == 1 else IIDNormalSampler
    return [
        (IndexSampler if isinstance(source, Known) else normal)(shape, seed=seed + index)
        for index, source in enumerate(sources)
    ]


def _fit(rows: torch.Tensor, target: torch.Tensor, source: Learnt) -> _OnColumns:
    # The lengthscale of an input that has not varied yet is arbitrary.
    varied = set(torch.nonzero((rows != rows[0]).any(dim=0)).flatten().tolist())
    ordinal = [column for column in source.ordinal if column in varied]
    categorical = [column for column in source.categorical if column in varied]
    columns = ordinal + categorical
    if not columns:
        raise SurrogateError("none of its inputs varies over the finished designs")
    # Costs come standardised.
    options = {"train_X": rows[:, columns], "train_Y": target, "outcome_transform": None}
    if categorical:
        model = MixedSingleTaskGP(cat_dims=list(range(len(ordinal), len(columns))), **options)
    else:
        model = SingleTaskGP(**options)
    try:
        fit_gpytorch_mll(
            ExactMarginalLogLikelihood(model.likelihood, model),
            optimizer_kwargs={"options": {"maxiter": _FIT_STEPS}},
        )
    except _FAILURES as error:
        raise SurrogateError(f"the fit failed: {error}") from error
    return _OnColumns(model, columns)


_FAILURES = (ModelFittingError, NotPSDError, NanError, LinAlgError)


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Seed PyTorch and use one thread; afterwards both are as before.

    One thread, since fits of these sizes get slower with more, and sums would depend on their number.
    """
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    except _FAILURES as error:
        raise SurrogateError(f"the model has no prediction: {error}") from error
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _noting(notes: list[str]) -> Iterator[None]:
    """Turn the warnings of fits into notes; all others are warnings as ever."""
    noted = (NumericalWarning, OptimizationWarning)
    with warnings.catch_warnings(record=True) as caught:
        for category in noted:
            warnings.simplefilter("always", category)
        # A constant objective cannot be standardised.
        warnings.simplefilter("ignore", InputDataWarning)
        yield
    for warning in caught:
        if issubclass(warning.category, noted):
            notes.append(f"{warning.category.__name__}: {str(warning.message).splitlines()[0]}")
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
