"""Register tiles of fused block adders: the products of `numerics._kernels.fused.gemm_fused`, in vectors.

For every block a tile first finds the largest exponent of each of its sums and then adds the aligned
terms as integers: exact products, scaled by a power of two and cut by the conversion. The processor
rounds toward zero meanwhile, so the conversion back cuts as well.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from numerics._kernels.tiles import DEPTH, VECTORS
from numerics._kernels.vectors import (
    I32,
    I64,
    TO_NEAREST,
    TOWARD_ZERO,
    Vectors,
    offset,
    read_control,
    write_control,
)

TOP = 4  # rows of a tile of two vectors
_NO_TERM = np.int32(-10_000)  # exponent of a zero operand, below that of any term
_HEIGHTS = (4, 2, 1)


@njit(cache=True, nogil=True)
def exponents(packed, out, emin):
    """Exponents of flat float32 operands in a format with subnormals from ``2**emin`` down."""
    flat = packed.view(np.int32)
    for i in range(flat.shape[0]):
        magnitude = flat[i] & np.int32(0x7FFFFFFF)
        exponent = (magnitude >> np.int32(23)) - np.int32(127)
        exponent = exponent if exponent > emin else np.int32(emin)
        out[i] = exponent if magnitude > 0 else _NO_TERM


class _Loop:
    """A counted loop of at least one turn in the instructions of a tile: blocks, a counter, values."""

    def __init__(self, builder, name, values):
        self.builder, self.before = builder, builder.block
        self.body = builder.append_basic_block(name)
        builder.branch(self.body)
        builder.position_at_end(self.body)
        self.k = builder.phi(I64)
        self.k.add_incoming(ir.Constant(I64, 0), self.before)
        self.values = {}
        for key, value in values.items():
            self.values[key] = builder.phi(value.type)
            self.values[key].add_incoming(value, self.before)

    def close(self, following, step, end):
        """Next turn at ``k + step`` with the values `following`, until k reaches `end`."""
        builder = self.builder
        k = builder.add(self.k, step)
        self.k.add_incoming(k, builder.block)
        for key, value in following.items():
            self.values[key].add_incoming(value, builder.block)
        after = builder.append_basic_block("after")
        builder.cbranch(builder.icmp_signed("<", k, end), self.body, after)
        builder.position_at_end(after)


def _emit(builder, v, rows, arguments, out):
    """One tile, from the current block on; ends with a branch to `out`."""
    a, ea, b, eb, stride, c, c_stride, depth, resume, block, align, least, keep = arguments
    one, zero = ir.Constant(I64, 1), ir.Constant(I64, 0)
    cells = [(i, j) for i in range(rows) for j in range(VECTORS)]
    at = {(i, j): offset(builder, c, (c_stride, i), (one, j * v.lanes)) for i, j in cells}
    lowest, kept = v.splat_integer(least), v.splat_integer(keep)
    up = v.splat_integer(builder.add(align, ir.Constant(I64, 127)))
    down = v.splat_integer(builder.sub(ir.Constant(I64, 127), align))
    fraction = v.integer(23)
    resumes = v.splat(builder.icmp_signed("!=", resume, zero))
    start = {cell: builder.select(resumes, v.load(at[cell]), v.zero) for cell in cells}

    blocks = _Loop(builder, "block", start)
    first = blocks.k
    rest = builder.sub(depth, first)
    count = builder.select(builder.icmp_signed("<", rest, block), rest, block)
    largest = {}
    for cell in cells:
        field = builder.lshr(v.ints(blocks.values[cell]), fraction)
        exponent = builder.sub(builder.and_(field, v.integer(255)), v.integer(127))
        largest[cell] = builder.select(builder.icmp_signed(">", exponent, lowest), exponent, lowest)

    align_loop = _Loop(builder, "align", largest)
    k = builder.add(first, align_loop.k)
    right = [v.load_words(offset(builder, eb, (k, v.lanes), (stride, j))) for j in range(VECTORS)]
    left = [v.splat(builder.load(offset(builder, ea, (k, rows), (one, i)))) for i in range(rows)]
    found = {}
    for i, j in cells:
        exponent = builder.add(left[i], right[j])
        most = align_loop.values[i, j]
        found[i, j] = builder.select(builder.icmp_signed(">", exponent, most), exponent, most)
    align_loop.close(found, one, count)

    scale = {cell: v.floats(builder.shl(builder.sub(up, found[cell]), fraction)) for cell in cells}
    cut = lambda x: builder.fptosi(x, v.integers)  # noqa: E731
    addends = {cell: cut(builder.fmul(blocks.values[cell], scale[cell])) for cell in cells}
    add_loop = _Loop(builder, "add", addends)
    k = builder.add(first, add_loop.k)
    right = [v.load(offset(builder, b, (k, v.lanes), (stride, j))) for j in range(VECTORS)]
    left = [v.load_scalar(offset(builder, a, (k, rows), (one, i))) for i in range(rows)]
    sums = {}
    for i, j in cells:
        term = builder.fmul(builder.fmul(left[i], right[j]), scale[i, j])
        sums[i, j] = builder.add(add_loop.values[i, j], cut(term))
    add_loop.close(sums, one, count)

    rounded = {}
    for cell in cells:
        back = v.floats(builder.shl(builder.add(down, found[cell]), fraction))
        total = builder.fmul(builder.sitofp(sums[cell], v.type), back)
        rounded[cell] = v.floats(builder.and_(v.ints(total), kept))
    blocks.close(rounded, block, depth)
    for cell in cells:
        v.store(rounded[cell], at[cell])
    builder.branch(out)


@intrinsic
def _tile(typing, a, ea, b, eb, stride, c, c_stride, depth, resume, block, align, least, keep, height):
    """Sums of ``a @ b`` by blocks of `block` products, aligned with `align` bits below the largest exponent.

    `a`, `b` and `c` are addresses of values, `ea` and `eb` of exponents; strides count elements, from one
    panel of `b` and one row of `c` to the next. The addend is at first +0, or `c` to `resume`. `least`
    is at most any exponent that matters; `keep` masks the bits of float32 that the output has.
    """
    p, n = types.uintp, types.intp
    signature = types.void(p, p, p, p, n, p, n, n, n, n, n, n, n, n)

    def emit(context, builder, signature, arguments):
        *shared, height = arguments
        v = Vectors(builder, 32)
        for place in (0, 2, 5):
            shared[place] = builder.inttoptr(shared[place], v.stored.as_pointer())
        for place in (1, 3):
            shared[place] = builder.inttoptr(shared[place], I32.as_pointer())
        out = builder.append_basic_block("out")
        blocks = [builder.append_basic_block(f"fused_{rows}") for rows in _HEIGHTS]
        switch = builder.switch(height, blocks[0])
        for rows, block in zip(_HEIGHTS[1:], blocks[1:], strict=True):
            switch.add_case(ir.Constant(I64, rows), block)
        for rows, block in zip(_HEIGHTS, blocks, strict=True):
            builder.position_at_end(block)
            _emit(builder, v, rows, shared, out)
        builder.position_at_end(out)
        return context.get_dummy_value()

    return signature, emit


@njit(cache=True, nogil=True)
def gemm(a, ea, starts, b, eb, out, block, align, least, keep, promote, first_panel, last_panel):
    """Panels ``first_panel .. last_panel - 1`` of the columns of ``out = a @ b``.

    `a` and `ea` are packed in panels of at most `TOP` rows. With `promote` the sums of so many products,
    a multiple of `block`, are added in float32 to nearest even, else it is 0.
    """
    before = read_control()
    width, depth, lanes = out.shape[1], b.shape[1], b.shape[2]
    run = promote if promote > 0 else max(DEPTH // block, 1) * block
    part = np.empty((TOP, 2 * lanes), np.float32)
    for p in range(first_panel, last_panel, 2):
        for t in range(starts.shape[0] - 1):
            i, height = starts[t], starts[t + 1] - starts[t]
            c, c_stride = out.ctypes.data + 4 * (i * width + p * lanes), width
            if promote > 0:
                c, c_stride = part.ctypes.data, 2 * lanes
            for k in range(0, depth, run):
                n = min(run, depth - k)
                left, right = 4 * (i * depth + k * height), 4 * (p * depth + k) * lanes
                write_control(np.uint32(TOWARD_ZERO))
                _tile(
                    a.ctypes.data + left, ea.ctypes.data + left, b.ctypes.data + right,
                    eb.ctypes.data + right, depth * lanes, c, c_stride, n, promote == 0 and k > 0, block,
                    align, least, keep, height,
                )  # fmt: skip
                if promote > 0:
                    write_control(np.uint32(TO_NEAREST))
                    for row in range(height):
                        for column in range(2 * lanes):
                            j = p * lanes + column
                            held = out[i + row, j] if k > 0 else np.float32(0.0)
                            out[i + row, j] = held + part[row, column]
    write_control(before)
