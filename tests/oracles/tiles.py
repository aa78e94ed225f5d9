"""Walks the tile loops of one product and counts what passes each memory, element by element.

Shares no code with ``accel.mapping``: tiles are sets of coordinates, a fetch is a set difference.
"""

from itertools import product as combinations
from math import ceil


def chunks(size, tile):
    return [range(start, min(start + tile, size)) for start in range(0, size, tile)]


def touched(outputs, axis):
    """Input lines under the windows of consecutive `outputs`, those between the taps included."""
    lines = set()
    for out in outputs:
        low = out * axis.stride - axis.padding
        lines |= set(range(low, low + (axis.kernel - 1) * axis.dilation + 1))
    return {line for line in lines if 0 <= line < axis.input}


def walk(geometry, tiling, rows, columns, dataflow):
    """Count words fetched, stored and spilled, and what the array does, tile by tile."""
    channels = geometry.k // geometry.taps
    parts = {
        "m": list(
            combinations(
                chunks(geometry.samples, tiling.samples),
                chunks(geometry.rows.output, tiling.rows),
                chunks(geometry.columns.output, tiling.columns),
            )
        ),
        "n": chunks(geometry.n, tiling.n),
        "k": chunks(channels, tiling.k // geometry.taps),
    }
    cut = [len(chunks(size, tile)) > 1 for size, tile in (
        (geometry.rows.output, tiling.rows), (geometry.columns.output, tiling.columns))]  # fmt: skip
    counts = dict.fromkeys(
        ("a", "w", "spilled", "cycles", "a_reads", "w_reads", "sum_writes", "sum_reads", "a_tile", "w_tile"),
        0,
    )
    held_a = held_w = held_o = None
    counts["a_fetches"] = counts["w_fetches"] = counts["a_used"] = 0
    finished = {}
    for indices in combinations(*(range(len(parts[loop])) for loop in tiling.order)):
        at = dict(zip(tiling.order, indices, strict=True))
        samples, down, along = parts["m"][at["m"]]
        n, k = parts["n"][at["n"]], parts["k"][at["k"]]
        if held_a is None or held_a[0] != (at["m"], at["k"]):
            lines = (frozenset(samples), frozenset(touched(down, geometry.rows)),
                     frozenset(touched(along, geometry.columns)))  # fmt: skip
            new = len(lines[0]) * len(lines[1]) * len(lines[2])
            counts["a_tile"] = max(counts["a_tile"], new * len(k))
            if held_a is not None and held_a[0] == (at["m"] - 1, at["k"]):
                before, earlier = held_a[1], parts["m"][at["m"] - 1]
                if earlier[:2] == (samples, down) and cut[1]:
                    new = len(lines[0]) * len(lines[1]) * len(lines[2] - before[2])
                elif earlier[0] == samples and cut[0] and not cut[1]:
                    new = len(lines[0]) * len(lines[1] - before[1]) * len(lines[2])
            counts["a"] += new * len(k)
            counts["a_fetches"] += 1
            counts["a_used"] += len(samples) * len(down) * len(along) * len(k)
            held_a = ((at["m"], at["k"]), lines)
        if held_w != (at["n"], at["k"]):
            counts["w"] += len(n) * len(k) * geometry.taps
            counts["w_fetches"] += 1
            counts["w_tile"] = max(counts["w_tile"], len(n) * len(k) * geometry.taps)
            held_w = (at["n"], at["k"])
        size = len(samples) * len(down) * len(along)
        block = (at["m"], at["n"])
        if held_o != block:
            if held_o is not None and finished[held_o][0] < len(parts["k"]):
                counts["spilled"] += finished[held_o][1]  # left unfinished
            if block in finished:
                counts["sum_writes"] += finished[block][1]  # and came back
            held_o = block
        first = block not in finished
        depth = len(k) * geometry.taps
        fold_counts(counts, dataflow, rows, columns, size, len(n), depth, first)
        finished[block] = (finished.get(block, (0,))[0] + 1, size * len(n))
    total = geometry.m * geometry.n
    counts["sum_reads"] += total + counts["spilled"]
    return counts


def fold_counts(counts, dataflow, rows, columns, m, n, k, first):
    """One tile on the array, fold by fold."""
    held = {"os": (m, n, k), "ws": (k, n, m), "is": (k, m, n)}[dataflow]
    for r in chunks(held[0], rows):
        for c in chunks(held[1], columns):
            streamed = held[2]
            fill = 0 if dataflow == "os" else rows
            counts["cycles"] += fill + streamed + rows + columns - 2
            if dataflow == "os":
                counts["a_reads"] += len(r) * k
                counts["w_reads"] += len(c) * k
                writes = len(r) * len(c)
                later = not first
            else:
                stationary, moving = len(r) * len(c), len(r) * streamed
                names = ("w_reads", "a_reads") if dataflow == "ws" else ("a_reads", "w_reads")
                counts[names[0]] += stationary
                counts[names[1]] += moving
                writes = streamed * len(c)
                later = not first or r.start > 0
            counts["sum_writes"] += writes
            counts["sum_reads"] += writes * later


def rounded(words, bits):
    return ceil(words * bits / 8)
