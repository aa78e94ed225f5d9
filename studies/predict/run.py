"""`bitfront predict`: from a network's name to the bits of its accumulators."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from accel.networks import ExampleInput
from studies.predict.bits import (
    PRODUCTS,
    Arithmetic,
    Densities,
    checked_density,
    length_of,
    predict,
    read_densities,
)
from studies.predict.report import Prediction
from studies.predict.source import Source, open_network
from studies.predict.verify import most_demanding, verify

if TYPE_CHECKING:
    from studies.predict.measure import Batch

_MEASURED_BATCHES = 4
_SIDE = 64  # rows and columns of real operands


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked.

    Attributes
    ----------
    model
        See `studies.predict.source.open_network`.
    inputs, dims
        Of a PyTorch module, and of an ONNX graph.
    density
        ``measured``, a number, a CSV file, or nothing: then all products are dense.
    data
        File of samples for ``measured`` and for `verify`.
    verify
        How many of the most demanding products are emulated.
    """

    model: str
    arithmetic: Arithmetic
    batch: int = 256
    inputs: tuple[ExampleInput, ...] = ()
    dims: Mapping[str, int]
    density: str | None = None
    data: Path | None = None
    verify: int = 0
    seed: int = 0


def answer(request: Request) -> Prediction:
    """Read the network, find densities, predict, and verify if that is asked.

    Raises
    ------
    ValueError, OSError
        The message is one line; it comes before long work.
    """
    source = open_network(request.model, batch=request.batch, inputs=request.inputs, dims=request.dims)
    batches = _batches(request, source)
    densities, notes = _densities(request, source, batches)
    table = predict(source.network, request.arithmetic, densities)
    verified = None
    if request.verify:
        operands = {}
        if source.module is not None and batches:
            wanted = most_demanding(table, request.verify)
            operands = _real(request, source, batches[0], wanted)
        verified = verify(table, request.arithmetic, request.verify, operands=operands, seed=request.seed)
    return Prediction(
        network=source.network, arithmetic=request.arithmetic, table=table, verified=verified, notes=notes
    )


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write the table at once, or not at all."""
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, suffix=".part", delete=False, encoding="utf-8"
    ) as file:
        table.to_csv(file, index=False)
    Path(file.name).replace(path)


def _batches(request: Request, source: Source) -> list[Batch]:
    from_task = source.task is not None and (request.density == "measured" or request.verify)
    if request.data is None and not from_task:
        return []
    if source.module is None:
        raise ValueError(
            f"--data needs a module with weights, package.module:callable; {request.model} has shapes only"
        )
    from studies.predict.measure import in_batches, read_batches

    if request.data is not None:
        return read_batches(request.data, request.batch, _MEASURED_BATCHES)
    assert source.task is not None
    data = source.task.load()
    return in_batches(data.train_inputs, data.train_labels, request.batch, _MEASURED_BATCHES)


def _densities(request: Request, source: Source, batches: list[Batch]) -> tuple[Densities, tuple[str, ...]]:
    asked = request.density
    if asked is None:
        return {}, ()
    if asked == "measured":
        if source.module is None:
            raise ValueError(
                f"--density measured needs a module with weights, package.module:callable; "
                f"{request.model} has shapes only"
            )
        if not batches:
            raise ValueError("--density measured needs --data FILE with samples")
        from studies.predict.measure import measured_densities

        return measured_densities(source.module, source.network, batches)
    path = Path(asked)
    if path.exists():
        return read_densities(path, source.network), ()
    try:
        float(asked)
    except ValueError:
        raise ValueError(
            f"--density must be measured, a number in (0, 1] or a CSV file, got {asked!r}"
        ) from None
    density = checked_density(asked, "--density")
    return {
        (layer.layer, product): density
        for layer in source.network.products
        for product in PRODUCTS
        if length_of(layer, product) is not None
    }, ()


def _real(
    request: Request, source: Source, batch: Batch, wanted: pd.DataFrame
) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """Operands of the products that are to be verified, from one batch."""
    from studies.predict.measure import observe, real_operands

    assert source.module is not None
    rng = np.random.default_rng(request.seed)
    asked = {(row["layer"], row["gemm"]) for _, row in wanted.iterrows()}
    found: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
    for name, seen in observe(source.module, [batch]):
        for product in PRODUCTS:
            if (name, product) in asked:
                operands = real_operands(seen, product, _SIDE, _SIDE, rng)
                if operands is not None:
                    found[name, product] = operands
    return found
