"""One accelerator as a value: array, MAC, memories, bandwidth, clock and node."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from math import ceil, inf, isfinite
from os import PathLike
from pathlib import Path
from typing import Any

from accel.dataflow import DATAFLOWS, FOLD_OVERLAPS, Dataflow, FoldOverlap
from accel.hardware.library import DEFAULT, Library
from accel.hardware.mac import Mac, MacCost, mac_cost
from accel.hardware.offchip import offchip_memory
from accel.hardware.sram import Cells, SramCost, sram_cost, sram_range
from numerics.accumulate import AnyAccumulator
from numerics.block import BlockFormat
from numerics.formats import FixedFormat, FloatFormat, Format


@dataclass(frozen=True, slots=True, init=False)
class Design:
    """A matrix engine: a systolic array, a scratchpad, an accumulator buffer, an off-chip memory.

    A vector unit with one fp32 lane per column does the element-wise work.

    Attributes
    ----------
    rows, columns
        Cells of the array.
    dataflow
        What stays in the cells: outputs ``"os"``, weights ``"ws"``, inputs ``"is"``.
    operand, weight
        Formats of the operands in the array; text is parsed. `weight` is `operand` if not given. A
        tensor stored in another format is converted at the array's edge, free of charge.
    accumulator
        How each cell sums, see :class:`accel.Mac`; its format is the width of partial sums everywhere.
    scratchpad_bytes
        Operand and result memory, in `scratchpad_banks` equal banks.
    accumulator_bytes
        Partial-sum buffer: one bank per column, or as many of 1024 bytes as fit, each then serving
        neighbouring columns with one wide word.
    offchip
        Memory type, such as ``"LPDDR4"``.
    offchip_bytes_per_cycle
        Off-chip bandwidth that is sustained; ``inf`` is none to wait for.
    clock_mhz
        Clock; ``Cost.timing`` says when one cycle is too short for a part.
    node_nm
        Technology node, 7..45.
    sram_cells
        Cell type of both memories.
    fold_overlap
        Whether the array overlaps one fold with the next, see ``array_counts``.
    scratchpad_width_bits
        Word of one bank. ``None``: one operand for each row, within the 8..512 bits of the table.
        A narrow word costs more energy per bit; fix the width to compare formats alone.
    scratchpad_banks
        ``None``: enough to feed the rows and the columns in every cycle, each at least 1024 bytes.
    mac_stages
        Pipeline stages of a cell, see ``MacCost.pipelined``. Each fold of the array fills them once; the
        sums of one column are taken to be enough to hide the latency of its accumulations.
    overlap
        Exponent of the norm that joins arithmetic and off-chip transfer: ``inf`` hides one behind the
        other, 1 adds them up; between 1 and 1.4 matches a Gemmini measured on its RTL.
    library
        Tables of constants; the path of a TOML file is read.
    overhead
        Area of wiring, control and DMA as a share of all else; a guess, 0.15 to 0.4 in practice.

    Notes
    -----
    ``dataclasses.replace`` keeps the weight's format, the width and the banks that were derived; to derive
    them anew, give ``None`` for each, or start from :meth:`settings`.

    Raises
    ------
    ValueError
        A value is out of range or unknown; the message names it and what is allowed.

    Examples
    --------
    >>> design = Design(
    ...     rows=16, columns=16, dataflow="ws", operand="e4m3", accumulator="e6m9 chunk=64",
    ...     scratchpad_bytes=65536, accumulator_bytes=16384, offchip="LPDDR4",
    ...     offchip_bytes_per_cycle=16, clock_mhz=250,
    ... )
    >>> print(design)
    16x16 ws, e4m3fn x e4m3fn + e6m9 chunk=64, scratchpad 65536 B (2 x 128 bit), \
accumulators 16384 B (16 x 16 bit), LPDDR4 16 B/cycle, 250 MHz, 45 nm
    >>> Design.from_toml(design.to_toml()) == design
    True
    """

    rows: int
    columns: int
    dataflow: Dataflow
    operand: Format | BlockFormat
    accumulator: AnyAccumulator
    scratchpad_bytes: int
    accumulator_bytes: int
    offchip: str
    offchip_bytes_per_cycle: float
    clock_mhz: float
    node_nm: int
    weight: Format | BlockFormat
    sram_cells: Cells
    fold_overlap: FoldOverlap
    scratchpad_width_bits: int
    scratchpad_banks: int
    mac_stages: int
    overlap: float
    overhead: float
    library: Library

    def __init__(
        self,
        *,
        rows: int,
        columns: int,
        dataflow: Dataflow,
        operand: Format | BlockFormat | str,
        accumulator: AnyAccumulator | str,
        scratchpad_bytes: int,
        accumulator_bytes: int,
        offchip: str,
        offchip_bytes_per_cycle: float,
        clock_mhz: float,
        node_nm: int = 45,
        weight: Format | BlockFormat | str | None = None,
        sram_cells: Cells = "lop",
        fold_overlap: FoldOverlap = "serial",
        scratchpad_width_bits: int | None = None,
        scratchpad_banks: int | None = None,
        mac_stages: int = 1,
        overlap: float = inf,
        overhead: float = 0.25,
        library: Library | str | PathLike[str] = DEFAULT,
    ) -> None:
        tables = library if isinstance(library, Library) else Library.from_toml(library)
        mac = _mac(operand, operand if weight is None else weight, accumulator)
        for name, value, allowed in (
            ("dataflow", dataflow, DATAFLOWS),
            ("fold_overlap", fold_overlap, FOLD_OVERLAPS),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
        for name, text in (("offchip", offchip), ("sram_cells", sram_cells)):
            if not isinstance(text, str):
                raise TypeError(f"{name} must be a name, got {text!r}")
        if isinstance(node_nm, bool) or not isinstance(node_nm, int):
            raise TypeError(f"node_nm must be a whole number, got {node_nm!r}")
        (smallest, _), (narrowest, widest) = sram_range(node_nm, sram_cells, library=tables)
        for name, number, least in (
            ("rows", rows, 1),
            ("columns", columns, 1),
            ("scratchpad_bytes", scratchpad_bytes, smallest),
            ("accumulator_bytes", accumulator_bytes, smallest),
            ("scratchpad_width_bits", scratchpad_width_bits, narrowest),
            ("scratchpad_banks", scratchpad_banks, 1),
            ("mac_stages", mac_stages, 1),
        ):
            if number is None:
                continue
            if isinstance(number, bool) or not isinstance(number, int):
                raise TypeError(f"{name} must be a whole number, got {number!r}")
            if number < least:
                raise ValueError(f"{name} must be at least {least}, got {number}")
        for name, quantity in (
            ("offchip_bytes_per_cycle", offchip_bytes_per_cycle),
            ("clock_mhz", clock_mhz),
            ("overlap", overlap),
            ("overhead", overhead),
        ):
            if isinstance(quantity, bool) or not isinstance(quantity, int | float):
                raise TypeError(f"{name} must be a number, got {quantity!r}")
        if not offchip_bytes_per_cycle > 0:
            raise ValueError(f"offchip_bytes_per_cycle must be above 0, got {offchip_bytes_per_cycle}")
        if not (clock_mhz > 0 and isfinite(clock_mhz)):
            raise ValueError(f"clock_mhz must be above 0 and finite, got {clock_mhz}")
        if not overlap >= 1:
            raise ValueError(f"overlap must be in 1..inf, got {overlap}")
        if not (overhead >= 0 and isfinite(overhead)):
            raise ValueError(f"overhead must not be negative, got {overhead}")
        if scratchpad_width_bits is None:
            scratchpad_width_bits = min(widest, max(narrowest, rows * ceil(mac.a_bits)))
        if scratchpad_banks is None:
            wanted = -(-(rows * ceil(mac.a_bits) + columns * ceil(mac.w_bits)) // scratchpad_width_bits)
            scratchpad_banks = max(1, min(wanted, scratchpad_bytes // smallest))
        for name, setting in (
            ("rows", rows),
            ("columns", columns),
            ("dataflow", dataflow),
            ("operand", mac.a),
            ("weight", mac.w),
            ("accumulator", mac.accumulator),
            ("scratchpad_bytes", scratchpad_bytes),
            ("accumulator_bytes", accumulator_bytes),
            ("offchip", offchip_memory(offchip, library=tables).name),
            ("offchip_bytes_per_cycle", offchip_bytes_per_cycle),
            ("clock_mhz", clock_mhz),
            ("node_nm", node_nm),
            ("sram_cells", sram_cells),
            ("fold_overlap", fold_overlap),
            ("scratchpad_width_bits", scratchpad_width_bits),
            ("scratchpad_banks", scratchpad_banks),
            ("mac_stages", mac_stages),
            ("overlap", float(overlap)),
            ("overhead", overhead),
            ("library", tables),
        ):
            object.__setattr__(self, name, setting)
        try:
            self.mac_cell()  # refuses a cell that no law covers
        except ValueError as error:
            stages = str(error).startswith("stages ")
            raise ValueError(f"mac_{error}" if stages else str(error)) from None
        self._check_memories()

    def _check_memories(self) -> None:
        """Raise at birth what the SRAM table cannot cost."""
        try:
            self.scratchpad_bank()
        except ValueError as error:
            raise ValueError(
                f"scratchpad of {self.scratchpad_bytes} bytes in {self.scratchpad_banks} banks: {error}"
            ) from None
        try:
            self.accumulator_bank()
        except ValueError as error:
            raise ValueError(
                f"accumulator_bytes {self.accumulator_bytes} for {self.columns} columns makes "
                f"{self.accumulator_banks} banks: {error}"
            ) from None
        if self.sums_per_column < 1:
            raise ValueError(
                f"accumulator_bytes must hold one sum of {self.mac.accumulator_bits} bits per column, "
                f"got {self.accumulator_bytes} for {self.columns} columns"
            )

    def __str__(self) -> str:
        return (
            f"{self.rows}x{self.columns} {self.dataflow}, "
            f"{self.mac}, "
            f"scratchpad {self.scratchpad_bytes} B "
            f"({self.scratchpad_banks} x {self.scratchpad_width_bits} bit), "
            f"accumulators {self.accumulator_bytes} B "
            f"({self.accumulator_banks} x {self.accumulator_word_bits} bit), "
            f"{self.offchip} {self.offchip_bytes_per_cycle:g} B/cycle, {self.clock_mhz:g} MHz, "
            f"{self.node_nm} nm"
            + (f", {self.mac_stages} stages" if self.mac_stages > 1 else "")
            + (f", overlap {self.overlap:g}" if self.overlap < inf else "")
            + ("" if self.library is DEFAULT else f", tables of {self.library.name}")
        )

    @property
    def mac(self) -> Mac:
        """Operands and accumulator of a cell."""
        return Mac(self.operand, self.weight, self.accumulator)

    def mac_cell(self) -> MacCost:
        """Cost of one cell, pipelined."""
        cell = mac_cost(self.mac, node_nm=self.node_nm, library=self.library)
        return cell.pipelined(self.mac_stages) if self.mac_stages > 1 else cell

    @property
    def accumulator_banks(self) -> int:
        """Banks of the accumulator buffer: at most one per column, each at least 1024 bytes."""
        (smallest, _), _ = sram_range(self.node_nm, self.sram_cells, library=self.library)
        return max(1, min(self.columns, self.accumulator_bytes // smallest))

    @property
    def columns_per_bank(self) -> int:
        """Columns that share one bank, and so one word, of the accumulator buffer."""
        return -(-self.columns // self.accumulator_banks)

    @property
    def accumulator_word_bits(self) -> int:
        """Word of one accumulator bank: one sum for each of its columns, at least 8 bits."""
        _, (narrowest, _) = sram_range(self.node_nm, self.sram_cells, library=self.library)
        return max(narrowest, self.columns_per_bank * self.mac.accumulator_bits)

    @property
    def sums_per_column(self) -> int:
        """Partial sums that the accumulator buffer holds for one column."""
        return self.accumulator_bytes * 8 // (self.columns * self.mac.accumulator_bits)

    def scratchpad_bank(self) -> SramCost:
        """Cost of one scratchpad bank."""
        return sram_cost(
            self.scratchpad_bytes / self.scratchpad_banks,
            self.scratchpad_width_bits,
            self.node_nm,
            self.sram_cells,
            library=self.library,
        )

    def accumulator_bank(self) -> SramCost:
        """Cost of one bank of the accumulator buffer."""
        return sram_cost(
            self.accumulator_bytes / self.accumulator_banks,
            self.accumulator_word_bits,
            self.node_nm,
            self.sram_cells,
            library=self.library,
        )

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> Design:
        """Build from keyword settings, such as a table of a TOML file.

        Raises
        ------
        ValueError
            A key is unknown or a required one is missing, or a value is wrong.
        """
        known = cls.keys()
        if unknown := [key for key in settings if key not in known]:
            close = get_close_matches(unknown[0], known, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else f"; keys are {', '.join(known)}"
            raise ValueError(f"design has no key {unknown[0]!r}{meant}")
        if missing := [key for key in known[: known.index("node_nm")] if key not in settings]:
            raise ValueError(f"design needs the key {missing[0]!r}")
        return cls(**settings)

    @classmethod
    def from_toml(cls, source: str | PathLike[str]) -> Design:
        """Read the flat table that :meth:`to_toml` writes: its text, or a path as :meth:`from_file`."""
        if not isinstance(source, str):
            return cls.from_file(source)
        try:
            settings = tomllib.loads(source)
        except tomllib.TOMLDecodeError as error:
            hint = "; a path is read by from_file" if source.strip().endswith(".toml") else ""
            raise ValueError(f"a design is not TOML: {error}{hint}") from None
        return cls.from_mapping(settings)

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> Design:
        """Read a TOML file; its ``library`` is relative to it.

        Raises
        ------
        ValueError
            The file is no TOML, or as :meth:`from_mapping`; the message begins with the path.
        OSError
            The file cannot be read.
        """
        file = Path(path)
        try:
            settings = tomllib.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:  # of TOML or of UTF-8
            raise ValueError(f"{file} is not TOML: {error}") from None
        try:
            if isinstance(library := settings.get("library"), str):
                settings["library"] = file.parent / library
            return cls.from_mapping(settings)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file}: {error}") from None

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """Names of all settings."""
        return tuple(field.name for field in fields(cls))

    def settings(self) -> dict[str, Any]:
        """Settings by name, without those that were derived: a change of one derives them anew."""
        found = {name: getattr(self, name) for name in self.keys()}
        if found["weight"] == found["operand"]:
            found["weight"] = None
        for name in ("scratchpad_width_bits", "scratchpad_banks"):
            if getattr(Design(**{**found, name: None}), name) == found[name]:
                found[name] = None
        return found

    def to_toml(self) -> str:
        """Write every setting, the derived ones included, as a flat TOML table."""
        lines = []
        for name in self.keys():
            value = getattr(self, name)
            if name == "library":
                if value is DEFAULT:
                    continue
                value = value.name
            text = f"{value!r}" if isinstance(value, int | float) else f'"{value}"'
            lines.append(f"{name} = {text}\n")
        return "".join(lines)


def _mac(
    a: Format | BlockFormat | str, w: Format | BlockFormat | str, accumulator: AnyAccumulator | str
) -> Mac:
    """Cell of these parts, each an object or its text."""
    for name, value in (("operand", a), ("weight", w)):
        if not isinstance(value, str | FloatFormat | FixedFormat | BlockFormat):
            raise TypeError(f"{name} must be a format or its text, got {value!r}")
    return Mac.parse(f"{a} x {w} + {accumulator}")
