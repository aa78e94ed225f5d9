"""Bits of groups of numbers under a total: reverse water-filling, and whole bits from it.

A number that is rounded to b bits has an error whose second moment falls as ``4**-b``. With a sensitivity
s_g (what the loss grows by at 0 bits, in its units) and n_g numbers, group g is to have b_g bits so that
``sum_g s_g 4**-b_g`` is least under ``sum_g n_g b_g = total``. Where no bound is active all groups have the
same marginal loss per bit, ``s_g 4**-b_g / n_g``: the level of the water [Cover06]_.

References
----------
.. [Cover06] T. Cover, J. Thomas, "Elements of Information Theory", 2nd ed., 10.3.3.
.. [Shoham88] Y. Shoham, A. Gersho, "Efficient bit allocation for an arbitrary set of quantizers", IEEE Trans.
   ASSP 36(9), 1988.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from dse.allocate import Allocation, exact


def water_filling(
    sensitivity: Float[np.ndarray, " g"],
    size: Float[np.ndarray, " g"],
    total_bits: float,
    *,
    low: float = 0.0,
    high: float = np.inf,
) -> Float[np.ndarray, " g"]:
    """Real-valued bits of each group that minimise the loss, in closed form.

    Parameters
    ----------
    sensitivity : (g,)
        Loss at 0 bits, at least 0.
    size : (g,)
        Numbers in each group, positive.
    total_bits
        Of all numbers together.
    low, high
        Bounds on the bits of a number.

    Returns
    -------
    (g,), in `low`..`high`; their sum weighted by `size` is `total_bits`, or what `high` (of groups with any
    sensitivity) admits if that is less.

    Raises
    ------
    ValueError
        A value out of range, or fewer bits than `low` everywhere.

    Examples
    --------
    >>> water_filling(np.array([16.0, 1.0]), np.array([10.0, 10.0]), 60.0)
    array([4., 2.])
    """
    sensitivity, size = _checked(sensitivity, size)
    if not 0 <= low <= high:
        raise ValueError(f"low must be in 0..high, got low {low} and high {high}")
    if not total_bits >= low * size.sum():
        raise ValueError(f"total_bits must be at least {low * size.sum():g}, low for all, got {total_bits:g}")
    bits = np.full(len(size), float(low))
    live = np.flatnonzero(sensitivity > 0)
    if not len(live):
        return bits
    # A group has clip(depth + level, low, high) bits: a sum that rises in pieces with the level.
    depth, weight = 0.5 * np.log2(sensitivity[live] / size[live]), size[live]
    wanted = total_bits - low * (size.sum() - weight.sum())
    begin, end = low - depth, high - depth
    levels = np.unique(np.concatenate([begin, end[np.isfinite(end)]]))
    sums = np.array([(weight * np.clip(depth + level, low, high)).sum() for level in levels])
    piece = max(int(np.searchsorted(sums, wanted, side="right")) - 1, 0)
    level = float(levels[piece])
    rising = (begin <= level) & (level < end)
    if rising.any():  # not so where all have `high` bits
        level += (wanted - sums[piece]) / weight[rising].sum()
    bits[live] = np.clip(depth + level, low, high)
    return bits


def bit_allocation(
    sensitivity: Float[np.ndarray, " g"], size: Float[np.ndarray, " g"], bits: Int[np.ndarray, " o"]
) -> Allocation:
    """Problem of whole bits: options `bits`, cost in bits of all numbers, loss ``s 4**-b``.

    Groups are called by their numbers.
    """
    sensitivity, size = _checked(sensitivity, size)
    options = np.asarray(bits)
    return Allocation(
        groups=tuple(str(g) for g in range(len(size))),
        options=tuple(str(b) for b in options.tolist()),
        cost=np.outer(size, options),
        loss=np.outer(sensitivity, 4.0 ** -options.astype(np.float64)),
    )


def whole_bits(
    real: Float[np.ndarray, " g"],
    sensitivity: Float[np.ndarray, " g"],
    size: Float[np.ndarray, " g"],
    total_bits: float,
) -> Int[np.ndarray, " g"]:
    """Best way to round the bits of `water_filling` up or down under their total, (g,).

    Raises
    ------
    ValueError
        All rounded down are too many already.
    """
    sensitivity, size = _checked(sensitivity, size)
    down, up = np.floor(real + 1e-9), np.ceil(real - 1e-9)
    pair = np.column_stack([down, up])
    rounded = Allocation(
        groups=tuple(str(g) for g in range(len(size))),
        options=("down", "up"),
        cost=size[:, None] * pair,
        loss=sensitivity[:, None] * 4.0**-pair,
    )
    choice = exact(rounded, max_cost=total_bits)
    return pair[np.arange(len(size)), choice].astype(np.int64)


def _checked(
    sensitivity: Float[np.ndarray, " g"], size: Float[np.ndarray, " g"]
) -> tuple[Float[np.ndarray, " g"], Float[np.ndarray, " g"]]:
    sensitivity, size = np.asarray(sensitivity, np.float64), np.asarray(size, np.float64)
    if sensitivity.ndim != 1 or sensitivity.shape != size.shape or not len(size):
        raise ValueError(
            f"sensitivity and size must be 1-D and equal in shape, got {sensitivity.shape} and {size.shape}"
        )
    for name, values, good in (
        ("sensitivity", sensitivity, (sensitivity >= 0) & np.isfinite(sensitivity)),
        ("size", size, (size > 0) & np.isfinite(size)),
    ):
        if not good.all():
            wish = "at least 0" if name == "sensitivity" else "positive"
            raise ValueError(f"{name} must be finite and {wish}, got {values[~good][0]}")
    return sensitivity, size
