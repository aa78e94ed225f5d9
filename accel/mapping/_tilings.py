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

# Columns of an engine.
ROWS, COLUMNS, DATAFLOW, PIPELINED = 0, 1, 2, 3
TILE_BITS, SUMS = 4, 5  # scratchpad for tiles; sums in the accumulator buffer per column
PAD_READ, PAD_WRITE, SUM_READ, SUM_WRITE = 6, 7, 8, 9  # pJ per bit, pJ per sum
OFFCHIP_PJ, LEAKAGE = 10, 11  # pJ per bit, pJ per cycle
OFFCHIP_BYTES, PORT_BITS = 12, 13  # per cycle
OVERLAP = 14  # exponent of the norm of compute and transfer time
STAGES = 15  # extra stages of the pipelined cell
MAC_PJ = 16  # with its registers

OS, WS, IS = 0, 1, 2

# Columns of a candidate for m: tile counts of samples, rows and columns; elements of A per unit of k,
# over all tiles with and without reuse of the lines that neighbours share, and of the largest tile;
# ceil sums over the tiles; sizes and multiplicities of up to four classes of tiles.
M_LARGEST, M_TILES, M_SLIDES = 0, 1, 2
A_REUSED, A_FULL, A_TILE = 3, 4, 5
M_BY_ROWS, M_BY_COLUMNS = 6, 7
M_SIZE, M_TIMES = 8, 12
M_COLUMNS = 16

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
    for i in range(4):
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
        return m_row[M_TILES] == 1 or n_in_m or (k_row[T_TILES] > 1 and place_k > place_m)
    if flow == IS and product[TAPS] == 1 and product[A_SHARE] == 1:
        return n_row[T_TILES] == 1 or m_in_n or (k_row[T_TILES] > 1 and place_k > place_n)
    return False


@njit(cache=True)
def held_bits(product, engine, m_row, n_row, k_row, passing):
    """Scratchpad bits for the tiles of A and W.

    The next tile arrives while one is worked on, so there are two; but one of a tensor that is a single
    tile in all, and two loads of the array of an operand that passes through.
    """
    a_bits, w_bits = tile_bits(product, m_row, n_row, k_row)
    once = product[COUNT] == 1 and k_row[T_TILES] == 1
    a_bits *= 1 if once and m_row[M_TILES] == 1 else 2
    w_bits *= 1 if once and n_row[T_TILES] == 1 else 2
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
        a_bytes = math.ceil(lines * again * product[A_BYTES])
    if product[W_STAYS] == 0:
        again = tiles_m if (n_in_m or k_in_m) else 1.0
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
def fewest_cycles(product, engine, ms, ns, ks):
    """Fewest cycles on the array of any candidate whose sums have room, whatever the scratchpad."""
    fewest = np.inf
    for i in range(ms.shape[0]):
        for c in range(ks.shape[0]):
            for j in range(ns.shape[0] - 1, -1, -1):
                if waiting_sums(engine, ms[i], ns[j], ks[c]) <= engine[SUMS]:
                    cycles = array_cycles(engine, ms[i], ns[j], ks[c], product[M], product[N], product[K])
                    fewest = min(fewest, cycles * product[COUNT])
                    break
    return fewest


@njit(cache=True)
def cycle_factors(engine, ms, ns, ks, m, n, k):
    """Cycles on the array of serial folds are a product of one factor for each of m, n and k.

    So is a bound below those of folds that overlap, which hide all but the stream.
    """
    by_m, by_n, by_k = ms[:, M_BY_ROWS].copy(), ns[:, T_CEILS].copy(), ks[:, T_CEILS].copy()
    skew = engine[ROWS] + engine[COLUMNS] - 2 + engine[STAGES]
    load = engine[ROWS]
    if engine[PIPELINED] != 0:
        skew = load = 0.0
    if engine[DATAFLOW] == OS:
        by_k = k + ks[:, T_TILES] * skew
    elif engine[DATAFLOW] == WS:
        by_m = m + ms[:, M_TILES] * (skew + load)
    else:
        by_m = ms[:, M_BY_COLUMNS].copy()
        by_n = n + ns[:, T_TILES] * (skew + load)
    return by_m, by_n, by_k


OFFCHIP, ENERGY, CYCLE, EDP = 0, 1, 2, 3  # objectives


@njit(cache=True)
def least_of(objective, engine, inside_pj, cycles, traffic):
    """Bound on what is minimised, from the array's energy and cycles and from the off-chip bytes."""
    if objective == OFFCHIP:
        return traffic
    least_pj = inside_pj + 8 * traffic * engine[OFFCHIP_PJ]
    if objective == ENERGY:
        return least_pj
    least_cycles = max(cycles, traffic / engine[OFFCHIP_BYTES])
    return least_cycles if objective == CYCLE else least_pj * least_cycles


@njit(cache=True)
def search(product, engine, ms, ns, ks, places, objective, slack, reserves, picks):
    """Find the best tiling for each of several tile reserves at once.

    Every candidate is looked at once, for the smallest reserve that it fits; a larger reserve takes
    over what is best for a smaller one. With the objective OFFCHIP, tilings that take more than
    `slack` times the fewest cycles on the array are left out, and of those of equal traffic the one of
    least energy times array cycles wins; with the others ties go to the other quantity.

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
    tile, trial = np.zeros(RESULTS), np.empty(RESULTS)
    orders, buckets = places.shape[0], reserves.shape[0]
    best, best_second = np.full(buckets, np.inf), np.full(buckets, np.inf)
    picks[:] = -1
    whole_m, whole_n, whole_k, count = product[M], product[N], product[K], product[COUNT]
    limit = np.inf
    if objective == OFFCHIP and math.isfinite(slack):
        limit = slack * fewest_cycles(product, engine, ms, ns, ks)
    by_m, by_n, by_k = cycle_factors(engine, ms, ns, ks, whole_m, whole_n, whole_k)
    pipelined = engine[PIPELINED] != 0
    quickest_n = by_n.min() if by_n.size else 0.0
    held = np.empty(2)
    looked = 0
    mac_pj = whole_m * whole_n * whole_k * count * engine[MAC_PJ]
    compulsory = 0.0  # bytes: every tensor once
    if product[A_STAYS] == 0:
        compulsory += ms[:, A_REUSED].min() * product[A_BYTES]
    if product[W_STAYS] == 0:
        compulsory += product[W_BYTES]
    if product[O_STAYS] == 0:
        compulsory += product[O_BYTES]
    # Large tiles first: they are the better ones, and what is good early rules out most of the rest.
    for i in range(ms.shape[0] - 1, -1, -1):
        m_row = ms[i]
        for c in range(ks.shape[0] - 1, -1, -1):
            k_row = ks[c]
            if by_m[i] * by_k[c] * quickest_n * count > limit:
                continue
            for j in range(ns.shape[0] - 1, -1, -1):
                n_row = ns[j]
                cycles = by_m[i] * by_k[c] * by_n[j] * count
                if cycles > limit:
                    continue
                if pipelined:
                    cycles = array_cycles(engine, m_row, n_row, k_row, whole_m, whole_n, whole_k) * count
                    if cycles > limit:
                        continue
                sums = waiting_sums(engine, m_row, n_row, k_row)
                if sums > engine[SUMS]:
                    continue
                held[0] = held_bits(product, engine, m_row, n_row, k_row, False)
                held[1] = held_bits(product, engine, m_row, n_row, k_row, True)
                if min(held[0], held[1]) > reserves[-1]:
                    continue
                looked += orders
                inside(product, engine, m_row, n_row, k_row, cycles, sums, tile)
                inside_pj = (
                    mac_pj
                    + (tile[READS_A] * product[A_BITS] + tile[READS_W] * product[W_BITS]) * engine[PAD_READ]
                    + tile[SUM_WRITES] * engine[SUM_WRITE]
                    + tile[SUM_READS] * engine[SUM_READ]
                    + cycles * engine[LEAKAGE]
                )
                bucket = 0
                while reserves[bucket] < min(held[0], held[1]):
                    bucket += 1
                if least_of(objective, engine, inside_pj, cycles, compulsory) > best[bucket]:
                    continue
                for order in range(orders):
                    m, n, k = places[order, 0], places[order, 1], places[order, 2]
                    passing = passes(product, engine, m_row, n_row, k_row, m, n, k)
                    bits = held[1] if passing else held[0]
                    if bits > reserves[-1]:
                        continue
                    bucket = 0
                    while reserves[bucket] < bits:
                        bucket += 1
                    fill_a, fill_w, store, spill = moved(product, m_row, n_row, k_row, m, n, k)
                    traffic = fill_a + fill_w + store + 2 * spill
                    # What no order of this much traffic can beat is not measured.
                    if least_of(objective, engine, inside_pj, cycles, traffic) > best[bucket]:
                        continue
                    around(product, engine, m_row, n_row, k_row, order, places, passing, tile, trial)
                    pj = trial[DYNAMIC_PJ] + trial[CYCLES] * engine[LEAKAGE]
                    if objective == OFFCHIP:
                        first, second = traffic, trial[DYNAMIC_PJ] * cycles
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
    return looked
