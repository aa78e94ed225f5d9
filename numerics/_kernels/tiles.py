"""Register tiles of rounded sums, emitted as vector instructions, and the products made of them.

A tile keeps ``height x 2`` vectors of running sums in registers. Lanes run over columns; along k every sum
keeps its order, so tiles of any shape and in any sequence give the bits of the plain loops in
`numerics._kernels.loops`, their twin. Left to itself the compiler keeps the sums in memory, for it cannot
tell that operands and result are apart.

How a sum is rounded is one of `numerics._kernels.roundings`. Operands come packed
(`numerics._kernels.panels`), all of them float32, but for the rows of `a` in a tile of float64 sums: each of
its numbers goes to all lanes, and to widen it there would cost more than to widen it in memory.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from numerics._kernels.random import output_hash, step_words, stream_key
from numerics._kernels.rounding import round_sum
from numerics._kernels.roundings import KINDS, Nearest32, Nearest64
from numerics._kernels.vectors import (
    I32,
    I64,
    INEXACT,
    REGISTERS,
    Vectors,
    offset,
    read_control,
    write_control,
)

VECTORS = 2  # of a tile's columns
#: Steps after which a tile is put down, so that panels stay in the near caches.
DEPTH = 1024
#: The same where a tile may have to be done again, from where it was last put down.
CHECKED_DEPTH = 256

# What a tile starts from, and what it does with the result.
REPLACE, RESUME, ADD = range(3)


# Rows of a tile of two vectors. Its sums must hide the latency of one rounded addition, and with what a
# rounding needs they must stay in the registers.
_HEIGHTS = dict.fromkeys(KINDS, 8 if REGISTERS == 32 else 4)
if REGISTERS == 16:
    _HEIGHTS[Nearest32] = _HEIGHTS[Nearest64] = 6


def height_of(setting: tuple[float, ...]) -> int:
    """Rows of the tallest tile of a kind."""
    return _HEIGHTS[type(setting)]


def _emit(builder, v, rounding, rows, arguments, out):
    """One tile, from the current block on; ends with branches to `out`.

    Returns pairs of a block that ends so and of the doubts of the tile.
    """
    a, b, b_stride, c, c_stride, target, target_stride, depth, mode, hashes, steps, outer = arguments
    one = ir.Constant(I64, 1)
    cells = [(i, j) for i in range(rows) for j in range(VECTORS)]
    at = {(i, j): offset(builder, c, (c_stride, i), (one, j * v.lanes)) for i, j in cells}
    to = {(i, j): offset(builder, target, (target_stride, i), (one, j * v.lanes)) for i, j in cells}
    places = {(i, j): offset(builder, hashes, (c_stride, i), (one, j * v.lanes)) for i, j in cells}
    kind, setting = rounding
    rounder = kind(v, setting, places)
    entry = builder.block
    blocks = [builder.append_basic_block(name) for name in ("resume", "loop", "end", "add", "put")]
    resume, loop, end, add, put = blocks
    builder.cbranch(builder.icmp_signed("==", mode, ir.Constant(I64, RESUME)), resume, loop)

    builder.position_at_end(resume)
    held = {cell: v.load(at[cell]) for cell in cells}
    builder.branch(loop)

    builder.position_at_end(loop)
    k = builder.phi(I64)
    sums = {cell: builder.phi(v.type) for cell in cells}
    doubts = builder.phi(v.integers)
    per_panel = v.memory_lanes // v.lanes
    columns = [
        v.load(
            offset(
                builder, b, (k, v.memory_lanes), (b_stride, j // per_panel), (one, j % per_panel * v.lanes)
            )
        )
        for j in range(VECTORS)
    ]
    scales = [v.load_scalar(offset(builder, a, (k, rows), (one, i))) for i in range(rows)]
    shared = rounder.step(offset(builder, steps, (k, 2)))
    rounded = {
        (i, j): rounder.round(v.fma(scales[i], columns[j], sums[i, j]), (i, j), shared) for i, j in cells
    }
    doubt = rounder.doubt()
    doubted = doubts if doubt is None else builder.or_(doubts, doubt)
    following = builder.add(k, one)
    for block in (entry, resume):
        k.add_incoming(ir.Constant(I64, 0), block)
        doubts.add_incoming(v.integer(0), block)
    k.add_incoming(following, loop)
    doubts.add_incoming(doubted, loop)
    for cell in cells:
        sums[cell].add_incoming(v.zero, entry)
        sums[cell].add_incoming(held[cell], resume)
        sums[cell].add_incoming(rounded[cell], loop)
    builder.cbranch(builder.icmp_signed("<", following, depth), loop, end)

    builder.position_at_end(end)
    builder.cbranch(builder.icmp_signed("==", mode, ir.Constant(I64, ADD)), add, put)
    builder.position_at_end(add)
    shared = rounder.step(outer)
    for cell in cells:
        total = builder.fadd(v.load(at[cell]), rounded[cell])
        v.store(rounder.finish(rounder.round(total, cell, shared)), to[cell])
    doubt = rounder.doubt()
    in_all = v.any_bit(doubted if doubt is None else builder.or_(doubted, doubt))
    builder.branch(out)
    builder.position_at_end(put)
    for cell in cells:
        v.store(rounder.finish(rounded[cell]), to[cell])
    in_sums = v.any_bit(doubted)
    builder.branch(out)
    return [(add, in_all), (put, in_sums)]


@intrinsic
def _tile(
    typing, a, b, b_stride, c, c_stride, target, target_stride, depth, mode, height, setting,
    hashes, steps, outer,
):  # fmt: skip
    """Sums of ``a @ b``, rounded at every step as `setting` says, for `height` rows and two vectors.

    `a`, `b`, `c`, `target`, `hashes`, `steps` and `outer` are addresses; strides count elements, from one
    panel of `b` and one row of `c` and `hashes` or `target` to the next. The sums start from +0, or with
    `RESUME` from `c`. They are written to `target`, or with `ADD` they are added to `c`, rounded once
    more, and that is written. `steps` holds the random words of the steps, `outer` those of the addition.
    Returns whether any rounding could not be decided.
    """
    family = setting.instance_class
    kind = KINDS[family]
    p, n = types.uintp, types.intp
    signature = types.boolean(p, p, n, p, n, p, n, n, n, n, setting, p, p, p)

    def emit(context, builder, signature, arguments):
        a, b, b_stride, c, c_stride, target, target_stride, depth, mode, height, setting, *words = arguments
        v = Vectors(builder, kind.bits)
        fields = [builder.extract_value(setting, i) for i in range(len(family._fields))]
        a = builder.inttoptr(a, v.scalar.as_pointer())
        b, c, target = (builder.inttoptr(x, v.stored.as_pointer()) for x in (b, c, target))
        words = [builder.inttoptr(x, I32.as_pointer()) for x in words]
        shared = a, b, b_stride, c, c_stride, target, target_stride, depth, mode, *words
        out = builder.append_basic_block("out")
        # The first height is the default: no other one is ever asked for.
        switch, ends = None, []
        for rows in sorted({_HEIGHTS[family], 4, 2, 1}, reverse=True):
            block = builder.append_basic_block(f"tile_{rows}")
            if switch is None:
                switch = builder.switch(height, block)
            else:
                switch.add_case(ir.Constant(I64, rows), block)
            builder.position_at_end(block)
            ends += _emit(builder, v, (kind, fields), rows, shared, out)
        builder.position_at_end(out)
        found = builder.phi(ir.IntType(1))
        for block, doubt in ends:
            found.add_incoming(doubt, block)
        return found

    return signature, emit


@njit(cache=True, nogil=True)
def gemm(a, starts, b, out, chunk, setting, control, panels, from_zero, first_panel, last_panel):
    """Panels ``first_panel .. last_panel - 1`` of the columns of ``out = a @ b``.

    `out` is (m, panels * lanes) float32. `control` is the direction in which the processor rounds, `panels`
    those of a tile of two vectors. With `from_zero` the first chunk of several is added to what is in
    `out`, zeros: a sum of -0 becomes +0.
    """
    before = read_control()
    write_control(np.uint32(control))
    width, depth, lanes = out.shape[1], b.shape[1], b.shape[2]
    chunked = chunk < depth
    step = chunk if chunked else min(depth, DEPTH)
    run = max(DEPTH // step, 1) * step
    none = np.uintp(0)
    for low in range(0, depth, run):
        high = min(low + run, depth)
        for p in range(first_panel, last_panel, panels):
            for t in range(starts.shape[0] - 1):
                i, height = starts[t], starts[t + 1] - starts[t]
                c = out.ctypes.data + 4 * (i * width + p * lanes)
                for k in range(low, high, step):
                    n = min(step, high - k)
                    pa = a.ctypes.data + a.itemsize * (i * depth + k * height)
                    pb = b.ctypes.data + 4 * (p * depth + k) * lanes
                    mode = ADD if chunked else RESUME
                    if k == 0 and not (from_zero and chunked):
                        mode = REPLACE
                    _tile(
                        pa, pb, depth * lanes, c, width, c, width, n, mode, height, setting, none, none, none
                    )
    write_control(before)


@njit(cache=True, nogil=True)
def fill_words(hashes, steps, elements, seed, stream):
    """Random words of a product: hashes of its output elements, multipliers and addends of its additions.

    Element i, j has the number ``elements[0] + i * elements[1] + j * elements[2]``; `steps` is
    (additions, 2).
    """
    first, row_step, column_step = elements
    k0, k1 = stream_key(seed, stream)
    for number in range(steps.shape[0]):
        steps[number, 0], steps[number, 1] = step_words(number, 0, k0, k1)
    for i in range(hashes.shape[0]):
        for j in range(hashes.shape[1]):
            hashes[i, j] = output_hash(first + i * row_step + j * column_step)


@njit(cache=True, nogil=True)
def gemm_checked(
    a, starts, b, out, chunk, setting, control, panels, exactly, ceiling, from_zero, hashes, steps, done,
    stops, first_panel, last_panel,
):  # fmt: skip
    """`gemm` as far as its roundings can be decided, with a check of every tile each time it is put down.

    ``done[t, p]`` counts the products that are in the sums of panel t of rows and a pair of panels of
    columns that begins at p; it is taken up there, until they are ``stops[t, p]``. It stays where a rounding
    could not be decided, where a sum was not exact if the sums must be `exactly` so, and where one is so
    large, above `ceiling`, that it might overflow before the tile is put down again: ``done[t, p + 1]``
    tells. `hashes` is as `out`, `steps` (additions, 2): see `fill_words`; of a rounding that is not
    stochastic one element of each will do.
    """
    before = read_control()
    width, depth, lanes = out.shape[1], b.shape[1], b.shape[2]
    chunked = chunk < depth
    step = chunk if chunked else min(depth, CHECKED_DEPTH)
    run = max(CHECKED_DEPTH // step, 1) * step
    fresh = np.empty((starts[1] - starts[0], 2 * lanes), np.float32)
    tried, failed = 0, 0
    for low in range(0, depth, run):
        high = min(low + run, depth)
        for p in range(first_panel, last_panel, 2):
            for t in range(starts.shape[0] - 1):
                i, height = starts[t], starts[t + 1] - starts[t]
                place = 4 * (i * width + p * lanes)
                # Where most attempts fail, more of them only cost time.
                while low <= done[t, p] < min(high, stops[t, p]) and failed <= 8 + tried // 2:
                    k = done[t, p]
                    n = min(step, high - k)
                    mode = ADD if chunked else RESUME
                    if k == 0 and not (from_zero and chunked):
                        mode = REPLACE
                    words = steps.ctypes.data + 8 * k
                    outer = steps.ctypes.data + 8 * (depth + k // step) if chunked else words
                    write_control(np.uint32(control))
                    doubt = k > 0 and done[t, p + 1] > 0
                    for panel in range(0, 2, panels):
                        there = place + 4 * panel * lanes
                        doubt |= _tile(
                            a.ctypes.data + a.itemsize * (i * depth + k * height),
                            b.ctypes.data + 4 * ((p + panel) * depth + k) * lanes,
                            depth * lanes, out.ctypes.data + there, width,
                            fresh.ctypes.data + 4 * panel * lanes, 2 * lanes, n, mode, height, setting,
                            hashes.ctypes.data + there, words, outer,
                        )  # fmt: skip
                    tried += 1
                    if doubt or (exactly and read_control() & INEXACT):
                        failed += 1
                        break
                    large = False
                    for row in range(height):
                        for column in range(2 * lanes):
                            value = fresh[row, column]
                            out[i + row, p * lanes + column] = value
                            large |= abs(value) > ceiling
                    done[t, p] = k + n
                    done[t, p + 1] = large
    write_control(before)


@njit(cache=True, nogil=True)
def finish_exactly(a, starts, b, out, chunk, target, elements, key, t, p, start):
    """The sums of a tile from product `start` on, by plain loops: any sum, any target."""
    i, height = starts[t], starts[t + 1] - starts[t]
    depth, lanes = b.shape[1], b.shape[2]
    first_element, row_step, column_step = elements
    k0, k1 = key
    for row in range(height):
        for column in range(p * lanes, (p + 2) * lanes):
            element = first_element + (i + row) * row_step + column * column_step
            total = np.float64(out[i + row, column]) if start > 0 else 0.0
            for first in range(start, depth, chunk):
                partial = 0.0 if chunk < depth else total
                for k in range(first, min(first + chunk, depth)):
                    x = np.float64(a[i * depth + k * height + row])
                    y = np.float64(b[column // lanes, k, column % lanes])
                    partial = round_sum(partial, x * y, target, True, element, k, k0, k1)
                if chunk < depth:
                    number = depth + first // chunk
                    partial = round_sum(total, partial, target, True, element, number, k0, k1)
                total = partial
            out[i + row, column] = total
