"""Energy and bandwidth of off-chip memories, by type.

Not modelled: pages, refresh, standby power and the row-buffer hit rate; a bit costs the same
wherever it lies, and the bandwidth is the interface's peak.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import isfinite

from accel.hardware.library import DEFAULT, Library


@dataclass(frozen=True, slots=True, kw_only=True)
class OffchipMemory:
    """One type of off-chip memory.

    Attributes
    ----------
    name
        As ``LPDDR4``.
    pj_per_bit
        Energy of reading or writing one bit; the node of the chip does not change it.
    bandwidth_gb_s
        Peak of one `unit`, in 10^9 bytes per second.
    unit
        What has that bandwidth: a channel, a device or a stack.
    recalled
        The energy is remembered from the literature, not read in its source: confirm before quoting.
    source, bandwidth_source
        Where energy and bandwidth come from.
    """

    name: str
    pj_per_bit: float
    bandwidth_gb_s: float
    unit: str
    recalled: bool
    source: str
    bandwidth_source: str

    def bytes_per_cycle(self, clock_mhz: float, units: int = 1) -> float:
        """Peak bytes per cycle of a chip at `clock_mhz` with `units` of this memory.

        Examples
        --------
        >>> offchip_memory("DDR4").bytes_per_cycle(800, units=2)
        64.0
        """
        if not (clock_mhz > 0 and isfinite(clock_mhz)):
            raise ValueError(f"clock_mhz must be above 0 and finite, got {clock_mhz}")
        if units < 1:
            raise ValueError(f"units must be at least 1, got {units}")
        return units * self.bandwidth_gb_s * 1e3 / clock_mhz


def offchip_memory(name: str, *, library: Library = DEFAULT) -> OffchipMemory:
    """Look up a memory type; case does not matter.

    Raises
    ------
    TypeError
        The name is no text.
    ValueError
        The type is unknown; the message lists those known.

    Examples
    --------
    >>> memory = offchip_memory("hbm2")
    >>> memory.pj_per_bit, memory.bandwidth_gb_s, memory.unit
    (3.9, 256.0, 'one stack')
    """
    if not isinstance(name, str):
        raise TypeError(f"offchip must be a name, got {name!r}")
    return _memory(name, library)


@lru_cache(maxsize=1024)
def _memory(name: str, library: Library) -> OffchipMemory:
    table = library.section("offchip")
    row = table.get(name.strip().upper())
    if row is None:
        raise ValueError(f"offchip must be one of {', '.join(table)}; got {name!r}")
    return OffchipMemory(
        name=name.strip().upper(),
        pj_per_bit=row["pj_per_bit"],
        bandwidth_gb_s=row["bandwidth_gb_s"],
        unit=row["unit"],
        recalled=row["status"] == "recalled",
        source=row["source"],
        bandwidth_source=row["bandwidth_source"],
    )
