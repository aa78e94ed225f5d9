"""Which measurements make a model better: scores of candidates for active learning, in closed form.

All of them work on any fitted surrogate, for they need its posterior covariance alone; of a committee, the
mean of its members'. No label is needed either, so a batch is chosen greedily, the covariance conditioned on
each pick before the next.

References
----------
.. [Cohn96] D. A. Cohn, Z. Ghahramani, M. I. Jordan, "Active Learning with Statistical Models",
   arXiv cs/9603104: the variance that a measurement is expected to leave over a set of points.
.. [Seo00] S. Seo, M. Wallat, T. Graepel, K. Obermayer, "Gaussian Process Regression: Active Data
   Selection and Test Point Rejection", IJCNN 2000: maximum against integrated variance.
.. [Burbidge07] R. Burbidge, J. J. Rowland, R. D. King, "Active Learning for Regression Based on Query by
   Committee", IDEAL 2007.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float, Int

from dse._bayes.columns import Rows
from dse._bayes.committee import Committee
from dse._bayes.surrogates import Fitted
from dse._bayes.transfer import Transferred

Score: TypeAlias = Literal["integrated", "maximum", "disagreement"]

CANDIDATES = 768  #: of more, a random part is looked at, which bounds the matrix of their covariances


class _Target:
    """Posterior covariance of one target while rows are measured, whose values do not matter.

    A measurement of row x takes ``cov(z, x) cov(x, z') / (var(x) + noise)`` from it [Cohn96]_.
    """

    def __init__(self, model: Fitted, rows: Rows, score: Score) -> None:
        self._score, self._noise = score, model.noise
        inner = model.model if isinstance(model, Transferred) else model
        if isinstance(inner, Committee):
            # Which member is right is not for one measurement to say: disagreement is no covariance
            # that conditioning takes away, and counting it as one did not choose better.
            covariance = inner.disagreement if score == "disagreement" else inner.within
        elif score == "disagreement":
            raise TypeError(f"disagreement needs a committee, got {type(inner).__name__}")
        else:
            covariance = inner.covariance
        self._covariance = covariance(rows, rows)

    def values(self, candidates: int) -> Float[np.ndarray, " n"]:
        """Score of the first rows, which may be measured, over its mean: several targets can be added."""
        covariance = self._covariance[:candidates, :candidates]
        values = np.maximum(np.diagonal(covariance), 0.0)
        if self._score == "integrated":
            # The small term keeps rows without noise or variance from 0 / 0.
            values = (covariance**2).sum(axis=1) / (values + self._noise + 1e-12 * values.max() + 1e-300)
        mean = float(values.mean())
        result: Float[np.ndarray, " n"] = values / mean if mean > 0 else values
        return result

    def measure(self, index: int) -> None:
        """Condition on a measurement of one row."""
        column = self._covariance[:, index].copy()
        column /= np.sqrt(max(column[index], 0.0) + self._noise + 1e-300)
        self._covariance -= np.outer(column, column)


def choose(
    models: Sequence[Fitted],
    candidates: Rows,
    n: int,
    *,
    score: Score = "integrated",
    pending: Rows | None = None,
    weights: Sequence[float] | None = None,
    seed: int = 0,
) -> Int[np.ndarray, " n"]:
    """Choose candidates to measure next, best first.

    Parameters
    ----------
    models
        One per target. Their scores, each over its mean, are added.
    candidates : (N, c)
        Rows that may be measured. Those of integrated variance are themselves what it is integrated
        over; of more than `CANDIDATES`, a random part stands for all.
    n
        At most as many as there are candidates.
    score
        ``"integrated"``: the fall of the mean variance over the candidates [Cohn96]_. ``"maximum"``: the
        largest variance, a baseline that prefers corners [Seo00]_. ``"disagreement"``: the largest
        variance between the members of a committee [Burbidge07]_.
    pending : (p, c)
        Rows being measured, which the choice takes as measured.
    weights
        One per model; equal without them.
    seed
        Of the random parts.

    Returns
    -------
    Indices of candidates, (n,), distinct.
    """
    if score not in get_args(Score):
        raise ValueError(f"score must be one of {', '.join(get_args(Score))}, got {score!r}")
    if not models:
        raise ValueError("there must be at least one model, got none")
    if not 1 <= n <= len(candidates):
        raise ValueError(f"n must be in 1..{len(candidates)}, the number of candidates, got {n}")
    weights = [1.0] * len(models) if weights is None else list(weights)
    if len(weights) != len(models):
        raise ValueError(f"there must be {len(models)} weights, one per model, got {len(weights)}")
    count = min(len(candidates), max(CANDIDATES, 4 * n))
    looked_at = np.arange(len(candidates))
    if count < len(candidates):
        looked_at = np.sort(np.random.default_rng(seed).choice(len(candidates), count, replace=False))
    rows = np.concatenate([candidates[looked_at], candidates[:0] if pending is None else pending])
    targets = [_Target(model, rows, score) for model in models]
    for index in range(count, len(rows)):
        for target in targets:
            target.measure(index)
    chosen: list[int] = []
    for _ in range(n):
        total = np.sum(
            [weight * target.values(count) for weight, target in zip(weights, targets, strict=True)], axis=0
        )
        total[chosen] = -np.inf
        chosen.append(int(np.argmax(total)))
        for target in targets:
            target.measure(chosen[-1])
    return looked_at[chosen]
