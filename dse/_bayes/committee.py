"""A committee of models of several families, weighted by how well each predicts what it was not shown.

Members are Gaussian processes of several kernels, Bayesian linear regression on quadratic features, and
a random forest. Weights maximise the log density of the left-out targets under the mixture
[Yao18]_; predictions have the mean of the mixture and its total variance, within and between members.

References
----------
.. [Yao18] Y. Yao, A. Vehtari, D. Simpson, A. Gelman, "Using Stacking to Average Bayesian Predictive
   Distributions", arXiv 1704.02030.
.. [Breiman01] L. Breiman, "Random Forests", Machine Learning 45, 2001: out-of-bag predictions.
.. [Hutter14] F. Hutter et al., "Algorithm Runtime Prediction: Methods & Evaluation", arXiv 1211.0906:
   the variance of a forest from its trees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from dse._bayes.columns import Columns, Rows, check_training
from dse._bayes.correlations import Shape
from dse._bayes.linear import fit_linear
from dse._bayes.loo import LeaveOneOut
from dse._bayes.surrogates import Fitted, Surrogate, fit_gp

_TREES = 100
_SPLIT_SHARE = 0.6  # of the columns, drawn for every split
_MANY = 15  # columns from which on a sparse process is worth its time
_SWEEPS = 200  # of expectation-maximisation for the weights, which changes them little after some tens


class Forest:
    """Random forest; its trees are taken as samples of the function, left-out means are out of bag.

    The noise is what the trees' variance does not explain of the out-of-bag errors.
    """

    def __init__(self, rows: Rows, y: Float[np.ndarray, " n"], columns: Columns, seed: int) -> None:
        from sklearn.tree import DecisionTreeRegressor  # sklearn's own forest takes twice the time around it

        check_training(rows, y)
        self._columns = [*columns.ordered, *columns.categorical]
        inputs, n, rng = self._inputs(rows), len(y), np.random.default_rng([seed, 7])
        drawn = np.array([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(_TREES)])
        self._each = [
            DecisionTreeRegressor(max_features=_SPLIT_SHARE, random_state=int(state))
            .fit(inputs, y, sample_weight=count.astype(np.float64), check_input=False)
            .tree_
            for state, count in zip(rng.integers(2**31, size=_TREES), drawn, strict=True)
        ]
        trees, out = self._trees(rows), (drawn == 0).astype(np.float64)
        count = np.maximum(out.sum(axis=0), 1)
        mean = (trees * out).sum(axis=0) / count
        spread = (out * (trees - mean) ** 2).sum(axis=0) / count
        floor = 1e-6 * float(y.var()) + 1e-300
        self.noise = max(float(np.mean((y - mean) ** 2 - spread)), floor)
        self.loo = LeaveOneOut(y, mean, spread + self.noise)

    def _inputs(self, rows: Rows) -> Float[np.ndarray, "n d"]:
        return np.ascontiguousarray(rows[:, self._columns], dtype=np.float32)

    def _trees(self, rows: Rows) -> Float[np.ndarray, "t n"]:
        inputs = self._inputs(rows)
        return np.array([tree.predict(inputs)[:, 0] for tree in self._each])

    def predict(self, rows: Rows) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Mean and standard deviation of a new measurement of each row, (n,) each."""
        trees = self._trees(rows)
        return trees.mean(axis=0), np.sqrt(trees.var(axis=0) + self.noise)

    def covariance(self, rows_a: Rows, rows_b: Rows) -> Float[np.ndarray, "n m"]:
        """Covariance between rows over the trees, (n, m)."""
        left = self._trees(rows_a)
        right = left if rows_a is rows_b else self._trees(rows_b)
        result: Float[np.ndarray, "n m"] = (
            (left - left.mean(axis=0)).T @ (right - right.mean(axis=0)) / len(left)
        )
        return result


class Committee:
    """Fitted members and their weights; itself a fitted surrogate.

    Attributes
    ----------
    members, weights
        By name; the weights add up to 1.
    noise
        Weighted mean of the members' noise.
    loo
        Mean and total variance of the left-out mixture.
    """

    def __init__(self, members: Mapping[str, Fitted], weights: Mapping[str, float]) -> None:
        # Members of no weight are not asked again.
        self.weights = dict(weights)
        self.members = dict(members)
        self._kept = [(members[name], weight) for name, weight in weights.items() if weight > 0]
        self.noise = sum(weight * member.noise for member, weight in self._kept)
        means = np.array([member.loo.mean for member, _ in self._kept])
        variances = np.array([member.loo.variance for member, _ in self._kept])
        share = np.array([weight for _, weight in self._kept])
        mean = share @ means
        self.loo = LeaveOneOut(self._kept[0][0].loo.y, mean, share @ (variances + (means - mean) ** 2))

    def _means(self, rows: Rows) -> Float[np.ndarray, "k n"]:
        return np.array([member.predict(rows)[0] for member, _ in self._kept])

    @property
    def _share(self) -> Float[np.ndarray, " k"]:
        return np.array([weight for _, weight in self._kept])

    def predict(self, rows: Rows) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Mean and standard deviation of a new measurement of each row, (n,) each."""
        predictions = [member.predict(rows) for member, _ in self._kept]
        means, deviations = (np.array(part) for part in zip(*predictions, strict=True))
        mean = self._share @ means
        return mean, np.sqrt(self._share @ (deviations**2 + (means - mean) ** 2))

    def covariance(self, rows_a: Rows, rows_b: Rows) -> Float[np.ndarray, "n m"]:
        """Total covariance of the mixture, (n, m): the members' own, and their disagreement."""
        total: Float[np.ndarray, "n m"] = self.within(rows_a, rows_b) + self.disagreement(rows_a, rows_b)
        return total

    def within(self, rows_a: Rows, rows_b: Rows) -> Float[np.ndarray, "n m"]:
        """Weighted mean of the members' own covariances, (n, m)."""
        own = np.zeros((len(rows_a), len(rows_b)))
        for member, weight in self._kept:
            own += weight * member.covariance(rows_a, rows_b)
        return own

    def disagreement(self, rows_a: Rows, rows_b: Rows) -> Float[np.ndarray, "n m"]:
        """Covariance of the members' means over the members, (n, m)."""
        left = self._means(rows_a)
        right = left if rows_a is rows_b else self._means(rows_b)
        share = self._share
        result: Float[np.ndarray, "n m"] = ((left - share @ left) * share[:, None]).T @ (
            right - share @ right
        )
        return result

    def between(self, rows: Rows) -> Float[np.ndarray, " n"]:
        """Diagonal of `disagreement`, (n,)."""
        means = self._means(rows)
        result: Float[np.ndarray, " n"] = self._share @ (means - self._share @ means) ** 2
        return result


def members(columns: Columns) -> dict[str, Surrogate]:
    """Return the default members for such columns, by name."""
    chosen: dict[str, Surrogate] = {
        "matern32": _process("matern32", True),
        "product32": _process("product32", True),
        "additive": _process("additive", True),
        "linear": fit_linear,
        "forest": Forest,
    }
    if columns.features:
        chosen["matern32 without features"] = _process("matern32", False)
    if len(columns) > _MANY:
        chosen["saas"] = _sparse
    return chosen


def _sparse(rows: Rows, y: Float[np.ndarray, " n"], columns: Columns, seed: int) -> Fitted:
    from dse._bayes.saas import fit_saas  # BoTorch takes seconds to import

    return fit_saas(rows, y, columns, seed)


def _process(family: Shape, features: bool) -> Surrogate:
    def fit(rows: Rows, y: Float[np.ndarray, " n"], columns: Columns, seed: int) -> Fitted:
        kept = columns if features else columns.without_features()
        return fit_gp(rows, y, kept, seed, family=family)

    return fit


def fit_committee(
    rows: Rows,
    y: Float[np.ndarray, " n"],
    columns: Columns,
    seed: int = 0,
    *,
    surrogates: Mapping[str, Surrogate] | None = None,
) -> Committee:
    """Fit the members and weight them by stacking.

    Parameters
    ----------
    rows, y
        Training rows (n, c) and targets (n,).
    columns
        What the columns are.
    seed
        Of the forest.
    surrogates
        Members by name; without them, those of `members`.
    """
    fitted = {name: fit(rows, y, columns, seed) for name, fit in (surrogates or members(columns)).items()}
    return Committee(fitted, stack([member.loo for member in fitted.values()], list(fitted)))


def stack(
    left_out: Sequence[LeaveOneOut], names: Sequence[str], prior: Sequence[float] | None = None
) -> dict[str, float]:
    """Weights that maximise the log density of the left-out targets under the mixture [Yao18]_.

    Pseudo-observations pull them towards `prior`, for few targets say little. Weights below 1 % become 0.

    Parameters
    ----------
    left_out, names
        Of the members.
    prior
        Pseudo-observations that count for each member; without it, one each.
    """
    densities = np.column_stack([loo.log_densities for loo in left_out])
    densities = np.exp(densities - densities.max(axis=1, keepdims=True))
    rows = np.ones(len(left_out)) if prior is None else np.array(prior, dtype=np.float64)
    weights = rows / rows.sum()
    for _ in range(_SWEEPS):
        share = densities * weights
        share /= share.sum(axis=1, keepdims=True)
        weights = (share.sum(axis=0) + rows) / (len(densities) + rows.sum())
    weights[weights < 0.01] = 0.0
    weights /= weights.sum()
    return {name: float(weight) for name, weight in zip(names, weights, strict=True)}
