"""Pareto Estimation to Pick the Perfect Precision (PEPPP): a frontier from a few measurements.

References
----------
.. [Yang21] C. Yang et al., "How Low Can We Go: Trading Memory for Error in Low-Precision Training",
   arXiv 2106.09686.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from studies.accuracy.peppp import design
from studies.accuracy.peppp.completion import Completion, HeldOut, as_table, held_out, soft_impute
from studies.accuracy.peppp.embedding import embed, locate, spectrum
from studies.accuracy.peppp.frontier import Frontier, frontier

Choice: TypeAlias = Literal["relaxed", "greedy", "pivots", "random"]


@dataclass(frozen=True, slots=True)
class Selection:
    """Configurations to measure.

    Attributes
    ----------
    indices : (s,)
        Ascending.
    cost
        Of all of them together, in units of the memory.
    log_det
        Information of the measurements, in nats.
    bound
        No choice within the budget has more information; of the relaxed choice only, else ``None``.
    """

    indices: Int[np.ndarray, " s"]
    cost: float
    log_det: float
    bound: float | None = None


class Peppp:
    """Errors of all configurations on a new data set, from measurements of a few [Yang21]_.

    Errors of other data sets under the same configurations are completed by a low-rank table and give every
    configuration an embedding. A few configurations that tell most about a new data set for their memory are
    measured; a ridge regression on their embeddings then gives the errors of all.

    Parameters
    ----------
    errors : (d, n)
        Errors of d data sets under n configurations, NaN where nothing was measured; all in one unit, such as
        the share of the test samples that are misclassified.
    memory : (n,)
        Of each configuration on the new data set, positive; it is what a measurement costs, too.
    lam, rank
        Penalty of the completion and dimension of the embeddings; what is ``None`` is chosen by held-out
        entries, see `held_out`.
    ridge
        Squared error of a measurement; if ``None``, the mean square of what embeddings leave of the observed
        errors, with the degrees of freedom that they take.
    centred
        Whether the mean of each configuration's observed errors is taken off first, so that embeddings tell
        how data sets differ, and a configuration that is bad on all of them is no information. [Yang21]_ has
        no such step.
    seed
        Of the held-out entries.

    Raises
    ------
    ValueError
        An empty table, a row or a column without an observation, memory that is not positive and finite or of
        another number of configurations, or a value that is out of range.

    Examples
    --------
    >>> shapes = np.array([[0.9, 0.5, 0.1, 0.1], [0.9, 0.9, 0.9, 0.1]])
    >>> errors = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.2, 0.8]]) @ shapes
    >>> peppp = Peppp(errors, [4, 8, 16, 32], lam=1e-6, rank=2, ridge=1e-9).fit()
    >>> peppp.choose(24).indices
    array([0, 2])
    >>> peppp.predict({0: 0.9, 2: 0.3}).round(3)
    array([0.9, 0.6, 0.3, 0.1])
    """

    def __init__(
        self,
        errors: ArrayLike,
        memory: ArrayLike,
        *,
        lam: float | None = None,
        rank: int | None = None,
        ridge: float | None = None,
        centred: bool = False,
        seed: int = 0,
    ) -> None:
        self.errors = as_table(errors)
        observed = ~np.isnan(self.errors)
        for axis, what in ((1, "row"), (0, "column")):
            if (empty := ~observed.any(axis=axis)).any():
                raise ValueError(
                    f"every row and column of errors must have an observation, got none in {what} "
                    f"{int(np.argmax(empty))}"
                )
        self.memory = np.asarray(memory, dtype=np.float64)
        design.check_costs(self.memory, self.errors.shape[1])
        if rank is not None and not 1 <= rank <= min(self.errors.shape):
            raise ValueError(f"rank must be in 1..{min(self.errors.shape)}, got {rank}")
        for name, value in (("lam", lam), ("ridge", ridge)):
            if value is not None and not (np.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, got {value}")
        self._given = (lam, rank, ridge)
        self.offsets = np.nanmean(self.errors, axis=0) if centred else np.zeros(self.errors.shape[1])
        self._seed = seed
        self._fitted: _Fitted | None = None

    def fit(self) -> Peppp:
        """Complete the table and embed the configurations; returns this object."""
        lam, rank, ridge = self._given
        table, scores = self.errors - self.offsets, None
        if lam is None or rank is None:
            scores = held_out(table, seed=self._seed)
            lam, rank = scores.conditional(lam, rank)
        completion = soft_impute(table, lam)
        embeddings = embed(completion.values, rank)
        if ridge is None:
            ridge = _noise(table, completion.values, rank)
        self._fitted = _Fitted(completion, embeddings, ridge, scores)
        return self

    @property
    def completion(self) -> Completion:
        """The completed table, without `offsets`."""
        return self._state.completion

    @property
    def embeddings(self) -> Float[np.ndarray, "n r"]:
        """Of the configurations, in units of the errors."""
        return self._state.embeddings

    @property
    def rank(self) -> int:
        """Dimension of the embeddings."""
        return int(self.embeddings.shape[1])

    @property
    def ridge(self) -> float:
        """Squared error of a measurement."""
        return self._state.ridge

    @property
    def scores(self) -> HeldOut | None:
        """Errors on held-out entries, if they chose the penalty or the rank."""
        return self._state.scores

    @property
    def spectrum(self) -> Float[np.ndarray, " k"]:
        """Shares of the completed table's squared entries, see `spectrum`."""
        return spectrum(self.completion.values)

    def choose(self, budget: float, *, method: Choice = "relaxed", seed: int = 0) -> Selection:
        """Configurations to measure, whose memory together is within the budget.

        Parameters
        ----------
        budget
            In units of the memory.
        method
            ``"relaxed"``: D-optimal by the convex relaxation, rounded. ``"greedy"``: D-optimal one by one.
            ``"pivots"``: by pivoted QR factorisations of the embeddings. ``"random"``.
        seed
            Of the random choice.

        Raises
        ------
        ValueError
            A budget below the cheapest configuration, or an unknown method.
        """
        if method not in get_args(Choice):
            raise ValueError(f"method must be one of {', '.join(get_args(Choice))}; got {method!r}")
        y, memory, ridge = self.embeddings, self.memory, self.ridge
        bound = None
        if method == "relaxed":
            solution = design.relaxed(y, memory, budget, ridge=ridge)
            bound = solution.log_det + solution.gap
            chosen = design.rounded(solution, y, memory, budget, ridge=ridge)
        elif method == "greedy":
            chosen = design.greedy(y, memory, budget, ridge=ridge)
        elif method == "pivots":
            chosen = design.pivoted(y, memory, budget)
        else:
            chosen = design.random_choice(memory, budget, seed=seed)
        weights = np.isin(np.arange(len(memory)), chosen)
        information = design.information(y, weights, ridge)
        return Selection(np.sort(chosen), float(memory[chosen].sum()), information, bound)

    def predict(self, measured: Mapping[int, float]) -> Float[np.ndarray, " n"]:
        """Errors of all configurations on the new data set, (n,).

        Parameters
        ----------
        measured
            Errors by the number of the configuration; none gives the prediction 0, or the means if `centred`.

        Raises
        ------
        ValueError
            An unknown configuration, or an error that is not finite.
        """
        indices, errors = self._measured(measured)
        deviations = errors - self.offsets[indices]
        place = locate(self.embeddings, indices, deviations, self.ridge)
        predicted: Float[np.ndarray, " n"] = self.offsets + self.embeddings @ place
        return predicted

    def pareto(self, measured: Mapping[int, float]) -> Frontier:
        """Estimated frontier of memory and error: of the measured errors, and of the predicted ones.

        Parameters
        ----------
        measured
            See `predict`.
        """
        errors = self.predict(measured)
        indices, known = self._measured(measured)
        errors[indices] = known
        return frontier(self.memory, errors)

    @property
    def _state(self) -> _Fitted:
        if self._fitted is None:
            raise RuntimeError("fit() must be called first")
        return self._fitted

    def _measured(self, measured: Mapping[int, float]) -> tuple[np.ndarray, np.ndarray]:
        for index, error in measured.items():
            if not 0 <= index < len(self.memory):
                raise ValueError(f"measured configurations must be in 0..{len(self.memory) - 1}, got {index}")
            if not np.isfinite(error):
                raise ValueError(f"measured errors must be finite, got {error} of configuration {index}")
        order = sorted(measured)
        return np.array(order, dtype=np.int64), np.array(
            [measured[index] for index in order], dtype=np.float64
        )


@dataclass(frozen=True, slots=True)
class _Fitted:
    completion: Completion
    embeddings: Float[np.ndarray, "n r"]
    ridge: float
    scores: HeldOut | None


def _noise(errors: Float[np.ndarray, "d n"], values: Float[np.ndarray, "d n"], rank: int) -> float:
    """Mean square of what rank `rank` leaves of the observed errors, for the degrees of freedom left."""
    left, singular, right = np.linalg.svd(values, full_matrices=False)
    low = (left[:, :rank] * singular[:rank]) @ right[:rank]
    residual = (errors - low)[~np.isnan(errors)]
    taken = rank * (sum(errors.shape) - rank)
    # A table with fewer observations than degrees of freedom is fitted exactly: half of them then count.
    freedom = max(residual.size - taken, residual.size // 2, 1)
    # A table of exactly this rank leaves nothing; rounding errors of its own size then are what is known.
    eps, tiny = float(np.finfo(np.float64).eps), float(np.finfo(np.float64).tiny)
    smallest = eps * max(float(np.square(values).mean()), tiny)
    squares = float(np.square(residual).sum())
    return float(max(squares / freedom, smallest))
