"""Numba kernels: what one tiling of a product costs, and the best of many.

Numbers travel in flat arrays whose columns are named below, so that one compilation serves every
product and every design. Counts are exact in float64 up to 2**53.
"""

import math

import numpy as np
from numba import njit

# Columns of a product.
M, N, K, COUNT = 0, 1, 2, 3
A_BITS, W_BITS, O_BITS, P_BITS = 4, 5, 6, 7  # per element of A, W, the result and a partial sum
A_STAYS, W_STAYS, O_STAYS = 8, 9, 10  # 1 where the whole tensor lies in the scratchpad
W_SHARE, O_SHARE = 11, 12  # elements that exist per element of the lowered product
TAPS = 13  # elements of k for one unit of the tiles of A
VECTOR_CYCLES = 14
A_BYTES = 15  # of one line of A in all units of k; of all W, all results, one set of partial sums
W_BYTES, O_BYTES, P_BYTES = 16, 17, 18
A_SHARE = 19  # elements of A that exist per element of the lowered product
A_REPEAT, W_REPEAT = 20, 21  # products that share one A or W, one after another

# Columns of an engine.
ROWS, COLUMNS, DATAFLOW, PIPELINED = 0, 1, 2, 3
TILE_BITS, SUMS = 4, 5  # scratchpad for tiles; sums in the accumulator buffer per column
PAD_READ, PAD_WRITE, SUM_READ, SUM_WRITE = 6, 7, 8, 9  # pJ per bit, pJ per sum
OFFCHIP_PJ, LEAKAGE = 10, 11  # pJ per bit, pJ per cycle
OFFCHIP_BYTES, PORT_BITS = 12, 13  # per cycle
OVERLAP = 14  # exponent of the norm of compute and transfer time
STAGES = 15  # extra stages of the pipelined cell
MAC_PJ = 16  # with its registers
LEAST_TILE_BITS = 17  # of any scratchpad

OS, WS, IS = 0, 1, 2

# Columns of a candidate for m: tile counts of samples, rows and columns; elements of A per unit of k,
# over all tiles with and without reuse of the lines that neighbours share, and of the largest tile;
# ceil sums over the tiles; sizes of the classes of tiles (full or last along each axis), and how often
# each occurs.
M_LARGEST, M_TILES, M_SLIDES = 0, 1, 2
A_REUSED, A_FULL, A_TILE = 3, 4, 5
M_BY_ROWS, M_BY_COLUMNS = 6, 7
M_SIZE, M_TIMES, CLASSES = 8, 16, 8
M_COLUMNS = 24

# Columns of a candidate for n or k: largest tile, tiles, ceil sum, size of the last tile.
T_LARGEST, T_TILES, T_CEILS, T_LAST = 0, 1, 2, 3
T_COLUMNS = 4

# Loop orders, outermost first; the place of m, n and k in each.
ORDERS = ("mnk", "nmk", "mkn", "nkm", "kmn", "knm")
PLACES = np.array([[o.index("m"), o.index("n"), o.index("k")] for o in ORDERS], dtype=np.int64)

# Results of a tiling.
(
    FILL_A,  # bytes of A from off-chip memory, 0 if it stays
    FILL_W,
    STORE,  # bytes of the result to off-chip memory, 0 if it stays
    SPILL,  # bytes of partial sums to off-chip memory; as many come back
    ARRAY_CYCLES,
    READS_A,  # elements of A from the scratchpad into the array
    READS_W,
    SUM_WRITES,  # sums into the accumulator buffer, from the array and from off-chip memory
    SUM_READS,  # sums out of it: to be continued, spilled or drained
    FIRST_LOAD,  # bytes before the first tile can begin
    LAST_DRAIN,  # bytes after the last tile
    CYCLES,
    DYNAMIC_PJ,
    TILE_BYTES,  # scratchpad for tiles
    SUMS_NEEDED,  # per column
) = range(15)
RESULTS = 15


# Entries of an axis.
OUTPUT, INPUT, KERNEL, STRIDE, DILATION, PADDING = range(6)


@njit(cache=True)
def lines(axis, first, after):
    """Input lines, without padding, that the windows of outputs ``first..after - 1`` of an axis touch."""
    extent = (axis[KERNEL] - 1) * axis[DILATION] + 1
    if extent >= axis[STRIDE]:  # windows meet: all lines between the first and the last
        low = max(0, first * axis[STRIDE] - axis[PADDING])
        high = min(axis[INPUT], (after - 1) * axis[STRIDE] - axis[PADDING] + extent)
        return max(0, high - low)
    total = 0
    for output in range(first, after):
        low = output * axis[STRIDE] - axis[PADDING]
        total += max(0, min(axis[INPUT], low + extent) - max(0, low))
    return total


@njit(cache=True)
def lines_of_tiles(axis, tile):
    """Input lines of the largest tile, of all tiles one by one, and of all with those that they share."""
    most = one_by_one = 0
    for first in range(0, axis[OUTPUT], tile):
        found = lines(axis, first, min(first + tile, axis[OUTPUT]))
        most = max(most, found)
        one_by_one += found
    return most, one_by_one, min(one_by_one, lines(axis, 0, axis[OUTPUT]))


@njit(cache=True)
def m_rows(tiles, axes, samples, share, rows, columns):
    """Candidates for m, one for each row of `tiles` (samples, rows and columns of a tile)."""
    out = np.zeros((tiles.shape[0], M_COLUMNS))
    for c in range(tiles.shape[0]):
        b, p, q = tiles[c, 0], tiles[c, 1], tiles[c, 2]
        down, along = lines_of_tiles(axes[0], p), lines_of_tiles(axes[1], q)
        row = out[c]
        row[M_LARGEST] = b * p * q
        for part in range(CLASSES):
            size, times = 1, 1
            for whole, tile, last in (
                (samples, b, part & 1),
                (axes[0, OUTPUT], p, part & 2),
                (axes[1, OUTPUT], q, part & 4),
            ):
                size *= whole % tile if last else tile
                times *= (whole % tile > 0) if last else whole // tile
            if size * times == 0:
                continue
            row[M_SIZE + part], row[M_TIMES + part] = size, times
            row[M_TILES] += times
            row[M_BY_ROWS] += times * math.ceil(size / rows)
            row[M_BY_COLUMNS] += times * math.ceil(size / columns)
        # Tiles slide along the innermost axis that is cut.
        reused = down[1] * along[2] if q < axes[1, OUTPUT] else down[2] * along[1]
        row[A_REUSED] = samples * share * reused
        row[A_FULL] = samples * share * down[1] * along[1]
        row[A_TILE] = b * down[0] * along[0] * share
    return out


@njit(cache=True)
def plain_rows(whole, tiles, edge):
    """Candidates for n or k, one for each of `tiles`; `edge` is that of the array."""
    out = np.empty((tiles.shape[0], T_COLUMNS))
    for c in range(tiles.shape[0]):
        tile = min(tiles[c], whole)
        count = (whole + tile - 1) // tile
        last = whole - (count - 1) * tile
        out[c, T_LARGEST], out[c, T_TILES], out[c, T_LAST] = tile, count, last
        out[c, T_CEILS] = (count - 1) * math.ceil(tile / edge) + math.ceil(last / edge)
    return out


@njit(cache=True)
def pipelined_cycles(rows, columns, flow, m, n, k):
    """Cycles of one tile whose folds overlap; see ``accel.dataflow``."""
    skew = rows + columns - 2
    if flow == OS:
        folds = math.ceil(m / rows) * math.ceil(n / columns)
        return min(folds * (k + skew), folds * max(k, rows) + skew)
    held, streamed = (n, m) if flow == WS else (m, n)
    folds = math.ceil(k / rows) * math.ceil(held / columns)
    return min(folds * (rows + streamed + skew), folds * max(streamed, rows) + skew + rows)


@njit(cache=True)
def array_cycles(engine, m_row, n_row, k_row, whole_m, whole_n, whole_k):
    """Cycles on the array of all tiles of one product."""
    rows, columns, flow = engine[ROWS], engine[COLUMNS], engine[DATAFLOW]
    if engine[PIPELINED] == 0:
        skew = rows + columns - 2 + engine[STAGES]
        if flow == OS:
            return m_row[M_BY_ROWS] * n_row[T_CEILS] * (whole_k + k_row[T_TILES] * skew)
        if flow == WS:
            return k_row[T_CEILS] * n_row[T_CEILS] * (whole_m + m_row[M_TILES] * (skew + rows))
        return k_row[T_CEILS] * m_row[M_BY_COLUMNS] * (whole_n + n_row[T_TILES] * (skew + rows))
    total = 0.0
    for i in range(CLASSES):
        if m_row[M_TIMES + i] == 0:
            continue
        for j in range(2):
            n_times = n_row[T_TILES] - 1 if j == 0 else 1
            if n_times == 0:
                continue
            n_size = n_row[T_LARGEST] if j == 0 else n_row[T_LAST]
            for c in range(2):
                k_times = k_row[T_TILES] - 1 if c == 0 else 1
                if k_times == 0:
                    continue
                k_size = k_row[T_LARGEST] if c == 0 else k_row[T_LAST]
                one = pipelined_cycles(rows, columns, flow, m_row[M_SIZE + i], n_size, k_size)
                total += m_row[M_TIMES + i] * n_times * k_times * (one + engine[STAGES])
    return total


@njit(cache=True)
def waiting_sums(engine, m_row, n_row, k_row):
    """Sums per column that wait in the accumulator buffer."""
    rows, columns, flow = engine[ROWS], engine[COLUMNS], engine[DATAFLOW]
    m, n = m_row[M_LARGEST], n_row[T_LARGEST]
    if k_row[T_TILES] > 1:
        return n * math.ceil(m / columns) if flow == IS else m * math.ceil(n / columns)
    if flow == OS or k_row[T_LARGEST] <= rows:
        return 0.0  # they leave the array complete
    return n if flow == IS else m  # folds of k come one after another


@njit(cache=True)
def tile_bits(product, m_row, n_row, k_row):
    """Bits of the largest tile of A and of W; 0 of a tensor that stays as a whole."""
    a_bits = w_bits = 0.0
    if product[A_STAYS] == 0:
        a_bits = m_row[A_TILE] * (k_row[T_LARGEST] / product[TAPS]) * product[A_BITS]
    if product[W_STAYS] == 0:
        w_bits = k_row[T_LARGEST] * n_row[T_LARGEST] * product[W_SHARE] * product[W_BITS]
    return a_bits, w_bits


@njit(cache=True)
def passes(product, engine, m_row, n_row, k_row, place_m, place_n, place_k):
    """Whether the stationary operand passes through the scratchpad: each element it fetches is read once.

    Then what the array loads next is enough to hold. A window reads its inputs more than once.
    """
    flow = engine[DATAFLOW]
    n_in_m = n_row[T_TILES] > 1 and place_n > place_m
    m_in_n = m_row[M_TILES] > 1 and place_m > place_n
    if flow == WS:
        shared = product[W_REPEAT] > 1 and n_row[T_TILES] == 1 and k_row[T_TILES] == 1
        again = m_row[M_TILES] == 1 or n_in_m or (k_row[T_TILES] > 1 and place_k > place_m)
        return again and not shared
    if flow == IS and product[TAPS] == 1 and product[A_SHARE] == 1:
        shared = product[A_REPEAT] > 1 and m_row[M_TILES] == 1 and k_row[T_TILES] == 1
        again = n_row[T_TILES] == 1 or m_in_n or (k_row[T_TILES] > 1 and place_k > place_n)
        return again and not shared
    return False


@njit(cache=True)
def held_bits(product, engine, m_row, n_row, k_row, passing):
    """Scratchpad bits for the tiles of A and W.

    The next tile arrives while one is worked on, so there are two; but one of a tensor that is a single
    tile in all, and two loads of the array of an operand that passes through.
    """
    a_bits, w_bits = tile_bits(product, m_row, n_row, k_row)
    count, once = product[COUNT], k_row[T_TILES] == 1
    a_bits *= 1 if once and m_row[M_TILES] == 1 and count == product[A_REPEAT] else 2
    w_bits *= 1 if once and n_row[T_TILES] == 1 and count == product[W_REPEAT] else 2
    if passing:
        cells = 2 * engine[ROWS] * engine[COLUMNS]
        if engine[DATAFLOW] == WS:
            w_bits = min(w_bits, cells * product[W_BITS])
        else:
            a_bits = min(a_bits, cells * product[A_BITS])
    return a_bits + w_bits


@njit(cache=True)
def least_held_bits(product, engine, ms, ns, ks, places):
    """Scratchpad bits of the candidate that needs fewest of those whose sums have room."""
    least = np.inf
    for i in range(ms.shape[0]):
        for c in range(ks.shape[0]):
            for j in range(ns.shape[0]):
                if waiting_sums(engine, ms[i], ns[j], ks[c]) > engine[SUMS]:
                    continue
                for order in range(places.shape[0]):
                    m, n, k = places[order, 0], places[order, 1], places[order, 2]
                    passing = passes(product, engine, ms[i], ns[j], ks[c], m, n, k)
                    least = min(least, held_bits(product, engine, ms[i], ns[j], ks[c], passing))
    return least


@njit(cache=True)
def moved(product, m_row, n_row, k_row, place_m, place_n, place_k):
    """Off-chip bytes: of A, W, the result, and of partial sums one way.

    A tensor is fetched again for every turn of a loop that it does not depend on, if a loop that it
    does depend on runs inside it.
    """
    tiles_m, tiles_n, tiles_k = m_row[M_TILES], n_row[T_TILES], k_row[T_TILES]
    m_in_n = tiles_m > 1 and place_m > place_n  # a loop over m runs inside that over n
    k_in_n = tiles_k > 1 and place_k > place_n
    n_in_m = tiles_n > 1 and place_n > place_m
    k_in_m = tiles_k > 1 and place_k > place_m
    m_in_k = tiles_m > 1 and place_m > place_k
    n_in_k = tiles_n > 1 and place_n > place_k
    a_bytes = w_bytes = store = spill = 0.0
    if product[A_STAYS] == 0:
        lines = m_row[A_REUSED] if (tiles_k == 1 or m_in_k) else m_row[A_FULL]
        again = tiles_n if (m_in_n or k_in_n) else 1.0
        if tiles_m == 1 and tiles_k == 1:  # one tile serves all products that share it
            again /= product[A_REPEAT]
        a_bytes = math.ceil(lines * again * product[A_BYTES])
    if product[W_STAYS] == 0:
        again = tiles_m if (n_in_m or k_in_m) else 1.0
        if tiles_n == 1 and tiles_k == 1:
            again /= product[W_REPEAT]
        w_bytes = math.ceil(again * product[W_BYTES])
    if product[O_STAYS] == 0:
        store = product[O_BYTES]
    if m_in_k or n_in_k:
        spill = math.ceil((tiles_k - 1) * product[P_BYTES])
    return a_bytes, w_bytes, store, spill


@njit(cache=True)
def inside(product, engine, m_row, n_row, k_row, cycles, sums, out):
    """Fill in what the array and its buffers do, whatever the order of the tiles."""
    m, n, k, count = product[M], product[N], product[K], product[COUNT]
    flow, tiles_k = engine[DATAFLOW], k_row[T_TILES]
    out[ARRAY_CYCLES], out[SUMS_NEEDED] = cycles, sums
    if flow == OS:
        out[READS_A] = m * k * n_row[T_CEILS] * count
        out[READS_W] = n * k * m_row[M_BY_ROWS] * count
        folds = tiles_k
    else:
        folds = k_row[T_CEILS]
        if flow == WS:
            out[READS_A] = m * k * n_row[T_CEILS] * count
            out[READS_W] = n * k * m_row[M_TILES] * count
        else:
            out[READS_A] = m * k * n_row[T_TILES] * count
            out[READS_W] = n * k * m_row[M_BY_COLUMNS] * count
    out[SUM_WRITES] = m * n * folds * count
    out[SUM_READS] = out[SUM_WRITES]  # all but the first of each sum to be continued, and one drain


@njit(cache=True)
def around(product, engine, m_row, n_row, k_row, order, places, passing, tile, out):
    """Fill in the rest for one order; `tile` holds what :func:`inside` found."""
    out[:] = tile
    fill_a, fill_w, store, spill = moved(
        product, m_row, n_row, k_row, places[order, 0], places[order, 1], places[order, 2]
    )
    out[FILL_A], out[FILL_W], out[STORE], out[SPILL] = fill_a, fill_w, store, spill
    if spill > 0:
        spilled = product[M] * product[N] * product[COUNT] * (k_row[T_TILES] - 1)
        out[SUM_WRITES] += spilled
        out[SUM_READS] += spilled
    out[TILE_BYTES] = math.ceil(held_bits(product, engine, m_row, n_row, k_row, passing) / 8)
    first_a, first_w = tile_bits(product, m_row, n_row, k_row)
    if passing:
        cells = engine[ROWS] * engine[COLUMNS]
        if engine[DATAFLOW] == WS:
            first_w = min(first_w, cells * product[W_BITS])
        else:
            first_a = min(first_a, cells * product[A_BITS])
    last = m_row[M_LARGEST] * n_row[T_LARGEST] * product[O_SHARE] * product[O_BITS]
    out[FIRST_LOAD] = min(math.ceil((first_a + first_w) / 8), fill_a + fill_w)
    out[LAST_DRAIN] = min(math.ceil(last / 8), store)
    offchip = fill_a + fill_w + store + 2 * spill
    array_bits = out[READS_A] * product[A_BITS] + out[READS_W] * product[W_BITS]
    pad_bits = array_bits + 8 * (fill_a + fill_w)
    if product[O_STAYS] != 0:
        pad_bits += 8 * product[O_BYTES]
    work = max(
        max(out[ARRAY_CYCLES], product[VECTOR_CYCLES]),
        max(pad_bits / engine[PORT_BITS], max(out[SUM_WRITES], out[SUM_READS]) / engine[COLUMNS]),
    )
    edges = out[FIRST_LOAD] + out[LAST_DRAIN]
    out[CYCLES] = math.ceil(
        together(work, (offchip - edges) / engine[OFFCHIP_BYTES], engine[OVERLAP])
        + edges / engine[OFFCHIP_BYTES]
    )
    out[DYNAMIC_PJ] = (
        array_bits * engine[PAD_READ]
        + (pad_bits - array_bits) * engine[PAD_WRITE]
        + out[SUM_WRITES] * engine[SUM_WRITE]
        + out[SUM_READS] * engine[SUM_READ]
        + 8 * offchip * engine[OFFCHIP_PJ]
        + product[M] * product[N] * product[K] * product[COUNT] * engine[MAC_PJ]
    )


@njit(cache=True)
def measure(product, engine, m_row, n_row, k_row, order, places, out):
    """Fill `out` with the results of one tiling, whether or not it fits."""
    tile = np.zeros(RESULTS)
    cycles = array_cycles(engine, m_row, n_row, k_row, product[M], product[N], product[K]) * product[COUNT]
    inside(product, engine, m_row, n_row, k_row, cycles, waiting_sums(engine, m_row, n_row, k_row), tile)
    m, n, k = places[order, 0], places[order, 1], places[order, 2]
    passing = passes(product, engine, m_row, n_row, k_row, m, n, k)
    around(product, engine, m_row, n_row, k_row, order, places, passing, tile, out)


@njit(cache=True)
def together(work, transfer, exponent):
    """Time of two activities that overlap: the longer one at infinity, their sum at 1."""
    if exponent == 1.0:
        return work + transfer
    longer = max(work, transfer)
    if longer == 0.0 or math.isinf(exponent):
        return longer
    return longer * ((work / longer) ** exponent + (transfer / longer) ** exponent) ** (1 / exponent)


@njit(cache=True)
def fewest_cycles(product, engine, ms, ns, ks, by_m, by_n, by_k, by_tile):
    """Fewest cycles on the array of any candidate whose sums have room, whatever the scratchpad."""
    fewest, count = np.inf, product[COUNT]
    rows, columns, flow = engine[ROWS], engine[COLUMNS], engine[DATAFLOW]
    n_sizes, n_tiles = ns[:, T_LARGEST].copy(), ns[:, T_TILES].copy()
    n_folds = np.ceil(n_sizes / columns)
    quickest_n = by_n.min()
    for i in range(ms.shape[0] - 1, -1, -1):
        m_size, tiles_m = ms[i, M_LARGEST], ms[i, M_TILES]
        m_folds = math.ceil(m_size / columns)
        for c in range(ks.shape[0] - 1, -1, -1):
            tiles_k, both = ks[c, T_TILES], by_m[i] * by_k[c]
            if (both * quickest_n + by_tile * tiles_m * tiles_k) * count >= fewest:
                continue
            for j in range(ns.shape[0] - 1, -1, -1):
                if tiles_k > 1:
                    sums = n_sizes[j] * m_folds if flow == IS else m_size * n_folds[j]
                elif flow == OS or ks[c, T_LARGEST] <= rows:
                    sums = 0.0
                else:
                    sums = n_sizes[j] if flow == IS else m_size
                if sums > engine[SUMS]:
                    continue
                cycles = (both * by_n[j] + by_tile * tiles_m * n_tiles[j] * tiles_k) * count
                if cycles < fewest:
                    if engine[PIPELINED] != 0:
                        cycles = count * array_cycles(
                            engine, ms[i], ns[j], ks[c], product[M], product[N], product[K]
                        )
                    fewest = min(fewest, cycles)
    return fewest


@njit(cache=True)
def cycle_factors(engine, ms, ns, ks, m, n, k):
    """Cycles on the array as a product of one factor for each of m, n and k, and cycles per tile beside it.

    Exact where folds are serial. Where they overlap a lower bound: a fold takes at least as long as it
    streams, and as the next one loads.
    """
    by_m, by_n, by_k = ms[:, M_BY_ROWS].copy(), ns[:, T_CEILS].copy(), ks[:, T_CEILS].copy()
    rows, flow = engine[ROWS], engine[DATAFLOW]
    skew = rows + engine[COLUMNS] - 2
    if engine[PIPELINED] == 0:
        skew += engine[STAGES]
        if flow == OS:
            by_k = k + ks[:, T_TILES] * skew
        elif flow == WS:
            by_m = m + ms[:, M_TILES] * (skew + rows)
        else:
            by_m = ms[:, M_BY_COLUMNS].copy()
            by_n = n + ns[:, T_TILES] * (skew + rows)
        return by_m, by_n, by_k, 0.0
    if flow == OS:
        for c in range(ks.shape[0]):
            by_k[c] = (ks[c, T_TILES] - 1) * max(ks[c, T_LARGEST], rows) + max(ks[c, T_LAST], rows)
        return by_m, by_n, by_k, engine[COLUMNS] - 1 + engine[STAGES]
    if flow == WS:
        for i in range(ms.shape[0]):
            by_m[i] = 0.0
            for part in range(CLASSES):
                by_m[i] += ms[i, M_TIMES + part] * max(ms[i, M_SIZE + part], rows)
    else:
        by_m = ms[:, M_BY_COLUMNS].copy()
        for j in range(ns.shape[0]):
            by_n[j] = (ns[j, T_TILES] - 1) * max(ns[j, T_LARGEST], rows) + max(ns[j, T_LAST], rows)
    return by_m, by_n, by_k, skew + 1 + engine[STAGES]


OFFCHIP, ENERGY, CYCLE, EDP = 0, 1, 2, 3  # objectives
ROUNDING = 1 - 1e-12  # of sums whose terms come in another order


@njit(cache=True)
def search(product, engine, ms, ns, ks, places, objective, slacks, reserves, picks):
    """Find the best tiling for each of several tile reserves at once.

    The quickest tilings come first: those that take at most ``slacks[0]`` times the fewest cycles on the
    array. Slower ones are allowed where they need less scratchpad than any quicker one, and nowhere
    else: so whatever a reserve allows, every larger one does. With the objective OFFCHIP, of equal
    traffic that of least energy times array cycles wins; with the others, for which `slacks` is
    infinity alone, ties go to the other quantity.

    Parameters
    ----------
    reserves
        Bits, ascending.
    picks
        Filled with places of m, n, k and the order for each reserve, -1 if none fits.

    Returns
    -------
    Number of tilings looked at.
    """
    best, best_second = np.full(reserves.shape[0], np.inf), np.full(reserves.shape[0], np.inf)
    picks[:] = -1
    factors = cycle_factors(engine, ms, ns, ks, product[M], product[N], product[K])
    fewest = 0.0
    if slacks.shape[0] > 1:
        fewest = fewest_cycles(product, engine, ms, ns, ks, factors[0], factors[1], factors[2], factors[3])
    looked, above, below = 0, -1.0, np.inf
    for slack in slacks:
        limit = slack * fewest if math.isfinite(slack) else np.inf
        found, least_bits = search_level(
            product, engine, ms, ns, ks, places, objective, factors, above, limit, below, reserves, best,
            best_second, picks,
        )  # fmt: skip
        looked += found
        above, below = limit, min(below, least_bits)
        if below <= engine[LEAST_TILE_BITS]:
            break
    return looked


@njit(cache=True)
def search_level(
    product, engine, ms, ns, ks, places, objective, factors, above, limit, below, reserves, best, best_second,
    picks,
):  # fmt: skip
    """Improve `best` and `picks` by tilings of more than `above` and at most `limit` cycles.

    Only by those that need fewer than `below` bits of scratchpad. Every candidate is looked at once, for
    the smallest reserve that it fits; a larger reserve takes over what is best for a smaller one.

    Returns
    -------
    Number of tilings looked at, and the fewest bits that one of these cycles needs.
    """
    tile, trial = np.zeros(RESULTS), np.empty(RESULTS)
    orders, buckets = places.shape[0], reserves.shape[0]
    least_bits = np.inf
    whole_m, whole_n, whole_k, count = product[M], product[N], product[K], product[COUNT]
    by_m, by_n, by_k, by_tile = factors
    pipelined, flow = engine[PIPELINED] != 0, engine[DATAFLOW]
    rows, columns = engine[ROWS], engine[COLUMNS]
    quickest_n = by_n.min() if by_n.size else 0.0
    looked = 0
    # Energies that a bound is made of.
    mac_pj = whole_m * whole_n * whole_k * count * engine[MAC_PJ]
    a_read_pj = whole_m * whole_k * count * product[A_BITS] * engine[PAD_READ]
    w_read_pj = whole_n * whole_k * count * product[W_BITS] * engine[PAD_READ]
    sums_pj = whole_m * whole_n * count * (engine[SUM_WRITE] + engine[SUM_READ])
    moved_pj = 8 * engine[OFFCHIP_PJ]
    fetched_pj = moved_pj + 8 * engine[PAD_WRITE]
    w_bytes = product[W_BYTES] / product[W_REPEAT] if product[W_STAYS] == 0 else 0.0
    o_bytes = product[O_BYTES] if product[O_STAYS] == 0 else 0.0
    # Columns of the candidates that the loops below read, and what needs no division there.
    n_sizes, n_tiles, n_ceils = ns[:, T_LARGEST].copy(), ns[:, T_TILES].copy(), ns[:, T_CEILS].copy()
    n_folds = np.ceil(n_sizes / columns)
    w_of_n = n_sizes * product[W_SHARE] * product[W_BITS] * (1.0 if product[W_STAYS] == 0 else 0.0)
    a_load, w_load = 2 * rows * columns * product[A_BITS], 2 * rows * columns * product[W_BITS]
    a_passes = flow == IS and product[TAPS] == 1 and product[A_SHARE] == 1
    # Large tiles first: the sooner a good one is found, the more of the others a bound rules out.
    for i in range(ms.shape[0] - 1, -1, -1):
        m_row, tiles_m = ms[i], ms[i, M_TILES]
        a_bytes = m_row[A_REUSED] * product[A_BYTES] / product[A_REPEAT] if product[A_STAYS] == 0 else 0.0
        if flow == OS:
            reads_w = m_row[M_BY_ROWS]
        elif flow == WS:
            reads_w = tiles_m
        else:
            reads_w = m_row[M_BY_COLUMNS]
        for c in range(ks.shape[0] - 1, -1, -1):
            k_row, tiles_k = ks[c], ks[c, T_TILES]
            if (by_m[i] * by_k[c] * quickest_n + by_tile * tiles_m * tiles_k) * count > limit:
                continue
            folds = tiles_k if flow == OS else k_row[T_CEILS]
            fixed_pj = mac_pj + reads_w * w_read_pj + folds * sums_pj + o_bytes * moved_pj
            k_size, m_size = k_row[T_LARGEST], m_row[M_LARGEST]
            m_folds = math.ceil(m_size / columns)
            a_bits = 0.0
            if product[A_STAYS] == 0:
                a_bits = m_row[A_TILE] * (k_size / product[TAPS]) * product[A_BITS]
                if not (count == product[A_REPEAT] and tiles_k == 1 and tiles_m == 1):
                    a_bits *= 2
            if (min(a_bits, a_load) if a_passes else a_bits) >= below:
                continue
            w_alone = count == product[W_REPEAT] and tiles_k == 1
            p_bytes = 2 * (tiles_k - 1) * product[P_BYTES]
            p_pj = p_bytes * moved_pj + (tiles_k - 1) * sums_pj
            for j in range(ns.shape[0] - 1, -1, -1):
                tiles_n = n_tiles[j]
                cycles = (by_m[i] * by_k[c] * by_n[j] + by_tile * tiles_m * tiles_n * tiles_k) * count
                if cycles > limit or (cycles <= above and not pipelined):
                    continue
                if tiles_k > 1:
                    sums = n_sizes[j] * m_folds if flow == IS else m_size * n_folds[j]
                elif flow == OS or k_size <= rows:
                    sums = 0.0
                else:
                    sums = n_sizes[j] if flow == IS else m_size
                if sums > engine[SUMS]:
                    continue
                w_bits = k_size * w_of_n[j] * (1.0 if w_alone and tiles_n == 1 else 2.0)
                most_bits = a_bits + w_bits
                fewest_bits = most_bits  # of the order that needs fewest
                if flow == WS and (tiles_n > 1 or tiles_k > 1 or (tiles_m == 1 and product[W_REPEAT] == 1)):
                    fewest_bits = a_bits + min(w_bits, w_load)
                elif a_passes and (tiles_m > 1 or tiles_k > 1 or (tiles_n == 1 and product[A_REPEAT] == 1)):
                    fewest_bits = min(a_bits, a_load) + w_bits
                tells = fewest_bits < least_bits  # the least need of this level, if its cycles are
                if fewest_bits >= below or (fewest_bits > reserves[-1] and not tells):
                    continue
                bucket = 0
                while bucket < buckets - 1 and reserves[bucket] < fewest_bits:
                    bucket += 1
                # Every order moves at least: all of A and W anew, or one of them once and partial sums.
                anew = tiles_n * a_bytes + tiles_m * w_bytes
                once = min(a_bytes + tiles_m * w_bytes, tiles_n * a_bytes + w_bytes)
                least_bytes = o_bytes + min(anew, once + p_bytes)
                if objective == OFFCHIP:
                    if least_bytes > best[bucket] and not tells:
                        continue
                else:
                    least_cycles = max(cycles, least_bytes / engine[OFFCHIP_BYTES])
                    least_pj = (
                        fixed_pj
                        + (tiles_n if flow == IS else n_ceils[j]) * a_read_pj
                        + min(anew * fetched_pj, once * fetched_pj + p_pj)
                        + least_cycles * engine[LEAKAGE]
                    )
                    if objective == ENERGY:
                        first, second = least_pj, least_cycles
                    elif objective == CYCLE:
                        first, second = least_cycles, least_pj
                    else:
                        first, second = least_pj * least_cycles, least_pj
                    least_first, least_second = first * ROUNDING, second * ROUNDING
                    if least_first > best[bucket] or (
                        first >= best[bucket] and least_second > best_second[bucket]
                    ):
                        continue
                n_row = ns[j]
                if pipelined:
                    cycles = array_cycles(engine, m_row, n_row, k_row, whole_m, whole_n, whole_k) * count
                    if cycles > limit:
                        continue
                if cycles <= above:
                    continue
                least_bits = min(least_bits, fewest_bits)
                if fewest_bits > reserves[-1]:
                    continue
                looked += orders
                inside(product, engine, m_row, n_row, k_row, cycles, sums, tile)
                for order in range(orders):
                    m, n, k = places[order, 0], places[order, 1], places[order, 2]
                    passing = passes(product, engine, m_row, n_row, k_row, m, n, k)
                    bits = fewest_bits if passing else most_bits
                    if bits > reserves[-1] or bits >= below:
                        continue
                    bucket = 0
                    while reserves[bucket] < bits:
                        bucket += 1
                    if objective == OFFCHIP:
                        fill_a, fill_w, store, spill = moved(product, m_row, n_row, k_row, m, n, k)
                        if fill_a + fill_w + store + 2 * spill > best[bucket]:
                            continue
                    around(product, engine, m_row, n_row, k_row, order, places, passing, tile, trial)
                    pj = trial[DYNAMIC_PJ] + trial[CYCLES] * engine[LEAKAGE]
                    if objective == OFFCHIP:
                        first = trial[FILL_A] + trial[FILL_W] + trial[STORE] + 2 * trial[SPILL]
                        second = trial[DYNAMIC_PJ] * cycles
                    elif objective == ENERGY:
                        first, second = pj, trial[CYCLES]
                    elif objective == CYCLE:
                        first, second = trial[CYCLES], pj
                    else:
                        first, second = pj * trial[CYCLES], pj
                    for larger in range(bucket, buckets):
                        if first < best[larger] or (first == best[larger] and second < best_second[larger]):
                            best[larger], best_second[larger] = first, second
                            picks[larger, 0], picks[larger, 1] = i, j
                            picks[larger, 2], picks[larger, 3] = c, order
                        else:
                            break
    return looked, least_bits
