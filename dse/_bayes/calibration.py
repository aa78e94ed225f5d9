"""Results of cheap evaluations on the scale of full ones.

A network is worse after one epoch than after sixteen, an estimate of a compiler is off by a factor: what a
cheap evaluation tells is how designs differ, not the level or the spread of what it measures. So at each
fidelity the results are shifted and stretched until those of the designs that were evaluated fully too have
the mean and the deviation of the full results; in the logarithm, where all are of one sign. A stretch can be
fitted to any data, so it is not evidence that the fidelity tells anything: that is for the model to find out.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float, Int

_FEWEST = 3  # designs with both results


def calibrated(
    values: Float[np.ndarray, " n"], fidelities: Float[np.ndarray, " n"], designs: Sequence[Hashable]
) -> Float[np.ndarray, " n"]:
    """Values, (n,), those below full fidelity on the scale of the full ones where that can be told.

    Parameters
    ----------
    values, fidelities : (n,)
        Results, and how exact they are, 1 being full.
    designs
        Of what each is a result.
    """
    signs = np.sign(values)
    is_log = bool((signs == signs[:1]).all() and (signs != 0).all())
    scaled = np.log(np.abs(values)) if is_log else values.copy()
    full = {design: k for k, design in enumerate(designs) if fidelities[k] == 1.0}
    for fidelity in np.unique(fidelities[fidelities < 1.0]):
        own = np.flatnonzero(fidelities == fidelity)
        both = np.array([(k, full[designs[k]]) for k in own.tolist() if designs[k] in full], dtype=int)
        if len(both) >= _FEWEST:
            scaled[own] = _matched(scaled, own, both[: _steady(len(both))])
    if is_log:
        return np.asarray(signs * np.exp(scaled))
    return scaled


def _matched(
    values: Float[np.ndarray, " n"], own: Int[np.ndarray, " k"], both: Int[np.ndarray, "b 2"]
) -> Float[np.ndarray, " k"]:
    cheap, full = values[both[:, 0]], values[both[:, 1]]
    stretch = full.std() / cheap.std() if cheap.std() > 0 and full.std() > 0 else 1.0
    result: Float[np.ndarray, " k"] = full.mean() + stretch * (values[own] - cheap.mean())
    return result


def _steady(count: int) -> int:
    """Number of pairs that are used. It grows in steps: a change costs the models a fit from scratch."""
    steps: list[int] = [k << i for i in range(20) for k in (3, 4)]
    return max(step for step in steps if step <= count)
