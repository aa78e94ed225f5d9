"""What rounding does to the tensors and sums of a training run: one row per step, layer and role."""

from __future__ import annotations

import importlib.util
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd

from numerics._kernels import statistics as kernels
from numerics.accumulate import AnyAccumulator
from numerics.torch._tally import Tally
from numerics.torch.emulation import Rounded, Sample
from numerics.torch.policy import TensorPolicy

#: Columns of the table and their types; `Statistics` has their meaning.
COLUMNS = {
    "step": "int64",
    "layer": "str",
    "role": "str",
    "numerics": "str",
    "uses": "int64",
    "size": "int64",
    "looked_at": "int64",
    "length": "int64",
    "amax": "float64",
    "nonzero_before": "float64",
    "nonzero": "float64",
    "underflow": "float64",
    "saturation": "float64",
    "overflow": "float64",
    "nonfinite": "float64",
    "swamped": "float64",
    "sqnr_db": "float64",
    "relative_error": "float64",
    "bias": "float64",
}

_MEASURES = tuple(COLUMNS)[list(COLUMNS).index("amax") :]
_ROWS = 4096  # rows that are kept in memory before they are written
_SECONDS = 60.0  # between two files, at most


class Statistics:
    """Observer of emulated layers that tells how much each tensor and each product loses.

    ::

        with Statistics(path="statistics") as statistics:
            twin = emulate(model, policy, seed=0, statistics=statistics)
            for inputs, labels in batches:
                ...  # forward, backward, optimizer
                statistics.step()
            with statistics.paused():
                ...  # evaluation

    The table has one row per looked-at step, layer and role: the tensors ``weight``, ``activation``,
    ``error``, ``weight_gradient`` (of all parameters of the layer) and ``output`` that the policy puts on a
    format, and the products ``forward``, ``backward`` and ``gradient`` (with that of the bias) that it gives
    an accumulator. What a layer does more than once in a step goes into one row.

    ============== ============================================ ==========================================
    column         of a tensor                                  of a product
    ============== ============================================ ==========================================
    step           calls of `step` before                       the same
    layer, role    name of the module, and what it is of it     the same
    numerics       its policy                                   its accumulator
    uses           tensors that were rounded                    products that were summed
    size           their elements                               their sums
    looked_at      elements that the shares are of              sums that were compared
    length         0                                            products in a sum, of the longest ones
    amax           largest finite magnitude of all elements     of the exact sums
    nonzero_before share of elements that are not zero          NaN
    nonzero        the same after rounding                      share of products that are not zero
    underflow      elements rounded to zero                     additions inexact below the normal numbers
    saturation     finite elements beyond the largest value     additions held at the largest value
    overflow       elements that became infinite or NaN         additions that did, or wrapped around
    nonfinite      elements infinite or NaN afterwards          such sums
    swamped        NaN                                          additions that left the sum as it was
    sqnr_db        10 log10(sum x**2 / sum (x_q - x)**2)        the same, of emulated and exact sums
    relative_error sum abs(x_q - x) / sum abs(x)                the same
    bias           sum (x_q - x) / sum abs(x)                   the same
    ============== ============================================ ==========================================

    From `nonzero_before` to `swamped` all are shares in 0..1. `x_q` is the rounded tensor with its scale
    undone. Elements that are not finite on both sides stay out of the last three columns; `sqnr_db` is
    infinite where nothing was lost. With a scale an element is beyond the largest value if it is by more than
    the rounding of the scale. In a block format `saturation` is NaN: the largest element of a block may be
    held by definition.

    Exact sums are float64 sums of the operands as they were rounded: the errors are those of the accumulation
    alone. Additions are counted as by `numerics.matmul` with ``report=True``, on some of the compared sums,
    in the order and with the roundings of the run (stochastic ones with seed 0, other random numbers than
    those of the run). `swamped` is the share of all additions but those of zero products (in an adder tree
    of all; in a fused adder, terms of which the alignment left nothing). The other three are shares of all
    additions, in an exact accumulator of its only roundings. They are NaN where operands are not finite and
    the accumulator has no answer to that.

    The cost is bounded. Of a tensor, runs of 64 neighbours are looked at, one anywhere in each of equal
    parts; of a product, some rows and columns, spread in the same way. Where they are depends on step, layer,
    role and number of the use alone. Of several products of matrices that are one, and of the groups of a
    convolution, the first is looked at. Nothing that is computed changes.

    Parameters
    ----------
    every
        Look at steps 0, `every`, 2 `every`, ...; the others cost nothing.
    elements
        Elements of a tensor that are looked at, at least 64; smaller tensors are looked at entirely.
    sums
        Sums of a product that are compared, at most. Fewer of long ones: those of 131,072 elements of the
        operands. Additions are counted in those of 131,072 products, or of 16,384 where the sums are not
        plain, not to nearest even, or may leave the range of the register; in one sum in any case.
    path
        Folder for Parquet files, which `pandas.read_parquet` opens as one table. A file is written whole when
        there are 4096 rows or a minute has passed, and by `state_dict`: a killed process loses what came
        after the last one. Without a folder all rows stay in memory.
    tensorboard
        Folder for TensorBoard, which must be installed; a scalar ``<layer>/<role>/<column>`` for each finite
        number.

    Raises
    ------
    TypeError, ValueError, ModuleNotFoundError
        A number out of its range; no TensorBoard.

    Examples
    --------
    >>> import torch
    >>> from numerics.torch import LayerPolicy, emulate
    >>> layer = torch.nn.Linear(2048, 1, bias=False)
    >>> _ = torch.nn.init.constant_(layer.weight, 1.0)
    >>> statistics = Statistics()
    >>> twin = emulate(layer, LayerPolicy.uniform("e5m2", "e6m9"), seed=0, statistics=statistics)
    >>> twin(torch.ones(1, 2048)).item()  # 1024 + 1 rounds to 1024
    1024.0
    >>> statistics.step()
    >>> statistics.frame().set_index("role").loc["forward", ["length", "swamped"]].tolist()
    [2048.0, 0.5]
    """

    def __init__(
        self,
        *,
        every: int = 10,
        elements: int = 16384,
        sums: int = 64,
        path: Path | str | None = None,
        tensorboard: Path | str | None = None,
    ) -> None:
        for name, value, least in (
            ("every", every, 1),
            ("elements", elements, kernels.RUN),
            ("sums", sums, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an integer, got {value!r}")
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if tensorboard is not None and importlib.util.find_spec("tensorboard") is None:
            raise ModuleNotFoundError(
                f"tensorboard={str(tensorboard)!r} needs the package tensorboard, which is not installed: "
                "pip install 'bitfront[tensorboard]'"
            )
        self.every, self.elements, self.sums = every, elements, sums
        self.path = None if path is None else Path(path)
        self.tensorboard = None if tensorboard is None else Path(tensorboard)
        self.steps = 0
        self._rows: list[tuple[Any, ...]] = []
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._paused = False
        self._owns_folder = not self._files()
        self._writer: Any = None
        self._shown = 0  # rows in memory that TensorBoard has
        self._since = time.monotonic()

    def __enter__(self) -> Statistics:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def tensor(self, layer: str, role: str, x: np.ndarray, rounded: Rounded, policy: TensorPolicy) -> None:
        """Look at a tensor; emulated layers call it."""
        if self._looks():
            tally = self._tally(layer, role, policy)
            tally.tensor(x, rounded, policy, self.elements, self._salt(layer, role, tally.uses))

    def product(self, layer: str, role: str, accumulator: AnyAccumulator, sample: Sample) -> None:
        """Look at a product; emulated layers call it."""
        if self._looks() and 0 not in sample.shape:
            tally = self._tally(layer, role, accumulator)
            tally.product(accumulator, sample, self.sums, self._salt(layer, role, tally.uses))

    def step(self) -> None:
        """End a step; call it once an iteration, after the backward pass."""
        self._check_folder()
        self._rows += [(self.steps, *key, *tally.row()) for key, tally in self._tallies.items()]
        self._tallies.clear()
        self.steps += 1
        if len(self._rows) - self._shown >= _ROWS or time.monotonic() - self._since > _SECONDS:
            self.flush()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not look, for instance at an evaluation between two steps."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def frame(self) -> pd.DataFrame:
        """The table of all ended steps, in order."""
        self._check_folder()
        tables = [pd.read_parquet(file) for file in self._files()]
        if self._rows or not tables:
            tables.append(_table(self._rows))
        return pd.concat(tables, ignore_index=True)

    def flush(self) -> None:
        """Write the rows of ended steps that are in memory only; without folders do nothing."""
        self._since = time.monotonic()
        if not self._rows:
            return
        self._check_folder()
        if self.tensorboard is not None:
            self._show(self._rows[self._shown :])
            self._shown = len(self._rows)
        if self.path is not None:
            self.path.mkdir(parents=True, exist_ok=True)
            _write_whole(_table(self._rows), self.path / f"steps-{self._rows[0][0]:09d}.parquet")
            self._rows, self._shown = [], 0

    def close(self) -> None:
        """Write what is left; a step that has not ended is dropped."""
        self._tallies.clear()
        self.flush()
        self._close_writer()

    def state_dict(self) -> dict[str, int]:
        """Number of ended steps; their rows are written before it returns. Call it between two steps."""
        self.flush()
        return {"step": self.steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after ``state["step"]`` steps: rows of later ones are removed, also from the folders.

        A state of step 0 begins anew in a folder that has rows. Without a folder, the rows of an earlier
        process are not there.
        """
        self.steps = state["step"]
        self._tallies.clear()
        self._rows = [row for row in self._rows if row[0] < self.steps]
        self._shown = min(self._shown, len(self._rows))
        self._close_writer()  # the next one hides later steps
        for file in self._files():
            table = pd.read_parquet(file)
            kept = table[table["step"] < self.steps]
            if kept.empty:
                file.unlink()
            elif len(kept) < len(table):
                _write_whole(kept, file)
        self._owns_folder = True

    def _looks(self) -> bool:
        return self.steps % self.every == 0 and not self._paused

    def _tally(self, layer: str, role: str, numerics: TensorPolicy | AnyAccumulator) -> Tally:
        key = (layer, role)
        if (found := self._tallies.get(key)) is None:
            self._check_folder()
            found = self._tallies[key] = Tally(numerics)
        return found

    def _salt(self, layer: str, role: str, use: int) -> int:
        """What the choice of elements depends on."""
        name = crc32(f"{layer}/{role}".encode())
        return (name + 0x9E3779B1 * self.steps + 0x85EBCA6B * use) & 0xFFFFFFFF

    def _files(self) -> list[Path]:
        """Files with rows, in the order of their steps."""
        return [] if self.path is None else sorted(self.path.glob("steps-*.parquet"))

    def _check_folder(self) -> None:
        if not self._owns_folder:
            raise ValueError(
                f"folder {self.path} has rows of another run; load the state of that run, or remove it"
            )

    def _show(self, rows: list[tuple[Any, ...]]) -> None:
        """Hand the numbers to TensorBoard."""
        from torch.utils.tensorboard import SummaryWriter

        if self._writer is None:
            self._writer = SummaryWriter(str(self.tensorboard), purge_step=rows[0][0])
        for row in rows:
            step, layer, role = row[:3]
            for name, value in zip(_MEASURES, row[-len(_MEASURES) :], strict=True):
                if math.isfinite(value):
                    self._writer.add_scalar(f"{layer}/{role}/{name}".lstrip("/"), value, step)
        self._writer.flush()

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _table(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def _write_whole(table: pd.DataFrame, path: Path) -> None:
    """Replace a file in one step: a reader sees the old one, the new one or none."""
    part = path.with_name(f".{path.name}.part")  # readers of a folder skip hidden files
    with part.open("wb") as file:
        table.to_parquet(file, index=False)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
