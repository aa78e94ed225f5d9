"""Search by a model of errors that add up over the groups, corrected by every answer of the oracle.

It begins with a Bayesian campaign, which knows nothing of errors but needs few questions to find what is
cheap, and with integer programming on the errors of one group at a time.

Rounding errors of different tensors are nearly independent: their contributions to a small error add up,
those to a root mean square in squares. The model has a contribution, not negative, for each group and
format, fitted to all answers by non-negative least squares [Lawson74]_ on a power of the errors, whichever
fits best. What it does not explain is luck: the error is one draw of many roundings. Two
assignments share their luck as far as they share their roundings, so the residuals are a Gaussian process
[Rasmussen06]_ whose correlation is the share of the contributions that two assignments have in common.

The next assignment is the one with the largest expected saving: bytes saved times the probability of being
admitted [Gelbart14]_, among the model's exact optimum, those of its Lagrange multipliers, the best ones so
far, and assignments near to them.

References
----------
.. [Gelbart14] M. Gelbart, J. Snoek, R. Adams, "Bayesian Optimization with Unknown Constraints", UAI 2014,
   arXiv 1403.5607.
.. [Lawson74] C. Lawson, R. Hanson, "Solving Least Squares Problems", 1974: NNLS.
.. [Rasmussen06] C. Rasmussen, C. Williams, "Gaussian Processes for Machine Learning", 2006, chapter 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import nnls
from scipy.stats import norm

from dse.allocate import AllocationError, Choice, cheapest_meeting, exact, supported
from studies.allocation.asking import Asking
from studies.allocation.methods import additive, additive_problem, alone, bayesian

_POWERS = (1.0, 2.0, 4.0)  # errors add up, or their squares, or the largest prevail
_SMALL = 0.3  # share of the threshold below which errors need not be told from each other
_CEILING = 20.0  # errors beyond it say no more than that they are beyond
_RIDGE = 0.02  # weight of the errors alone against that of an answer
_SINGLE = 0.3  # weight of an answer about one group alone, against one about several
_LUCK = (6.0, 0.5)  # observations, and deviation, that the spread of the luck begins with
_OWN = 0.1  # share of the luck's variance that an assignment has for itself
_LEAST_PART = 0.01  # contribution to the luck of a group that shows none
_MUTANTS = 2000
_CAMPAIGN = 0.25  # of the budget
_BEST = 5  # assignments whose neighbourhood is looked at


def learned(asking: Asking, seed: int) -> None:
    """A campaign for a part of the budget, what `additive` asks, then what is expected to save most."""
    # A campaign needs no errors of one group alone, and finds what is cheap by luck; the model then knows
    # what the errors add up to, and searches near the best.
    bayesian(asking, seed, questions=int(_CAMPAIGN * asking.budget))
    additive(asking, seed)
    # Along the path of the multiplier, to where the errors together reach the threshold; not so if even
    # the formats that are harmless alone break it together.
    problem = additive_problem(asking, alone(asking))
    with suppress(AllocationError):
        cheapest_meeting(problem, lambda choice: asking.ask(choice).feasible)
    while True:
        rng = np.random.default_rng([seed, len(asking.asked)])
        choice = _next(asking, Model.of(asking), rng)
        if choice is None:
            return
        asking.ask(choice)


def compressed(errors: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Errors as they are up to the threshold, and in their logarithm beyond, (n,)."""
    errors = np.clip(errors, -_CEILING, _CEILING)
    return np.where(errors <= 1.0, errors, 1.0 + np.log(np.maximum(errors, 1.0)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """Errors as powers of sums, and luck.

    Attributes
    ----------
    parts : (g, o)
        Contributions to ``error ** power``.
    choices : (n, g)
        What was asked about.
    residuals : (n,)
        Compressed errors, measured less predicted.
    """

    parts: Float[np.ndarray, "g o"]
    power: float
    choices: Int[np.ndarray, "n g"]
    residuals: Float[np.ndarray, " n"]

    @classmethod
    def of(cls, asking: Asking) -> Model:
        """Fit to all answers."""
        choices = np.array([asked.choice for asked in asking.asked.values()])
        errors = np.array([asked.error for asked in asking.asked.values()])
        fits = [_fit(choices, errors, asking.traffic.shape, power) for power in _POWERS]
        return min(fits, key=lambda model: model.luck)

    @property
    def luck(self) -> float:
        """Standard deviation of the residuals, with the prior's observations."""
        count, deviation = _LUCK
        inside = (np.abs(self.residuals) < np.log(_CEILING)) & ((self.choices > 0).sum(axis=1) > 1)
        total = count * deviation**2 + float(np.sum(self.residuals[inside] ** 2))
        return float(np.sqrt(total / (count + inside.sum())))

    def predicted(self, choices: Int[np.ndarray, "n g"]) -> Float[np.ndarray, " n"]:
        """Errors without luck, (n,)."""
        total = self.parts[np.arange(choices.shape[1]), choices].sum(axis=1)
        return np.asarray(total ** (1 / self.power))

    def log_admitted(self, choices: Int[np.ndarray, "n g"]) -> Float[np.ndarray, " n"]:
        """Logarithm of the probability that the error is at most 1, (n,)."""
        known = self._correlation(self.choices, self.choices)
        factor = cho_factor((1 - _OWN) * known + _OWN * np.eye(len(known)))
        between = (1 - _OWN) * self._correlation(choices, self.choices)
        mean = between @ cho_solve(factor, self.residuals)
        variance = 1.0 - np.einsum("ij,ji->i", between, cho_solve(factor, between.T))
        deviation = self.luck * np.sqrt(np.maximum(variance, 1e-6))
        return np.asarray(norm.logcdf((1.0 - compressed(self.predicted(choices)) - mean) / deviation))

    def _correlation(self, a: Int[np.ndarray, "n g"], b: Int[np.ndarray, "k g"]) -> Float[np.ndarray, "n k"]:
        """Share of the contributions that assignments have in common, (n, k)."""
        amplitude = np.sqrt(np.minimum(self.parts, 1.0) + _LEAST_PART)
        left, right = (_one_hot(rows, amplitude.shape[1]) * amplitude for rows in (a, b))
        left, right = (rows.reshape(len(rows), -1) for rows in (left, right))
        sizes = np.outer(np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=1))
        return np.asarray((left @ right.T) / sizes)


def _one_hot(choices: Int[np.ndarray, "n g"], options: int) -> Float[np.ndarray, "n g o"]:
    return np.asarray(choices[..., None] == np.arange(options), dtype=np.float64)


def _fit(
    choices: Int[np.ndarray, "n g"], errors: Float[np.ndarray, " n"], shape: tuple[int, int], power: float
) -> Model:
    groups, options = shape
    errors = np.clip(errors, -_CEILING, _CEILING)
    target, small = np.sign(errors) * np.abs(errors) ** power, _SMALL**power
    # The widest formats contribute nothing.
    matrix = _one_hot(choices, options)[:, :, 1:].reshape(len(choices), -1)
    # What was measured with one group alone holds a contribution in place that no other answer determines.
    single = matrix.sum(axis=1) == 1
    prior, seen = np.zeros(matrix.shape[1]), matrix[single].argmax(axis=1)
    prior[seen] = np.maximum(target[single], 0.0)
    anchor = np.diag(_RIDGE / np.maximum(prior, small))
    used, parts = np.ones(len(choices), bool), prior
    for _ in range(3):
        weight = np.where(single[used], _SINGLE, 1.0) / np.maximum(np.abs(target[used]), small)
        full = np.vstack([matrix[used] * weight[:, None], anchor])
        parts, _ = nnls(full, np.concatenate([target[used] * weight, np.diag(anchor) * prior]))
        # Beyond the ceiling a prediction that is larger still is right.
        used = (errors < _CEILING) | (matrix @ parts < _CEILING**power)
    table = np.zeros((groups, options))
    table[:, 1:] = parts.reshape(groups, options - 1)
    predicted = (matrix @ parts) ** (1 / power)
    return Model(
        parts=table, power=power, choices=choices, residuals=compressed(errors) - compressed(predicted)
    )


def _next(asking: Asking, model: Model, rng: np.random.Generator) -> Choice | None:
    """New assignment with the largest expected saving; ``None`` if nothing near is cheaper than the best."""
    best, options = asking.best, len(asking.formats)
    problem = additive_problem(asking, model.parts)
    kept = sorted((a for a in asking.asked.values() if a.feasible), key=lambda a: a.traffic_bytes)
    centres = [asked.choice for asked in kept[:_BEST]] + [exact(problem, max_loss=1.0)]
    found = dict.fromkeys(_near(best.choice, options, 3))
    path = supported(problem)
    for choice in [*centres[1:], path[0]]:
        found.update(dict.fromkeys(_near(choice, options, 2)))
    found.update(dict.fromkeys([*path, *_mutants([*centres, *path], options, rng)]))
    new = [choice for choice in found if choice not in asking.asked]
    pool = np.array(new, dtype=np.int64).reshape(-1, len(asking.groups))
    saved = best.traffic_bytes - asking.traffic[np.arange(pool.shape[1]), pool].sum(axis=1)
    pool, saved = pool[saved > 0], saved[saved > 0]
    if not len(pool):
        return None
    worth = np.log(saved) + model.log_admitted(pool)
    return tuple(pool[int(worth.argmax())].tolist())


def _near(choice: Choice, options: int, most: int) -> Iterator[Choice]:
    """An assignment, and those that differ from it in up to `most` groups; in three by one step each."""
    yield choice
    groups = range(len(choice))
    for changed in range(1, most + 1):
        for at in combinations(groups, changed):
            values = [
                [o for o in range(options) if o != choice[g] and (changed < 3 or abs(o - choice[g]) == 1)]
                for g in at
            ]
            for new in product(*values):
                moved = list(choice)
                for g, o in zip(at, new, strict=True):
                    moved[g] = o
                yield tuple(moved)


def _mutants(centres: list[Choice], options: int, rng: np.random.Generator) -> Iterator[Choice]:
    """Assignments with about three groups drawn again."""
    base = np.array(centres)[rng.integers(len(centres), size=_MUTANTS)]
    drawn = rng.random(base.shape) < 3 / base.shape[1]
    for row in np.where(drawn, rng.integers(options, size=base.shape), base).tolist():
        yield tuple(row)
