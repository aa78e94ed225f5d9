"""How well loop nests agree with Timeloop, ZigZag, Gemmini's RTL, GPUs and Eyeriss.

Each check takes the folder of reference tables and returns rows (what, found, wanted).
"""

from __future__ import annotations

import ast
import csv
import json
import re
from collections import defaultdict
from collections.abc import Callable
from math import ceil, exp, log
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.stats import spearmanr

from accel.mapping.latency import Overlap
from accel.mapping.many_nests import ManyCounts, analyse_many
from accel.mapping.nest import Level, Nest, analyse
from accel.mapping.problem import Problem

Row = tuple[str, str, str]
Floats = np.ndarray[Any, np.dtype[np.float64]]

TENSORS = {"Weights": "W", "Inputs": "I", "Outputs": "O"}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def error(found: Floats, wanted: Floats) -> Floats:
    return np.abs(found / wanted - 1)


def rank(found: Floats, wanted: Floats) -> float:
    return float(spearmanr(found, wanted).statistic)


def timeloop_nest(text: str) -> Nest:
    """Nest of a mapping as Timeloop prints it; its output channels M are our K."""
    levels: list[tuple[str, tuple[str, ...], list[tuple[str, int]], list[tuple[str, int]]]] = []
    for line in map(str.strip, text.splitlines()):
        if loop := re.fullmatch(r"\|\s*for (\w) in \[0:(\d+)\)( \(Spatial-[XY]\))?", line):
            name = "K" if loop[1] == "M" else loop[1]
            levels[-1][3 if loop[3] else 2].append((name, int(loop[2])))
        elif level := re.fullmatch(r"(\w+) \[ (.*)\]", line):
            keeps = tuple(TENSORS[name] for name in re.findall(r"(\w+):", level[2]))
            levels.append((level[1], keeps, [], []))
    return Nest(tuple(Level(name, keeps, tuple(t), tuple(s)) for name, keeps, t, s in levels))


def timeloop_examples(folder: Path) -> list[Row]:
    """Check 2: every level and tensor of the worked examples."""
    tables = defaultdict(list)
    for row in read(folder / "timeloop_example_levels.csv"):
        tables[row["run"]].append(row)
    exact = {True: 0, False: 0}
    total = {True: 0, False: 0}
    cycles = 0
    runs = read(folder / "timeloop_example_runs.csv")
    for run in runs:
        nest = timeloop_nest(run["mapping"])
        sizes: dict[str, int] = {}
        for level in nest.levels:
            for loop, turns in (*level.temporal, *level.spatial):
                sizes[loop.lower()] = sizes.get(loop.lower(), 1) * turns
        stride = (2, 2) if run["run"].startswith("example/") else (1, 1)
        counts = analyse(Problem.convolution(**sizes, stride=stride), nest)
        cycles += counts.cycles == int(run["cycles"])
        for row in tables[run["run"]]:
            if row["dataspace"] == "-":
                continue
            tensor = TENSORS[row["dataspace"]]
            found = counts.levels[row["level"]][tensor]
            wanted = [float(row[name]) for name in ("reads_per_inst", "fills_per_inst", "updates_per_inst")]
            moved = [words / found.instances for words in (found.reads, found.fills, found.updates)]
            place = (found.instances, found.tile_words)
            same = moved == wanted and place == (int(row["utilized_instances"]), float(row["capacity"]))
            total[tensor == "I"] += 1
            exact[tensor == "I"] += same
    return [
        (
            "Timeloop examples, exact reads, fills, updates, tiles: weights, outputs",
            ratio(exact, total, False),
            "all",
        ),
        ("Timeloop examples, the same of inputs under sliding windows", ratio(exact, total, True), "-"),
        ("Timeloop examples, exact cycles", f"{cycles}/{len(runs)}", "all"),
    ]


def ratio(exact: dict[bool, int], total: dict[bool, int], key: bool) -> str:
    return f"{exact[key]}/{total[key]}"


class Engines:
    """The weight-stationary engines of a table of mappings, and what their nests count."""

    def __init__(self, rows: list[dict[str, str]], columns: dict[str, str]) -> None:
        self.rows = rows

        def column(name: str) -> Floats:
            return np.array([float(row[columns.get(name, name)]) for row in rows])

        self.column = column
        layers = defaultdict(list)
        keys = [columns.get(name, name) for name in (*"KCPQRS", "Wstride")]
        for i, row in enumerate(rows):
            layers[tuple(int(row[key]) for key in keys)].append(i)
        self.layer = np.empty(len(rows), np.int64)
        words = (
            "weights",
            "inputs",
            "register",
            "operands",
            "sums",
            "drains",
            "outputs",
            "macs",
            "cycles",
            "columns",
        )
        self.words: dict[str, Floats] = {name: np.empty(len(rows)) for name in words}
        for number, ((k, c, p, q, r, s, stride), members) in enumerate(layers.items()):
            problem = Problem.convolution(k=k, c=c, p=p, q=q, r=r, s=s, stride=(stride, stride))
            nests = [Nest.parse(rows[i][columns.get("mapping", "mapping")]) for i in members]
            self.layer[members] = number
            for name, values in self.moved(problem, analyse_many(problem, nests)).items():
                self.words[name][members] = values

    @staticmethod
    def moved(problem: Problem, counts: ManyCounts) -> dict[str, Any]:
        """Words per kind, over levels L3 DRAM, L2 scratchpad, L1 accumulator, L0 weight register."""
        w, i, o = range(3)
        return {
            "weights": counts.fills[:, 1, w],
            "inputs": counts.fills[:, 1, i],
            "register": counts.fills[:, 3, w],
            "operands": counts.reads[:, 1, w] + counts.reads[:, 1, i],
            "sums": counts.updates[:, 2, o],
            "drains": counts.drains[:, 2, o],
            "outputs": problem.output.words(problem.sizes),
            "macs": counts.macs,
            "cycles": counts.cycles,
            "columns": counts.instances[:, 2],
        }

    @property
    def accumulator_words(self) -> Floats:
        """Accesses: this version of the engine reads a sum before every update, the first one too."""
        words = self.words
        return 2 * words["sums"] + words["drains"] - words["outputs"]

    def energy_pj(self) -> Floats:
        """Energy by the constants of the data set; off-chip transfers are of 64 bytes."""
        words = self.words
        accumulator = 0.1005 * self.column("accum_words_per_col") * 4 / 1024 + 1.94
        scratchpad = 0.02513 * self.column("scratchpad_B") / 1024 + 0.49
        spilled = words["drains"] - words["outputs"]
        off_chip = sum(
            64 * np.ceil(some / 64) for some in (words["weights"], words["inputs"], words["drains"], spilled)
        )
        return np.asarray(
            0.5608 * words["macs"]
            + 0.48746 * (words["macs"] + words["register"])
            + accumulator * self.accumulator_words
            + scratchpad * (words["operands"] + words["weights"] + words["inputs"])
            + 100 * off_chip
        )

    def timeloop_cycles(self) -> Floats:
        """Cycles of the slowest of multipliers, DRAM, scratchpad and accumulators."""
        words = self.words
        fetched = words["weights"] + words["inputs"]
        limits = (
            words["cycles"],
            (fetched + 2 * words["drains"] - words["outputs"]) / 8,
            (fetched + words["operands"]) / (2 * self.column("pe_dim")),
            self.accumulator_words / (2 * words["columns"]),
        )
        return np.ceil(np.max(np.stack(limits), axis=0))

    def off_chip_cycles(self) -> Floats:
        """At 8 bytes per cycle; a partial sum has 4 bytes, an operand or finished output 1."""
        words = self.words
        spilled = words["drains"] - words["outputs"]
        return (words["weights"] + words["inputs"] + words["outputs"] + 8 * spilled) / 8


DOSA = {name: f"prob.{name}" for name in (*"KCPQRS", "Wstride")} | {
    "mapping": "mapping.mapping",
    "pe_dim": "arch.meshX",
    "scratchpad_B": "arch.mem2_entries",
    "accum_words_per_col": "arch.mem1_entries",
    "energy_uJ": "target.energy",
    "cycles": "target.cycle",
}


def timeloop_mappings(folder: Path) -> list[Row]:
    """Checks 3 and 4: energy and cycles of random mappings, and of 23,857 more if they are beside."""
    tables = [("", folder / "timeloop_gemmini_mappings.csv", {})]
    more = folder.parent / "dosa" / "timeloop_layers_a.csv"
    if more.exists():
        tables.append((" (second table)", more, DOSA))
    result: list[Row] = []
    for note, path, columns in tables:
        engines = Engines(read(path), columns)
        energy, wanted = engines.energy_pj(), engines.column("energy_uJ") * 1e6
        window = engines.column("R") * engines.column("S") > 1
        for name, some, goal in (("GEMM-like", ~window, "2 %"), ("convolution", window, "5 %")):
            off = error(energy[some], wanted[some])
            what = f"Timeloop, {some.sum()} {name} mappings{note}"
            result += [
                (f"{what}: energy, mean (worst) error", f"{off.mean():.3%} ({off.max():.1%})", goal),
                (f"{what}: energy, rank", f"{rank(energy[some], wanted[some]):.5f}", "0.99"),
            ]
        cycles, wanted = engines.timeloop_cycles(), engines.column("cycles")
        off = error(cycles, wanted)
        what = f"Timeloop, {len(cycles)} mappings{note}"
        result += [
            (f"{what}: cycles, mean (worst) error", f"{off.mean():.4%} ({off.max():.1%})", "6 %"),
            (f"{what}: cycles, rank", f"{rank(cycles, wanted):.5f}", "0.99"),
        ]
    return result


def fit(model: Callable[[Overlap], Floats], wanted: Floats, exponent: float | None = None) -> Overlap:
    """The overlap, or its other three numbers, of the least mean relative error."""

    def overlap(x: Floats) -> Overlap:
        return Overlap(
            exponent=exponent or 1 + exp(x[3]),
            compute_efficiency=exp(x[0]),
            memory_efficiency=exp(x[1]),
            start=exp(x[2]),
        )

    small = log(wanted.min() / 10)
    starts = [(-0.1, 0.0, small, 0.0), (-0.3, -1.0, small + 1, 1.0), (0.0, -0.5, small + 2, -2.0)]
    found = [
        minimize(
            lambda x: float(error(model(overlap(x)), wanted).mean()),
            start if exponent is None else start[:3],
            method="Nelder-Mead",
            options={"maxiter": 2000, "maxfev": 2000, "xatol": 1e-4, "fatol": 1e-6},
        )
        for start in starts
    ]
    return overlap(min(found, key=lambda result: float(result.fun)).x)


def left_out(
    compute: Floats, memory: Floats, wanted: Floats, group: Floats, exponent: float | None = None
) -> Floats:
    """Times of each group by the overlap fitted to all others."""
    found = np.empty(len(wanted))
    for some in (group == number for number in np.unique(group)):
        rest = ~some
        overlap = fit(lambda o, rest=rest: o.time(compute[rest], memory[rest]), wanted[rest], exponent)
        found[some] = overlap.time(compute[some], memory[some])
    return found


def gemmini_rtl(folder: Path) -> list[Row]:
    """Checks 5 and 6: cycles of the RTL. Four global numbers are fitted."""
    engines = Engines(read(folder / "gemmini_rtl_cycles.csv"), {})
    compute, memory, wanted = engines.words["cycles"], engines.off_chip_cycles(), engines.column("rtl_cycles")
    overlap = fit(lambda o: o.time(compute, memory), wanted)
    found = overlap.time(compute, memory)
    held = left_out(compute, memory, wanted, engines.layer)
    others = Engines(read(folder / "gemmini_rtl_cycles_random_mappings.csv"), {})
    ranked = overlap.time(others.words["cycles"], others.off_chip_cycles())
    fitted = (
        f"exponent {overlap.exponent:.2f}, efficiencies {overlap.compute_efficiency:.2f} and "
        f"{overlap.memory_efficiency:.2f}, start {overlap.start:.0f} cycles"
    )
    return [
        (
            f"Gemmini RTL, {len(wanted)} mappings ({fitted}): mean error",
            f"{error(found, wanted).mean():.1%}",
            "25 %",
        ),
        ("Gemmini RTL: rank", f"{rank(found, wanted):.4f}", "0.95"),
        (
            "Gemmini RTL, each layer left out of the fit: mean error",
            f"{error(held, wanted).mean():.1%}",
            "25 %",
        ),
        (
            f"Gemmini RTL, {len(ranked)} random mappings: rank",
            f"{rank(ranked, others.column('rtl_cycles')):.3f}",
            "0.80",
        ),
    ]


GPUS = {
    "A100_80GB_fp16": (312e12, 2.04e12, 108),
    "MI210_fp16": (181e12, 1.6e12, 104),
}  # FLOP/s, byte/s, cores
GPU_TILE = 128  # rows and columns of the outputs that one core computes at a time
GPU_EXPONENT = 4.0


def gpu_matmul(folder: Path) -> list[Row]:
    """Check 7: a roofline whose arithmetic comes in waves of tiles, three numbers per device."""
    result: list[Row] = []
    rows = read(folder / "gpu_matmul_measured.csv")
    for device, (flops, bandwidth, cores) in GPUS.items():
        mine = [row for row in rows if row["device"] == device]
        m, k, n = (np.array([float(row[name]) for row in mine]) for name in "MKN")
        wanted = np.array([float(row["latency_ms"]) for row in mine])
        waves = np.ceil(np.ceil(m / GPU_TILE) * np.ceil(n / GPU_TILE) / cores)
        compute = waves * cores * GPU_TILE**2 * 2 * k / flops * 1e3
        memory = 2 * (m * k + k * n + m * n) / bandwidth * 1e3
        held = left_out(compute, memory, wanted, np.arange(len(wanted)), GPU_EXPONENT)
        off = error(held, wanted)
        what = f"{device}, {len(wanted)} products, each left out of the fit: mean (worst) error"
        result.append((what, f"{off.mean():.1%} ({off.max():.1%})", "5 %"))
    return result


def zigzag_layers(folder: Path) -> list[Row]:
    """Check 10: the parts of ZigZag's energy that no search decides, by its unit costs, and latency.

    Off-chip, a tensor moves once: one level of DRAM and one that holds the layer.
    """
    rows = read(folder / "zigzag_layers.csv")
    exact = dict.fromkeys(("MAC", "DRAM weight", "DRAM output", "DRAM input"), 0)
    latency, wanted = [], []
    for row in rows:
        sizes = ast.literal_eval(row["loop_sizes"])
        names = {"B": "n", "K": "k", "C": "c", "OY": "p", "OX": "q", "FY": "r", "FX": "s"}
        # A kernel of 1 x 1 with stride 2 takes every other sample: ZigZag loads no others.
        stride = 2 if row["layer"] == "rn18_conv1" else 1
        problem = Problem.convolution(
            **{names[name]: size for name, size in sizes.items()}, stride=(stride, stride)
        )
        loops = " ".join(f"{loop}{turns}" for loop, turns in problem.sizes.items())
        memory = analyse(problem, Nest.parse(f"Dram[WIO] - Chip[WIO] {loops}")).levels["Dram"]
        # Words of 8 elements of 8 bits; 700 pJ to read one, 750 to write one; 8 bytes per cycle.
        parts = {
            "MAC": 0.04 * problem.macs,
            "DRAM weight": 700.0 * ceil(memory["W"].reads / 8),
            "DRAM output": 750.0 * ceil(memory["O"].updates / 8),
            "DRAM input": 700.0 * ceil(memory["I"].reads / 8),
        }
        given = {tensor: levels[-1] for tensor, levels in json.loads(row["mem_energy_breakdown"]).items()}
        given = {
            "MAC": float(row["mac_energy_pJ"]),
            "DRAM weight": given["W"],
            "DRAM output": given["O"],
            "DRAM input": given["I"],
        }
        for name in parts:
            exact[name] += abs(parts[name] - given[name]) <= 1e-9 * given[name]
        compute = float(row["latency_ideal"]) / float(row["mac_spatial_util"])
        transfers = (memory["W"].reads + memory["I"].reads + memory["O"].updates) / 8
        latency.append(float(Overlap().time(compute, transfers)))
        wanted.append(float(row["latency_total"]))
    off = error(np.array(latency), np.array(wanted))
    goals = {"MAC": "all", "DRAM weight": "all", "DRAM output": "all", "DRAM input": "-"}
    return [
        *(
            (f"ZigZag layers with exact {name} energy", f"{exact[name]}/{len(rows)}", goal)
            for name, goal in goals.items()
        ),
        ("ZigZag layers, latency by max(compute, off-chip): mean error", f"{off.mean():.1%}", "15 %"),
        ("ZigZag layers, latency: rank", f"{rank(np.array(latency), np.array(wanted)):.3f}", "-"),
    ]


# AlexNet in batches of 4 on Eyeriss at 200 MHz: Y.-H. Chen et al., "Eyeriss: An Energy-Efficient
# Reconfigurable Accelerator for Deep Convolutional Neural Networks", JSSC 52(1), 2017: mapping
# parameters and processing latency in ms, recalled from its tables. The array of 12 x 14 cells holds
# R x e x r x t of them; a cell works on p filters of q channels at a time, m filters stay in the buffer.
EYERISS: dict[str, tuple[dict[str, int], int, int, dict[str, int], float]] = {
    # loops of one group; stride; groups; mapping; latency
    "CONV1": ({"n": 4, "k": 96, "c": 3, "p": 55, "q": 55, "r": 11, "s": 11}, 4, 1,
              {"m": 96, "n": 1, "e": 7, "p": 16, "q": 1, "r": 1, "t": 2}, 16.5),
    "CONV2": ({"n": 4, "k": 128, "c": 48, "p": 27, "q": 27, "r": 5, "s": 5}, 1, 2,
              {"m": 64, "n": 1, "e": 27, "p": 16, "q": 2, "r": 1, "t": 1}, 39.2),
    "CONV3": ({"n": 4, "k": 384, "c": 256, "p": 13, "q": 13, "r": 3, "s": 3}, 1, 1,
              {"m": 64, "n": 4, "e": 13, "p": 16, "q": 4, "r": 1, "t": 4}, 21.8),
    "CONV4": ({"n": 4, "k": 192, "c": 192, "p": 13, "q": 13, "r": 3, "s": 3}, 1, 2,
              {"m": 64, "n": 4, "e": 13, "p": 16, "q": 3, "r": 2, "t": 2}, 16.0),
    "CONV5": ({"n": 4, "k": 128, "c": 192, "p": 13, "q": 13, "r": 3, "s": 3}, 1, 2,
              {"m": 64, "n": 4, "e": 13, "p": 16, "q": 3, "r": 2, "t": 2}, 10.0),
}  # fmt: skip


def eyeriss(folder: Path) -> list[Row]:
    """Row-stationary processing passes as a nest: arithmetic, then the weights of the next pass.

    The filter network brings four 16-bit weights per cycle; a pass begins when it has them all.
    The published numbers are above: no table is read.
    """
    del folder
    found = {}
    for layer, (sizes, stride, groups, by, _) in EYERISS.items():
        strips = ceil(sizes["p"] / by["e"])
        problem = Problem.convolution(**sizes | {"p": strips * by["e"]}, stride=(stride, stride))
        filters, channels = by["p"] * by["t"], by["q"] * by["r"]
        array = f"C{by['r']}X K{by['t']}X P{by['e']}X R{sizes['r']}X"
        levels = (
            f"Dram[WIO] K{sizes['k'] // by['m']} P{strips} N{sizes['n'] // by['n']}",
            f"Buffer[IO] C{sizes['c'] // channels} K{by['m'] // filters} {array}",
            f"Cell[W] N{by['n']} Q{sizes['q']} C{by['q']} K{by['p']} S{sizes['s']}",
        )
        counts = analyse(problem, Nest.parse(" - ".join(levels)))
        cycles = counts.cycles + counts.levels["Dram"]["W"].reads / 4
        found[layer] = cycles * groups / 200e3
    published = {layer: latency for layer, (*_, latency) in EYERISS.items()}
    off = error(np.array(list(found.values())), np.array(list(published.values())))
    each = ", ".join(f"{layer} {ms:.1f} for {published[layer]} ms" for layer, ms in found.items())
    return [(f"Eyeriss, AlexNet ({each}): mean (worst) error", f"{off.mean():.1%} ({off.max():.1%})", "10 %")]


CHECKS: tuple[Callable[[Path], list[Row]], ...] = (
    timeloop_examples,
    timeloop_mappings,
    gemmini_rtl,
    gpu_matmul,
    zigzag_layers,
    eyeriss,
)
