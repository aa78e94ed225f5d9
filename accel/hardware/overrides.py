"""Which of a user's constants a design does not touch, so that none is left out silently."""

from __future__ import annotations

from accel.hardware.library import Library
from accel.hardware.sram import sram_nodes
from accel.hardware.technology import BASE_NODE_NM, logic_nodes


def unused_entries(
    library: Library, *, node_nm: int, cells: str, offchip: str, mac: str, vector: bool = True
) -> tuple[str, ...]:
    """Entries of ``library.replaced`` that no cost of a design rests on.

    Parameters
    ----------
    node_nm, cells, offchip
        Technology node, SRAM cells and off-chip memory of the design.
    mac
        Its multiply-accumulate cell as :class:`~accel.hardware.mac.Mac` prints it.
    vector
        Whether it has vector lanes.

    Examples
    --------
    >>> from accel.hardware.library import DEFAULT
    >>> unused_entries(DEFAULT, node_nm=45, cells="lop", offchip="HBM2", mac="e4m3fn x e4m3fn + e6m9")
    ()
    """
    measured = library.cell(mac, node_nm) is not None
    memories = sram_nodes(node_nm, cells, library=library)
    technology = library.section("technology")
    moved = technology["voltage_v"] != technology["reference_voltage_v"]
    sources = {library.section("register")["node_nm"]}
    sources |= {library.section("vector")["node_nm"]} if vector else set()
    sources |= set() if measured else {BASE_NODE_NM}
    scaled = {source for source in sources if moved or source != node_nm}
    nodes = {
        n for node in (*scaled, *([node_nm] if scaled else ())) for n in logic_nodes(node, library=library)
    }
    used = (
        f"offchip.{offchip.strip().upper()}.",
        *(f"sram {node} nm {cells}." for node in memories),
        f"cell {mac} at {node_nm} nm.",
        "register.",
        *(["vector."] if vector else []),
        *([] if measured else ["mac."]),
        "technology.voltage_v.",
        *(["technology.sram."] if node_nm < memories[0] else []),
        *(f"technology.nodes.{node}." for node in nodes),
    )
    return tuple(entry for entry in library.replaced if not f"{entry}.".startswith(used))
