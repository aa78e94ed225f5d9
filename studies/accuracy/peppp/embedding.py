"""Low-rank embeddings of configurations, and of a data set from a few measurements.

References
----------
.. [Yang21] C. Yang et al., "How Low Can We Go: Trading Memory for Error in Low-Precision Training",
   arXiv 2106.09686.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike


def embed(values: Float[np.ndarray, "d n"], rank: int) -> Float[np.ndarray, "n r"]:
    """Embeddings of the configurations: ``values ~ X Y'`` of the rank `rank`, cut off where it is optimal.

    With the singular value decomposition U S V', Y is V S / sqrt(d). The embeddings X = sqrt(d) U of the data
    sets then have the mean square 1 in every direction, so that a ridge on the embedding of another data set
    means the same in all of them; an invertible change of Y alone would change no prediction.

    Parameters
    ----------
    values : (d, n)
        Completed errors.
    rank
        1..min(d, n).
    """
    if not 1 <= rank <= min(values.shape):
        raise ValueError(f"rank must be in 1..{min(values.shape)} for a table {values.shape}, got {rank}")
    _, singular, right = np.linalg.svd(values, full_matrices=False)
    embeddings: Float[np.ndarray, "n r"] = (singular[:rank, None] * right[:rank]).T / np.sqrt(len(values))
    return embeddings


def spectrum(values: ArrayLike) -> Float[np.ndarray, " k"]:
    """Share of the squared entries in each singular value, descending; sums to 1 (0 for zeros)."""
    squares = np.linalg.svd(np.asarray(values, dtype=np.float64), compute_uv=False) ** 2
    total = squares.sum()
    shares: Float[np.ndarray, " k"] = squares / total if total > 0 else squares
    return shares


def rank_of_energy(values: ArrayLike, share: float) -> int:
    """The least rank whose singular values hold `share` of the squared entries.

    Examples
    --------
    >>> rank_of_energy([[3.0, 0.0], [0.0, 1.0]], 0.9)
    1
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in 0..1, and not 0, got {share}")
    sums = np.cumsum(spectrum(values))
    return min(int(np.searchsorted(sums, share * (1 - 1e-12))) + 1, len(sums))


def locate(
    embeddings: Float[np.ndarray, "n r"],
    indices: Int[np.ndarray, " s"],
    errors: Float[np.ndarray, " s"],
    ridge: float,
) -> Float[np.ndarray, " r"]:
    """Embedding of a data set from measurements, ``(sum y y' + ridge I)^-1 sum y e`` [Yang21]_.

    Parameters
    ----------
    embeddings : (n, r)
        Of all configurations.
    indices, errors : (s,)
        Configurations that were measured, and the errors.
    ridge
        Squared error of a measurement, in units of the errors; it keeps the matrix regular where there are
        fewer measurements than dimensions.
    """
    measured = embeddings[indices]
    gram = measured.T @ measured + ridge * np.eye(embeddings.shape[1])
    return np.asarray(np.linalg.solve(gram, measured.T @ errors))
