"""Log noisy expected improvement, of the hypervolume and of a scalarisation, integrated in closed form.

Noisy expected hypervolume improvement [Daulton21]_ is an expectation over the values at the designs
evaluated so far and at a candidate. The first is sampled. Given such a sample, the posterior of a
candidate is normal and its objectives are independent, so the second expectation is exact: the space
that no sampled value dominates is a union of boxes, in each of which the improvement is a product over
objectives, and so is its expectation. Everything stays a logarithm [Ament23]_.

Everything is minimised.

References
----------
.. [Daulton21] S. Daulton, M. Balandat, E. Bakshy, "Parallel Bayesian Optimization of Multiple Noisy
   Objectives with Expected Hypervolume Improvement", NeurIPS 2021, arXiv 2105.08195.
.. [Ament23] S. Ament et al., "Unexpected Improvements to Expected Improvement for Bayesian
   Optimization", NeurIPS 2023, arXiv 2310.20708, equation 9.
.. [Yang19] K. Yang et al., "Efficient Computation of Expected Hypervolume Improvement Using Box
   Decomposition Algorithms", J. Global Optimization 2019, arXiv 1904.12672.
.. [Knowles06] J. Knowles, "ParEGO: A Hybrid Algorithm with On-Line Landscape Approximation for
   Expensive Multiobjective Optimization Problems", IEEE Trans. Evolutionary Computation 10(1), 2006.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.special import erfcx, log_ndtr, logsumexp

_LOG_ROOT_2PI = 0.5 * np.log(2.0 * np.pi)
_NODES = 48


def log_h(z: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Log of phi(z) + z Phi(z): the expected excess of z over a standard normal variable, any z."""
    far = z < -1.0
    near = np.where(far, 0.0, z)
    density = np.exp(-0.5 * near**2 - _LOG_ROOT_2PI)
    value = np.log(density + near * np.exp(log_ndtr(near)))
    # phi(z) (1 + z Phi(z) / phi(z)), the ratio being a scaled complementary error function.
    tail = np.where(far, z, -1.0)
    ratio = 1.0 + tail * np.sqrt(0.5 * np.pi) * erfcx(-tail / np.sqrt(2.0))
    # The ratio is 1 / z^2 to first order, below what the difference resolves.
    ratio = np.where(tail < -1e3, 1.0 / tail**2, ratio)
    result: Float[np.ndarray, "..."] = np.where(far, -0.5 * tail**2 - _LOG_ROOT_2PI + np.log(ratio), value)
    return result


def boxes(
    points: Float[np.ndarray, "n m"], reference: Float[np.ndarray, " m"]
) -> tuple[Float[np.ndarray, "b m"], Float[np.ndarray, "b m"]]:
    """Disjoint boxes that fill what no point dominates and is better than the reference.

    Returns
    -------
    Lower corners, of which some entries are minus infinity, and upper corners, (b, m) each.
    """
    m = len(reference)
    points = points[(points < reference).all(axis=1)]
    if m == 1:
        best = min(points.min(initial=np.inf), reference[0])
        return np.array([[-np.inf]]), np.array([[best]])
    lows, highs = [], []
    levels = np.unique(points[:, -1])
    for low, high in zip([-np.inf, *levels], [*levels, reference[-1]], strict=True):
        below, above = boxes(points[points[:, -1] <= low][:, :-1], reference[:-1])
        lows.append(np.column_stack([below, np.full(len(below), low)]))
        highs.append(np.column_stack([above, np.full(len(above), high)]))
    return np.concatenate(lows), np.concatenate(highs)


def log_expected_hypervolume_improvement(
    mean: Float[np.ndarray, "n m"],
    deviation: Float[np.ndarray, "n m"],
    low: Float[np.ndarray, "b m"],
    high: Float[np.ndarray, "b m"],
) -> Float[np.ndarray, " n"]:
    """Exact log expected hypervolume improvement of normal, independent objectives, (n,).

    Sum over boxes of products over objectives of E[(u - max(l, Y))^+] = g(u) - g(l), where
    g(t) = E[(t - Y)^+], as in [Yang19]_.
    """
    total = np.zeros((len(mean), len(low)))
    for j in range(mean.shape[1]):
        # Many boxes share an edge.
        edges, index = np.unique(np.concatenate([low[:, j], high[:, j]]), return_inverse=True)
        finite = np.isfinite(edges)
        log_g = np.full((len(mean), len(edges)), -np.inf)
        z = (edges[finite] - mean[:, [j]]) / deviation[:, [j]]
        log_g[:, finite] = np.log(deviation[:, [j]]) + log_h(z)
        below, above = log_g[:, index[: len(low)]], log_g[:, index[len(low) :]]
        # Where both are equal to the last bit, the box adds nothing.
        ratio = np.minimum(np.exp(below - above), 1.0 - 1e-16)
        total += above + np.log1p(-ratio)
    return np.asarray(logsumexp(total, axis=1))


def log_expected_chebyshev_improvement(
    mean: Float[np.ndarray, "n m"],
    deviation: Float[np.ndarray, "n m"],
    best: float,
) -> Float[np.ndarray, " n"]:
    """Log expected improvement of the largest of independent normal variables on `best`, (n,).

    The Chebyshev scalarisation of [Knowles06]_, weights and offsets being in the variables already, without
    its small linear term. E[(best - max_j Y_j)^+] is the integral up to `best` of the product of the
    distribution functions, here by quadrature over the logarithm of the distance from `best`, which
    resolves candidates whose whole integral is a tail.
    """
    node, weight = np.polynomial.legendre.leggauss(_NODES)
    # Distances from `best`, in units of the largest that matters: e^-12 .. 1.
    spread = 6.0 * (node - 1.0)
    reach = best - (mean - 6.0 * deviation).max(axis=1)
    narrow = np.where(reach > 0, reach, deviation.max(axis=1))
    distance = narrow[:, None] * np.exp(spread)
    inside = log_ndtr((best - distance[:, :, None] - mean[:, None, :]) / deviation[:, None, :]).sum(axis=-1)
    integrand = inside + np.log(distance) + np.log(6.0 * weight)
    return np.asarray(logsumexp(integrand, axis=1))
