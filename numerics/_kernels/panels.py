"""Operands packed for the register tiles.

`a` comes in panels of rows, (k, rows) each: panel t has the rows ``starts[t] .. starts[t + 1] - 1``. `b`
comes in panels of one vector of columns, (k, lanes) each, padded with zeros. Where lanes and memory run
across one another, blocks are interleaved in registers.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from numerics._kernels.vectors import I32, I64, LANES_32, Vectors, offset

_DEPTH = 256  # of rows of `a` packed at a time: the panel stays in the first-level cache
_ROWS = 64  # of `b` packed at a time: they are read in the order of memory
_HEIGHTS = sorted({2, 4, 8, LANES_32})  # rows of the blocks that `interleave` takes


@intrinsic
def copy_vector(typing, source, target):
    """Copy `LANES_32` float32 from one address to another."""

    def emit(context, builder, signature, arguments):
        v = Vectors(builder, 32)
        source, target = (builder.inttoptr(x, v.stored.as_pointer()) for x in arguments)
        v.store(v.load(source), target)
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp), emit


@intrinsic
def copy_scalar(typing, source, target):
    """Copy one float32 from one address to another."""

    def emit(context, builder, signature, arguments):
        source, target = (builder.inttoptr(x, ir.FloatType().as_pointer()) for x in arguments)
        builder.store(builder.load(source), target)
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp), emit


@intrinsic
def interleave(typing, source, places, target, rows):
    """Write a block (rows, LANES_32) of float32 as (LANES_32, rows) to an address.

    Row i begins at address `source` and so many elements as the i-th int64 at address `places` tells; `rows`
    is one of `_HEIGHTS`. Every stage interleaves one half of the vectors with the other, which moves the
    highest bit of an element's place to the lowest.
    """

    def emit(context, builder, signature, arguments):
        v = Vectors(builder, 32)
        source, target = (builder.inttoptr(arguments[i], v.stored.as_pointer()) for i in (0, 2))
        places = builder.inttoptr(arguments[1], I64.as_pointer())
        halves = [
            ir.Constant(
                ir.VectorType(I32, v.lanes),
                [place for i in range(start, start + v.lanes // 2) for place in (i, v.lanes + i)],
            )
            for start in (0, v.lanes // 2)
        ]
        one = ir.Constant(I64, 1)
        after, switch = builder.append_basic_block("interleaved"), None
        for height in _HEIGHTS:
            block = builder.append_basic_block(f"interleave_{height}")
            if switch is None:  # the first height is the default: no other one is ever asked for
                switch = builder.switch(arguments[3], block)
            else:
                switch.add_case(ir.Constant(I64, height), block)
            builder.position_at_end(block)
            starts = [builder.load(builder.gep(places, [ir.Constant(I64, i)])) for i in range(height)]
            vectors = [v.load(builder.gep(source, [start])) for start in starts]
            for _ in range(height.bit_length() - 1):
                pairs = zip(vectors[: height // 2], vectors[height // 2 :], strict=True)
                vectors = [builder.shuffle_vector(*pair, half) for pair in pairs for half in halves]
            for i, vector in enumerate(vectors):
                v.store(vector, offset(builder, target, (one, i * v.lanes)))
            builder.branch(after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp, types.uintp, types.intp), emit


@njit(cache=True, nogil=True)
def pack_rows(a, out, starts):
    """Pack (m, k) into panels of rows; `out` is flat, m * k."""
    depth = a.shape[1]
    places = np.arange(8) * (a.strides[0] // a.itemsize)
    for t in range(starts.shape[0] - 1):
        first, height = starts[t], starts[t + 1] - starts[t]
        step = np.uint64(height)
        whole = 0
        if a.itemsize == 4 and a.strides[1] == 4 and (height == 8 or height == 4 or height == 2):
            whole = depth - depth % LANES_32
        for k in range(0, whole, LANES_32):
            source = a.ctypes.data + first * a.strides[0] + 4 * k
            to = out.ctypes.data + 4 * (first * depth + k * height)
            interleave(source, places.ctypes.data, to, height)
        for start in range(whole, depth, _DEPTH):
            width = min(_DEPTH, depth - start)
            panel = out[first * depth + start * height :]
            for i in range(height):
                to = np.uint64(i)
                for k in range(start, start + width):
                    panel[to] = a[first + i, k]
                    to += step


@njit(cache=True, nogil=True)
def pack_columns(b, out):
    """Pack (k, n) into out, (panels, k, lanes)."""
    depth, columns = b.shape
    lanes = out.shape[2]
    whole = columns // LANES_32
    for start in range(0, depth, _ROWS):
        end = min(start + _ROWS, depth)
        for p in range(whole):
            for k in range(start, end):
                for j in range(LANES_32):  # a constant number of turns becomes one vector
                    out[p, k, j] = b[k, p * LANES_32 + j]
    for p in range(whole, out.shape[0]):
        for k in range(depth):
            for j in range(lanes):
                column = p * lanes + j
                out[p, k, j] = b[k, column] if column < columns else np.float32(0.0)


@njit(cache=True, nogil=True)
def pack_columns_along_k(b, out):
    """The same for an operand that is contiguous along k."""
    depth, columns = b.shape
    lanes = out.shape[2]
    places = np.arange(LANES_32) * (b.strides[1] // b.itemsize)
    for p in range(out.shape[0]):
        panel = out[p]
        whole = 0
        if b.itemsize == 4 and b.strides[0] == 4 and (p + 1) * lanes <= columns:
            whole = depth - depth % LANES_32
        for k in range(0, whole, LANES_32):
            source = b.ctypes.data + p * lanes * b.strides[1] + 4 * k
            to = out.ctypes.data + 4 * (p * depth + k) * lanes
            interleave(source, places.ctypes.data, to, LANES_32)
        for j in range(lanes):
            column = p * lanes + j
            for k in range(whole, depth):
                panel[k, j] = b[k, column] if column < columns else np.float32(0.0)
