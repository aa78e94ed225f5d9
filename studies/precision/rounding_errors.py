"""What rounding did to the tensors and sums of each layer, averaged over the steps and seeds of a policy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from numerics.torch.policy import PRODUCTS, TENSORS

#: Measures of tensors and of products, in the order in which they are shown.
MEASURES = {
    "tensor": {
        "sqnr_db": "SQNR, dB",
        "underflow": "rounded to zero",
        "out_of_range": "saturated or overflowed",
    },
    "product": {
        "sqnr_db": "SQNR, dB",
        "swamped": "swamped",
        "underflow": "underflowed",
        "out_of_range": "saturated or overflowed",
    },
}
ROLES = {"tensor": TENSORS, "product": PRODUCTS}

_SHARES = ("underflow", "saturation", "overflow", "swamped")


def averaged(statistics: pd.DataFrame) -> pd.DataFrame:
    """Means over steps and seeds.

    Every looked-at step of every seed counts the same; what is not known (NaN) does not count. The SQNR is
    averaged as the ratio of noise to signal, so that the steps that lose most decide, and is infinite where
    no step lost anything.

    Parameters
    ----------
    statistics
        ``policy`` and the columns of `numerics.torch.Statistics`.

    Returns
    -------
    One row per policy, layer and role, in the order in which they first ran: ``policy``, ``layer``,
    ``role``, ``numerics``, ``length``, ``sqnr_db``, shares in 0..1 ``underflow``, ``saturation``,
    ``overflow``, ``out_of_range`` (the sum of the two before) and ``swamped``.
    """
    keys = ["policy", "layer", "role"]
    noise = 10.0 ** (-statistics["sqnr_db"] / 10.0)
    known = statistics[["saturation", "overflow"]]
    table = statistics.assign(noise=noise, out_of_range=known.sum(axis=1, min_count=1))
    groups = table.groupby(keys, sort=False)
    means = groups[[*_SHARES, "out_of_range", "noise"]].mean()
    with np.errstate(divide="ignore"):
        means["sqnr_db"] = -10.0 * np.log10(means.pop("noise"))
    means["sqnr_db"] += 0.0  # no -0
    return groups[["numerics", "length"]].first().join(means).reset_index()


def worst(table: pd.DataFrame) -> pd.DataFrame:
    """Where each policy loses most.

    Parameters
    ----------
    table
        As `averaged` gives it.

    Returns
    -------
    One row per policy and measure: ``policy``, ``kind`` (``tensor`` or ``product``), ``measure``, ``layer``,
    ``role`` and ``value``. Nothing of a measure by which nothing was lost.
    """
    rows: list[dict[str, Any]] = []
    for policy, mine in table.groupby("policy", sort=False):
        for kind, measures in MEASURES.items():
            of_kind = mine[mine["role"].isin(ROLES[kind])]
            for measure in measures:
                values = of_kind[measure].to_numpy(np.float64)
                loss = -values if measure == "sqnr_db" else np.where(values > 0.0, values, np.nan)
                if not np.isfinite(loss).any():
                    continue
                row = of_kind.iloc[int(np.nanargmax(loss))]
                rows.append(
                    {
                        "policy": policy,
                        "kind": kind,
                        "measure": measure,
                        "layer": row["layer"],
                        "role": row["role"],
                        "value": float(row[measure]),
                    }
                )
    return pd.DataFrame(rows, columns=["policy", "kind", "measure", "layer", "role", "value"])
