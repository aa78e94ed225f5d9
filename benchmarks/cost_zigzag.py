"""Our best tilings beside ZigZag's best mappings: same network, hardware and accounting.

ZigZag searches the mappings of every different layer of ResNet-50 on a weight-stationary design of ours
(see ``zigzag_worker.py``), by unit energies of ours; each of its mappings is then counted as a loop nest
by ``accel.mapping.nest``, at the same unit energies, beside our tiling of least dynamic energy. ZigZag
runs in an environment of its own in the cache folder, with pinned packages, made when first needed.

Of a layer whose outputs ZigZag's array does not divide, its mapping leaves some out: its energy is
scaled by the products it makes. Inputs outside the image are charged to neither.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import venv
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from accel import Design, Operator, Workload
from accel._units import units_of
from accel.mapping.nest import Level, Nest
from accel.mapping.problem import Problem
from accel.mapping.search import Engine, Tiled, best_tiling, measure_tiling
from accel.mapping.tiled_nest import Moved, moved_by, nest_of, problem_of
from accel.mapping.tiling import Axis, Layer, candidates, layer_of

Row = tuple[str, str, str]

#: ZigZag imports six without asking for it.
PACKAGES = ("zigzag-dse==3.9.1", "six==1.17.0")
WORKER = Path(__file__).with_name("zigzag_worker.py")

#: Levels of its operands, innermost first, and ours for each; the register file holds one weight.
PLACES = {"W": ("Cells", "Pad_w"), "I": ("Pad_i",), "O": ("Sums",)}
OUTSIDE_IN = ("Sums", "Pad_i", "Pad_w", "Cells")  # of levels that begin at the same loop
LOOPS = {"B": "N", "K": "K", "C": "C", "OY": "P", "OX": "Q", "FY": "R", "FX": "S"}


def design(scratchpad_kib: int = 256, accumulator_kib: int = 64) -> Design:
    """A weight-stationary array of 32 x 32 cells, whose edges divide most layers of ResNet-50."""
    return Design(
        rows=32,
        columns=32,
        dataflow="ws",
        operand="int8",
        accumulator="int32",
        scratchpad_bytes=scratchpad_kib * 1024,
        accumulator_bytes=accumulator_kib * 1024,
        offchip="LPDDR4",
        offchip_bytes_per_cycle=16,
        clock_mhz=250,
    )


def compare(chip: Design, network: str = "resnet50") -> tuple[list[Row], list[str]]:
    """Rows of the table, and a line per layer."""
    workload = Workload.named(network).with_formats("int8")
    layers = unique(workload)
    engine = replace(units_of(chip).engine, leakage_pj_per_cycle=0.0)  # ZigZag charges none
    try:
        theirs = searched(environment(), chip, [operator for operator, _ in layers])
    except (OSError, subprocess.CalledProcessError) as error:  # no network, or a package that fails
        return [("ZigZag's own search of the same network", f"not run: {error}", "")], []
    ours, seconds = ours_searched(workload, layers, engine)
    lines = [f"{'layer':24}{'times':>6}{'ours uJ':>10}{'ZigZag uJ':>10}{'ratio':>8}  our tiling"]
    total = {"ours": 0.0, "theirs": 0.0, "theirs, own accounting": 0.0}
    ratios = {}
    for (operator, times), found, tiled in zip(layers, theirs["layers"], ours, strict=True):
        layer = layer_of(workload, operator)
        energy = theirs_pj(operator, layer, found, engine)
        ratios[operator.name] = tiled.dynamic_pj / energy
        total["ours"] += times * tiled.dynamic_pj
        total["theirs"] += times * energy
        total["theirs, own accounting"] += times * found["energy_pj"]
        lines.append(
            f"{operator.name:24}{times:6}{tiled.dynamic_pj / 1e6:10.3f}{energy / 1e6:10.3f}"
            f"{ratios[operator.name]:8.4f}  {tiled.tiling}"
        )
    worst = max(ratios, key=lambda name: ratios[name])
    by_nest = nests_agree(workload, layers, ours, engine)
    hardware = (
        f"{network}, int8, {chip.rows}x{chip.columns} {chip.dataflow}, {chip.scratchpad_bytes >> 10} KiB"
    )
    mappings = sum(layer["mappings"] for layer in theirs["layers"])
    name = f"ZigZag {theirs['version']}"
    rows = [
        (
            f"{name}, {hardware}: energy of ours over its own, network",
            ratio(total, "theirs"),
            "at most 1.000",
        ),
        (f"{name}: worst of {len(layers)} layers, {worst}", f"{ratios[worst]:.4f}", "at most 1.000"),
        (
            f"{name}: its energy of its mappings over ours of the same",
            f"{total['theirs, own accounting'] / total['theirs']:.4f}",
            "-",
        ),
        ("our tilings as loop nests: all counts equal, where tiles divide", by_nest, "all"),
        (
            f"{name}: {mappings} mappings in {theirs['seconds']:.1f} s, over our {1e3 * seconds:.0f} ms",
            f"{theirs['seconds'] / seconds:,.0f}",
            "100",
        ),
    ]
    return rows, lines


def ratio(total: dict[str, float], other: str) -> str:
    return f"{total['ours'] / total[other]:.4f}"


def unique(workload: Workload) -> list[tuple[Operator, int]]:
    """Operators with different products, and how often each product occurs."""
    found: dict[Any, list[Operator]] = {}
    for operator in workload.gemms():
        found.setdefault((operator.window, operator.gemm), []).append(operator)
    return [(same[0], len(same)) for same in found.values()]


def ours_searched(
    workload: Workload, layers: list[tuple[Operator, int]], engine: Engine
) -> tuple[list[Tiled], float]:
    """Our tilings of least energy, and the wall-clock seconds of the search, nothing kept from before."""
    products = [layer_of(workload, operator) for operator, _ in layers]
    best_tiling(products[0], engine, "energy")  # compiles
    candidates.cache_clear()
    start = time.perf_counter()
    found = [best_tiling(product, engine, "energy") for product in products]
    seconds = time.perf_counter() - start
    tiled = [tiling for tiling in found if tiling is not None]
    assert len(tiled) == len(layers), "the scratchpad fits a tile of every layer"
    return tiled, seconds


# --- ZigZag's side -----------------------------------------------------------------------------------


def environment() -> Path:
    """Python of the environment with ZigZag; installs it if it is not there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "bitfront" / PACKAGES[0].replace("==", "-")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = folder / "installed"
    if not done.exists():
        print(f"installing {PACKAGES[0]} in {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        done.touch()
    return python


def searched(python: Path, chip: Design, operators: list[Operator]) -> dict[str, Any]:
    """What the worker found."""
    task = {
        "accelerator": accelerator(chip),
        "mapping": [
            {
                "name": "default",
                "spatial_mapping": {"D1": [f"K, {chip.columns}"], "D2": [f"C, {chip.rows}"]},
                "memory_operand_links": {"O": "O", "W": "I2", "I": "I1"},
            }
        ],
        "layers": [described(operator, i, chip) for i, operator in enumerate(operators)],
    }
    answer = subprocess.run(
        [python, WORKER], input=json.dumps(task), stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def accelerator(chip: Design) -> dict[str, Any]:
    """`chip` as ZigZag describes accelerators: D1 are columns, D2 rows; energies are per port word."""
    engine = units_of(chip).engine
    sums, pad = engine.partial_sum_bits, engine.port_bits
    bus = int(8 * engine.offchip_bytes_per_cycle)

    def port(kind: str, bits: int, least_bits: int, serves: list[str]) -> dict[str, Any]:
        letters = {"read": "r", "write": "w", "read_write": "rw"}[kind]
        return {
            "name": f"{letters}_port_1",
            "type": kind,
            "bandwidth_min": least_bits,
            "bandwidth_max": bits,
            "allocation": serves,
        }

    memories = {
        # size in bits, read pJ, write pJ, operands, ports, dimensions one memory serves, two buffers
        "weight_register": (
            (8, 0.0, 0.0, ["I2"]),
            [port("read", 8, 8, ["I2, tl"]), port("write", 8, 8, ["I2, fh"])],
            ([], False),
        ),
        "accumulator": (
            (engine.sums_per_column * sums, engine.sum_read_pj, engine.sum_write_pj, ["O"]),
            [port("read", sums, sums, ["O, tl", "O, th"]), port("write", sums, sums, ["O, fh", "O, fl"])],
            (["D2"], False),
        ),
        "scratchpad": (
            (
                8 * engine.tile_bytes,
                engine.pad_read_pj_per_bit * pad,
                engine.pad_write_pj_per_bit * pad,
                ["I1", "I2"],
            ),
            [port("read", pad, 8, ["I1, tl", "I2, tl"]), port("write", pad, 8, ["I1, fh", "I2, fh"])],
            (["D1", "D2"], True),
        ),
        "offchip": (
            (10**12, engine.offchip_pj_per_bit * bus, engine.offchip_pj_per_bit * bus, ["I1", "I2", "O"]),
            [
                port(
                    "read_write",
                    bus,
                    8,
                    [*(f"{i}, {way}" for i in ("I1", "I2") for way in ("fh", "tl")),
                     *(f"O, {way}" for way in ("fh", "tl", "fl", "th"))],
                )
            ],
            (["D1", "D2"], False),
        ),
    }  # fmt: skip
    return {
        "name": "design",
        "memories": {
            name: {
                "size": size,
                "r_cost": read_pj,
                "w_cost": write_pj,
                "area": 0.0,
                "latency": 1,
                "operands": operands,
                "ports": ports,
                "served_dimensions": serves,
                "force_double_buffering": twice,
            }
            for name, ((size, read_pj, write_pj, operands), ports, (serves, twice)) in memories.items()
        },
        "operational_array": {
            "unit_energy": engine.mac_pj,
            "unit_area": 1.0,
            "dimensions": ["D1", "D2"],
            "sizes": [chip.columns, chip.rows],
        },
    }


def described(operator: Operator, number: int, chip: Design) -> dict[str, Any]:
    """A layer as ZigZag describes it; a plain product is a convolution of one pixel."""
    gemm, window = operator.gemm, operator.window
    assert gemm is not None
    sizes = {"B": 1, "K": gemm.n, "C": gemm.k, "OY": gemm.m, "OX": 1, "FY": 1, "FX": 1}
    stride, dilation, padding, inputs = (1, 1), (1, 1), (0, 0), (gemm.m, 1)
    if window is not None:
        assert len(window.kernel) == 2
        sizes |= {"B": window.batch, "C": window.channels}
        sizes |= dict(zip(("OY", "OX", "FY", "FX"), (*window.output, *window.kernel), strict=True))
        stride, dilation = (tuple(pair) for pair in (window.stride, window.dilation))  # type: ignore[assignment]
        padding, inputs = (tuple(pair) for pair in (window.padding, window.input))  # type: ignore[assignment]
    return {
        "id": number,
        "name": operator.name,
        "operator_type": "Conv",
        "equation": "O[b][k][oy][ox]+=W[k][c][fy][fx]*I[b][c][iy][ix]",
        "dimension_relations": [
            f"ix={stride[1]}*ox+{dilation[1]}*fx",
            f"iy={stride[0]}*oy+{dilation[0]}*fy",
        ],
        "loop_dims": list(sizes),
        "loop_sizes": list(sizes.values()),
        "operand_precision": {"I": 8, "W": 8, "O": chip.mac.accumulator_bits, "O_final": 8},
        "operand_source": {"W": number, "I": number},
        "pr_loop_dims": ["IX", "IY"],
        "pr_loop_sizes": [inputs[1], inputs[0]],
        "padding": [[padding[1], padding[1]], [padding[0], padding[0]]],
    }


# --- One accounting for both -------------------------------------------------------------------------


def nest_found(found: dict[str, Any]) -> Nest:
    """A mapping of ZigZag as a nest; its operands may begin their levels at different loops."""
    order = [(LOOPS[loop], turns) for level in found["temporal"]["O"] for loop, turns in level]
    begins: dict[int, list[tuple[str, str]]] = {}  # by number of loops inside
    for tensor, places in PLACES.items():
        inside = 0
        for place, level in zip(places, found["temporal"][tensor], strict=False):
            inside += len(level)
            begins.setdefault(inside, []).append((place, tensor))
    levels, name, keeps = [], "Offchip", ("W", "I", "O")
    loops: list[tuple[str, int]] = []
    for inside in range(len(order), -1, -1):
        for place, tensor in sorted(begins.get(inside, ()), key=lambda level: OUTSIDE_IN.index(level[0])):
            levels.append(Level(name, keeps, tuple(loops)))
            name, keeps, loops = place, (tensor,), []  # type: ignore[assignment]
        if inside:
            loops.append(order[inside - 1])
    array = tuple((LOOPS[loop], turns) for loop, turns in found["spatial"])
    return Nest((*levels, Level(name, keeps, tuple(loops), array)))


def theirs_pj(operator: Operator, layer: Layer, found: dict[str, Any], engine: Engine) -> float:
    """Dynamic energy of a mapping of ZigZag by our unit energies."""
    nest = nest_found(found)
    window = operator.window
    turns = dict.fromkeys(LOOPS.values(), 1)
    for level in nest.levels:
        for loop, count in (*level.temporal, *level.spatial):
            turns[loop] *= count
    # Where a window takes one input of several, only those are fetched, as ZigZag has it.
    stride, dilation = (1, 1), (1, 1)
    if window is not None and max(window.kernel) > 1:
        stride, dilation = window.stride, window.dilation  # type: ignore[assignment]
    problem = Problem.convolution(
        **{loop.lower(): count for loop, count in turns.items()}, stride=stride, dilation=dilation
    )
    moved = moved_by(problem, nest, layer, engine)
    if window is not None:
        moved = replace(moved, input_bytes=moved.input_bytes * inside_image(problem, window_axes(layer)))
    return moved.dynamic_pj(layer, engine, problem.macs) * layer.macs / problem.macs


def window_axes(layer: Layer) -> tuple[Axis, Axis]:
    return layer.geometry.rows, layer.geometry.columns


def inside_image(problem: Problem, axes: tuple[Axis, Axis]) -> float:
    """Share of the inputs that windows see that is not padding."""
    (image,) = (tensor for tensor in problem.inputs if tensor.name == "I")
    seen = prod(image.extents(problem.sizes)[2:])
    real = prod(axis.lines(0, axis.output) for axis in axes)
    return min(1.0, real / seen)


def nests_agree(
    workload: Workload, layers: list[tuple[Operator, int]], ours: list[Tiled], engine: Engine
) -> str:
    """Of our tilings whose tiles and folds divide, those whose nests count the same.

    Padding is taken to be stored, as a nest sees it. Lines that windows share a nest fetches again if
    another loop runs inside the one that slides; we do not, the tile being there still.
    """
    equal = total = 0
    for (operator, _), tiled in zip(layers, ours, strict=True):
        layer = stored_padding(layer_of(workload, operator))
        try:
            nest = nest_of(layer, tiled.tiling, engine)
        except ValueError:  # does not divide
            continue
        moved = moved_by(problem_of(layer), nest, layer, engine)
        measured = measure_tiling(tiled.tiling, layer, engine)
        total += 1
        same = {name: getattr(moved, name) == getattr(measured, name) for name in Moved.__slots__}
        if layer.geometry.taps > 1:
            same["input_bytes"] = moved.input_bytes >= measured.input_bytes
        equal += all(same.values())
    return f"{equal}/{total}"


def stored_padding(layer: Layer) -> Layer:
    axes = [
        replace(
            axis, padding=0, input=(axis.output - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1
        )
        for axis in window_axes(layer)
    ]
    return replace(layer, geometry=replace(layer.geometry, rows=axes[0], columns=axes[1]))
