"""Energy of off-chip memories, by type.

Not modelled: pages, refresh, standby power and the row-buffer hit rate; a bit costs the same
wherever it lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from accel.hardware._data import load


@dataclass(frozen=True, slots=True, kw_only=True)
class OffchipMemory:
    """One type of off-chip memory.

    Attributes
    ----------
    name
        As ``LPDDR4``.
    pj_per_bit
        Energy of reading or writing one bit; the node of the chip does not change it.
    recalled
        The value is remembered from the literature, not read in its source: confirm before quoting.
    source
        Where the value comes from.
    """

    name: str
    pj_per_bit: float
    recalled: bool
    source: str


@cache
def offchip_memory(name: str) -> OffchipMemory:
    """Look up a memory type; case does not matter.

    Raises
    ------
    ValueError
        The type is unknown; the message lists those known.

    Examples
    --------
    >>> offchip_memory("hbm2").pj_per_bit
    3.9
    """
    table = load("offchip")
    row = table.get(name.strip().upper())
    if row is None:
        raise ValueError(f"offchip must be one of {', '.join(table)}; got {name!r}")
    return OffchipMemory(
        name=name.strip().upper(),
        pj_per_bit=row["pj_per_bit"],
        recalled=row["status"] == "recalled",
        source=row["source"],
    )
